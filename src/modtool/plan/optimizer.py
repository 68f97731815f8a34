"""What an optimizer's state holds for parameters that are frozen, or left out of the model.

What it holds for frozen ones is taken out where it is known to be theirs: by name, by order, or
because every parameter that it may be of is frozen (see `optimizer_names`). Nothing is guessed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from modtool.errors import UsageError
from modtool.notes import note
from modtool.pickles.plain import items_of, mapping_of
from modtool.plan.optimizer_names import told_of
from modtool.plan.records import Dropped, Form, Plan
from modtool.plan.tree import entries, find_key, put
from modtool.records import Note

__all__ = ["prune_optimizer", "warn_of_dropped", "warn_of_optimizer"]

NOBODY = "none of the model's"
WITH_OPTIMIZERS: frozenset[Form] = frozenset({"checkpoint", "dcp", "full_model"})


@dataclass(frozen=True, slots=True)
class Held:
    """What one optimizer holds.

    Attributes:
        section: Its name in the checkpoint.
        frozen: Its number (or name) of each parameter that is known to be frozen (or, for
            `warn_of_dropped`, left out) -> what it is.
        stateful: Those of them that it has state for.
        doubtful: Its numbers that may be of a frozen parameter or of another one -> some of those.
        doubtful_state: Those of them that it has tensors for.
        by_order: A frozen parameter and one of its shape that trains, which only the model's order
            tells apart; empty where names or shapes tell.
    """

    section: str
    frozen: Mapping[object, str]
    stateful: frozenset[object]
    doubtful: Mapping[object, str]
    doubtful_state: frozenset[object]
    by_order: tuple[str, ...] = ()


def warn_of_optimizer(plan: Plan) -> Plan:
    """The plan with a note for each optimizer that still holds frozen parameters."""
    notes = []
    for held in optimizers(plan):
        if held.doubtful_state:
            message = "it does not record which of its parameters are which, so which are frozen"
        elif held.stateful:
            found = [held.frozen[key] for key in held.frozen if key in held.stateful]
            names = listed(list(dict.fromkeys(found)))
            message = f"it still holds state of frozen {names}; --prune-optimizer takes it out"
        else:
            continue
        notes.append(note("optimizer-holds-frozen", held.section, message))
    return replace(plan, notes=(*plan.notes, *notes))


def warn_of_dropped(before: Plan, after: Plan) -> Plan:
    """The plan after some edits, with a note for each optimizer that still holds what they drop."""
    left = {(tensor.source.section, tensor.source.name) for tensor in after.tensors}
    gone = frozenset(
        tensor.name
        for tensor in before.model_tensors
        if (tensor.source.section, tensor.source.name) not in left
    )
    notes = []
    for held in holding(before, gone):
        if at(after.tree, held.section) is None:
            continue
        if any(who != NOBODY for who in held.doubtful.values()):
            message = "it does not record which of its parameters are which, so which are left out"
        elif held.frozen:
            names = listed(list(dict.fromkeys(held.frozen.values())))
            message = f"it still has a place for {names}, left out of the model"
        else:
            continue
        notes.append(note("optimizer-holds-dropped", held.section, message))
    return replace(after, notes=(*after.notes, *notes))


def prune_optimizer(plan: Plan, *, groups: bool = False) -> Plan:
    """Take the state of frozen parameters out of the optimizers of a checkpoint.

    Args:
        plan: Of a training checkpoint, its flags set.
        groups: Also take them out of `param_groups`, and number the others anew: what an optimizer
            of the trainable parameters alone loads. Without it, what one of all of them loads.

    Raises:
        UsageError: There is no optimizer, or it does not say which parameter is which.
    """
    found = list(optimizers(plan))
    if not is_training_checkpoint(plan):
        raise UsageError("--prune-optimizer: only a training checkpoint can be pruned")
    if not found:
        raise UsageError(f"{plan.source.target} has no optimizer state to prune")
    for held in found:
        doubtful = [key for key in held.doubtful if groups or key in held.doubtful_state]
        if doubtful:
            raise UsageError(
                f"{held.section}: it does not record which of its parameters are which: "
                f"{doubtful[0]} may be {held.doubtful[doubtful[0]]}",
                "one parameter group in the model's order, or groups with param_names, would "
                "(torch.optim takes model.named_parameters())",
            )
        plan = pruned(plan, held, groups=groups)
    return plan


def is_training_checkpoint(plan: Plan) -> bool:
    """True for an output of several parts, written anew or as it was."""
    rewritten = plan.form == "full_model" and plan.source.kind == "checkpoint"
    return plan.form == "checkpoint" or rewritten


def pruned(plan: Plan, held: Held, *, groups: bool) -> Plan:
    """The plan without what one optimizer holds for frozen parameters."""
    tree = at(plan.tree, held.section)
    state = entries(at(tree, "state")) or {}
    left = {key: item for key, item in state.items() if key not in held.frozen}
    old = [entries(group) or {} for group in items_of(at(tree, "param_groups")) or ()]
    new: list[object] = list(old)
    if groups:
        new, numbers = without_frozen(old, held.frozen)
        left = {numbers.get(key, key): item for key, item in left.items()}
    changed = put(
        put(plan.tree, f"{held.section}.state", left), f"{held.section}.param_groups", new
    )
    gone = tuple(f"state.{key}." for key in held.stateful)
    tensors = tuple(
        tensor
        for tensor in plan.tensors
        if tensor.section != held.section or not tensor.source.name.startswith(gone)
    )
    if not held.stateful and not groups:
        return plan
    names = listed(list(dict.fromkeys(held.frozen.values())))
    dropped = Dropped(held.section, f"the optimizer's state of frozen {names}, as asked")
    notes = (*plan.notes, *order_notes(held))
    dropped_now = (*plan.dropped, dropped)
    return replace(plan, tree=changed, tensors=tensors, dropped=dropped_now, notes=notes)


def order_notes(held: Held) -> tuple[Note, ...]:
    """A note where the order of the model was relied on, as no name and no shape told."""
    if not held.by_order:
        return ()
    message = (
        f"its parameters were taken to be in the model's order: "
        f"shapes alone do not tell {' from '.join(held.by_order)}"
    )
    return (note("optimizer-order-assumed", held.section, message),)


def without_frozen(
    groups: Sequence[Mapping[object, object]], frozen: Mapping[object, str]
) -> tuple[list[object], dict[object, object]]:
    """The groups without frozen parameters, the others numbered anew; and old number -> new one."""
    made: list[object] = []
    numbers: dict[object, object] = {}
    for group in groups:
        keys = items_of(group.get("params")) or []
        kept = [index for index, key in enumerate(keys) if key not in frozen]
        for index in kept:
            key = keys[index]
            numbers[key] = len(numbers) if isinstance(key, int) else key
        if not kept:
            continue
        changed = dict(group)
        changed["params"] = [numbers[keys[index]] for index in kept]
        names = items_of(group.get("param_names"))
        if names is not None:
            changed["param_names"] = [names[index] for index in kept]
        made.append(changed)
    return made, numbers


def optimizers(plan: Plan) -> Iterator[Held]:
    """What each optimizer of the output holds of the parameters that are frozen."""
    flags = plan.requires_grad or {}
    yield from holding(plan, frozenset(name for name, flag in flags.items() if not flag))


def holding(plan: Plan, names: frozenset[str]) -> Iterator[Held]:
    """What each optimizer of the output holds of some parameters."""
    for section in sections_of(plan) if names and plan.form in WITH_OPTIMIZERS else ():
        tree = at(plan.tree, section)
        state = mapping_of(at(tree, "state"))
        groups = items_of(at(tree, "param_groups"))
        if state is not None and groups is not None and are_numbered(groups):
            yield held_of(plan, section, names, state, groups)


def sections_of(plan: Plan) -> list[str]:
    """The optimizers of a checkpoint, those without a single tensor included."""
    sections = [part.name for part in plan.source.sections if part.role == "optimizer"]
    for key, value in (mapping_of(plan.tree) or {}).items():
        if isinstance(key, str) and {"state", "param_groups"} <= (mapping_of(value) or {}).keys():
            sections.append(key)
    return list(dict.fromkeys(sections))


def are_numbered(groups: Sequence[object]) -> bool:
    """True for groups whose parameters are numbers or names."""
    parts = [items_of((mapping_of(group) or {}).get("params")) for group in groups]
    return all(isinstance(key, int | str) for keys in parts for key in keys or ())


def held_of(
    plan: Plan,
    section: str,
    frozen: frozenset[str],
    state: Mapping[object, object],
    groups: Sequence[object],
) -> Held:
    """What one optimizer holds of the parameters that are frozen."""
    known: dict[object, str] = {}
    doubtful: dict[object, str] = {}
    told = told_of(plan, section, groups)
    for key, names in told.candidates.items():
        frozen_ones = [name for name in names if name in frozen]
        if names and len(frozen_ones) == len(names):
            known[key] = " or ".join(names[:2]) + " or another" * (len(names) > 2)
        elif frozen_ones or not names:
            others = [name for name in names if name not in frozen]
            doubtful[key] = " or ".join([*frozen_ones[:1], *others[:1]] or [NOBODY])
    held = frozenset(
        tensor.name.split(".")[1]
        for tensor in plan.source.tensors
        if tensor.section == section and tensor.name.startswith("state.")
    )
    return Held(
        section,
        known,
        frozenset(key for key in known if key in state),
        doubtful,
        frozenset(key for key in doubtful if str(key) in held),
        unlike(told.alike, frozen),
    )


def unlike(alike: Sequence[Sequence[str]], frozen: frozenset[str]) -> tuple[str, ...]:
    """The first frozen parameter that is alike one that is not, and that one; empty without one."""
    for names in alike:
        first = next((name for name in names if name in frozen), None)
        other = next((name for name in names if name not in frozen), None)
        if first is not None and other is not None:
            return first, other
    return ()


def at(tree: object, path: str) -> object:
    """What lies at a dotted path of dicts; None where nothing does."""
    while path:
        found = mapping_of(tree)
        place = find_key(found, path) if found is not None else None
        if found is None or place is None:
            return None
        key, path = place
        tree = found[key]
    return tree


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more
