"""`modtool diff`: what differs between two checkpoints, or a checkpoint and a model."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from modtool.api import diffing
from modtool.cli import options
from modtool.cli.models import arguments_of
from modtool.cli.progress import progress_bar
from modtool.cli.show import show
from modtool.diffs import IGNORABLE, Tolerance
from modtool.errors import UsageError
from modtool.report.differences import differences_report

__all__ = ["diff"]

IgnoreName = StrEnum("IgnoreName", {name: name for name in IGNORABLE})  # type: ignore[misc]


def side(name: str) -> Any:
    """The argument that names one side."""
    return typer.Argument(
        metavar=name,
        help="A checkpoint, which is never executed, or a model, whose code is run.",
        show_default=False,
    )


def repeatable(name: str, metavar: str, text: str) -> Any:
    """An option that may be given several times."""
    return typer.Option(name, metavar=metavar, help=f"{text} Repeatable.", show_default=False)


def diff(
    a: Annotated[str, side("A")],
    b: Annotated[str, side("B")],
    structure: Annotated[
        bool, typer.Option("--structure", help="Read headers only: no values, no torch.")
    ] = False,
    values: Annotated[
        bool, typer.Option("--values", help="Compare a model's values, too.")
    ] = False,
    atol: Annotated[
        float | None,
        typer.Option(
            "--atol",
            metavar="X",
            help="Values may differ by X + rtol * max(|a|, |b|); default: not at all.",
        ),
    ] = None,
    rtol: Annotated[
        float | None,
        typer.Option("--rtol", metavar="X", help="The relative part of that tolerance."),
    ] = None,
    only: Annotated[
        list[str], repeatable("--only", "PATTERN", "Compare these tensors, and nothing else.")
    ] = [],  # noqa: B006
    rename: Annotated[
        list[str],
        repeatable(
            "--rename",
            "OLD=NEW",
            "Rename in A, or in the checkpoint beside a model: encoder=backbone, "
            "*.gamma=*.weight, re:EXPR=NEW.",
        ),
    ] = [],  # noqa: B006
    strip_prefix: Annotated[
        list[str],
        repeatable(
            "--strip-prefix",
            "PREFIX",
            "Take a prefix off the names of both sides; auto: module., _orig_mod. and model.",
        ),
    ] = [],  # noqa: B006
    ignore: Annotated[
        list[IgnoreName],
        typer.Option(
            "--ignore",
            help=f"What is not to count: {', '.join(IGNORABLE)}. Repeatable.",
            metavar="WHAT",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    section: options.Section = None,
    depth: Annotated[
        int | None,
        typer.Option("--depth", min=0, metavar="N", help="Fold the table by modules down to N."),
    ] = None,
    top: Annotated[
        int,
        typer.Option(
            "--top", min=0, metavar="N", help="Rows that a table shows at most; 0 for all."
        ),
    ] = 20,
    arg: options.Arguments = [],  # noqa: B006
    args_from: options.ArgumentsFrom = None,
    form: options.Format = options.TABLE,
    as_json: options.Json = False,
    no_color: options.NoColor = False,
) -> int:
    """Compare two checkpoints, or a checkpoint with a model.

    Exit code 0 when nothing differs (to the bit, or within the tolerance), 1 when something does.
    Of a model and a checkpoint it says what load_state_dict would, why, and what helps.

    Examples:
      modtool diff before.pth after.pth --top 5
      modtool diff model.safetensors model_bf16.safetensors --rtol 1e-2 --ignore dtype
      modtool diff model.py ckpt.pth
    """
    with progress_bar() as progress:
        differences = diffing.diff(
            a,
            b,
            structure=structure,
            values=values,
            tolerance=tolerance_of(atol, rtol),
            only=only,
            rename=rename,
            strip_prefix=strip_prefix,
            section=section,
            ignore=[IGNORABLE[list(IgnoreName).index(name)] for name in ignore],
            arguments=arguments_of(arg, args_from),
            progress=progress,
        )
    report = differences_report(differences, depth=depth, top=top or None, flat=form == "csv")
    show(report, form, as_json=as_json, no_color=no_color)
    return 0 if differences.same else 1


def tolerance_of(atol: float | None, rtol: float | None) -> Tolerance | None:
    """The tolerance, when either part of it is given."""
    for name, value in (("atol", atol), ("rtol", rtol)):
        if value is not None and not 0 <= value < float("inf"):
            raise UsageError(f"--{name} {value}: not a number from 0 on")
    if atol is None and rtol is None:
        return None
    return Tolerance(atol or 0.0, rtol or 0.0)
