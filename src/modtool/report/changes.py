"""The report of a conversion, and what all reports of what was written share."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby

from modtool.notes import first_names
from modtool.plan import AS_ASKED, NOT_KEPT, Overflow, Plan, notes_of, notes_of_overflows
from modtool.plan.tree import place_of
from modtool.report.tables import Column, Report, Table, Total

__all__ = ["conversion_report", "dropped_document", "sentences"]

# More that are left out for one reason are told of together.
MANY = 20
FEW = 3
# Nobody has to be told by name what he asked for himself.
ASKED = frozenset({AS_ASKED, NOT_KEPT})
TENSOR_COLUMNS = (
    Column("name", "tensor", "name in the output"),
    Column("shape", "shape", "size along each dimension", "shape"),
    Column("dtype", "dtype", "element type in the output"),
    Column("bytes", "bytes", "bytes of its elements in the output", "bytes"),
)


def conversion_report(
    plan: Plan,
    written: Sequence[str],
    overflows: Sequence[Overflow] = (),
    *,
    dry_run: bool = False,
    verified: bool = False,
) -> Report:
    """What `convert` made; after a dry run, every tensor that it would write."""
    # What is merely worth knowing of a source, its summary says.
    cut_down = plan.shrink or plan.form in ("safetensors", "dcp")
    serious = (
        note
        for note in plan.source.notes
        if note.level != "note" and not (cut_down and note.code == "oversized-storage")
    )
    notes = (*serious, *notes_of(plan, sharded=len(written) > 1), *notes_of_overflows(overflows))
    checked = f"read back and compared: all {len(plan.tensors):,} tensors are as they should be"

    def document() -> Mapping[str, object]:
        return {
            "source": plan.source.target,
            "written": list(written),
            "to": plan.form,
            "tensors": len(plan.tensors),
            "bytes": plan.nbytes,
            "dropped": dropped_document(plan),
            "verified": verified,
            "overflows": [
                {
                    "name": place_of(each.tensor.section, each.tensor.name),
                    "dtype": each.tensor.dtype,
                    "elements": each.elements,
                }
                for each in overflows
            ],
            "notes": [asdict(note) for note in notes],
        }

    rows = tuple(
        (place_of(tensor.section, tensor.name), tensor.source.shape, tensor.dtype, tensor.nbytes)
        for tensor in plan.tensors
    )
    return Report(
        document,
        lambda: (Table(TENSOR_COLUMNS, rows),) if dry_run else (),
        totals=(Total("tensors", len(plan.tensors)), Total("size", plan.nbytes, "bytes")),
        notes=notes,
        sentences=(*sentences(plan), *([checked] if verified else [])),
        written=tuple(written),
    )


def dropped_document(plan: Plan) -> list[dict[str, str]]:
    """What is left out, and why."""
    return [{"name": dropped.name, "why": dropped.why} for dropped in plan.dropped]


def sentences(plan: Plan) -> Iterator[str]:
    """A line for everything that is left out; one for many that are so for one reason."""
    gone = sum(dropped.why in ASKED for dropped in plan.dropped)
    if gone:
        left = len(plan.model_tensors)
        yield f"kept {left:,} of {left + gone:,} tensors"
    for why, group in groupby(plan.dropped, key=lambda dropped: dropped.why):
        names = [dropped.name for dropped in group]
        if why in ASKED or len(names) > MANY:
            yield together(names, why)
        else:
            yield from (f"left out {name}: {why}" for name in names)


def together(names: Sequence[str], why: str) -> str:
    """One line for what is left out for one reason."""
    rest = " (--json names all)" if len(names) > FEW else ""
    return f"left out {first_names(names, FEW)}: {why}{rest}"
