"""What a forward pass is given: `--input-shape 32,784`, `--input-shape input_ids=1,128:int64`.

[NAME=]SIZE,SIZE,…[:DTYPE]        nothing between NAME= and :DTYPE is a scalar
batch.x=2,3  images.0=3,8,8       a part of an argument that is a dict or a list
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from modtool.errors import UsageError
from modtool.live.input_types import DTYPES, SHORT_NAMES, default_dtype, table_size

__all__ = [
    "InputSpec",
    "Inputs",
    "bound_names",
    "make_inputs",
    "mapped",
    "parse_inputs",
    "with_dtype",
]

LARGEST = 2**63 - 1
DEEPEST = 50


@dataclass(frozen=True, slots=True)
class InputSpec:
    """A tensor that a model is to be given.

    Attributes:
        shape: Its sizes; () is a scalar.
        dtype: Its element type.
        below: Integers are drawn from 0 to below this.
        guessed: Nobody named the dtype: another may be tried.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    below: int = 2
    guessed: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Inputs:
    """The arguments of a forward pass; every `InputSpec` in them stands for a tensor."""

    args: tuple[object, ...] = ()
    kwargs: Mapping[str, object] = field(default_factory=dict)


def parse_inputs(
    texts: Sequence[str],
    model: nn.Module,
    values: Mapping[str, object] | None = None,
    given: Sequence[object] = (),
) -> Inputs:
    """The inputs that shapes on the command line mean for a model.

    Args:
        texts: One for each input, in order; named ones become keyword arguments.
        model: What they are for: its parameters and its `forward` tell the element types.
        values: Arguments that are no tensors, by name; `batch.training` is a part of `batch`.
        given: What files or functions give: see `bound`.

    Raises:
        UsageError: A text does not parse, or `forward` takes no such inputs.
    """
    start = bound(model, given)
    args = list(start.args)
    parts: dict[str, object] = {}
    for text in texts:
        name, shape, dtype = parse_shape(text)
        named = name.rpartition(".")[2] if name else name_at(model, len(args))
        is_first = not (args or parts or start.kwargs)
        guess = dtype or default_dtype(model, named, shape, is_first)
        spec = InputSpec(shape, guess, table_size(model), guessed=dtype is None)
        if not name:
            args.append(spec)
        elif name in parts:
            raise UsageError(f"--input-shape names {name} twice")
        else:
            parts[name] = spec
    inputs = Inputs(tuple(args), {**start.kwargs, **nested({**parts, **(values or {})})})
    check_signature(model, inputs)
    return inputs


def bound(model: nn.Module, given: Sequence[object]) -> Inputs:
    """Whole values as arguments.

    A tuple or list is the positional arguments, a dict the keyword arguments, where `forward` can
    take them so; `Inputs` are both. Anything else, and what it cannot, is one argument.
    """
    args: list[object] = []
    kwargs: dict[str, object] = {}
    for value in given:
        if isinstance(value, Inputs):
            args.extend(value.args)
            kwargs.update(value.kwargs)
        elif isinstance(value, Mapping) and all(map(str, value)) and takes(model, (), value):
            kwargs.update({str(key): inner for key, inner in value.items()})
        elif type(value) in (list, tuple) and takes(model, value, {}):  # type: ignore[arg-type]
            args.extend(value)  # type: ignore[arg-type]
        else:
            args.append(value)
    return Inputs(tuple(args), kwargs)


def takes(model: nn.Module, args: Sequence[object], kwargs: Mapping[object, object]) -> bool:
    """True when `forward` has a place for each of these arguments, if not a default for others."""
    signature = signature_of(model)
    if not all(isinstance(key, str) for key in kwargs):
        return False
    try:
        if signature is not None:
            signature.bind_partial(*args, **{str(key): value for key, value in kwargs.items()})
    except TypeError:
        return False
    return True


def nested(parts: Mapping[str, object]) -> dict[str, object]:
    """`{"batch.x": 1, "images.0": 2}` -> `{"batch": {"x": 1}, "images": [2]}`.

    Raises:
        UsageError: A name is both a value and a container of values.
    """
    made: dict[str, object] = {}
    for name, value in parts.items():
        *above, last = name.split(".")
        inside = made
        for part in above:
            entered = inside.setdefault(part, {})
            if not isinstance(entered, dict):
                raise UsageError(f"the input {name!r} is a part of what is a value itself")
            inside = entered
        if last in inside:
            raise UsageError(f"the input {name!r} is given twice")
        inside[last] = value
    return {name: with_lists(value) for name, value in made.items()}


def with_lists(value: object) -> object:
    """A nested dict with a list where the keys are positions."""
    if not isinstance(value, dict):
        return value
    items = {key: with_lists(inner) for key, inner in value.items()}
    positions = [str(index) for index in range(len(items))]
    if items and sorted(items) == sorted(positions):
        return [items[index] for index in positions]
    return items


def parse_shape(text: str) -> tuple[str, tuple[int, ...], torch.dtype | None]:
    """`x=2,3:int64` -> `("x", (2, 3), torch.int64)`."""
    rest, colon, dtype = text.partition(":")
    name, equals, sizes = rest.rpartition("=")
    name = name.strip()
    first, *others = name.split(".")
    parts = (first.isidentifier(), *(each.isidentifier() or each.isdecimal() for each in others))
    if equals and not all(parts):
        raise UsageError(f"--input-shape {text!r}: {name!r} is no argument's name")
    shape = (
        tuple(parse_size(size.strip(), text) for size in sizes.split(",")) if sizes.strip() else ()
    )
    return name, shape, parse_dtype(dtype.strip(), text) if colon else None


def parse_size(size: str, text: str) -> int:
    """One size of a shape."""
    if not (size.isascii() and size.isdecimal()) or int(size) > LARGEST:
        raise UsageError(
            f"--input-shape {text!r}: {size!r} is no size",
            "write sizes with commas between them, as in 32,784 or input_ids=1,128:int64",
        )
    return int(size)


def parse_dtype(name: str, text: str) -> torch.dtype:
    """A dtype by torch's name, or a short one."""
    short = name.removeprefix("torch.")
    dtype = DTYPES.get(SHORT_NAMES.get(short, short))
    if dtype is None:
        from difflib import get_close_matches

        near = get_close_matches(short, (*DTYPES, *SHORT_NAMES), n=3, cutoff=0.6)
        raise UsageError(
            f"--input-shape {text!r}: {name!r} is no dtype",
            f"nearest: {', '.join(near)}" if near else "such as float32, bfloat16, int64 or bool",
        )
    return dtype


def signature_of(model: nn.Module) -> inspect.Signature | None:
    """What `forward` takes; None where Python does not tell."""
    try:
        return inspect.signature(model.forward)
    except (ValueError, TypeError, AttributeError):  # overloaded TorchScript has no one forward
        return None


def name_at(model: nn.Module, position: int) -> str:
    """The name that `forward` gives a positional argument; "" where it has none."""
    signature = signature_of(model)
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = list(signature.parameters.values()) if signature else []
    names = [each.name for each in parameters if each.kind in kinds]
    return names[position] if position < len(names) else ""


def check_signature(model: nn.Module, inputs: Inputs) -> None:
    """Refuse inputs that `forward` cannot take, before anything runs."""
    signature = signature_of(model)
    if signature is None:
        return
    refuse_unknown(model, signature, inputs)
    try:
        signature.bind(*inputs.args, **inputs.kwargs)
    except TypeError as error:
        names = ", ".join(str(each) for each in signature.parameters.values())
        raise UsageError(
            f"{type(model).__name__}.forward({names}): {error}",
            "give --input-shape once for each input, by name where order does not tell: x=32,784",
        ) from None


def refuse_unknown(model: nn.Module, signature: inspect.Signature, inputs: Inputs) -> None:
    """Refuse a name that is no parameter of `forward`, before what is missing for want of it."""
    parameters = signature.parameters
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
        return
    for name in inputs.kwargs:
        if name not in parameters:
            from difflib import get_close_matches

            near = get_close_matches(name, parameters, n=1, cutoff=0.5)
            raise UsageError(
                f"{type(model).__name__}.forward has no parameter {name!r}",
                f"nearest: {near[0]}" if near else f"it has: {', '.join(parameters) or 'none'}",
            )


def bound_names(model: nn.Module, inputs: Inputs) -> dict[str, object]:
    """The inputs by the names that `forward` gives them; by position where it has none."""
    names = [name_at(model, index) or str(index) for index in range(len(inputs.args))]
    return {**dict(zip(names, inputs.args, strict=True)), **inputs.kwargs}


def make_inputs(
    inputs: Inputs, device: torch.device, seed: int = 0, mode: FakeTensorMode | None = None
) -> Inputs:
    """The inputs with a tensor for every `InputSpec`; the same seed gives the same values.

    Tensors that stand there already are copied, so that a pass cannot write to them.

    Args:
        inputs: What to make.
        device: Where to put it.
        seed: Of the random values.
        mode: The fake mode of a fake pass.
    """
    generator = torch.Generator().manual_seed(seed)

    def made(path: str, value: object) -> object:
        if isinstance(value, InputSpec) and device.type == "meta":
            return torch.empty(value.shape, dtype=value.dtype, device=device)
        if isinstance(value, InputSpec):
            return values_of(value, generator).to(device)
        if isinstance(value, torch.Tensor):
            return mode.from_tensor(value).to(device) if mode else value.detach().clone().to(device)
        return value

    return mapped(inputs, made)


def with_dtype(inputs: Inputs, path: str, dtype: torch.dtype) -> Inputs:
    """The inputs with another dtype for one of them that nobody named the dtype of."""

    def changed(place: str, value: object) -> object:
        guessed = isinstance(value, InputSpec) and value.guessed and place == path
        return replace(value, dtype=dtype) if guessed else value  # type: ignore[type-var]

    return mapped(inputs, changed)


def mapped(inputs: Inputs, change: Callable[[str, object], object]) -> Inputs:
    """The inputs with every value changed that is no container; a path leads to each."""

    def visit(path: str, value: object, depth: int = 0) -> object:
        if depth >= DEEPEST or type(value) not in (dict, list, tuple):
            return change(path, value)
        if isinstance(value, dict):
            return {key: visit(f"{path}.{key}", inner, depth + 1) for key, inner in value.items()}
        assert isinstance(value, list | tuple)
        return type(value)(
            visit(f"{path}.{index}", inner, depth + 1) for index, inner in enumerate(value)
        )

    return Inputs(
        tuple(visit(str(index), value) for index, value in enumerate(inputs.args)),
        {name: visit(name, value) for name, value in inputs.kwargs.items()},
    )


def values_of(spec: InputSpec, generator: torch.Generator) -> torch.Tensor:
    """Standard normal floats, integers within the model's tables, booleans at random."""
    if spec.dtype.is_floating_point or spec.dtype.is_complex:
        kind = torch.complex64 if spec.dtype.is_complex else torch.float32
        return torch.randn(spec.shape, dtype=kind, generator=generator).to(spec.dtype)
    top = 2 if spec.dtype is torch.bool else spec.below
    top = max(min(top, 127), 1) if spec.dtype.itemsize == 1 else max(top, 1)
    return torch.randint(top, spec.shape, generator=generator).to(spec.dtype)
