"""The one place that prints: data to stdout, everything else to stderr."""

import os
import sys
from collections.abc import Iterable

from modtool.records import Note
from modtool.render import RENDERERS, clean
from modtool.report.tables import Report

__all__ = ["print_error", "print_note", "show"]


def show(report: Report, form: str, *, as_json: bool = False, no_color: bool = False) -> None:
    """Print a report; a table on a terminal is drawn by rich, in a pipe it is plain text."""
    form = "json" if as_json else form
    if form == "table" and report.text:
        show_text(report.text)
    elif form == "table" and sys.stdout.isatty():
        from modtool.cli.terminal import drawn

        write_out([drawn(report, color=not (no_color or os.environ.get("NO_COLOR")))])
    else:
        write_out(RENDERERS[form](report))
        if form not in ("table", "json"):  # these two say it themselves
            write_out(f"{clean(path)}\n" for path in report.written)
    if form != "json":  # the document holds them already
        for note in report.notes:
            print_note(note)


def write_out(parts: Iterable[str]) -> None:
    """Data, as UTF-8 whatever the locale says."""
    sys.stdout.flush()
    for part in parts:
        sys.stdout.buffer.write(part.encode("utf-8", "backslashreplace"))
    sys.stdout.flush()


def show_text(text: str) -> None:
    """Print a stranger's text to the letter; on a terminal, without what that would obey."""
    if sys.stdout.isatty():
        lines = (clean(line.replace("\t", "    ")) for line in text.splitlines())
        text = "".join(f"{line}\n" for line in lines)
    write_out([text])


def print_note(note: Note) -> None:
    """`warning: unregistered-module: layers: …` on stderr."""
    where = f"{clean(note.where)}: " if note.where else ""
    print(f"{note.level}: {note.code}: {where}{clean(note.message)}", file=sys.stderr)
    if note.remedy:
        print(f"  {clean(note.remedy)}", file=sys.stderr)


def print_error(message: str, hint: str = "") -> None:
    """One or two lines on stderr: what and where, then what to do."""
    first = clean(" ".join(message.split()))
    print(f"error: {first}", file=sys.stderr)
    if hint:
        indent = " " * (len(hint) - len(hint.lstrip(" ")))  # a caret below what it points at
        lines = [clean(" ".join(line.split())) for line in hint.splitlines()]
        print(f"  {indent}{'; '.join(lines)}", file=sys.stderr)
