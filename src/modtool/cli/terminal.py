"""Reports on a terminal, drawn by rich: fitted to its width, numbers aligned, a little colour."""

import io
import re
from functools import partial
from textwrap import wrap

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from modtool.render import RIGHT, clean, totals_text, value_text
from modtool.report.tables import Column, Report, Table

__all__ = ["drawn"]


def drawn(report: Report, *, color: bool) -> str:
    """The tables, then the closing line; without colour there is no escape sequence in it."""
    text = io.StringIO()
    console = partial(
        Console,
        file=text,
        force_terminal=color,
        color_system="auto" if color else None,
        highlight=False,
    )
    usual = console()
    for table in report.tables:
        if table.rows:
            wide = console(width=max(usual.width, least_width(table)))
            wide.print(rich_table(table, wide.width))
            usual.print()
    for sentence in report.sentences:
        usual.print(Text(clean(sentence), style="dim"))
    usual.print(Text(totals_text(report), style="bold"))
    for path in report.written:
        usual.print(Text(path), soft_wrap=True)
    return text.getvalue()


def least_width(table: Table, *, words: bool = False) -> int:
    """What a table needs when its names are folded: where even that is too much, lines run on.

    Args:
        table: Any table.
        words: Whether what is a word stays whole.
    """
    total = 2 * (len(table.columns) - 1)
    for index, column in enumerate(table.columns):
        texts = [column.title, *(cell_text(row[index], column) for row in table.rows)]
        longest = max(len(line) for text in texts for line in text.split("\n"))
        whole = column.unit in RIGHT or (words and column.unit == "word")
        total += longest if whole else min(longest, FOLDED[column.unit == "tree"])
    return total


# How wide a column of text stays, and one that is a tree.
FOLDED = (16, 24)


def rich_table(table: Table, width: int) -> RichTable:
    """One table; names give way before lists do, and numbers are never cut."""
    made = RichTable(
        title=table.title,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        header_style="dim",
    )
    words = least_width(table, words=True) <= width
    for column in table.columns:
        right = column.unit in RIGHT
        whole = right or (words and column.unit == "word")
        made.add_column(
            column.title, justify="right" if right else "left", no_wrap=whole, overflow="fold"
        )
    cells = [
        [cell_text(value, column) for value, column in zip(row, table.columns, strict=True)]
        for row in table.rows
    ]
    room = tree_width(table, cells, width)
    for row in cells:
        made.add_row(
            *(cell(text, column, room) for text, column in zip(row, table.columns, strict=True))
        )
    return made


def cell_text(value: object, column: Column) -> str:
    """The text of a cell; a list of shapes has a line for each."""
    text = value_text(value, column.unit)
    return text.replace("], ", "]\n") if column.key in LISTS else text


LISTS = frozenset({"shape", "inputs", "outputs", "gradients"})


def tree_width(table: Table, cells: list[list[str]], width: int) -> int:
    """What is left of the terminal for the column that is a tree."""
    others = 0
    for index, column in enumerate(table.columns):
        if column.unit != "tree":
            lines = [line for row in cells for line in row[index].split("\n")]
            others += max(map(len, [column.title, *lines])) + 2
    return max(width - others, FOLDED[True])


def cell(text: str, column: Column, room: int) -> Text:
    """One cell; in the tree, class names stand out and long settings hang below the name."""
    if column.unit != "tree":
        made = Text(text)
        if text in ("0", "–", "0 B"):
            made.stylize("dim")
        return made
    made = Text("\n".join(tree_lines(text, room)))
    made.highlight_regex(r"\w+(?=\()", style="cyan")
    return made


def tree_lines(text: str, room: int) -> list[str]:
    """A label of the tree, broken after the class's parenthesis or between settings."""
    if len(text) <= room:
        return [text]
    label = text.lstrip(" ")
    indent = " " * (len(text) - len(label))
    label = re.sub(r"(?<==)\([^()]*\)", lambda value: value[0].replace(" ", NO_BREAK), label)
    label = re.sub(r"(?<=\w)\(", f"({BREAK} ", label, count=1)
    lines = wrap(label, room, initial_indent=indent, subsequent_indent=indent + "    ")
    return [
        line.replace(f"{BREAK} ", "").replace(BREAK, "").replace(NO_BREAK, " ") for line in lines
    ]


# Neither stands in a label: names are cleaned of what does not print.
BREAK, NO_BREAK = "\0", "\xa0"
