"""Finite values that a cast has no place for: found as they go by, so that all is read once.

A quick look at each piece is what this costs where there are none. Only the tensors of a storage
that has some are read again and counted, each by itself: a storage may be cast as one.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from modtool.plan import Overflow, Plan, PlannedTensor

if TYPE_CHECKING:
    import torch

__all__ = ["Overflows"]


class Overflows:
    """What `write` takes as `compute`, with all that did not fit so far."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.found: dict[object, Overflow] = {}

    def compute(self, tensor: PlannedTensor) -> Iterator[memoryview]:
        """The bytes of a tensor that is gathered, cast or filled."""
        from modtool.live.compute import compute, dtype_of
        from modtool.live.ranges import edge_of, reaches

        edge = None
        if is_cast(tensor):
            edge = edge_of(dtype_of(tensor.source.dtype), dtype_of(tensor.dtype))
        if edge is None:
            yield from compute(tensor)
            return
        reached = False

        def look(values: "torch.Tensor") -> None:
            nonlocal reached
            reached = reached or reaches(values, edge)

        yield from compute(tensor, look)
        if reached:
            self.count(tensor, edge)

    def count(self, tensor: PlannedTensor, edge: float) -> None:
        """Count what did not fit of all tensors that share its storage and are cast like it."""
        from modtool.live.compute import dtype_of, source_parts
        from modtool.live.ranges import lost

        dtype = dtype_of(tensor.dtype)
        for each in self.groups[group_of(tensor)]:
            count = sum(lost(part, dtype, edge) for part in source_parts(each.source))
            if count:
                self.found[each.section, each.name] = Overflow(each, count)

    @cached_property
    def groups(self) -> dict[object, list[PlannedTensor]]:
        """The tensors that are cast, those together that share a storage and have one type."""
        groups: dict[object, list[PlannedTensor]] = {}
        for tensor in filter(is_cast, self.plan.tensors):
            groups.setdefault(group_of(tensor), []).append(tensor)
        return groups


def is_cast(tensor: PlannedTensor) -> bool:
    """True for a tensor whose own values become another type."""
    return tensor.fill is None and tensor.is_computed


def group_of(tensor: PlannedTensor) -> object:
    """Equal for tensors that may be cast as one."""
    storage = tensor.source.storage
    place = storage.key if storage is not None else (tensor.section, tensor.source.name)
    return place, tensor.source.dtype, tensor.dtype
