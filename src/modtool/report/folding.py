"""Differences by module: the tensors below one name, added up."""

from dataclasses import dataclass

from modtool.diffs import Differences, Measure, Pair
from modtool.report.tables import Column, Table

__all__ = [
    "MEASURE_COLUMNS",
    "NAN_COLUMNS",
    "Rows",
    "differing_first",
    "fold",
    "folded_document",
    "measures",
    "odd",
]

MEASURE_COLUMNS = (
    Column("max_abs", "max abs", "largest |a - b|", "number"),
    Column("max_rel", "max rel", "largest |a - b| / max(|a|, |b|)", "number"),
    Column("cosine", "cosine", "cosine of the angle between the two", "number"),
    Column("max_ulps", "ULPs", "most representable numbers between two elements", "number"),
)
NAN_COLUMNS = (
    Column("nan_a", "NaN A", "elements of A that are NaN", "count"),
    Column("nan_b", "NaN B", "elements of B that are NaN", "count"),
    Column("unlike", "unlike", "places that are NaN or infinite, and not alike", "count"),
)
COUNT_COLUMNS = (
    Column("module", "module", "dotted name of the module"),
    Column("tensors", "tensors", "names that either side has below it", "count"),
    Column("same", "same", "tensors in which nothing differs", "count"),
    Column("differ", "differ", "tensors that differ", "count"),
    Column("only_a", "only A", "tensors that only A has", "count"),
    Column("only_b", "only B", "tensors that only B has", "count"),
)
Rows = tuple[tuple[object, ...], ...]


@dataclass(slots=True)
class Fold:
    """What is below one name; `measure` is of the tensors whose values differ."""

    same: int = 0
    differ: int = 0
    only_a: int = 0
    only_b: int = 0
    measure: Measure | None = None

    def take(self, pair: Pair) -> None:
        """Add a tensor that both have."""
        if pair.is_same:
            self.same += 1
        else:
            self.differ += 1
        if pair.measure is not None:
            known = self.measure
            self.measure = pair.measure if known is None else known + pair.measure

    @property
    def row(self) -> tuple[object, ...]:
        """Counts, then measures, then odd elements."""
        counts = (self.same, self.differ, self.only_a, self.only_b)
        return (sum(counts), *counts, *measures(self.measure), *odd(self.measure))


def fold(differences: Differences, depth: int) -> Table:
    """A row for every module down to a depth; measures and odd elements where there are any."""
    folds = folded(differences, depth)
    found = [each.measure for each in folds.values() if each.measure is not None]
    columns = (*COUNT_COLUMNS, *(MEASURE_COLUMNS if found else ()))
    if any(any(odd(measure)) for measure in found):
        columns = (*columns, *NAN_COLUMNS)
    rows = ((path or "(all)", *each.row)[: len(columns)] for path, each in folds.items())
    return Table(columns, tuple(rows))


def differing_first(rows: Rows, top: int | None) -> Rows:
    """So many rows in their order; those in which nothing differs make room for the others."""
    telling = sorted(range(len(rows)), key=lambda index: rows[index][1] == rows[index][2])
    return tuple(rows[index] for index in sorted(telling[:top]))


def folded_document(differences: Differences, depth: int | None) -> list[dict[str, object]]:
    """The same for programs; without a depth, every module that owns tensors."""
    keys = [column.key for column in (*COUNT_COLUMNS, *MEASURE_COLUMNS, *NAN_COLUMNS)]
    return [
        dict(zip(keys, (path, *each.row), strict=True))
        for path, each in folded(differences, depth).items()
    ]


def folded(differences: Differences, depth: int | None) -> dict[str, Fold]:
    """Path of a module -> what is below it, in the order of A."""
    folds: dict[str, Fold] = {}
    for pair in differences.pairs:
        folds.setdefault(path_of(pair.name, depth), Fold()).take(pair)
    for single in differences.singles:
        found = folds.setdefault(path_of(single.name, depth), Fold())
        if single.side == "a":
            found.only_a += 1
        else:
            found.only_b += 1
    return folds


def path_of(name: str, depth: int | None) -> str:
    """The module of a tensor, or the one above it at a depth."""
    return ".".join(name.split(".")[:-1][:depth])


def measures(measure: Measure | None) -> tuple[object, ...]:
    """The values of `MEASURE_COLUMNS`."""
    if measure is None:
        return (None,) * len(MEASURE_COLUMNS)
    return measure.max_abs, measure.max_rel, measure.cosine, measure.max_ulps


def odd(measure: Measure | None) -> tuple[int | None, ...]:
    """The values of `NAN_COLUMNS`."""
    if measure is None:
        return (None,) * len(NAN_COLUMNS)
    return measure.nan_a, measure.nan_b, measure.unlike
