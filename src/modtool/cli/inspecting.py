"""`modtool summary` and `modtool count`: what is in a model or a checkpoint."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from modtool.api import inspecting
from modtool.api.targets import open_target
from modtool.cli import options
from modtool.cli.models import arguments_of
from modtool.cli.show import show, write_out
from modtool.cli.targets import target_or_default
from modtool.errors import UsageError
from modtool.records import Checkpoint
from modtool.report.totals import count_report, totals_of

__all__ = ["count", "summary"]


def bare_number(name: str, what: str) -> Any:
    """The option that prints one figure alone, for scripts."""
    return typer.Option(f"--{name}", help=f"Print only {what}, as a bare number.")


def summary(
    target: options.Target = None,
    depth: options.Depth = None,
    tensors: Annotated[
        bool, typer.Option("--tensors", help="A row for every tensor, not for every module.")
    ] = False,
    source: Annotated[
        bool, typer.Option("--source", help="Show only the program text that a file carries.")
    ] = False,
    columns: options.Columns = "",
    section: options.Section = None,
    arg: options.Arguments = [],  # noqa: B006
    args_from: options.ArgumentsFrom = None,
    weights: options.Weights = None,
    device: options.Device = None,
    form: options.Format = options.TABLE,
    as_json: options.Json = False,
    no_color: options.NoColor = False,
) -> None:
    """Show the tree: modules, settings, shapes, parameters, sizes.

    Examples:
      modtool summary model.py --arg hidden=256
      modtool summary ckpt.pth --section optimizer
      modtool summary model.safetensors --tensors --columns name,dtype,shape --format csv
      modtool summary old_full_model.pth --source > classes.py
    """
    report = inspecting.summary(
        target_or_default(target),
        arguments=arguments_of(arg, args_from),
        weights=weights,
        device=device,
        columns=[key for key in columns.split(",") if key],
        depth=depth,
        section=section,
        tensors=tensors,
        source=source,
    )
    show(report, form, as_json=as_json, no_color=no_color)


def count(
    target: options.Target = None,
    total: Annotated[bool, bare_number("total", "the number of parameters")] = False,
    trainable: Annotated[bool, bare_number("trainable", "the trainable parameters")] = False,
    frozen: Annotated[bool, bare_number("frozen", "the frozen parameters")] = False,
    buffers: Annotated[bool, bare_number("buffers", "the elements of buffers")] = False,
    size: Annotated[bool, bare_number("bytes", "the bytes of parameters and buffers")] = False,
    section: options.Section = None,
    arg: options.Arguments = [],  # noqa: B006
    args_from: options.ArgumentsFrom = None,
    form: options.Format = options.TABLE,
    as_json: options.Json = False,
    no_color: options.NoColor = False,
) -> None:
    """Count parameters, trainable, frozen, buffers and bytes.

    Elements that several names share count once.

    Examples:
      modtool count model.py
      test "$(modtool count ckpt.pth --total)" -le 5000000
    """
    checkpoint = open_target(
        target_or_default(target),
        arguments=arguments_of(arg, args_from),
        section=section,
        truncated=True,
    )
    chosen = {"total": total, "trainable": trainable, "frozen": frozen, "buffers": buffers}
    names = [name for name, asked in {**chosen, "bytes": size}.items() if asked]
    if names:
        print_figure(checkpoint, names)
    else:
        show(count_report(checkpoint), form, as_json=as_json, no_color=no_color)


def print_figure(checkpoint: Checkpoint, names: Sequence[str]) -> None:
    """Print the one figure that was asked for, and nothing else."""
    if len(names) > 1:
        raise UsageError(f"--{names[0]} and --{names[1]} each print one bare number: choose one")
    value = getattr(totals_of(checkpoint.model_tensors), names[0])
    if value is None:
        raise UsageError(
            f"{checkpoint.target} does not record which parameters are {names[0]}",
            "a plain state_dict never does; ask a model, a full-model save or a frozen checkpoint",
        )
    write_out([f"{value}\n"])
