"""What is to be told of finite values that a cast has no place for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from modtool.notes import first_names, note
from modtool.plan.records import PlannedTensor
from modtool.records import Note

__all__ = ["Overflow", "notes_of_overflows"]


@dataclass(frozen=True, slots=True)
class Overflow:
    """A tensor, and how many of its finite elements did not fit into the type it was cast to."""

    tensor: PlannedTensor
    elements: int


def notes_of_overflows(overflows: Sequence[Overflow]) -> Iterator[Note]:
    """A note for each type that was cast to."""
    groups: dict[str, list[Overflow]] = {}
    for overflow in overflows:
        groups.setdefault(overflow.tensor.dtype, []).append(overflow)
    for dtype, group in groups.items():
        names = [
            f"{each.tensor.name} ({each.elements:,} of {each.tensor.source.numel:,})"
            for each in group
        ]
        source = group[0].tensor.source
        wide = f"leave such tensors as they are: --dtype-for '{source.name}={source.dtype}'"
        yield note(
            "cast-overflow",
            group[0].tensor.name if len(group) == 1 else "",
            f"finite values beyond the range of {dtype} are lost: {first_names(names)}",
            f"cast to bf16, or {wide}" if dtype == "float16" else wide,
        )
