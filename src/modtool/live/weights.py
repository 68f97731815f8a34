"""`--weights`: a checkpoint of any format put into a model, one tensor at a time."""

from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import nn

from modtool.diffs.fitting import fits_shape
from modtool.diffs.weight_norms import as_parametrized
from modtool.errors import UsageError
from modtool.live.compute import converted
from modtool.live.fake import is_fake, is_uninitialized
from modtool.live.state import nodes
from modtool.live.walk import modules_by_path
from modtool.names import shared_prefixes
from modtool.notes import note
from modtool.plan import PlannedTensor
from modtool.records import Checkpoint, Note, TensorInfo

__all__ = ["load_weights", "values_of"]


def load_weights(model: nn.Module, checkpoint: Checkpoint) -> tuple[Note, ...]:
    """Put a checkpoint's model section into a model; memory is bounded by the largest tensor.

    Args:
        model: Real tensors are changed in place. Those without bytes stay so, and their names and
            shapes are compared all the same.
        checkpoint: What was opened.

    Returns:
        Notes on names that are missing, unexpected, or of another shape, none of which is loaded.

    Raises:
        UsageError: Not one name and shape fits, or a tensor is packed in a way torch does not know.
    """
    wanted = tensors_of(model)
    found = unwrapped(wanted, stored_tensors(checkpoint))
    found = as_parametrized(nodes(dict(modules_by_path(model))), found)
    common = [name for name in wanted if name in found]
    give_shapes({name: wanted[name] for name in common}, found)
    shapes = {name: tuple(wanted[name].shape) for name in common}
    fits = {name: None for name in common if fits_shape(shapes[name], found[name].shape)}
    mismatched = [
        f"{name} ({list(found[name].shape)} for {list(shapes[name])})"
        for name in common
        if name not in fits
    ]
    if not fits:
        raise UsageError(
            f"{checkpoint.target}: none of its {len(found)} tensors fits the model",
            f"their shapes differ: {first(mismatched)}"
            if mismatched
            else other_names(wanted, found, checkpoint.target),
        )
    with torch.no_grad():
        for name in fits:
            if not is_fake(wanted[name]):
                wanted[name].copy_(values_of(found[name]).view(shapes[name]))
    filled = {id(wanted[name]) for name in fits}
    names = {
        # A tied tensor is stored under one of its names only, in safetensors files.
        "missing-weights": [
            name for name in wanted if name not in found and id(wanted[name]) not in filled
        ],
        "unexpected-weights": [name for name in found if name not in wanted],
        "mismatched-weights": mismatched,
    }
    return tuple(reports(checkpoint.target, names))


def give_shapes(wanted: Mapping[str, Any], found: Mapping[str, TensorInfo]) -> None:
    """Give lazy tensors the shapes of what is stored for them, as torch does when it loads."""
    for name, tensor in wanted.items():
        if is_uninitialized(tensor):
            tensor.materialize(found[name].shape)


def stored_tensors(checkpoint: Checkpoint) -> dict[str, TensorInfo]:
    """The model's part of a checkpoint, by name; what is lazy in it too is not there yet."""
    return {
        tensor.name: tensor
        for tensor in checkpoint.model_tensors
        if tensor.persistent and tensor.layout != "uninitialized"
    }


def unwrapped(
    wanted: Mapping[str, torch.Tensor], found: dict[str, TensorInfo]
) -> dict[str, TensorInfo]:
    """The same without what wrappers put before every name, as far as it takes for names to fit."""
    for prefix in accumulate(shared_prefixes(found), initial=""):
        plain = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
        if plain.keys() & wanted.keys():
            return plain
    return found


def other_names(wanted: Collection[str], found: Collection[str], target: str) -> str:
    """What to do where no name fits: which prefix to change, or which names there are."""
    convert = f"modtool convert {target} -o OUT.pth"
    extra, lacking = prefix_before(wanted, found), prefix_before(found, wanted)
    if extra:
        return f"the model's names stand there after {extra} : {convert} --strip-prefix {extra}"
    if lacking:
        return f"the model has its names after {lacking} : {convert} --add-prefix {lacking}"
    return f"the model has {first(list(wanted))}; the checkpoint has {first(list(found))}"


def prefix_before(names: Collection[str], longer: Collection[str]) -> str:
    """What stands before each of some names among others; "" where they are not all there."""
    one = next(iter(names), "")
    before = (name.removesuffix(one) for name in longer if one and name.endswith(f".{one}"))
    return next((each for each in before if all(each + name in longer for name in names)), "")


def tensors_of(model: nn.Module) -> Mapping[str, torch.Tensor]:
    """What `state_dict()` names, as the model's own tensors."""
    state = model.state_dict(keep_vars=True)
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def values_of(tensor: TensorInfo) -> torch.Tensor:
    """The elements of a stored tensor, in memory.

    Raises:
        UsageError: They are packed in a way that torch has no dtype for, or there are none.
    """
    if tensor.layout == "strided" and tensor.location == "meta":
        raise UsageError(f"{tensor.name}: saved from the meta device, without values to load")
    dtype = getattr(torch, tensor.dtype, None)
    if not isinstance(dtype, torch.dtype) or tensor.layout != "strided":
        kind = tensor.dtype if tensor.layout == "strided" else f"{tensor.layout} {tensor.dtype}"
        raise UsageError(f"{tensor.name}: elements stored as {kind} cannot be put in a model")
    planned = PlannedTensor(tensor.name, None, tensor, tensor.dtype)
    pieces = [torch.frombuffer(piece, dtype=dtype) for piece in converted(planned) if len(piece)]
    flat = torch.cat(pieces) if pieces else torch.empty(0, dtype=dtype)
    return flat.view(tensor.shape)


def reports(target: str, names: Mapping[str, Sequence[str]]) -> list[Note]:
    """A note for each kind of name that did not fit."""
    return [
        note(code, target, f"{said(code, len(listed))}: {first(listed)}")
        for code, listed in names.items()
        if listed
    ]


def said(code: str, count: int) -> str:
    """What became of so many names."""
    names, are, keep = (
        ("1 name", "is", "keeps its") if count == 1 else (f"{count} names", "are", "keep their")
    )
    initial = f"{keep} initial values"
    return {
        "missing-weights": f"{names} of the model {are} not in it and {initial}",
        "unexpected-weights": f"{names} in it {are} not in the model and {are} left out",
        "mismatched-weights": f"{names} {are} in it in another shape and {initial}",
    }[code]


def first(names: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
