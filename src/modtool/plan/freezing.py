"""Which parameters train, and which modules stay in eval mode: edits of a plan."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from modtool.errors import UsageError
from modtool.notes import note
from modtool.pickles.plain import mapping_of
from modtool.plan.conversion import as_checkpoint, flags_of
from modtool.plan.edits import chosen_parameters
from modtool.plan.norms import frozen_norms, recorded_bn_eval
from modtool.plan.records import Plan, PlannedTensor
from modtool.plan.ties import ties_of
from modtool.records import Note

__all__ = ["freeze", "keep_norms_in_eval", "tied_partners", "unfreeze", "warn_of_norms"]


def freeze(plan: Plan, patterns: Sequence[str]) -> Plan:
    """Record the selected parameters as not trainable."""
    return with_flag(plan, patterns, False)


def unfreeze(plan: Plan, patterns: Sequence[str]) -> Plan:
    """Record the selected parameters as trainable."""
    return with_flag(plan, patterns, True)


def with_flag(plan: Plan, patterns: Sequence[str], flag: bool) -> Plan:
    """Record `requires_grad` for the selected parameters and those tied to them.

    A full model has flags of its own. A checkpoint gets a map of name to bool under
    `requires_grad`, which makes a checkpoint of a state_dict; safetensors gets it as text. Modules
    that were recorded to stay in eval mode and are no longer frozen are recorded no longer.
    """
    if plan.form == "state_dict":
        plan = as_checkpoint(plan)
    if plan.form == "full_model" and plan.source.kind not in ("full_model", "checkpoint"):
        raise UsageError(f"{plan.source.target} has no place for what is trainable")
    names = chosen_parameters(plan, patterns)
    partners = ties_of(plan)
    together = {tensor.name for name in names for tensor in partners[name]}
    flags = {**flags_of(plan), **dict.fromkeys(together, flag)}
    said = f"{'un' if flag else ''}frozen with"
    notes = tuple(
        note("tied-together", name, f"{said} {other}, which is the same tensor")
        for name, other in tied_partners(names, partners)
    )
    changed = tuple(
        tensor.source.name
        for tensor in plan.model_tensors
        if tensor.name in flags and flags[tensor.name] != (tensor.source.requires_grad is not False)
    )
    plan = replace(plan, requires_grad=flags, flags_changed=changed, notes=plan.notes + notes)
    frozen = frozenset(frozen_norms(plan))
    recorded = plan.bn_eval if plan.bn_eval is not None else recorded_bn_eval(plan.source)
    return replace(plan, bn_eval=tuple(path for path in recorded if path in frozen))


def tied_partners(
    names: frozenset[str], partners: Mapping[str, list[PlannedTensor]]
) -> list[tuple[str, str]]:
    """(name, selected name) of the tensors that come along because they are the same elements."""
    along: dict[str, str] = {}
    for name in sorted(names):
        for tensor in partners[name]:
            if tensor.name not in names:
                along.setdefault(tensor.name, name)
    return list(along.items())


def keep_norms_in_eval(plan: Plan, *, whole: bool) -> Plan:
    """Record every frozen module with running statistics as one to be kept in eval mode.

    Args:
        plan: With its flags set.
        whole: False where only the flags are to be written, which any plan can be.

    Raises:
        UsageError: There is none, or the output has no place for it.
    """
    frozen = frozen_norms(plan)
    if not frozen:
        raise UsageError(
            "--bn-eval: no module that keeps running statistics is frozen",
            "freeze a batch norm with all its parameters, or leave the option out",
        )
    if whole and not has_place(plan):
        raise UsageError(
            "--bn-eval: a full-model save has no place for it",
            "write the plan alone with -o plan.json, and give it to modtool.apply_freeze",
        )
    return replace(plan, bn_eval=frozen)


def warn_of_norms(plan: Plan) -> Plan:
    """The plan with a note when frozen modules would still update their running statistics."""
    kept = frozenset(plan.bn_eval or ())
    loose = [path for path in frozen_norms(plan) if path not in kept]
    if not loose:
        return plan
    option = "--bn-eval" if has_place(plan) else "--bn-eval with -o plan.json"
    return replace(plan, notes=(*plan.notes, norm_note(loose, option)))


def has_place(plan: Plan) -> bool:
    """True where the output can say which modules stay in eval mode."""
    return plan.form != "full_model" or mapping_of(plan.tree) is not None


def norm_note(paths: Sequence[str], option: str) -> Note:
    """One note for all of them."""
    others = len(paths) - 1
    more = f", and so do{'es' * (others == 1)} {others} other{'s' * (others > 1)}" if others else ""
    message = (
        f"frozen, but in train mode it still updates its running statistics{more}; "
        f"{option} records that they are kept in eval"
    )
    return note("frozen-batchnorm", paths[0], message)
