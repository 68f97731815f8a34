"""Mean and standard deviation of what is filled: measured as it goes by, so that nothing is kept.

The source is read a few megabytes at a time, what is written is measured on its way to the file.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from modtool.live.fill import expected
from modtool.live.filling import fans_for
from modtool.live.moments import Moments, Running
from modtool.plan import Fill, Plan, PlannedTensor
from modtool.records import TensorInfo
from modtool.report.fills import Measures

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Measuring", "measured_before", "moments_of_model"]


class Measuring:
    """What `write` takes as `compute`, with the measures of all that was filled so far.

    Attributes:
        measures: By the tensor's name in the source.
        before: Moments that are known already, by the name in the source.
    """

    def __init__(self, before: Mapping[str, Moments | None]) -> None:
        self.before = before
        self.measures: dict[str, Measures] = {}

    def compute(self, tensor: PlannedTensor) -> Iterator[memoryview]:
        """The bytes of a tensor that is gathered, cast or filled."""
        from modtool.live.compute import compute, elements

        if tensor.fill is None:
            yield from compute(tensor)
            return
        before = self.moments_before(tensor, tensor.fill)
        running = Running(tensor.dtype)
        for piece in compute(tensor):
            running.add(elements(piece, tensor.dtype))
            yield piece
        theory = theory_of(tensor, tensor.fill)
        self.measures[tensor.fill.name] = Measures(before, running.moments(), theory)

    def moments_before(self, tensor: PlannedTensor, fill: Fill) -> Moments | None:
        """What the source had."""
        if fill.name in self.before:
            return self.before[fill.name]
        return source_moments(tensor.source)


def measured_before(plan: Plan, before: Mapping[str, Moments | None]) -> dict[str, Measures]:
    """The measures that are known when nothing is written: before, and what is expected."""
    measuring = Measuring(before)
    return {
        tensor.fill.name: Measures(
            measuring.moments_before(tensor, tensor.fill), None, theory_of(tensor, tensor.fill)
        )
        for tensor in plan.tensors
        if tensor.fill is not None
    }


def theory_of(tensor: PlannedTensor, fill: Fill) -> Moments | None:
    """What the scheme should give."""
    if fill.norms_of is not None:
        return None
    shape = tensor.source.shape
    return expected(fill.scheme, fill.arguments, shape, fans_for(tensor, fill))


def source_moments(source: TensorInfo) -> Moments | None:
    """Mean and standard deviation of a stored tensor; None where the file holds no data for it."""
    from modtool.live.compute import source_parts

    stored = source.storage is not None and source.storage.data is not None
    if not stored and not source.chunks:
        return None
    running = Running(source.dtype)
    for part in source_parts(source):
        running.add(part)
    return running.moments()


def moments_of_model(model: "nn.Module", names: list[str]) -> dict[str, Moments | None]:
    """Mean and standard deviation of a model's tensors, by name."""
    from modtool.live.moments import measured
    from modtool.live.reset import all_tensors

    tensors = all_tensors(model)
    return {name: measured(tensors[name]) for name in names}
