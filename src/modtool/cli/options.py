"""Every option that commands share, once: its names, its help, its type."""

from enum import StrEnum
from typing import Annotated

import typer

from modtool.render import RENDERERS

FormatName = StrEnum("FormatName", {name: name for name in RENDERERS})  # type: ignore[misc]
ModeName = StrEnum("ModeName", {"train": "train", "eval": "eval"})

MODEL_HELP = "default: $MODTOOL_MODEL, then [tool.modtool] model in pyproject.toml, then model.py"

Target = Annotated[
    str | None,
    typer.Argument(
        metavar="[TARGET]",
        help="A checkpoint, or a model: model.py, model.py:Net, pkg.module:Net. "
        f"A model's code is run, a checkpoint's never. With none given, {MODEL_HELP}.",
        show_default=False,
    ),
]
EditedTarget = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        help="A checkpoint, which is never executed, or a model, whose code is run.",
        show_default=False,
    ),
]
Checkpoint = Annotated[
    str,
    typer.Argument(metavar="CKPT", help="A checkpoint file. Nothing in it is executed."),
]
Arguments = Annotated[
    list[str],
    typer.Option(
        "--arg",
        metavar="NAME=VALUE",
        help="Argument of the model's constructor; a Python literal, a bare word is text. "
        "Repeatable.",
        show_default=False,
    ),
]
ArgumentsFrom = Annotated[
    str | None,
    typer.Option(
        "--args-from", metavar="FILE", help="Constructor arguments from a .json or .toml file."
    ),
]
Weights = Annotated[
    str | None,
    typer.Option("--weights", metavar="CKPT", help="Load this checkpoint into the model first."),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="DEVICE", help="Put the model there: cpu, cuda, cuda:1 or meta."
    ),
]
MapLocation = Annotated[
    list[str],
    typer.Option(
        "--map-location",
        metavar="DEVICE|OLD=NEW",
        help="Change the recorded device: cpu for all, or cuda:0=cuda:1. Repeatable.",
        show_default=False,
    ),
]
Mode = Annotated[ModeName, typer.Option("--mode", help="Mode of the forward pass: train or eval.")]
Section = Annotated[
    str | None,
    typer.Option(
        "--section",
        metavar="NAME",
        help='The part of a training checkpoint to take; "" is the tensors at its root.',
    ),
]
Columns = Annotated[
    str,
    typer.Option(
        "--columns", metavar="A,B,…", help="Columns to show, in this order; see the README's list."
    ),
]
Depth = Annotated[
    int | None,
    typer.Option("--depth", min=0, metavar="N", help="Fold everything deeper than this."),
]
Format = Annotated[
    FormatName,
    typer.Option("--format", help="How to print: table, json, csv, markdown or html."),
]
Json = Annotated[bool, typer.Option("--json", help="Short for --format json.")]
NoColor = Annotated[bool, typer.Option("--no-color", help="No colour, also on a terminal.")]
Output = Annotated[
    str | None,
    typer.Option("-o", "--output", metavar="OUT", help="The file to write.", show_default=False),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite OUT if it exists.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be done and write nothing.")
]
Keep = Annotated[
    list[str],
    typer.Option(
        "--keep",
        metavar="PATTERN",
        help="Leave out all tensors but these. Repeatable.",
        show_default=False,
    ),
]
Drop = Annotated[
    list[str],
    typer.Option(
        "--drop",
        metavar="PATTERN",
        help="Leave out these tensors, or plain values among them. Repeatable.",
        show_default=False,
    ),
]
TABLE = FormatName("table")
EVAL = ModeName("eval")
