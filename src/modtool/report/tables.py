"""The nouns of a report: columns, tables of raw values, totals. Text is the renderer's business."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from modtool.records import Note

__all__ = ["Column", "Report", "Table", "Total", "Unit"]

Unit = Literal["text", "word", "tree", "count", "bytes", "shape", "flag", "number", "seconds"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `key` names it in `--columns`, `unit` says how its values are written.

    A `word` is text that is typed again, a code: it is not broken where there is room for it.
    """

    key: str
    title: str
    help: str
    unit: Unit = "text"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of raw values under columns; `title` is None for the main table."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[object, ...], ...]
    title: str | None = None


@dataclass(frozen=True, slots=True)
class Total:
    """One figure of the closing line."""

    label: str
    value: object
    unit: Unit = "count"


@dataclass(frozen=True, slots=True)
class Report:
    """What a command has to say. What is not shown is not computed: the parts are functions.

    Attributes:
        build_document: Makes the JSON document, without its `schema` key.
        build_tables: Makes what a person reads; the first table is the one that CSV holds.
        totals: The closing line.
        notes: What goes to stderr.
        sentences: Lines between the tables and the totals.
        written: Paths, which a table ends with.
        text: A stranger's text, shown to the letter in place of tables.
    """

    build_document: Callable[[], Mapping[str, object]]
    build_tables: Callable[[], tuple[Table, ...]] = tuple
    totals: tuple[Total, ...] = ()
    notes: tuple[Note, ...] = ()
    sentences: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    text: str = ""

    @property
    def document(self) -> Mapping[str, object]:
        """The JSON document, without its `schema` key."""
        return self.build_document()

    @property
    def tables(self) -> tuple[Table, ...]:
        """What a person reads; the first table is the one that CSV holds."""
        return self.build_tables()
