"""`modtool trace`: one forward pass, call by call."""

from typing import Annotated

import typer

from modtool import api
from modtool.cli import options
from modtool.cli.models import arguments_of
from modtool.cli.show import show
from modtool.cli.targets import target_or_default
from modtool.report import trace_report

__all__ = ["trace"]

InputShapes = Annotated[
    list[str],
    typer.Option(
        "--input-shape",
        metavar="[NAME=]SHAPE[:DTYPE]",
        help="Shape of an input: 32,784 or input_ids=1,128:int64. Repeatable, in order.",
        show_default=False,
    ),
]


def trace(
    target: options.Target = None,
    input_shape: InputShapes = [],  # noqa: B006
    mode: options.Mode = options.EVAL,
    backward: Annotated[
        bool, typer.Option("--backward", help="Also the shapes of gradients.")
    ] = False,
    depth: options.Depth = None,
    columns: options.Columns = "",
    arg: options.Arguments = [],  # noqa: B006
    args_from: options.ArgumentsFrom = None,
    weights: options.Weights = None,
    device: options.Device = None,
    form: options.Format = options.TABLE,
    as_json: options.Json = False,
    no_color: options.NoColor = False,
) -> int:
    """Run one forward pass and show every call: shapes in and out, parameters, MACs.

    Exit code 1 when the forward pass fails; the rows up to the failure are shown.

    Examples:
      modtool trace --input-shape 32,784
      modtool trace model.py:Net --input-shape x=1,3,224,224 --backward --mode train
    """
    traced = api.trace(
        target_or_default(target),
        *input_shape,
        arguments=arguments_of(arg, args_from),
        weights=weights,
        device=device,
        mode=mode,
        backward=backward,
    )
    report = trace_report(traced, columns=[key for key in columns.split(",") if key], depth=depth)
    show(report, form, as_json=as_json, no_color=no_color)
    return 1 if traced.error else 0
