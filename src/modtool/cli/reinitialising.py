"""`modtool reinit`: parameters initialised anew."""

from typing import Annotated

import typer

from modtool.api import reinitialising
from modtool.api.writing import Writing
from modtool.cli import options
from modtool.cli.edits import locations, needed
from modtool.cli.models import arguments_of
from modtool.cli.progress import progress_bar
from modtool.cli.show import show
from modtool.live.initialise import SCHEMES, arguments_help
from modtool.live.recipe import recipe_document, recipe_text
from modtool.report.fills import Filling, recipe_report, reinit_report

__all__ = ["reinit"]


def reinit(
    target: options.EditedTarget,
    scheme: Annotated[
        str | None,
        typer.Option(
            "--scheme",
            metavar="NAME",
            help=f"One of {', '.join(SCHEMES)}.",
            show_default=False,
        ),
    ] = None,
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
            help=f"Argument of the scheme. Repeatable. {arguments_help()}",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    bias: Annotated[
        str | None,
        typer.Option(
            "--bias",
            metavar="SCHEME|NUMBER",
            help="What the biases among the selected get in place of it, as in --bias zeros.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="FILE",
            help="Ordered rules from a .toml file, in place of --scheme, --arg, --pattern, --bias.",
        ),
    ] = None,
    print_recipe: Annotated[
        bool,
        typer.Option("--print-recipe", help="Print the recipe that the options mean, no more."),
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", help="The same seed gives the same bits; default: 0."),
    ] = None,
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
    """Write TARGET with the selected parameters initialised anew.

    What is not selected is copied unchanged.

    Examples:
      modtool reinit model.py --scheme kaiming_normal --pattern 'type:Conv2d' -o start.pth
      modtool reinit ckpt.pth --scheme xavier_uniform --pattern head --bias zeros -o new.pth
      modtool reinit model.py --weights ckpt.pth --scheme default --pattern head -o new.pth
    """
    rules = reinitialising.recipe_for(
        scheme,
        arguments=arguments_of(arg, None),
        patterns=pattern,
        bias=bias,
        seed=seed,
        skip_unfit=skip_unfit,
        recipe=recipe,
    )
    if print_recipe:
        report = recipe_report(recipe_document(rules), recipe_text(rules))
        show(report, "json" if form == "json" else "table", as_json=as_json, no_color=no_color)
        return
    with progress_bar() as progress:
        outcome = reinitialising.reinit(
            target,
            needed(output, dry_run=dry_run),
            recipe=rules,
            arguments=arguments_of(model_arg, args_from),
            weights=weights,
            edits=locations(map_location),
            writing=Writing(force=force, dry_run=dry_run, progress=progress),
        )
    report = reinit_report(outcome.plan, outcome.filling or Filling(), outcome.written)
    show(report, form, as_json=as_json, no_color=no_color)
