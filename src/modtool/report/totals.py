"""Totals: each stored element once, however many names it has."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from modtool.records import Checkpoint, TensorInfo
from modtool.report.tables import Report, Total
from modtool.sharing import element_bits, share

__all__ = ["Totals", "add_up", "bytes_stored", "count_report", "totals_of"]


@dataclass(frozen=True, slots=True)
class Totals:
    """What `count` prints.

    Attributes:
        total: Elements of parameters.
        trainable: Those with requires_grad; None where the file does not record it for all.
        frozen: Those without; None likewise.
        buffers: Elements of buffers.
        bytes: Parameters and buffers.
        tensors: Names of both.
    """

    total: int
    trainable: int | None
    frozen: int | None
    buffers: int
    bytes: int
    tensors: int


def totals_of(tensors: Sequence[TensorInfo]) -> Totals:
    """The totals of some tensors; all numbers count elements but `bytes` and `tensors`."""
    return add_up(tensors, share(tensors).fresh)


def add_up(tensors: Sequence[TensorInfo], fresh: Sequence[int]) -> Totals:
    """The totals, where `fresh` says how many elements of each tensor count."""
    total = trainable = buffers = size = 0
    recorded = True
    for tensor, elements in zip(tensors, fresh, strict=True):
        size += bytes_stored(tensor, elements)
        if tensor.role == "buffer":
            buffers += elements
            continue
        total += elements
        recorded = recorded and tensor.requires_grad is not None
        trainable += elements if tensor.requires_grad else 0
    known = trainable if recorded else None
    frozen = total - trainable if recorded else None
    return Totals(total, known, frozen, buffers, size, len(tensors))


def bytes_stored(tensor: TensorInfo, elements: int) -> int:
    """Bytes of so many elements of a tensor."""
    whole = elements == tensor.numel
    return tensor.nbytes if whole else elements * element_bits(tensor) // 8


def size_of(tensors: Iterable[TensorInfo]) -> int:
    """Bytes of some tensors, shared elements once."""
    return totals_of(tuple(tensors)).bytes


def count_report(checkpoint: Checkpoint) -> Report:
    """The report of `count`: one line of figures."""
    totals = totals_of(checkpoint.model_tensors)

    def document() -> dict[str, object]:
        made: dict[str, object] = {"target": checkpoint.target, **asdict(totals)}
        return made | ({"sections": sections_document(checkpoint)} if checkpoint.sections else {})

    return Report(document, totals=closing_line(totals), notes=checkpoint.notes)


def sections_document(checkpoint: Checkpoint) -> list[dict[str, object]]:
    """Each section with its tensors and bytes."""
    parts: dict[str | None, list[TensorInfo]] = {}
    for tensor in checkpoint.tensors:
        parts.setdefault(tensor.section, []).append(tensor)
    return [
        {
            "name": section.name,
            "role": section.role,
            "tensors": len(parts.get(section.name, ())),
            "bytes": size_of(parts.get(section.name, ())),
        }
        for section in checkpoint.sections
    ]


def closing_line(totals: Totals) -> tuple[Total, ...]:
    """The figures in the order in which they are read."""
    return (
        Total("parameters", totals.total),
        Total("trainable", totals.trainable),
        Total("frozen", totals.frozen),
        Total("buffers", totals.buffers),
        Total("size", totals.bytes, "bytes"),
    )
