"""Differences by module: the tensors below one name, added up."""

from dataclasses import dataclass

from modtool.diff import Differences, Measure, Pair
from modtool.report.tables import Column, Table

__all__ = ["MEASURE_COLUMNS", "fold", "folded_document", "measures"]

MEASURE_COLUMNS = (
    Column("max_abs", "max abs", "largest |a - b|", "number"),
    Column("max_rel", "max rel", "largest |a - b| / max(|a|, |b|)", "number"),
    Column("cosine", "cosine", "cosine of the angle between the two", "number"),
    Column("max_ulps", "ULPs", "most representable numbers between two elements", "number"),
)
COUNT_COLUMNS = (
    Column("module", "module", "dotted name of the module"),
    Column("tensors", "tensors", "names that either side has below it", "count"),
    Column("same", "same", "tensors in which nothing differs", "count"),
    Column("differ", "differ", "tensors that differ", "count"),
    Column("only_a", "only A", "tensors that only A has", "count"),
    Column("only_b", "only B", "tensors that only B has", "count"),
)


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
        """Counts, then measures."""
        counts = (self.same, self.differ, self.only_a, self.only_b)
        return (sum(counts), *counts, *measures(self.measure))


def fold(differences: Differences, depth: int) -> Table:
    """A row for every module down to a depth; measures only where values were compared."""
    folds = folded(differences, depth)
    measured = any(each.measure is not None for each in folds.values())
    columns = (*COUNT_COLUMNS, *(MEASURE_COLUMNS if measured else ()))
    rows = ((path or "(all)", *each.row)[: len(columns)] for path, each in folds.items())
    return Table(columns, tuple(rows))


def folded_document(differences: Differences, depth: int | None) -> list[dict[str, object]]:
    """The same for programs; without a depth, every module that owns tensors."""
    keys = [column.key for column in (*COUNT_COLUMNS, *MEASURE_COLUMNS)]
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
