"""Reports on a terminal, drawn by rich: fitted to its width, numbers aligned, a little colour."""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
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
        for part in parts(sheet(table), usual.width) if table.rows else ():
            floors = next((each for each in FLOORS if least(part, each) <= usual.width), FLOORS[0])
            wide = console(width=max(usual.width, least(part, floors)))
            wide.print(rich_table(part, wide.width, floors))
            usual.print()
    for sentence in report.sentences:
        usual.print(Text(clean(sentence), style="dim"))
    usual.print(Text(totals_text(report), style="bold"))
    for path in report.written:
        usual.print(Text(path), soft_wrap=True)
    return text.getvalue()


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table as text, column by column.

    Attributes:
        title: Stands above it.
        columns: What they are.
        texts: The cells of each.
        longest: How wide each is when nothing in it is folded.
        whole: Whether it never is: figures, and lists with a figure beside each element.
    """

    title: str | None
    columns: tuple[Column, ...]
    texts: tuple[list[str], ...]
    longest: tuple[int, ...]
    whole: tuple[bool, ...]


def sheet(table: Table) -> Sheet:
    """A table as text."""
    texts = tuple(
        [cell_text(row[index], column) for row in table.rows]
        for index, column in enumerate(table.columns)
    )
    longest = tuple(
        longest_line([column.title, *each])
        for column, each in zip(table.columns, texts, strict=True)
    )
    columns = table.columns
    figures = [each for each, column in zip(texts, columns, strict=True) if column.unit == "number"]
    beside = any("\n" in text for each in figures for text in each)
    whole = tuple(each.unit in RIGHT or (beside and each.key in LISTS) for each in columns)
    return Sheet(table.title, columns, texts, longest, whole)


def longest_line(texts: list[str]) -> int:
    """How many characters the longest line of some texts has."""
    return max(len(line) for text in texts for line in text.split("\n"))


def parts(whole: Sheet, width: int) -> Iterator[Sheet]:
    """A table; where it is too wide, one after the other, each with the first column and others."""
    while len(whole.columns) > 2 and least(whole, FLOORS[-1]) > width:
        counts = range(len(whole.columns) - 1, 1, -1)
        few = next((each for each in counts if least(cut(whole, 1, each), FLOORS[0]) <= width), 2)
        yield cut(whole, 1, few)
        whole = cut(whole, few, len(whole.columns))
    yield whole


def cut(whole: Sheet, start: int, stop: int) -> Sheet:
    """The first column of a table, and some of the others."""
    return Sheet(
        whole.title,
        (whole.columns[0], *whole.columns[start:stop]),
        (whole.texts[0], *whole.texts[start:stop]),
        (whole.longest[0], *whole.longest[start:stop]),
        (whole.whole[0], *whole.whole[start:stop]),
    )


def least(part: Sheet, floors: tuple[int, int], *, words: bool = False) -> int:
    """What a table needs when its names are folded.

    Args:
        part: The table.
        floors: How far they are, see `FLOORS`.
        words: Whether what is a word stays whole.
    """
    total = 2 * (len(part.columns) - 1)
    for column, longest, whole in zip(part.columns, part.longest, part.whole, strict=True):
        stays = whole or (words and column.unit == "word")
        total += longest if stays else min(longest, floors[column.unit == "tree"])
    return total


# How wide a column of text stays, and one that is a tree: where there is room, and where not.
FLOORS = ((16, 24), (12, 24), (12, 18), (10, 16))


def rich_table(part: Sheet, width: int, floors: tuple[int, int] = FLOORS[0]) -> RichTable:
    """One table; names give way before lists do, and numbers are never cut."""
    made = RichTable(
        title=part.title,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        header_style="dim",
    )
    words = least(part, floors, words=True) <= width
    shown: list[list[str]] = []
    for column, texts, whole in zip(part.columns, part.texts, part.whole, strict=True):
        is_tree = column.unit == "tree"
        if is_tree:
            room = max(width - without_tree(part), floors[True])
            texts = ["\n".join(tree_lines(text, room)) for text in texts]
        made.add_column(
            column.title,
            justify="right" if column.unit in RIGHT else "left",
            no_wrap=whole or (words and column.unit == "word"),
            overflow="fold",
            width=longest_line([column.title, *texts]) if is_tree else None,
        )
        shown.append(texts)
    for row in zip(*shown, strict=True):
        made.add_row(*map(cell, row, part.columns))
    return made


def without_tree(part: Sheet) -> int:
    """What all columns take that are no tree, with the gaps between them."""
    columns = zip(part.columns, part.longest, strict=True)
    return sum(longest + 2 for column, longest in columns if column.unit != "tree")


def cell_text(value: object, column: Column) -> str:
    """The text of a cell; a list of shapes, or of what goes with them, has a line for each."""
    text = value_text(value, column.unit)
    if column.unit == "number":
        return text.replace(", ", "\n")
    return text.replace("], ", "]\n") if column.key in LISTS else text


LISTS = frozenset({"shape", "inputs", "outputs", "gradients"})


def cell(text: str, column: Column) -> Text:
    """One cell; in the tree, class names stand out."""
    made = Text(text)
    if column.unit == "tree":
        made.highlight_regex(r"\w+(?=\()", style="cyan")
    elif text in ("0", "–", "0 B"):
        made.stylize("dim")
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
