"""`summary` and `count`: what is in a model or a checkpoint."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from modtool.api.targets import open_target
from modtool.report.summary import summary_report
from modtool.report.tables import Report
from modtool.report.totals import Totals, totals_of

if TYPE_CHECKING:
    from torch import nn

__all__ = ["count", "summary"]


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
