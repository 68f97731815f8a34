"""`modtool freeze` and `modtool unfreeze`: which parameters train."""

from typing import Annotated

import typer

from modtool.api import freezing
from modtool.api.freezing import Prune
from modtool.api.writing import Writing
from modtool.cli import options
from modtool.cli.edits import locations, needed
from modtool.cli.models import arguments_of
from modtool.cli.progress import progress_bar
from modtool.cli.show import show
from modtool.errors import UsageError
from modtool.report.flags import flags_report

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
ListOnly = Annotated[
    bool, typer.Option("--list", help="Show what is frozen now, of all or of PATTERN, no more.")
]
BnEval = Annotated[
    bool,
    typer.Option(
        "--bn-eval",
        help="Record that frozen BatchNorms stay in eval mode, which apply_freeze sees to.",
    ),
]
PruneOptimizer = Annotated[
    bool,
    typer.Option(
        "--prune-optimizer",
        help="Take the state of frozen parameters out of the optimizers of a checkpoint; "
        "an optimizer of all parameters loads the rest.",
    ),
]
PruneGroups = Annotated[
    bool,
    typer.Option(
        "--prune-groups",
        help="The same, and take them out of param_groups too: "
        "for an optimizer of the trainable parameters alone.",
    ),
]


def freeze(
    target: options.EditedTarget,
    patterns: Patterns = [],  # noqa: B006
    output: options.Output = None,
    list_only: ListOnly = False,
    bn_eval: BnEval = False,
    prune_optimizer: PruneOptimizer = False,
    prune_groups: PruneGroups = False,
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
    """Write TARGET with the selected parameters frozen.

    Frozen is requires_grad False. A model definition becomes a training checkpoint with a
    requires_grad map; in a full-model save or TorchScript the flags change and every other byte
    stays; OUT ending in .json gets the plan alone. In the training script,
    modtool.apply_freeze(model, OUT) does the rest.

    Examples:
      modtool freeze model.py backbone '!backbone.norm*' -o start.pth
      modtool freeze ckpt.pth 'type:Conv2d' --bn-eval --dry-run
      modtool freeze start.pth --list
    """
    arguments = arguments_of(arg, args_from)
    if list_only:
        refuse_output(output)
        report = freezing.flags(target, patterns, arguments=arguments, weights=weights)
    else:
        with progress_bar() as progress:
            outcome = freezing.freeze(
                target,
                patterns,
                needed(output, dry_run=dry_run),
                bn_eval=bn_eval,
                prune_optimizer=prune_of(prune_optimizer, prune_groups),
                arguments=arguments,
                weights=weights,
                edits=locations(map_location),
                writing=Writing(force=force, dry_run=dry_run, progress=progress),
            )
        report = flags_report(outcome.plan, outcome.written)
    show(report, form, as_json=as_json, no_color=no_color)


def unfreeze(
    target: options.EditedTarget,
    patterns: Patterns = [],  # noqa: B006
    output: options.Output = None,
    list_only: ListOnly = False,
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
    """Write TARGET with the selected parameters trainable.

    Trainable is requires_grad True.

    Examples:
      modtool unfreeze start.pth 'layers.1[01]' head -o next.pth
    """
    arguments = arguments_of(arg, args_from)
    if list_only:
        refuse_output(output)
        report = freezing.flags(target, patterns, arguments=arguments, weights=weights)
    else:
        with progress_bar() as progress:
            outcome = freezing.unfreeze(
                target,
                patterns,
                needed(output, dry_run=dry_run),
                arguments=arguments,
                weights=weights,
                edits=locations(map_location),
                writing=Writing(force=force, dry_run=dry_run, progress=progress),
            )
        report = flags_report(outcome.plan, outcome.written)
    show(report, form, as_json=as_json, no_color=no_color)


def refuse_output(output: str | None) -> None:
    """An error for an output where nothing is written."""
    if output is not None:
        raise UsageError("--list shows the state and writes nothing", "leave out --list or -o")


def prune_of(state: bool, groups: bool) -> Prune:
    """How much to take out of optimizers."""
    return "groups" if groups else "state" if state else "no"
