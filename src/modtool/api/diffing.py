"""`diff`: what differs between two checkpoints, or between a checkpoint and a model."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from modtool.api.targets import is_file, narrowed, open_target
from modtool.diffs import (
    Differences,
    Ignorable,
    Options,
    Tolerance,
    comparable,
    compare_bytes,
    compare_structure,
    in_one_shape,
    with_values,
)
from modtool.errors import UsageError
from modtool.formats import dcp_values
from modtool.records import Checkpoint
from modtool.write import Progress

if TYPE_CHECKING:
    from torch import nn

__all__ = ["diff"]


def diff(
    a: "str | os.PathLike[str] | nn.Module",
    b: "str | os.PathLike[str] | nn.Module",
    *,
    structure: bool = False,
    values: bool = False,
    tolerance: Tolerance | None = None,
    only: Sequence[str] = (),
    rename: Sequence[str] = (),
    strip_prefix: Sequence[str] = (),
    section: str | None = None,
    ignore: Sequence[Ignorable] = (),
    arguments: Mapping[str, object] | None = None,
    progress: Progress | None = None,
) -> Differences:
    """Compare two checkpoints, or see what load_state_dict would say of one.

    Values are read of checkpoints; of a model's only when asked for, as they are mere chance.

    Args:
        a: A checkpoint or a model.
        b: Likewise. When one is a model and the other is not, it is asked whether that fits.
        structure: Read headers only.
        values: Compare a model's values, too.
        tolerance: How close values have to be, a model's, too; None for equal to the bit.
        only: Patterns of the tensors to compare.
        rename: `OLD=NEW`, for the names of A, or of the checkpoint beside a model.
        strip_prefix: Prefixes to take off the names of both sides.
        section: The part of a training checkpoint to take, of the sides that have parts.
        ignore: What is not to count, of `modtool.diffs.IGNORABLE`.
        arguments: Of a model's constructor.
        progress: Called with bytes done, bytes in all, and the name of the tensor at hand.

    Raises:
        UsageError: The options do not fit the targets, or each other.
    """
    if structure and (values or tolerance is not None):
        raise UsageError("values are not read with --structure", "leave one of the two out")
    if arguments and is_file(a) and is_file(b):
        raise UsageError("--arg is for models, and both sides are checkpoints")
    values = values or tolerance is not None
    sides = [opened(target, arguments, values) for target in (a, b)]
    left, right = (narrowed_if(side, section, sides) for side in sides)
    options = Options(tuple(only), tuple(rename), tuple(strip_prefix), section, tuple(ignore))
    found = compare_structure(left, right, options)
    lives = "model" in (left.kind, right.kind)
    if structure or (lives and not values):
        return found
    return valued(found, tolerance, progress)


def opened(
    target: "str | os.PathLike[str] | nn.Module",
    arguments: Mapping[str, object] | None,
    values: bool,
) -> Checkpoint:
    """One side; arguments and values are for models. Of a folder, every plain value is read."""
    if is_file(target):
        return dcp_values.with_values(open_target(target))
    return open_target(target, arguments=arguments, values=values, lazy=True)


def narrowed_if(side: Checkpoint, section: str | None, sides: Sequence[Checkpoint]) -> Checkpoint:
    """A side with nothing but one section, unless only the other side has sections."""
    if side.sections or not any(each.sections for each in sides):
        return narrowed(side, section)
    return side


def valued(
    found: Differences, tolerance: Tolerance | None, progress: Progress | None
) -> Differences:
    """The same with what is known of values; torch is imported only where some differ."""
    indices = comparable(found)
    tensors = [in_one_shape(found.pairs[index]) for index in indices]
    equal = dict(zip(indices, compare_bytes(tensors, progress), strict=True))
    unequal = [index for index in indices if not equal[index]]
    if not unequal:
        return with_values(found, equal, {}, tolerance)
    from modtool.live.comparing import measure

    tensors = [in_one_shape(found.pairs[index]) for index in unequal]
    rtol = tolerance.rtol if tolerance is not None else 0.0
    measures = dict(zip(unequal, measure(tensors, rtol, progress), strict=True))
    return with_values(found, equal, measures, tolerance)
