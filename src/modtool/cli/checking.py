"""`modtool check`: what is wrong or unsafe."""

from enum import StrEnum
from typing import Annotated

import typer

from modtool.api import checking
from modtool.checks import LEVELS, at_or_above
from modtool.cli import options
from modtool.cli.show import show
from modtool.report.findings import check_report

__all__ = ["check"]

LevelName = StrEnum("LevelName", {level: level for level in LEVELS})  # type: ignore[misc]
WARNING = LevelName("warning")


def check(
    source: options.Checkpoint,
    select: Annotated[
        list[str],
        typer.Option(
            "--select",
            metavar="CODE",
            help="Only findings of this code, or of codes that begin so. Repeatable.",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    ignore: Annotated[
        list[str],
        typer.Option(
            "--ignore",
            metavar="CODE",
            help="No findings of this code. Repeatable.",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    fail_on: Annotated[
        LevelName,
        typer.Option("--fail-on", help="Exit with 1 at findings of this level or worse."),
    ] = WARNING,
    form: options.Format = options.TABLE,
    as_json: options.Json = False,
    no_color: options.NoColor = False,
) -> int:
    """Say what is wrong or unsafe, and what a real load would run.

    Nothing is executed to find out. Exit code 1 when there are findings.

    Examples:
      modtool check ckpt.pth
      modtool check ckpt.pth --ignore device-location --json
    """
    checked = checking.check(source, select=select, ignore=ignore)
    report = check_report(checked.checkpoint, checked.findings)
    show(report, form, as_json=as_json, no_color=no_color)
    return 1 if at_or_above(checked.findings, LEVELS[list(LevelName).index(fail_on)]) else 0
