"""The report of `reinit`: what was filled, and what became of its values."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from modtool.plan import Fill, Plan, PlannedTensor
from modtool.report.changes import dropped_document, sentences
from modtool.report.tables import Column, Report, Table, Total

__all__ = ["Filling", "Measures", "recipe_report", "reinit_report"]

Moments = tuple[float, float]

FILL_COLUMNS = (
    Column("name", "tensor", "name of the tensor"),
    Column("shape", "shape", "size along each dimension", "shape"),
    Column("scheme", "scheme", "how it is filled"),
    Column("mean_before", "mean before", "mean of its elements in the source", "number"),
    Column("std_before", "std before", "their standard deviation", "number"),
    Column("mean", "mean", "mean of what it was filled with", "number"),
    Column("std", "std", "standard deviation of what it was filled with", "number"),
    Column("mean_expected", "expected mean", "the mean that theory says of the scheme", "number"),
    Column("std_expected", "expected std", "the standard deviation that theory says", "number"),
    Column("arguments", "arguments", "of the scheme"),
)


@dataclass(frozen=True, slots=True)
class Measures:
    """Mean and standard deviation of one filled tensor; None where unknown or not computed."""

    before: Moments | None = None
    after: Moments | None = None
    expected: Moments | None = None


@dataclass(frozen=True, slots=True)
class Filling:
    """What came of filling: measures by the name in the source, and what was left as it was."""

    measures: Mapping[str, Measures] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)


def reinit_report(plan: Plan, filling: Filling, written: Sequence[str]) -> Report:
    """What `reinit` filled, a row for each; tied tensors have one, under their first name."""
    filled = first_names(plan)

    def document() -> Mapping[str, object]:
        return {
            "target": plan.source.target,
            "written": list(written),
            "filled": [
                fill_document(fill, tensors, filling.measures.get(fill.name, Measures()))
                for fill, tensors in filled
            ],
            "skipped": [{"name": name, "why": why} for name, why in filling.skipped.items()],
            "unchanged": unchanged(plan),
            "tensors": len(plan.tensors),
            "dropped": dropped_document(plan),
            "notes": [asdict(note) for note in (*plan.source.notes, *plan.notes)],
        }

    def table() -> tuple[Table, ...]:
        rows = tuple(
            fill_row(fill, tensors[0], filling.measures.get(fill.name, Measures()))
            for fill, tensors in filled
        )
        return (Table(FILL_COLUMNS, rows),)

    return Report(
        document,
        table,
        totals=(
            Total("filled", len(filled)),
            Total("elements", sum(tensors[0].source.numel for _, tensors in filled)),
            Total("skipped", len(filling.skipped)),
            Total("unchanged", unchanged(plan)),
        ),
        notes=(*plan.source.notes, *plan.notes),
        sentences=tuple(sentences(plan)),
        written=tuple(written),
    )


def first_names(plan: Plan) -> list[tuple[Fill, list[PlannedTensor]]]:
    """Each fill once, with the tensors that it goes into."""
    found: dict[str, tuple[Fill, list[PlannedTensor]]] = {}
    for tensor in plan.tensors:
        if tensor.fill is not None:
            found.setdefault(tensor.fill.name, (tensor.fill, []))[1].append(tensor)
    return list(found.values())


def unchanged(plan: Plan) -> int:
    """How many tensors keep their values."""
    return sum(tensor.fill is None for tensor in plan.tensors)


def fill_row(fill: Fill, tensor: PlannedTensor, measures: Measures) -> tuple[object, ...]:
    """One filled tensor in the table."""
    before, after, expected = (
        pair or (None, None) for pair in (measures.before, measures.after, measures.expected)
    )
    shape = tensor.source.shape
    return (tensor.name, shape, scheme_of(fill), *before, *after, *expected, settings(fill))


def scheme_of(fill: Fill) -> str:
    """The scheme, or what a weight norm's magnitude follows."""
    if fill.norms_of is None:
        return fill.scheme
    return f"norms of {fill.norms_of.name.rpartition('.')[2]}"


def settings(fill: Fill) -> str:
    """`a=0, mode=fan_in`."""
    if fill.norms_of is not None:
        return ""
    return ", ".join(f"{name}={value}" for name, value in fill.arguments.items())


def fill_document(
    fill: Fill, tensors: Sequence[PlannedTensor], measures: Measures
) -> dict[str, object]:
    """One filled tensor for JSON."""
    return {
        "name": tensors[0].name,
        "tied": [tensor.name for tensor in tensors[1:]],
        "shape": tensors[0].source.shape,
        "dtype": tensors[0].dtype,
        "scheme": fill.scheme,
        "arguments": dict(fill.arguments),
        "norms_of": fill.norms_of.name if fill.norms_of is not None else None,
        "seed": fill.seed,
        "before": pair_document(measures.before),
        "after": pair_document(measures.after),
        "expected": pair_document(measures.expected),
    }


def pair_document(moments: Moments | None) -> dict[str, float] | None:
    """Mean and standard deviation for JSON."""
    return None if moments is None else {"mean": moments[0], "std": moments[1]}


def recipe_report(recipe: Mapping[str, object], text: str) -> Report:
    """A recipe as its file has it; in JSON, as the table that the file is."""
    return Report(lambda: {"recipe": recipe}, sentences=tuple(text.rstrip("\n").split("\n")))
