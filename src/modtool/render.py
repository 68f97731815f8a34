"""Reports as text. Every renderer gives the parts of a report's text; `RENDERERS` lists them.

Names in files are strangers' text: whatever a terminal could take for a command is made visible.
"""

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

from modtool.report.tables import Column, Report, Table, Unit

__all__ = ["RENDERERS", "bytes_text", "clean", "totals_text", "value_text"]

SCHEMA = 1
SIZES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
TIMES = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))
ROWS = 1000
RIGHT: frozenset[Unit] = frozenset({"count", "bytes", "number", "seconds"})


# -- values ------------------------------------------------------------------------------------


def clean(text: str) -> str:
    """Text that a terminal prints and does not obey: control characters and surrogates escaped."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def bytes_text(size: int) -> str:
    """`918.5 KiB`; bytes below one KiB are exact."""
    amount = float(size)
    for unit in SIZES:
        if amount < 1024 or unit == SIZES[-1]:
            return f"{size:,} B" if unit == "B" else f"{amount:,.1f} {unit}"
        amount /= 1024
    raise AssertionError


def seconds_text(seconds: float) -> str:
    """`68.5 µs`, `3.21 ms`, `1.5 s`: three digits that count."""
    unit, size = next((each for each in TIMES if seconds >= each[1]), TIMES[-1])
    return f"{float(f'{seconds / size:.3g}'):,g} {unit}"


def value_text(value: object, unit: Unit) -> str:
    """One value as a person reads it; what is not known is a dash."""
    if isinstance(value, str):
        return clean(value)
    if value is None:
        return "–"
    if unit == "tree" and isinstance(value, tuple):
        depth, label = value
        return f"{'  ' * depth}{clean(str(label))}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and unit == "bytes":
        return bytes_text(value)
    if isinstance(value, int) and unit == "count":
        return f"{value:,}"
    if isinstance(value, float):
        return seconds_text(value) if unit == "seconds" else f"{value:.4g}"
    if isinstance(value, tuple):
        return str(list(value))
    return clean(str(value))


def raw_text(value: object) -> str:
    """One value as a program reads it, for CSV: no units, no grouping, empty where unknown."""
    if value is None:
        return ""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], str):
        value = value[1]  # a place in a tree is its label
    return clean(str(list(value)) if isinstance(value, tuple) else str(value))


def totals_text(report: Report) -> str:
    """The closing line: `parameters 235,146   trainable 235,146 …`."""
    parts = [f"{total.label} {value_text(total.value, total.unit)}" for total in report.totals]
    return "   ".join(parts)


# -- renderers ---------------------------------------------------------------------------------


def render_json(report: Report) -> Iterator[str]:
    """One strict JSON document on one line: ASCII, no NaN, no lone surrogates."""
    mark = "{"
    for key, value in {"schema": SCHEMA, **report.document}.items():
        yield f"{mark}{json.dumps(key)}: "
        yield from json_parts(value)
        mark = ", "
    yield "}\n"


def json_parts(value: object) -> Iterator[str]:
    """A value as JSON; a long list in parts, so that its text is never in memory as a whole."""
    if not isinstance(value, list) or len(value) <= ROWS:
        yield json_text(value)
        return
    for start in range(0, len(value), ROWS):
        yield ", " if start else "["
        yield json_text(value[start : start + ROWS])[1:-1]
    yield "]"


def json_text(value: object) -> str:
    """A value as JSON."""
    try:
        # A document holds nothing that contains itself: what does in a file, is cut there.
        text = json.dumps(value, default=json_value, allow_nan=False, check_circular=False)
    except ValueError:
        text = ""
    if not text or "\\ud" in text:  # perhaps half of a surrogate pair, which is no JSON text
        text = json.dumps(strict(value), allow_nan=False)
    return text


def json_value(value: object) -> object:
    """Values that `json` does not know."""
    return list(value) if isinstance(value, set | frozenset) else clean(str(value))


def strict(value: object) -> object:
    """The same value with non-finite numbers as null and lone surrogates escaped."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, Mapping):
        return {str(strict(str(key))): strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [strict(item) for item in value]
    return value if value is None or isinstance(value, int) else strict(str(value))


def render_csv(report: Report) -> Iterator[str]:
    """The main table as CSV (RFC 4180), with raw numbers."""
    import csv

    stream = io.StringIO()
    writer = csv.writer(stream)
    tables = report.tables
    if tables:
        table = tables[0]
        writer.writerow(column.key for column in table.columns)
        writer.writerows([raw_text(value) for value in row] for row in table.rows)
    else:
        writer.writerow(total.label for total in report.totals)
        writer.writerow(raw_text(total.value) for total in report.totals)
    yield stream.getvalue()


def render_markdown(report: Report) -> Iterator[str]:
    """Tables as GitHub reads them, and the closing line."""
    blocks = [markdown_table(table) for table in report.tables]
    blocks += [*report.sentences, totals_text(report)]
    yield "\n\n".join(block for block in blocks if block) + "\n"


def markdown_table(table: Table) -> str:
    """One table; bars inside cells are escaped, indentation is kept."""
    heads = [column.title for column in table.columns]
    rules = ["---:" if column.unit in RIGHT else "---" for column in table.columns]
    rows = [heads, rules] + [
        [markdown_cell(value, column) for value, column in zip(row, table.columns, strict=True)]
        for row in table.rows
    ]
    title = f"**{table.title}**\n\n" if table.title else ""
    return title + "\n".join(f"| {' | '.join(row)} |" for row in rows)


def markdown_cell(value: object, column: Column) -> str:
    """One cell; what Markdown would take for markup is escaped."""
    text = value_text(value, column.unit)
    indent = len(text) - len(text.lstrip(" "))
    escaped = text.lstrip(" ")
    for character in "\\|*_`<>[]":
        escaped = escaped.replace(character, "\\" + character)
    return "&nbsp;" * indent + escaped


def render_html(report: Report) -> Iterator[str]:
    """A fragment of HTML: one `table` element each, and the closing line."""
    blocks = [html_table(table) for table in report.tables]
    blocks += [f"<p>{html_escape(line)}</p>" for line in (*report.sentences, totals_text(report))]
    yield "\n".join(blocks) + "\n"


def html_table(table: Table) -> str:
    """One table; text is escaped, indentation is padding."""
    caption = f"<caption>{html_escape(table.title)}</caption>" if table.title else ""
    head = "".join(f"<th>{html_escape(column.title)}</th>" for column in table.columns)
    rows = "\n".join(
        "<tr>" + "".join(map(html_cell, row, table.columns)) + "</tr>" for row in table.rows
    )
    return f"<table>{caption}\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table>"


def html_cell(value: object, column: Column) -> str:
    """One cell, numbers to the right."""
    text = value_text(value, column.unit)
    style = ' style="text-align:right"' if column.unit in RIGHT else ""
    indent = len(text) - len(text.lstrip(" "))
    if indent:
        style = f' style="padding-left:{indent}ch"'
    return f"<td{style}>{html_escape(text.lstrip(' '))}</td>"


def html_escape(text: str) -> str:
    """Text as HTML shows it."""
    from html import escape

    return escape(clean(text))


def render_plain(report: Report) -> Iterator[str]:
    """Aligned columns without colour or frame, for pipes."""
    blocks = ["\n".join(plain_table(table)) for table in report.tables if table.rows]
    blocks += ["\n".join(map(clean, report.sentences)), totals_text(report)]
    blocks += ["\n".join(report.written)]
    yield "\n\n".join(block for block in blocks if block) + "\n"


def plain_table(table: Table) -> list[str]:
    """The lines of one table, each column as wide as its widest cell."""
    last = len(table.columns) - 1
    columns = [
        plain_column(column, [row[index] for row in table.rows], is_last=index == last)
        for index, column in enumerate(table.columns)
    ]
    lines = ["  ".join(parts).rstrip() for parts in zip(*columns, strict=True)]
    return [*([table.title] if table.title else []), *lines]


def plain_column(column: Column, values: Sequence[object], *, is_last: bool) -> list[str]:
    """The title, a rule and the cells of one column: numbers to the right, the rest to the left."""
    texts = [column.title, *(value_text(value, column.unit) for value in values)]
    width = max(map(len, texts))
    right = column.unit in RIGHT
    # Nothing follows the last column that would have to be aligned.
    rule = "─" * (len(column.title) if is_last and not right else width)
    padded = [text.rjust(width) if right else text.ljust(width) for text in texts]
    return [padded[0], rule, *padded[1:]]


RENDERERS: Mapping[str, Callable[[Report], Iterator[str]]] = MappingProxyType(
    {
        "table": render_plain,
        "json": render_json,
        "csv": render_csv,
        "markdown": render_markdown,
        "html": render_html,
    }
)
