"""`--weights`: a checkpoint of any format put into a model, one tensor at a time."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from modtool.errors import UsageError
from modtool.live.compute import converted
from modtool.notes import note
from modtool.plan import PlannedTensor
from modtool.records import Checkpoint, Note, TensorInfo

__all__ = ["load_weights"]


def load_weights(model: nn.Module, checkpoint: Checkpoint) -> tuple[Note, ...]:
    """Put a checkpoint's model section into a model; memory is bounded by the largest tensor.

    Args:
        model: With real tensors; they are changed in place.
        checkpoint: What was opened.

    Returns:
        Notes on names that are missing, unexpected, or of another shape, none of which is loaded.

    Raises:
        UsageError: Not one name and shape fits.
    """
    wanted = tensors_of(model)
    found = {tensor.name: tensor for tensor in checkpoint.model_tensors if tensor.persistent}
    common = [name for name in wanted if name in found]
    fits = [name for name in common if tuple(wanted[name].shape) == found[name].shape]
    if not fits:
        raise UsageError(
            f"{checkpoint.target}: none of its {len(found)} tensors fits the model",
            f"the model has {first(list(wanted))}; the checkpoint has {first(list(found))}",
        )
    with torch.no_grad():
        for name in fits:
            wanted[name].copy_(values_of(found[name]))
    mismatched = [
        f"{name} ({list(found[name].shape)} for {list(wanted[name].shape)})"
        for name in common
        if name not in set(fits)
    ]
    names = {
        "missing-weights": [name for name in wanted if name not in found],
        "unexpected-weights": [name for name in found if name not in wanted],
        "mismatched-weights": mismatched,
    }
    return tuple(reports(checkpoint.target, names))


def tensors_of(model: nn.Module) -> Mapping[str, torch.Tensor]:
    """What `state_dict()` names, as the model's own tensors."""
    state = model.state_dict(keep_vars=True)
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def values_of(tensor: TensorInfo) -> torch.Tensor:
    """The elements of a stored tensor, in memory."""
    planned = PlannedTensor(tensor.name, None, tensor, tensor.dtype)
    dtype = getattr(torch, tensor.dtype)
    pieces = [torch.frombuffer(piece, dtype=dtype) for piece in converted(planned) if len(piece)]
    flat = torch.cat(pieces) if pieces else torch.empty(0, dtype=dtype)
    return flat.view(tensor.shape)


def reports(target: str, names: Mapping[str, Sequence[str]]) -> list[Note]:
    """A note for each kind of name that did not fit."""
    return [
        note(code, target, f"{len(listed)} not loaded: {first(listed)}")
        for code, listed in names.items()
        if listed
    ]


def first(names: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
