"""A model with values, for the checks that need them; and which of those were never set."""

from collections.abc import Callable

import torch
from torch import nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from modtool.live.fake import is_fake, is_uninitialized
from modtool.notes import note
from modtool.records import Note

__all__ = ["with_values"]

EMPTY = frozenset(
    f"aten::{name}"
    for name in ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
)


def with_values(rebuild: Callable[[], nn.Module]) -> tuple[nn.Module, tuple[Note, ...]]:
    """A model built for real, and a note for each tensor that its constructor left as it came."""
    with MarkedMemory():  # type: ignore[no-untyped-call]
        built = rebuild()
    kinds = {"parameter": built.named_parameters(), "buffer": built.named_buffers()}
    unset = tuple(
        note("unset-parameter", name, message_for(kind))
        for kind, named in kinds.items()
        for name, each in named
        if is_marked(each)
    )
    return (rebuild() if unset else built), unset


class MarkedMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Fills what torch.empty() gives, and its like, with a number that nothing else would."""

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        made = func(*args, **(kwargs or {}))
        if func._schema.name in EMPTY and isinstance(made, torch.Tensor) and can_be_marked(made):
            made.fill_(mark(made.dtype))
        return made


def mark(dtype: torch.dtype) -> float:
    """A number close to the largest of a type."""
    return torch.finfo(dtype).max * 0.75


def can_be_marked(tensor: torch.Tensor) -> bool:
    """True for plain floats that have values."""
    plain = not is_uninitialized(tensor) and not is_fake(tensor)
    return plain and tensor.layout is torch.strided and tensor.dtype.is_floating_point


def is_marked(tensor: torch.Tensor) -> bool:
    """True for a tensor with the mark in it."""
    if not can_be_marked(tensor) or not tensor.numel():
        return False
    value = torch.tensor(mark(tensor.dtype), dtype=tensor.dtype, device=tensor.device)
    return bool((tensor.detach() == value).any())


def message_for(kind: str) -> str:
    """What is wrong, and what to do."""
    return (
        f"this {kind} is made by torch.empty() or torch.Tensor() and never filled: it holds what "
        "was in memory before"
    )
