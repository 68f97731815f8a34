"""`freeze` and `unfreeze`: which parameters train."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from modtool import plan as plans
from modtool.api.targets import open_target
from modtool.api.writing import PLAIN, Outcome, Writing, carry_out, first_plan
from modtool.errors import UsageError
from modtool.formats.dcp_values import with_values
from modtool.patterns import patterns_of
from modtool.plan import Plan
from modtool.report.flags import state_report
from modtool.report.tables import Report
from modtool.write import write_text

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Prune", "flags", "freeze", "unfreeze"]

Edits = Sequence[Callable[[Plan], Plan]]
Prune = Literal["no", "state", "groups"]


def freeze(
    target: "str | os.PathLike[str] | nn.Module",
    patterns: str | Sequence[str],
    output: str,
    *,
    bn_eval: bool = False,
    prune_optimizer: Prune = "no",
    arguments: Mapping[str, object] | None = None,
    weights: str | None = None,
    edits: Edits = (),
    writing: Writing = PLAIN,
) -> Outcome:
    """Write the target with the selected parameters frozen (requires_grad False).

    A definition becomes a training checkpoint with a `requires_grad` map. Where a torch file
    records flags (a full-model save, TorchScript, a checkpoint with such a map), these change and
    every other byte stays; other files get the map, or metadata. An output that ends in `.json`
    gets the plan alone, for `apply_freeze`.

    Args:
        target: A model or a checkpoint.
        patterns: What to select: a pattern or several.
        output: The file to write.
        bn_eval: Record that frozen modules with running statistics stay in eval mode.
        prune_optimizer: `state` takes the state of frozen parameters out of the optimizers of a
            training checkpoint, which optimizers of all parameters still load; `groups` takes
            them out of the groups too, for optimizers of the trainable parameters alone.
        arguments: Of the model's constructor.
        weights: A checkpoint to load into the model first.
        edits: Further changes, as `modtool.plan` has them.
        writing: How to write.
    """
    change = Change(plans.freeze, patterns_of(patterns), bn_eval, prune_optimizer)
    return changed(target, change, output, arguments, weights, edits, writing)


def unfreeze(
    target: "str | os.PathLike[str] | nn.Module",
    patterns: str | Sequence[str],
    output: str,
    *,
    arguments: Mapping[str, object] | None = None,
    weights: str | None = None,
    edits: Edits = (),
    writing: Writing = PLAIN,
) -> Outcome:
    """Write the target with the selected parameters trainable; see `freeze`."""
    change = Change(plans.unfreeze, patterns_of(patterns))
    return changed(target, change, output, arguments, weights, edits, writing)


def flags(
    target: "str | os.PathLike[str] | nn.Module",
    patterns: str | Sequence[str] = (),
    *,
    arguments: Mapping[str, object] | None = None,
    weights: str | None = None,
) -> Report:
    """Which parameters train and which do not, as the target has it; nothing is written."""
    checkpoint = open_target(target, arguments=arguments, weights=weights)
    plan = first_plan(checkpoint, "", "checkpoint")
    return state_report(plan, plans.chosen_parameters(plan, patterns_of(patterns)))


@dataclass(frozen=True, slots=True)
class Change:
    """What is asked for."""

    set_flags: Callable[[Plan, Sequence[str]], Plan]
    patterns: tuple[str, ...]
    bn_eval: bool = False
    prune: Prune = "no"

    def __call__(self, plan: Plan, *, whole: bool) -> Plan:
        """The plan with it, and with notes; `whole` where more than the plan is written."""
        plan = self.set_flags(plan, self.patterns)
        if self.bn_eval:
            plan = plans.keep_norms_in_eval(plan, whole=whole)
        plan = plans.warn_of_norms(plan)
        if self.prune != "no":
            return plans.prune_optimizer(plan, groups=self.prune == "groups")
        return plans.warn_of_optimizer(plan) if whole else plan


def changed(
    target: "str | os.PathLike[str] | nn.Module",
    change: Change,
    output: str,
    arguments: Mapping[str, object] | None,
    weights: str | None,
    edits: Edits,
    writing: Writing,
) -> Outcome:
    """The plan of freeze and unfreeze, carried out."""
    if not change.patterns:
        raise UsageError("no pattern given", "name what to select: 'encoder' '!encoder.norm*'")
    alone = output.endswith(".json")
    checkpoint = open_target(target, arguments=arguments, weights=weights, values=not alone)
    plan = None
    if not output.endswith((".json", ".safetensors")):
        checkpoint = with_values(checkpoint)
        plan = plans.plan_flags(checkpoint)
    plan = change(plan or first_plan(checkpoint, output, "checkpoint"), whole=not alone)
    for edit in edits:
        plan = edit(plan)
    return write_plan(plan, output, writing) if alone else carry_out(plan, output, writing)


def write_plan(plan: Plan, output: str, writing: Writing) -> Outcome:
    """Write what is trainable and what stays in eval mode, as JSON."""
    document = {
        "schema": 1,
        "requires_grad": plans.flags_of(plan),
        "bn_eval": plans.bn_eval_of(plan),
    }
    if writing.dry_run:
        return Outcome(plan, ())
    text = json.dumps(document, indent=1) + "\n"
    return Outcome(plan, write_text(text, output, force=writing.force))
