"""Inputs that stand in a file, or that a function of the user's makes.

batch.pt  batch.npz  batch.safetensors     read as any checkpoint is: nothing in it is executed
batch.json                                 lists of numbers are tensors, all else stays what it is
inputs.py:make_inputs                      called, with the model where it takes one
"""

import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from modtool.errors import TargetError, UsageError, a_kind
from modtool.formats import open_checkpoint
from modtool.live.choose import value_named
from modtool.live.importing import attempt, import_target, surroundings_of
from modtool.live.input_types import real_dtype
from modtool.live.inputs import Inputs, with_lists
from modtool.live.targets import ModelTarget, parse_target
from modtool.live.weights import values_of
from modtool.pickles.display import MAX_TEXT
from modtool.pickles.plain import mapping_of
from modtool.records import Checkpoint

__all__ = ["call_for_inputs", "read_input"]

PLAIN = (bool, int, float, str, type(None))
# What a function of inputs returns by mistake. Where a model takes text, a tuple of it says so.
NO_INPUTS = (*PLAIN, bytes, Iterator)


def read_input(path: str, model: nn.Module) -> object:
    """What a file of inputs holds: one tensor, or lists and dicts of tensors and plain values.

    Args:
        path: The file.
        model: JSON does not tell float32 from float64: its numbers get the model's dtype.

    Raises:
        ModtoolError: It cannot be read, or holds no tensor.
    """
    if path.endswith(".json"):
        return read_json(path, model)
    if path.endswith(".py"):
        raise UsageError(
            f"--input {path}: a file of Python code, which holds no inputs",
            f"--inputs {path}:NAME calls a function of it",
        )
    checkpoint = open_checkpoint(path)
    if not checkpoint.tensors:
        raise UsageError(f"--input {path}: there is no tensor in it")
    return nested_values(checkpoint)


def nested_values(checkpoint: Checkpoint) -> object:
    """A checkpoint's tensors and plain values, nested as their names say.

    Raises:
        UsageError: A value is neither: a pass without it would be another one than was asked for.
    """
    made: dict[str, object] = {}
    positions = unnamed(checkpoint)
    for tensor in checkpoint.tensors:
        name = tensor.full_name
        put(made, positions.get(name, name), values_of(tensor))
    for name, value in checkpoint.values.items():
        if not is_plain(value) and not isinstance(stored(checkpoint, name), str):
            raise UsageError(
                f"--input {checkpoint.target}: {name} is {str(value)[:200]}, "
                "neither a tensor nor a plain value",
                "save tensors, numbers and text; --inputs FILE.py:NAME can make anything else",
            )
        put(made, name, value)
    whole = made.get("")
    return with_lists(made) if whole is None else whole


def unnamed(checkpoint: Checkpoint) -> dict[str, str]:
    """The positions of what `np.savez` was given without names; {} where anything has one."""
    names = {tensor.full_name for tensor in checkpoint.tensors}
    positions = {f"arr_{index}": str(index) for index in range(len(names))}
    return positions if checkpoint.format == "npz" and positions.keys() == names else {}


def is_plain(value: object) -> bool:
    """False for `<pkg.Class>`, what a file only gives to who runs it, and for what was cut."""
    if isinstance(value, dict | list):
        return all(map(is_plain, value.values() if isinstance(value, dict) else value))
    if isinstance(value, str):
        return not is_unknown(value) and value != "…" and len(value) <= MAX_TEXT
    return isinstance(value, PLAIN)


def is_unknown(text: str) -> bool:
    """True for `<pkg.Class>`, and for text that looks the same."""
    return text.startswith("<") and text.endswith(">")


def stored(checkpoint: Checkpoint, name: str) -> object:
    """What the file itself has under a name at its top; None for what is only shown so."""
    value = (mapping_of(checkpoint.root) or {}).get(name)
    return value if isinstance(value, str) and len(value) <= MAX_TEXT else None


def put(made: dict[str, object], path: str, value: object) -> None:
    """Put a value where its path leads; a name that is no path stays whole."""
    *above, last = path.split(".")
    inside = made
    for part in above:
        entered = inside.setdefault(part, {})
        if not isinstance(entered, dict):
            made[path] = value
            return
        inside = entered
    inside.setdefault(last, value)


def read_json(path: str, model: nn.Module) -> object:
    """A JSON file, with tensors for its lists of numbers."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise TargetError(f"{path}: cannot be read: {reason}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--input {path}: no valid JSON: {error}") from None
    return with_tensors(value, real_dtype(model), path)


def with_tensors(value: object, dtype: torch.dtype, path: str) -> object:
    """Lists of numbers as tensors: whole ones int64, others of the given dtype, flags bool."""
    if isinstance(value, Mapping):
        return {key: with_tensors(inner, dtype, path) for key, inner in value.items()}
    if not isinstance(value, list):
        return value
    kinds = kinds_in(value)
    if not kinds or not kinds <= {int, float, bool}:
        return [with_tensors(inner, dtype, path) for inner in value]
    try:
        made = torch.tensor(value)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise UsageError(f"--input {path}: a list of numbers is no tensor: {error}") from None
    return made.to(dtype) if made.is_floating_point() else made


def kinds_in(value: object) -> set[type]:
    """The types of everything that is no list inside nested lists."""
    kinds: set[type] = set()
    todo = [value]
    while todo:
        each = todo.pop()
        if isinstance(each, list):
            todo.extend(each)
        else:
            kinds.add(type(each))
    return kinds


def call_for_inputs(text: str, model: nn.Module) -> object:
    """What a function of the user's makes for the model; `(args, kwargs)` as `Inputs`.

    Raises:
        ModelError: It raised; the message has its file and line.
        TargetError: There is no such function.
        UsageError: It takes more than the model, or returns what is no argument.
    """
    target = parse_target(text)
    if not target.name:
        raise UsageError(f"--inputs {text}: name a function in it: {text}:make_inputs")
    surroundings = surroundings_of(target)
    module = import_target(target, surroundings)
    make = function_named(module, target)
    if isinstance(make, nn.Module) or not callable(make):
        raise UsageError(f"--inputs {text} is no function")
    given = (model,) if wants_model(make) else ()
    with surroundings.entered():
        made = attempt(lambda: make(*given), f"making inputs with {text}")
    if isinstance(made, NO_INPUTS) or type(made).__module__ == "numpy":
        raise UsageError(
            f"--inputs {text}: {target.name} returned {'None' if made is None else a_kind(made)}",
            "return a tensor, a tuple of arguments, a dict by name, or (args, kwargs)",
        )
    return as_call(made)


def as_call(made: object) -> object:
    """A tuple of a tuple and a dict with text keys as arguments and keyword arguments."""
    match made:
        case (tuple(args), dict(kwargs)) if type(made) is tuple:
            if all(isinstance(key, str) for key in kwargs):
                return Inputs(args, kwargs)
    return made


def function_named(module: ModuleType, target: ModelTarget) -> object:
    """What stands under a target's name; where nothing does, the file's functions are listed."""
    try:
        return value_named(module, target)
    except TargetError as error:
        own = [
            name
            for name, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__
        ]
        hint = f"its functions: {', '.join(own)}" if own else "it defines no function"
        raise TargetError(error.message, hint) from None


def wants_model(make: object) -> bool:
    """True for a function that cannot be called without an argument."""
    try:
        signature = inspect.signature(make)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(
        each.kind in kinds and each.default is inspect.Parameter.empty
        for each in signature.parameters.values()
    )
