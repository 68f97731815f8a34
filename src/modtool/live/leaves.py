"""The tensors inside a value: whatever a module is given or gives back."""

import argparse
import dataclasses
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from types import MemberDescriptorType, SimpleNamespace
from typing import Literal

import torch
from torch import nn
from torch.distributions import Distribution

from modtool.traces import TracedTensor

__all__ = ["described", "leaves", "substitute"]

DEEPEST = 50
Into = Literal["containers", "objects", "caches"]
# Python's own classes that are nothing but a place for attributes.
SPACES = (SimpleNamespace, argparse.Namespace)


def leaves(
    value: object, path: str = "", *, into: Into = "objects"
) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a nested value, with the path that leads to it.

    Positions are numbers, names are keys, fields and attributes: `0`, `hidden.1`, `logits`.

    Args:
        value: Modules in it are not entered, nor what is Python's or torch's own.
        path: Leads to it.
        into: `containers` are tuples, dicts, dataclasses, distributions and their like, `objects`
            everything with attributes, once, but for `caches`: those are handed on to every layer
            which adds to them, and are no part of what it computes.
    """
    if isinstance(value, torch.Tensor):
        yield path, value
    else:
        yield from within(value, path, into, 0, set())


def within(
    value: object, path: str, into: Into, depth: int, seen: set[int]
) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors inside of a value, which is none itself; objects that were seen are done."""
    found = parts(value)
    if found is None and into != "containers" and id(value) not in seen:
        seen.add(id(value))
        found = attributes(value) if into == "caches" or not is_cache(value) else None
    for name, inner in found or ():
        place = f"{path}.{name}" if path else name
        if isinstance(inner, torch.Tensor):
            yield place, inner
        elif depth + 1 < DEEPEST:
            yield from within(inner, place, into, depth + 1, seen)


def parts(value: object) -> Iterator[tuple[str, object]] | None:
    """The named parts of a container; None of anything else."""
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
    return None


def attributes(value: object) -> Iterator[tuple[str, object]]:
    """The attributes of an object by name, those in slots too."""
    kind = type(value)
    if isinstance(value, nn.Module) or (is_closed(kind.__module__) and kind not in SPACES):
        return
    yield from list(vars(value).items() if hasattr(value, "__dict__") else ())
    for each in kind.__mro__:
        for name, slot in vars(each).items():
            if type(slot) is MemberDescriptorType and name != "__dict__":
                yield name, getattr(value, name, None)


def is_closed(module: str) -> bool:
    """True for the module of a class whose objects have attributes that are its own affair."""
    top = module.partition(".")[0]
    return top in ("torch", "numpy") or top in sys.stdlib_module_names


def is_cache(value: object) -> bool:
    """True for what keeps keys and values for the next pass, `DynamicCache` and its like."""
    return any(kind.__name__.endswith("Cache") for kind in type(value).__mro__)


def distribution_parts(value: Distribution) -> Iterator[tuple[str, object]]:
    """What a distribution was made of: its parameters, and distributions that it builds upon.

    Parameters that it would compute when asked, such as probabilities from logits, are none.
    """
    for name, inner in vars(value).items():
        if name in value.arg_constraints or isinstance(inner, Distribution):
            yield name.lstrip("_"), inner


def described(value: object, path: str = "", *, into: Into = "objects") -> tuple[TracedTensor, ...]:
    """The tensors of a nested value, as plain records."""
    return tuple(
        TracedTensor(
            path=name,
            shape=shape_of(tensor),
            dtype=str(tensor.dtype).removeprefix("torch."),
            nbytes=tensor.numel() * tensor.element_size(),
        )
        for name, tensor in leaves(value, path, into=into)
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
