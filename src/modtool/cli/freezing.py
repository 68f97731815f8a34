"""`modtool freeze` and `modtool unfreeze`: which parameters train."""

from typing import Annotated

import typer

from modtool import api
from modtool.api import Outcome, Writing
from modtool.cli import options
from modtool.cli.edits import locations, needed
from modtool.cli.models import arguments_of
from modtool.cli.progress import progress_bar
from modtool.cli.show import show
from modtool.report import flags_report

__all__ = ["freeze", "unfreeze"]

Patterns = Annotated[
    list[str],
    typer.Argument(
        metavar="PATTERN...",
        help="What to select: a name or glob ('encoder', '*.bias'), 're:…', 'type:Linear'; "
        "'!…' takes away again.",
        show_default=False,
    ),
]


def freeze(
    target: options.EditedTarget,
    patterns: Patterns,
    output: options.Output = None,
    map_location: options.MapLocation = [],  # noqa: B006
    arg: options.Arguments = [],  # noqa: B006
    args_from: options.ArgumentsFrom = None,
    weights: options.Weights = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    form: options.Format = options.TABLE,
    as_json: options.Json = False,
    no_color: options.NoColor = False,
) -> None:
    """Write the target with the selected parameters frozen (requires_grad False).

    A model definition becomes a training checkpoint with a requires_grad map; in a full-model
    save the flags change and the rest stays to the letter; OUT ending in .json gets the map alone.

    Examples:
      modtool freeze model.py backbone '!backbone.norm*' -o start.pth
      modtool freeze ckpt.pth 'type:Conv2d' -o frozen.pth --dry-run
    """
    with progress_bar() as progress:
        outcome = api.freeze(
            target,
            patterns,
            needed(output),
            arguments=arguments_of(arg, args_from),
            weights=weights,
            edits=locations(map_location),
            writing=Writing(force=force, dry_run=dry_run, progress=progress),
        )
    show_flags(outcome, form, as_json, no_color)


def unfreeze(
    target: options.EditedTarget,
    patterns: Patterns,
    output: options.Output = None,
    map_location: options.MapLocation = [],  # noqa: B006
    arg: options.Arguments = [],  # noqa: B006
    args_from: options.ArgumentsFrom = None,
    weights: options.Weights = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    form: options.Format = options.TABLE,
    as_json: options.Json = False,
    no_color: options.NoColor = False,
) -> None:
    """Write the target with the selected parameters trainable (requires_grad True).

    Examples:
      modtool unfreeze start.pth 'layers.1[01]' head -o next.pth
    """
    with progress_bar() as progress:
        outcome = api.unfreeze(
            target,
            patterns,
            needed(output),
            arguments=arguments_of(arg, args_from),
            weights=weights,
            edits=locations(map_location),
            writing=Writing(force=force, dry_run=dry_run, progress=progress),
        )
    show_flags(outcome, form, as_json, no_color)


def show_flags(outcome: Outcome, form: str, as_json: bool, no_color: bool) -> None:
    """Print what freeze and unfreeze changed."""
    show(flags_report(outcome.plan, outcome.written), form, as_json=as_json, no_color=no_color)
