"""`modtool convert`: a checkpoint in another form."""

from enum import StrEnum
from typing import Annotated

import typer

from modtool import api
from modtool.api import Writing
from modtool.cli import options
from modtool.cli.edits import Edit, locations, setting
from modtool.cli.progress import progress_bar
from modtool.cli.show import show
from modtool.plan import FORMS
from modtool.report import conversion_report

__all__ = ["convert"]

FormName = StrEnum("FormName", {name: name for name in FORMS})  # type: ignore[misc]


def convert(
    source: options.Checkpoint,
    to: Annotated[
        FormName | None,
        typer.Option(
            "--to", help="What to write; default: what OUT's suffix says, else state_dict."
        ),
    ] = None,
    output: options.Output = None,
    section: options.Section = None,
    map_location: options.MapLocation = [],  # noqa: B006
    set_values: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Put a plain value into the checkpoint, such as epoch=3. Repeatable.",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    keep: options.Keep = [],  # noqa: B006
    drop: options.Drop = [],  # noqa: B006
    force: options.Force = False,
    dry_run: options.DryRun = False,
    form: options.Format = options.TABLE,
    as_json: options.Json = False,
    no_color: options.NoColor = False,
) -> None:
    """Turn a checkpoint into a state_dict, a training checkpoint or safetensors.

    Nothing in the file is imported or executed; everything left out is named.

    Examples:
      modtool convert model.pth                       (writes model_state_dict.pth)
      modtool convert ckpt.pth --to safetensors -o model.safetensors
      modtool convert full.pth --to checkpoint --set epoch=3 --map-location cpu -o ckpt.pth
    """
    edits: list[Edit] = [*setting(keep, drop, set_values), *locations(map_location)]
    with progress_bar() as progress:
        outcome = api.convert(
            source,
            output,
            to=FORMS[list(FormName).index(to)] if to else None,
            section=section,
            edits=edits,
            writing=Writing(force=force, dry_run=dry_run, progress=progress),
        )
    report = conversion_report(outcome.plan, outcome.written, dry_run=dry_run)
    show(report, form, as_json=as_json, no_color=no_color)
