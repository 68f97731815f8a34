"""`modtool check`: what is wrong or unsafe."""

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from modtool.api.checking import check_all, definition
from modtool.checks import LEVELS, at_or_above
from modtool.checks.records import Checked, Questions
from modtool.checks.selection import Selection, known_code, selection_of
from modtool.cli import options
from modtool.cli.configuration import Configuration, nearest_configuration
from modtool.cli.models import arguments_of
from modtool.cli.progress import progress_bar
from modtool.cli.show import print_error, show, write_out
from modtool.cli.targets import target_or_default
from modtool.cli.tracing import InputFiles, InputFunctions, InputShapes, Keywords
from modtool.errors import UsageError
from modtool.records import Level
from modtool.render import RENDERERS, clean
from modtool.report.findings import check_report, explanation_report, github_lines

__all__ = ["check"]

LevelName = StrEnum("LevelName", {level: level for level in LEVELS})  # type: ignore[misc]
FormatName = StrEnum(  # type: ignore[misc]
    "FormatName", {name: name for name in (*RENDERERS, "github")}
)
TABLE = FormatName("table")
PROCESSES = 8

Targets = Annotated[
    list[str],
    typer.Argument(
        metavar="[TARGET]...",
        help="Checkpoints, of which nothing is executed; folders, which are searched for them; "
        f"models, whose code is run. With none given, {options.MODEL_HELP}.",
        show_default=False,
    ),
]


def codes(name: str, text: str) -> Any:
    """An option that takes codes."""
    return typer.Option(
        name, metavar="CODE", help=f"{text} Repeatable, or by commas.", show_default=False
    )


def check(
    targets: Targets = [],  # noqa: B006
    select: Annotated[
        list[str], codes("--select", "Only findings of this code, or of codes that begin so.")
    ] = [],  # noqa: B006
    ignore: Annotated[
        list[str], codes("--ignore", "No findings of this code, or of codes that begin so.")
    ] = [],  # noqa: B006
    fail_on: Annotated[
        LevelName | None,
        typer.Option(
            "--fail-on",
            help="Exit with 1 at findings of this level or worse: error, warning (the default) "
            "or note.",
            show_default=False,
        ),
    ] = None,
    assertion: Annotated[
        list[str],
        typer.Option(
            "--assert",
            metavar="EXPR",
            help="What is to hold for the keys of count: 'params <= 5M', "
            "'trainable / params < 10%'. Repeatable.",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    values: Annotated[
        bool,
        typer.Option(
            "--values",
            help="Read every element of a checkpoint: NaN, Inf, zeros, copies (of 4 KiB or more), "
            "range.",
        ),
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="Whether load_state_dict of this definition would take the checkpoint.",
        ),
    ] = None,
    explain: Annotated[
        str | None,
        typer.Option("--explain", metavar="CODE", help="Tell why a code matters, and no more."),
    ] = None,
    input_shape: InputShapes = [],  # noqa: B006
    input_file: InputFiles = [],  # noqa: B006
    input_function: InputFunctions = [],  # noqa: B006
    kwarg: Keywords = [],  # noqa: B006
    arg: options.Arguments = [],  # noqa: B006
    args_from: options.ArgumentsFrom = None,
    weights: options.Weights = None,
    device: options.Device = None,
    form: Annotated[
        FormatName,
        typer.Option("--format", help="How to print: table, json, csv, markdown, html, or github."),
    ] = TABLE,
    as_json: options.Json = False,
    no_color: options.NoColor = False,
) -> int:
    """Say what is wrong or unsafe in checkpoints and models.

    Nothing of a checkpoint is executed. Exit code 1 when there are findings (--fail-on), 2 when a
    target could not be checked. [tool.modtool] in the nearest pyproject.toml may have select,
    ignore and fail-on; options on the command line take their place.

    Examples:
      modtool check ckpt.pth --ignore device-location --json
      modtool check checkpoints/ --values --format github
      modtool check model.py --input-shape 32,784 --assert 'params <= 5M'
      modtool check --explain executes-code
    """
    form = FormatName("json") if as_json else form
    if explain is not None:
        show(explanation_report(explained_code(explain)), shown_as(form), no_color=no_color)
        return 0
    configured = nearest_configuration(Path.cwd())
    selection = selected(select, ignore, configured)
    level = failing_level(fail_on, configured)
    arguments = arguments_of(arg, args_from)
    questions = Questions(
        selection=selection,
        assertions=tuple(assertion),
        values=values,
        model=definition(model, arguments) if model is not None else None,
        arguments=arguments,
        weights=weights,
        device=device,
        input_shapes=tuple(input_shape),
        input_values=arguments_of(kwarg, None, dotted=True),
        input_files=tuple(input_file),
        input_functions=tuple(input_function),
    )
    with progress_bar(counting="" if values else "files") as progress:
        results = check_all(
            targets or [target_or_default(None)],
            questions,
            processes=min(os.cpu_count() or 1, PROCESSES),
            progress=progress,
        )
    print_results(results, form, no_color=no_color)
    return exit_code(results, level)


def shown_as(form: str) -> str:
    """The format of what has no annotations."""
    return "table" if form == "github" else form


def explained_code(code: str) -> Any:
    """The explanation of a code; a beginning of one is enough where no other begins so."""
    from modtool.checks.explanations import explained
    from modtool.notes import CODES

    known_code(code)
    found = [known for known in CODES if known.startswith(code)]
    if code not in found and len(found) > 1:
        raise UsageError(f"{code!r} is the beginning of several codes", f"{', '.join(found)}")
    return explained(code if code in found else found[0])


def selected(select: Sequence[str], ignore: Sequence[str], configured: Configuration) -> Selection:
    """Which codes are told: an option takes the place of the setting of its name."""
    settings = selection_of(
        configured.texts("select"), configured.texts("ignore"), configured.source
    )
    given = selection_of(select, ignore)
    return Selection(given.select or settings.select, given.ignore or settings.ignore)


def failing_level(given: LevelName | None, configured: Configuration) -> Level:
    """From which level on findings make the command fail."""
    text = given or configured.text("fail-on") or "warning"
    if text not in LEVELS:
        raise UsageError(
            f"{configured.source}[tool.modtool] fail-on = {text!r}", f"one of {', '.join(LEVELS)}"
        )
    return next(level for level in LEVELS if level == text)


def print_results(results: Sequence[Checked], form: str, *, no_color: bool) -> None:
    """Findings to stdout, what could not be checked to stderr."""
    if form == "github":
        write_out(f"{clean(line)}\n" for line in github_lines(results))
    elif any(each.failure is None for each in results) or form == "json":
        show(check_report(results, flat=form == "csv"), form, no_color=no_color)
    for each in results:
        if each.failure is not None:
            print_error(each.failure.message, each.failure.hint)


def exit_code(results: Sequence[Checked], level: Level) -> int:
    """2 where a target could not be checked, 1 where something was found."""
    if any(each.failure is not None for each in results):
        return 2
    return 1 if any(at_or_above(each.findings, level) for each in results) else 0
