"""`freeze` and `unfreeze`: which parameters train."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from modtool import plan as plans
from modtool.api.targets import open_target
from modtool.api.writing import PLAIN, Outcome, Writing, carry_out, first_plan
from modtool.errors import UsageError
from modtool.plan import Plan
from modtool.write import write_text

if TYPE_CHECKING:
    from torch import nn

__all__ = ["freeze", "unfreeze"]


def freeze(
    target: "str | os.PathLike[str] | nn.Module",
    patterns: Sequence[str],
    output: str,
    *,
    arguments: Mapping[str, object] | None = None,
    weights: str | None = None,
    edits: Sequence[Callable[[Plan], Plan]] = (),
    writing: Writing = PLAIN,
) -> Outcome:
    """Write the target with the selected parameters frozen (requires_grad False).

    A definition becomes a training checkpoint with a `requires_grad` map; in a full-model save
    the flags change and everything else stays; other files get the map, or metadata. An output
    that ends in `.json` gets the map alone.
    """
    change = plans.freeze
    return flagged(change, target, patterns, output, arguments, weights, edits, writing)


def unfreeze(
    target: "str | os.PathLike[str] | nn.Module",
    patterns: Sequence[str],
    output: str,
    *,
    arguments: Mapping[str, object] | None = None,
    weights: str | None = None,
    edits: Sequence[Callable[[Plan], Plan]] = (),
    writing: Writing = PLAIN,
) -> Outcome:
    """Write the target with the selected parameters trainable; see `freeze`."""
    change = plans.unfreeze
    return flagged(change, target, patterns, output, arguments, weights, edits, writing)


def flagged(
    change: Callable[[Plan, Sequence[str]], Plan],
    target: "str | os.PathLike[str] | nn.Module",
    patterns: Sequence[str],
    output: str,
    arguments: Mapping[str, object] | None,
    weights: str | None,
    edits: Sequence[Callable[[Plan], Plan]],
    writing: Writing,
) -> Outcome:
    """The plan of freeze and unfreeze, carried out."""
    if not patterns:
        raise UsageError("no pattern given", "name what to select: 'encoder' '!encoder.norm*'")
    checkpoint = open_target(target, arguments=arguments, weights=weights, values=True)
    plan = change(first_plan(checkpoint, output, "checkpoint"), patterns)
    for edit in edits:
        plan = edit(plan)
    if output.endswith(".json"):
        return write_flags(plan, output, writing)
    return carry_out(plan, output, writing)


def write_flags(plan: Plan, output: str, writing: Writing) -> Outcome:
    """Write the `requires_grad` map alone, as JSON."""
    document = {"schema": 1, "requires_grad": plans.flags_of(plan), "bn_eval": []}
    if writing.dry_run:
        return Outcome(plan, ())
    return Outcome(
        plan, write_text(json.dumps(document, indent=1) + "\n", output, force=writing.force)
    )
