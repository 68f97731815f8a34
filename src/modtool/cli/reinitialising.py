"""`modtool reinit`: parameters initialised anew."""

from typing import Annotated

import typer

from modtool import api
from modtool.api import Writing
from modtool.cli import options
from modtool.cli.edits import locations, needed
from modtool.cli.models import arguments_of
from modtool.cli.progress import progress_bar
from modtool.cli.show import show
from modtool.report import reinit_report

__all__ = ["reinit"]


def reinit(
    target: options.EditedTarget,
    scheme: Annotated[
        str,
        typer.Option("--scheme", metavar="NAME", help=f"One of {', '.join(api.SCHEME_NAMES)}."),
    ],
    pattern: Annotated[
        list[str],
        typer.Option(
            "--pattern",
            metavar="PATTERN",
            help="What to select; default: every parameter. Repeatable.",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    arg: Annotated[
        list[str],
        typer.Option(
            "--arg",
            metavar="NAME=VALUE",
            help="Argument of the scheme, such as gain=1.4. Repeatable.",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same bits.")] = 0,
    skip_unfit: Annotated[
        bool, typer.Option("--skip-unfit", help="Leave tensors that the scheme does not fit.")
    ] = False,
    output: options.Output = None,
    map_location: options.MapLocation = [],  # noqa: B006
    model_arg: Annotated[
        list[str],
        typer.Option(
            "--model-arg",
            metavar="NAME=VALUE",
            help="Argument of the model's constructor. Repeatable.",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    args_from: options.ArgumentsFrom = None,
    weights: options.Weights = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    form: options.Format = options.TABLE,
    as_json: options.Json = False,
    no_color: options.NoColor = False,
) -> None:
    """Write the target with the selected parameters initialised anew; the rest is unchanged.

    Examples:
      modtool reinit model.py --scheme kaiming_normal --pattern 'type:Conv2d' -o start.pth
      modtool reinit ckpt.pth --scheme zeros --pattern head.bias -o new.pth
    """
    with progress_bar() as progress:
        outcome = api.reinit(
            target,
            needed(output),
            scheme=scheme,
            scheme_arguments=arguments_of(arg, None),
            patterns=pattern,
            seed=seed,
            skip_unfit=skip_unfit,
            arguments=arguments_of(model_arg, args_from),
            weights=weights,
            edits=locations(map_location),
            writing=Writing(force=force, dry_run=dry_run, progress=progress),
        )
    show(reinit_report(outcome.plan, outcome.written), form, as_json=as_json, no_color=no_color)
