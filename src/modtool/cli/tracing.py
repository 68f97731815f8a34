"""`modtool trace`: one forward pass, call by call."""

from typing import Annotated

import typer

from modtool.api import tracing
from modtool.cli import options
from modtool.cli.models import arguments_of
from modtool.cli.show import show
from modtool.cli.targets import target_or_default
from modtool.errors import UsageError
from modtool.report.tracing import trace_report

__all__ = ["trace"]

InputShapes = Annotated[
    list[str],
    typer.Option(
        "--input-shape",
        metavar="[NAME=]SHAPE[:DTYPE]",
        help="Shape of an input: 32,784 or input_ids=1,128:int64; batch.x=2,3 is a part of one. "
        "Repeatable, in order.",
        show_default=False,
    ),
]
InputFiles = Annotated[
    list[str],
    typer.Option(
        "--input",
        metavar="FILE",
        help="Inputs from a .pt, .npz, .npy, .safetensors or .json file; nothing in it is "
        "executed. Repeatable.",
        show_default=False,
    ),
]
InputFunctions = Annotated[
    list[str],
    typer.Option(
        "--inputs",
        metavar="FILE.py:NAME",
        help="Inputs that a function makes, given the model where it takes one argument: a "
        "tensor, a tuple of arguments, a dict by name, or (args, kwargs).",
        show_default=False,
    ),
]
Keywords = Annotated[
    list[str],
    typer.Option(
        "--kwarg",
        metavar="NAME=VALUE",
        help="Argument of forward that is no tensor: return_dict=false. Repeatable.",
        show_default=False,
    ),
]
Backward = Annotated[
    bool,
    typer.Option("--backward", help="Also gradients: shapes, and norms where it runs for real."),
]
LossName = Annotated[
    str | None,
    typer.Option(
        "--loss",
        metavar="NAME",
        help="Loss to start --backward from: CrossEntropyLoss, mse_loss, of the logits or the "
        "first output; losses.py:mine, of all that the model gives. Without one, the sum of the "
        "outputs.",
    ),
]
TargetShape = Annotated[
    str | None,
    typer.Option(
        "--target-shape",
        metavar="SHAPE[:DTYPE]",
        help="Shape of the loss's target; by default it follows from the output.",
    ),
]
Stats = Annotated[
    bool,
    typer.Option("--stats", help="Also mean, std, min, max, zeros, NaN and Inf of every output."),
]
Time = Annotated[bool, typer.Option("--time", help="Also the time of each call.")]
Repeat = Annotated[
    int | None,
    typer.Option(
        "--repeat", min=1, metavar="N", help="Time so many passes and show the median; 5."
    ),
]
Real = Annotated[
    bool, typer.Option("--real", help="Run with values, also where shapes alone would do.")
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust", help="Load a full-model save or TorchScript for real, running what it holds."
    ),
]
Only = Annotated[
    list[str],
    typer.Option(
        "--only",
        metavar="PATTERN",
        help="Rows for these modules alone: 'encoder', 'type:Linear'. Repeatable.",
        show_default=False,
    ),
]
Leaves = Annotated[
    bool, typer.Option("--leaves", help="Rows only for calls that no others ran inside of.")
]
Collapse = Annotated[
    bool,
    typer.Option(
        "--collapse",
        help="A run of identical blocks as one row, layers.[0-79]: sums, and statistics of all.",
    ),
]


def trace(
    target: options.Target = None,
    input_shape: InputShapes = [],  # noqa: B006
    input_file: InputFiles = [],  # noqa: B006
    input_function: InputFunctions = [],  # noqa: B006
    kwarg: Keywords = [],  # noqa: B006
    mode: options.Mode = options.EVAL,
    backward: Backward = False,
    loss: LossName = None,
    target_shape: TargetShape = None,
    stats: Stats = False,
    time: Time = False,
    repeat: Repeat = None,
    real: Real = False,
    depth: options.Depth = None,
    only: Only = [],  # noqa: B006
    leaves: Leaves = False,
    collapse: Collapse = False,
    columns: options.Columns = "",
    arg: options.Arguments = [],  # noqa: B006
    args_from: options.ArgumentsFrom = None,
    weights: options.Weights = None,
    trust: Trust = False,
    device: options.Device = None,
    form: options.Format = options.TABLE,
    as_json: options.Json = False,
    no_color: options.NoColor = False,
) -> int:
    """Run one forward pass; show shapes, parameters, MACs by call.

    Exit code 1 when the forward pass fails; the rows up to the failure are shown. --depth, --only,
    --leaves and --collapse choose rows of the table; JSON always holds every call.

    Examples:
      modtool trace --input-shape 32,784
      modtool trace model.py:Net --input-shape x=1,3,224,224 --loss CrossEntropyLoss --mode train
      modtool trace llama/config.json --input-shape 1,2048 --collapse --depth 2
    """
    if repeat is not None and not time:
        raise UsageError("--repeat says how often to time a pass", "add --time")
    traced = tracing.trace(
        target_or_default(target),
        *input_shape,
        arguments=arguments_of(arg, args_from),
        weights=weights,
        device=device,
        mode=mode,
        backward=backward,
        input_files=input_file,
        input_functions=input_function,
        values=arguments_of(kwarg, None, dotted=True),
        loss=loss,
        target_shape=target_shape,
        statistics=stats,
        repeat=(repeat or 5) if time else 0,
        real=real,
        trust=trust,
    )
    report = trace_report(
        traced,
        columns=[key for key in columns.split(",") if key],
        depth=depth,
        only=only,
        leaves=leaves,
        collapse=collapse,
    )
    show(report, form, as_json=as_json, no_color=no_color)
    return 1 if traced.error else 0
