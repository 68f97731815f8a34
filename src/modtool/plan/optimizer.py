"""What an optimizer's state holds for frozen parameters, found and taken out.

`optimizer.state_dict()` numbers the parameters in the order in which the optimizer was given them
(torch 2.13, `Optimizer.state_dict`). Which number is which parameter is known where the groups
have names; else it follows for one group, whose order is that of `model.parameters()`, where the
shapes of the state leave one possibility. Several groups without names are in an order that nobody
recorded.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from modtool.errors import UsageError
from modtool.notes import note
from modtool.pickles.plain import items_of, mapping_of
from modtool.plan.conversion import is_parameter
from modtool.plan.records import Dropped, Plan, PlannedTensor
from modtool.plan.tree import entries, find_key, put
from modtool.plan.views import view_of

__all__ = ["prune_optimizer", "warn_of_optimizer"]

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """What one optimizer holds.

    Attributes:
        section: Its name in the checkpoint.
        frozen: Its number (or name) of each frozen parameter that it knows -> the parameter.
        stateful: Those of them that it has state for.
        known: False where its numbers cannot be told apart.
    """

    section: str
    frozen: Mapping[object, str]
    stateful: frozenset[object]
    known: bool = True


def warn_of_optimizer(plan: Plan) -> Plan:
    """The plan with a note for each optimizer that still holds frozen parameters."""
    notes = []
    for held in optimizers(plan):
        if not held.known:
            message = "it does not record which of its parameters are which, so which are frozen"
        elif held.stateful:
            names = listed([held.frozen[key] for key in held.frozen if key in held.stateful])
            message = f"it still holds state of frozen {names}; --prune-optimizer takes it out"
        else:
            continue
        notes.append(note("optimizer-holds-frozen", held.section, message))
    return replace(plan, notes=(*plan.notes, *notes))


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
    if plan.form != "checkpoint":
        raise UsageError("--prune-optimizer: only a training checkpoint can be pruned")
    if not found:
        raise UsageError(f"{plan.source.target} has no optimizer state to prune")
    for held in found:
        if not held.known:
            raise UsageError(
                f"{held.section}: it does not record which of its parameters are which",
                "one parameter group, or groups with param_names, would",
            )
        plan = pruned(plan, held, groups=groups)
    return plan


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
    names = listed([held.frozen[key] for key in held.frozen])
    dropped = Dropped(held.section, f"the optimizer's state of frozen {names}, as asked")
    return replace(plan, tree=changed, tensors=tensors, dropped=(*plan.dropped, dropped))


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
    frozen = frozenset(name for name, flag in flags.items() if not flag)
    sections = [part.name for part in plan.source.sections if part.role == "optimizer"]
    for section in sections if plan.form in ("checkpoint", "full_model") else ():
        tree = at(plan.tree, section)
        state = mapping_of(at(tree, "state"))
        groups = items_of(at(tree, "param_groups"))
        if state is None or groups is None:
            continue
        names = names_of(plan, section, groups)
        if names is None:
            if frozen and state:
                yield Held(section, {}, frozenset(), known=False)
            continue
        held = {key: name for key, name in names.items() if name in frozen}
        yield Held(section, held, frozenset(key for key in held if key in state))


def names_of(plan: Plan, section: str, groups: Sequence[object]) -> dict[object, str] | None:
    """The optimizer's numbers -> parameters' names in the output; None where nobody can tell."""
    parts = [mapping_of(group) or {} for group in groups]
    keys = [key for part in parts for key in items_of(part.get("params")) or ()]
    named = [name for part in parts for name in items_of(part.get("param_names")) or ()]
    if keys and all(isinstance(key, str) for key in keys):
        named = keys
    if not all(isinstance(key, int | str) for key in keys):
        return None
    if len(named) == len(keys):
        return {key: str(name) for key, name in zip(keys, named, strict=True)}
    if len(groups) != 1:
        return None
    parameters = once(plan)
    trainable = [each for each in parameters if each.source.requires_grad is not False]
    shapes = state_shapes(plan, section)
    for given in (parameters, trainable):
        if len(given) == len(keys) and agree(keys, given, shapes):
            return {key: each.name for key, each in zip(keys, given, strict=True)}
    return in_order(keys, parameters, shapes)


def in_order(
    keys: Sequence[object], parameters: Sequence[PlannedTensor], shapes: Mapping[str, list[Shape]]
) -> dict[object, str] | None:
    """The one way in which the numbers fit some of the parameters in order; None if not just one.

    A bare state_dict does not tell a model's own buffers from parameters, and an optimizer may have
    been given only a part of them.
    """
    first = leftmost(keys, parameters, shapes)
    last = leftmost(keys[::-1], parameters[::-1], shapes)
    if first is None or last is None:
        return None
    # The leftmost and the rightmost way are the same exactly when there is no other.
    if [each.name for each in first] != [each.name for each in reversed(last)]:
        return None
    return {key: each.name for key, each in zip(keys, first, strict=True)}


def leftmost(
    keys: Sequence[object], parameters: Sequence[PlannedTensor], shapes: Mapping[str, list[Shape]]
) -> list[PlannedTensor] | None:
    """Each number with the first parameter after the last one that it fits; None if one is left."""
    found: list[PlannedTensor] = []
    left = iter(parameters)
    for key in keys:
        fitting = next((each for each in left if agree([key], [each], shapes)), None)
        if fitting is None:
            return None
        found.append(fitting)
    return found


def once(plan: Plan) -> list[PlannedTensor]:
    """The model's parameters in the order of `model.parameters()`, tied ones once."""
    found: dict[object, PlannedTensor] = {}
    for tensor in plan.model_tensors:
        if is_parameter(tensor.source):
            found.setdefault(view_of(tensor.source), tensor)
    return list(found.values())


def state_shapes(plan: Plan, section: str) -> dict[str, list[Shape]]:
    """Number, as text -> the shapes of what an optimizer keeps for it."""
    shapes: dict[str, list[Shape]] = {}
    for tensor in plan.source.tensors:
        if tensor.section == section and tensor.name.startswith("state."):
            shapes.setdefault(tensor.name.split(".")[1], []).append(tensor.shape)
    return shapes


def agree(
    keys: Sequence[object],
    parameters: Sequence[PlannedTensor],
    shapes: Mapping[str, list[Shape]],
) -> bool:
    """True when what is kept for each number has the shape of its parameter, or of a part of it."""
    return all(
        shape in parts_of(parameter.source.shape)
        for key, parameter in zip(keys, parameters, strict=True)
        for shape in shapes.get(str(key), ())
    )


def parts_of(shape: Shape) -> tuple[Shape, ...]:
    """Shapes of what is kept for a parameter: all of it, a number, its rows, its columns."""
    return shape, (), (1,), shape[:-1], shape[:-2] + shape[-1:]


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
