"""What a training checkpoint holds beside the model: its parts, and plain values."""

from modtool.records import Checkpoint, section_label
from modtool.report.tables import Column, Table
from modtool.report.totals import sections_document

__all__ = ["section_tables", "value_tables"]

MAX_VALUES = 20

SECTION_COLUMNS = (
    Column("section", "section", "name of the part"),
    Column("role", "role", "what it is"),
    Column("tensors", "tensors", "how many tensors it has", "count"),
    Column("bytes", "bytes", "their bytes", "bytes"),
)
VALUE_COLUMNS = (
    Column("value", "value", "dotted name of the value"),
    Column("is", "is", "what it is"),
)


def section_tables(checkpoint: Checkpoint) -> tuple[Table, ...]:
    """One table of the sections, where there are any."""
    if not checkpoint.sections:
        return ()
    rows = tuple(
        (section_label(str(name)), *figures)
        for name, *figures in (part.values() for part in sections_document(checkpoint))
    )
    return (Table(SECTION_COLUMNS, rows, "sections"),)


def value_tables(checkpoint: Checkpoint) -> tuple[Table, ...]:
    """One table of plain values and metadata, those a user set first, and how many more."""
    values = {**checkpoint.metadata, **checkpoint.values}
    if not values:
        return ()
    internal = internal_parts(checkpoint)
    names = sorted(values, key=lambda name: place_among_values(name, internal))
    rows: list[tuple[object, ...]] = [(name, brief(values[name])) for name in names[:MAX_VALUES]]
    if len(names) > MAX_VALUES:
        rows.append(("…", f"{len(names) - MAX_VALUES:,} more: --json shows all"))
    return (Table(VALUE_COLUMNS, tuple(rows), "values"),)


def internal_parts(checkpoint: Checkpoint) -> frozenset[str]:
    """The parts whose values a trainer keeps for itself, to go on from there."""
    return LIGHTNING_PARTS.union(
        section.name for section in checkpoint.sections if section.role in TRAINING_ROLES
    )


LIGHTNING_PARTS = frozenset({"loops", "callbacks"})  # of its `dump_checkpoint`
TRAINING_ROLES = frozenset({"optimizer", "scheduler", "scaler"})


def place_among_values(name: str, internal: frozenset[str]) -> tuple[bool, bool, int]:
    """Where a value stands: what is internal last, learning rates first of it; outer ones first."""
    inside = lies_in(name, internal)
    return inside, inside and not name.endswith(".lr"), name.count(".")


def lies_in(name: str, parts: frozenset[str]) -> bool:
    """True where one of the parts holds the value of a dotted name."""
    dot = name.find(".")
    while dot >= 0:
        if name[:dot] in parts:
            return True
        dot = name.find(".", dot + 1)
    return False


def brief(value: object) -> str:
    """A value on one line."""
    text = str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
