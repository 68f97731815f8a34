"""`summary`, `count` and `trace`: what is in a model or a checkpoint."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from modtool.api.targets import load_target, open_target
from modtool.errors import UsageError
from modtool.records import Trace
from modtool.report import Report, Totals, summary_report, totals_of

if TYPE_CHECKING:
    from torch import nn

__all__ = ["count", "summary", "trace"]


def summary(
    target: "str | os.PathLike[str] | nn.Module",
    *,
    arguments: Mapping[str, object] | None = None,
    weights: str | None = None,
    device: str | None = None,
    columns: Sequence[str] = (),
    depth: int | None = None,
    section: str | None = None,
    tensors: bool = False,
) -> Report:
    """The module tree: types, settings, shapes, parameters, trainable, bytes.

    Args:
        target: A checkpoint, which is never executed, or a model, whose code is run.
        arguments: Of the model's constructor.
        weights: A checkpoint to load into the model first.
        device: Where to put the model.
        columns: Keys of `modtool.report.COLUMNS`; none means the usual ones.
        depth: Fold everything deeper.
        section: The part of a training checkpoint to show.
        tensors: A row for every tensor instead of one for every module.
    """
    checkpoint = open_target(
        target, arguments=arguments, weights=weights, device=device, section=section
    )
    return summary_report(checkpoint, columns=columns, depth=depth, tensors=tensors)


def count(
    target: "str | os.PathLike[str] | nn.Module",
    *,
    arguments: Mapping[str, object] | None = None,
    section: str | None = None,
) -> Totals:
    """The totals: parameters, trainable, frozen, buffers, bytes; shared elements once."""
    return totals_of(open_target(target, arguments=arguments, section=section).model_tensors)


def trace(
    target: "str | os.PathLike[str] | nn.Module",
    *input_shapes: str,
    arguments: Mapping[str, object] | None = None,
    weights: str | None = None,
    device: str | None = None,
    mode: str = "eval",
    backward: bool = False,
) -> Trace:
    """One forward pass under hooks: every call's shapes, in order. The model is left as it was.

    Args:
        target: A model.
        input_shapes: `32,784`, or named and typed: `input_ids=1,128:int64`.
        arguments: Of the model's constructor.
        weights: A checkpoint to load into the model first.
        device: Where to run.
        mode: `train` or `eval`.
        backward: Also the shapes of gradients.
    """
    from modtool.live.inputs import parse_inputs
    from modtool.live.trace import trace as trace_model

    if mode not in ("train", "eval"):
        raise UsageError(f"mode is train or eval, not {mode!r}")
    loaded, notes = load_target(target, arguments, device=device, weights=weights)
    traced = trace_model(
        loaded.model,
        parse_inputs(input_shapes, loaded.model),
        target=loaded.target,
        mode="train" if mode == "train" else "eval",
        backward=backward,
        device=device,
        rebuild=loaded.rebuild,
    )
    return replace(traced, notes=(*notes, *traced.notes))
