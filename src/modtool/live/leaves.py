"""The tensors inside a value: whatever a module is given or gives back."""

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping

import torch
from torch.distributions import Distribution

from modtool.traces import TracedTensor

__all__ = ["described", "leaves", "substitute"]

DEEPEST = 50


def leaves(value: object, path: str = "", depth: int = 0) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a nested value, with the path that leads to it.

    Positions are numbers, names are keys, fields and attributes: `0`, `hidden.1`, `logits`.
    """
    if isinstance(value, torch.Tensor):
        yield path, value
    elif depth < DEEPEST:
        for name, inner in parts(value):
            yield from leaves(inner, f"{path}.{name}" if path else name, depth + 1)


def parts(value: object) -> Iterator[tuple[str, object]]:
    """The named parts of a container; none of anything else."""
    if isinstance(value, Mapping):
        return ((str(key), inner) for key, inner in list(value.items()))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return zip(value._fields, value, strict=True)
    if isinstance(value, list | tuple | set | frozenset):
        return ((str(index), inner) for index, inner in enumerate(value))
    if isinstance(value, Distribution):
        return distribution_parts(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return ((each.name, getattr(value, each.name, None)) for each in dataclasses.fields(value))
    return iter(())


def distribution_parts(value: Distribution) -> Iterator[tuple[str, object]]:
    """What a distribution was made of: its parameters, and distributions that it builds upon.

    Parameters that it would compute when asked, such as probabilities from logits, are none.
    """
    for name, inner in vars(value).items():
        if name in value.arg_constraints or isinstance(inner, Distribution):
            yield name.lstrip("_"), inner


def described(value: object, path: str = "") -> tuple[TracedTensor, ...]:
    """The tensors of a nested value, as plain records."""
    return tuple(
        TracedTensor(
            path=name,
            shape=shape_of(tensor),
            dtype=str(tensor.dtype).removeprefix("torch."),
            nbytes=tensor.numel() * tensor.element_size(),
        )
        for name, tensor in leaves(value, path)
    )


def shape_of(tensor: torch.Tensor) -> tuple[int, ...]:
    """The shape; -1 along the ragged dimensions of a nested tensor."""
    if not tensor.is_nested:
        return tuple(tensor.shape)
    rows = [shape_of(row) for row in tensor.unbind()]
    sizes = (
        next(iter(along)) if len(along := set(each)) == 1 else -1
        for each in zip(*rows, strict=True)
    )
    return (len(rows), *sizes)


def substitute(
    value: object, replace: Callable[[torch.Tensor], torch.Tensor], depth: int = 0
) -> object:
    """The value with its tensors replaced; the very same object where nothing in it changes.

    Only plain lists, tuples and dicts are entered: anything else keeps its tensors.
    """
    if isinstance(value, torch.Tensor):
        return replace(value)
    if depth >= DEEPEST or type(value) not in (list, tuple, dict, OrderedDict):
        return value
    if isinstance(value, dict):
        items = {key: substitute(inner, replace, depth + 1) for key, inner in value.items()}
        same = all(items[key] is inner for key, inner in value.items())
        return value if same else type(value)(items)
    assert isinstance(value, list | tuple)
    changed = [substitute(inner, replace, depth + 1) for inner in value]
    same = all(new is old for new, old in zip(changed, value, strict=True))
    return value if same else type(value)(changed)
