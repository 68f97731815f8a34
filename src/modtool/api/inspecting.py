"""`summary` and `count`: what is in a model or a checkpoint."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from modtool.api.targets import is_file, open_target
from modtool.errors import UsageError
from modtool.formats import open_checkpoint
from modtool.report.sources import source_report
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
    source: bool = False,
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
        source: Only the program text that a file carries: the classes of a legacy full-model
            save, the code of TorchScript and torch.package archives.

    Raises:
        UsageError: There is no such text, or the arguments do not fit the target.
    """
    if source:
        if not is_file(target):
            raise UsageError(f"{target} names Python code, which is its own source")
        return source_report(open_checkpoint(os.fspath(target)))  # type: ignore[arg-type]
    checkpoint = open_target(
        target,
        arguments=arguments,
        weights=weights,
        device=device,
        section=section,
        truncated=True,
    )
    return summary_report(checkpoint, columns=columns, depth=depth, tensors=tensors)


def count(
    target: "str | os.PathLike[str] | nn.Module",
    *,
    arguments: Mapping[str, object] | None = None,
    section: str | None = None,
) -> Totals:
    """The totals: parameters, trainable, frozen, buffers, bytes; shared elements once."""
    checkpoint = open_target(target, arguments=arguments, section=section, truncated=True)
    return totals_of(checkpoint.model_tensors)
