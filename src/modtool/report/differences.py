"""The report of `diff`: what differs in structure, then how far values are apart."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace

from modtool.diffs import Differences, Fit, Pair, Single
from modtool.diffs.structure import is_equal
from modtool.pickles.display import Abridged
from modtool.records import TensorInfo, section_label
from modtool.report.folding import (
    MEASURE_COLUMNS,
    NAN_COLUMNS,
    Rows,
    differing_first,
    fold,
    folded_document,
    measures,
    odd,
)
from modtool.report.tables import Column, Report, Table, Total

__all__ = ["differences_report"]

NAME = Column("name", "name", "dotted name of the tensor, value or module")
STRUCTURE_COLUMNS = (
    NAME,
    Column("difference", "difference", "what kind of difference it is"),
    Column("a", "A", "what A has"),
    Column("b", "B", "what B has"),
)
REASON = Column("reason", "likely because", "why it probably is so")
VALUE_COLUMNS = (Column("name", "values of", "dotted name of the tensor"), *MEASURE_COLUMNS)


def differences_report(
    differences: Differences,
    *,
    depth: int | None = None,
    top: int | None = None,
    flat: bool = False,
) -> Report:
    """What `diff` found.

    Args:
        differences: What differs.
        depth: Fold the table by modules down to this depth.
        top: How many rows a table shows at most; None for all.
        flat: Make one table of everything, as CSV wants it.
    """
    structure = tuple(structure_rows(differences))
    values = value_rows(differences)
    cut: tuple[Rows, ...] = structure, values
    whole = None if depth is None else fold(differences, depth)
    if whole is not None:
        cut = whole.rows, tuple(rows_beside_tensors(differences))

    def tables() -> tuple[Table, ...]:
        if whole is not None:
            folded = whole if flat else replace(whole, rows=differing_first(whole.rows, top))
            beside = structure_table(cut[1][:top])
            return (folded, beside) if beside.rows and not flat else (folded,)
        if flat:
            return (flat_table(structure, values),)
        both = structure_table(structure[:top]), value_table(values[:top])
        return tuple(table for table in both if table.rows)

    hidden = 0
    if top is not None and not flat:
        hidden = sum(max(0, len(rows) - top) for rows in cut)
    more = (f"{hidden:,} more row{'s' * (hidden > 1)}: --top 0 shows all",) if hidden else ()
    return Report(
        lambda: document(differences, depth),
        tables,
        totals=tuple(totals(differences)),
        notes=differences.notes,
        sentences=(*more, *advice(differences)),
    )


# -- structure ---------------------------------------------------------------------------------


def structure_rows(differences: Differences) -> Iterator[tuple[object, ...]]:
    """Name, kind of difference, A, B and likely reason, for all but values."""
    for pair in differences.pairs:
        for field in pair.differs:
            a, b = said(pair.a, field), said(pair.b, field)
            yield row_name(pair.name), field, a, b, pair.reason
        if pair.verdict == "different" and pair.measure is None:
            yield row_name(pair.name), "bytes", said(pair.a, "dtype"), said(pair.b, "dtype"), ""
    kept = differences.fit.model if differences.fit is not None else "a"
    for single in differences.singles:
        if single.likely is not None and single.side != kept:
            continue  # the row of what it is likely called on the other side says it
        here, there = described(single.tensor), single.likely and f"likely {single.likely}"
        a, b = (here, there) if single.side == "a" else (there, here)
        yield row_name(single.name), kind_of(single, differences.fit), a, b, single.reason
    yield from rows_beside_tensors(differences)


def row_name(name: str) -> str:
    """How a table names a tensor; the only one of a file has no name."""
    return name or "(the tensor)"


def rows_beside_tensors(differences: Differences) -> Iterator[tuple[object, ...]]:
    """The same for ties, plain values and modules."""
    for tie in differences.ties:
        words = "tied", "separate"
        yield (", ".join(tie.names), "tied", *(words if tie.side == "a" else words[::-1]), "")
    for change in differences.values:
        a, b = (shown(item) for item in (change.a, change.b))
        kind = "value" if len(change.sides) == 2 else f"value only in {change.sides[0].upper()}"
        sides, reason = change.sides, ""
        if differences.fit is not None:
            kind, reason = "unexpected", "a plain value among the tensors"
            if sides == (differences.fit.model,):
                kind, reason = "missing", ""
                a = b = "an extra state"
        if len(sides) == 2 and a == b:
            kind = f"value {apart(change.a, change.b)}"
        yield change.name, kind, a if "a" in sides else None, b if "b" in sides else None, reason
    for module in differences.modules:
        yield module.path, "module", module.a, module.b, ""


def apart(a: object, b: object) -> str:
    """Where two values differ that look the same as far as they are shown."""
    if isinstance(a, Abridged):
        return "beyond what is shown"
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        a, b = list(a.items()), list(b.items())
    if isinstance(a, Sequence) and isinstance(b, Sequence):
        known: dict[tuple[int, int], bool] = {}
        pairs = enumerate(zip(a, b, strict=False))
        first = next((i for i, pair in pairs if not is_equal(*pair, known)), min(len(a), len(b)))
        return f"from {'character' if isinstance(a, str) else 'item'} [{first:,}] on"
    return "of another type"


def kind_of(single: Single, fit: Fit | None) -> str:
    """How it is called that only one side has a tensor."""
    if fit is None:
        return f"only in {single.side.upper()}"
    return "missing" if single.side == fit.model else "unexpected"


def said(tensor: TensorInfo, field: str) -> object:
    """What a tensor has for a field."""
    if field == "device":
        return tensor.location
    if field == "dtype" and tensor.layout != "strided":
        return f"{tensor.dtype} ({tensor.layout})"
    value: object = getattr(tensor, field)
    return value


def described(tensor: TensorInfo) -> str:
    """Its type and shape."""
    return f"{tensor.dtype} {list(tensor.shape)}"


def shown(value: object) -> str:
    """A plain value, so that 1, 1.0 and '1' are told apart."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def structure_table(rows: Rows) -> Table:
    """The table of all but values; the reason has a column only where one is known."""
    if any(row[-1] for row in rows):
        return Table((*STRUCTURE_COLUMNS, REASON), rows)
    return Table(STRUCTURE_COLUMNS, tuple(row[:-1] for row in rows))


# -- values ------------------------------------------------------------------------------------


def value_rows(differences: Differences) -> Rows:
    """Name, measures and odd elements of all tensors whose values differ, farthest first."""
    found = [
        (row_name(pair.name), *measures(pair.measure), *odd(pair.measure))
        for pair in differences.pairs
        if pair.verdict == "different" and pair.measure is not None
    ]
    return tuple(sorted(found, key=farthest_first))


def farthest_first(row: tuple[object, ...]) -> tuple[object, ...]:
    """What rows of values are sorted by."""
    largest, unlike = row[1], row[-1]
    assert isinstance(largest, float | int)
    assert isinstance(unlike, int)
    return not unlike, -largest


def value_table(rows: Rows) -> Table:
    """The table of values; odd elements have columns only where there are any."""
    if any(any(row[-3:]) for row in rows):
        return Table((*VALUE_COLUMNS, *NAN_COLUMNS), rows)
    return Table(VALUE_COLUMNS, tuple(row[:-3] for row in rows))


def flat_table(structure: Rows, values: Rows) -> Table:
    """Everything under one head."""
    columns = (*STRUCTURE_COLUMNS, REASON, *MEASURE_COLUMNS, *NAN_COLUMNS)
    nothing = (None,) * (len(MEASURE_COLUMNS) + len(NAN_COLUMNS))
    rows = [(*row, *nothing) for row in structure]
    rows += [(row[0], "values", None, None, "", *row[1:]) for row in values]
    return Table(columns, tuple(rows))


# -- the rest ----------------------------------------------------------------------------------


def totals(differences: Differences) -> Iterator[Total]:
    """The closing line."""
    pairs, singles = differences.pairs, differences.singles
    yield Total("in both", len(pairs))
    if differences.compared:
        for verdict in ("equal", "close", "different"):
            count = sum(pair.verdict == verdict for pair in pairs)
            if verdict != "close" or differences.tolerance is not None:
                yield Total(verdict, count)
        unknown = sum(pair.verdict == "unknown" for pair in pairs)
        if unknown:
            yield Total("not compared", unknown)
    fit = differences.fit
    if fit is not None:
        yield Total("missing", fit.missing)
        yield Total("unexpected", fit.unexpected)
        yield Total("mismatched", fit.mismatched)
        return
    yield Total("other structure", sum(bool(pair.differs) for pair in pairs))
    yield Total("only in A", sum(single.side == "a" for single in singles))
    yield Total("only in B", sum(single.side == "b" for single in singles))


def advice(differences: Differences) -> Iterator[str]:
    """What it amounts to, and what to type."""
    for renaming in differences.renamings:
        why = f" ({renaming.reason})" if renaming.reason else ""
        yield (
            f"names were likely changed{why}: {renaming.option} {quoted(renaming.value)} "
            f"brings {renaming.tensors:,} together"
        )
    if differences.fit is not None:
        yield from fit_advice(differences.fit)
    elif differences.same:
        yield f"no differences{extent(differences)}"


def fit_advice(fit: Fit) -> Iterator[str]:
    """Whether it would load, and what would help."""
    if fit.section is not None:
        part = section_label(fit.section)
        yield f"the weights lie in the section {part}, which load_state_dict is to be given"
    if fit.whole:
        yield "the file holds a whole model, whose state_dict() load_state_dict is to be given"
    if fit.loads:
        yield "load_state_dict would take it"
    else:
        yield "load_state_dict would refuse it"
    if fit.fix is not None and not fit.loads:
        rest = "what fits" if fit.fixed else "what fits better, with strict=False"
        yield f"{rest}: {fit.fix}"
    elif fit.fix is None and fit.unexpected and not (fit.missing or fit.mismatched):
        yield "with strict=False it takes the rest, and leaves out what is unexpected"
    elif fit.fix is not None:
        yield f"{'the state_dict' if fit.whole else 'the section'} alone: {fit.fix}"


def extent(differences: Differences) -> str:
    """How far the comparison went."""
    if not differences.compared:
        return " in structure; values were not compared"
    if differences.tolerance is None:
        return ""
    return f" beyond atol {differences.tolerance.atol:g} and rtol {differences.tolerance.rtol:g}"


def quoted(text: str) -> str:
    """A word as a shell takes it."""
    from shlex import quote

    return quote(text)


# -- JSON --------------------------------------------------------------------------------------


def document(differences: Differences, depth: int | None) -> Mapping[str, object]:
    """The whole, for programs."""
    pairs, singles, fit = differences.pairs, differences.singles, differences.fit
    tolerance = differences.tolerance
    verdicts = {
        verdict: sum(pair.verdict == verdict for pair in pairs)
        for verdict in ("equal", "close", "different", "unknown")
    }
    return {
        "a": differences.targets["a"],
        "b": differences.targets["b"],
        "same": differences.same,
        "values_compared": differences.compared,
        "tolerance": None if tolerance is None else asdict(tolerance),
        "tensors": {"both": len(pairs), **verdicts},
        "only_a": [single_document(each) for each in singles if each.side == "a"],
        "only_b": [single_document(each) for each in singles if each.side == "b"],
        "differing": [
            pair_document(pair) for pair in pairs if not pair.is_same or pair.verdict == "close"
        ],
        "ties": [{"names": list(tie.names), "only_in": tie.side} for tie in differences.ties],
        "values": [asdict(change) for change in differences.values],
        "modules": [asdict(change) for change in differences.modules],
        "by_module": folded_document(differences, depth),
        "renamings": [asdict(renaming) for renaming in differences.renamings],
        "load": None if fit is None else {**asdict(fit), "loads": fit.loads},
        "notes": [asdict(note) for note in differences.notes],
    }


def single_document(single: Single) -> dict[str, object]:
    """A tensor that one side has."""
    tensor = single.tensor
    return {
        "name": single.name,
        "dtype": tensor.dtype,
        "shape": tensor.shape,
        "likely": single.likely,
        "reason": single.reason or None,
    }


def pair_document(pair: Pair) -> dict[str, object]:
    """A tensor that both have and that differs."""
    keys = [column.key for column in (*MEASURE_COLUMNS, *NAN_COLUMNS)]
    found: tuple[object, ...] = (None,) * len(keys)
    if pair.measure is not None:
        found = (*measures(pair.measure), *odd(pair.measure))
    return {
        "name": pair.name,
        "differs": list(pair.differs),
        "a": side_document(pair.a),
        "b": side_document(pair.b),
        "values": pair.verdict,
        **dict(zip(keys, found, strict=True)),
        "reason": pair.reason or None,
    }


def side_document(tensor: TensorInfo) -> dict[str, object]:
    """One side of a tensor."""
    return {
        "dtype": tensor.dtype,
        "shape": tensor.shape,
        "device": tensor.location,
        "requires_grad": tensor.requires_grad,
    }
