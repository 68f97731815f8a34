"""Names of parameters inside of optimizers' states, changed along with those of the model.

`torch.distributed.checkpoint.state_dict` keeps an optimizer's state by name, nested or flat
(`state.NAME.exp_avg`); one that goes by numbers may list `param_names` (torch 2.13).
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from modtool.names import mapped
from modtool.pickles.plain import items_of
from modtool.plan.edits import optimizers_in
from modtool.plan.records import Plan, PlannedTensor
from modtool.plan.tree import at, entries, joined, place_of, put, with_entries

__all__ = ["renamed_in_optimizers"]

STATE, GROUPS = "state", "param_groups"
LISTS = ("params", "param_names")
Entries = dict[object, object]
Names = Mapping[str, str]
"""Old name -> new name."""


def renamed_in_optimizers(plan: Plan, names: Names) -> Plan:
    """The plan with new names of the model's parameters in what its optimizers keep by name.

    Raises:
        UsageError: Two names in one optimizer would become one.
    """
    tree = plan.tree
    starts: list[str] = []  # of the places of tensors, up to the name of the parameter
    for place in optimizers_of(plan, names):
        part = at(tree, place)
        found = entries(part) or {}
        is_nested = {STATE, GROUPS} <= found.keys()
        new = in_nested(found, names) if is_nested else in_flat(found, names)
        if all(old == name for old, name in new.items()):
            continue
        made = nested(found, new) if is_nested else keyed(found, new)
        tree = put(tree, place, with_entries(part, made))
        starts += [f"{joined(place, head)}." for head in heads(found)]
    return replace(plan, tree=tree, tensors=moved(plan, tuple(starts), names))


def optimizers_of(plan: Plan, names: Names) -> list[str]:
    """Where the optimizers lie, but for those beside another net with these names.

    In `{"model": …, "optim": …, "best": {"model": …, "optim": …}}` only the first is renamed.
    """
    sections = [part.name for part in plan.source.sections if part.role == "optimizer"]
    nets = {
        tensor.section
        for tensor in plan.tensors
        if tensor.section and (tensor.section in plan.models or tensor.name in names)
    }

    def is_of_another(place: str) -> bool:
        around = place.rpartition(".")[0]
        beside = {net for net in nets if around and net.startswith(f"{around}.")}
        return bool(beside) and beside.isdisjoint(plan.models)

    places = dict.fromkeys((*sections, *optimizers_in(plan.tree)))
    return [place for place in places if not is_of_another(place)]


def heads(found: Entries) -> tuple[str, ...]:
    """The keys of an optimizer under which tensors lie by the names of parameters."""
    if not {STATE, GROUPS} <= found.keys():
        return STATE, GROUPS
    return (STATE,) if goes_by_name(found) else ()


def moved(plan: Plan, starts: tuple[str, ...], names: Names) -> tuple[PlannedTensor, ...]:
    """The tensors; those whose places begin so have new names behind that."""

    def change(tensor: PlannedTensor) -> PlannedTensor:
        place = place_of(tensor.section, tensor.name)
        start = next((start for start in starts if place.startswith(start)), None)
        if start is None or tensor.section is None or tensor.section in plan.models:
            return tensor
        new = start + with_new_beginning(place.removeprefix(start), names)
        return replace(tensor, name=new.removeprefix(f"{tensor.section}."))

    return tuple(map(change, plan.tensors))


def with_new_beginning(path: str, names: Names) -> str:
    """A path whose longest beginning that is a name is what that becomes."""
    head = path
    while head and head not in names:
        head = head.rpartition(".")[0]
    return names[head] + path.removeprefix(head) if head else path


# -- one optimizer -------------------------------------------------------------------------------


def in_nested(found: Entries, names: Names) -> dict[str, str]:
    """What each name in an optimizer's `state_dict()` becomes."""
    state = entries(found[STATE]) or {}
    every = [*listed(found, *LISTS), *(state if goes_by_name(found) else ())]
    return mapped(texts(every), lambda name: names.get(name, name))


def in_flat(found: Entries, names: Names) -> dict[str, str]:
    """What each key of such a dict that is flat already becomes."""

    def change(key: str) -> str:
        head, dot, rest = key.partition(".")
        return head + dot + with_new_beginning(rest, names) if head in (STATE, GROUPS) else key

    return mapped(texts(found), change)


def nested(found: Entries, new: Names) -> Entries:
    """An optimizer's `state_dict()` with other names."""
    groups = [with_names(group, new) for group in items_of(found[GROUPS]) or ()]
    state = found[STATE]
    if goes_by_name(found):
        state = with_entries(state, keyed(entries(state) or {}, new))
    return {**found, STATE: state, GROUPS: groups}


def with_names(group: object, new: Names) -> object:
    """A group that lists other names."""
    found = entries(group) or {}
    lists: Entries = {
        key: [new.get(name, name) if isinstance(name, str) else name for name in items]
        for key in LISTS
        if (items := items_of(found.get(key))) is not None
    }
    return with_entries(group, {**found, **lists}) if lists else group


def keyed(found: Entries, new: Names) -> Entries:
    """Entries under other keys."""
    return {new.get(key, key) if isinstance(key, str) else key: found[key] for key in found}


def goes_by_name(found: Entries) -> bool:
    """True for an optimizer whose groups list its parameters by name, not by number."""
    keys = listed(found, "params")
    return bool(keys) and len(texts(keys)) == len(keys)


def listed(found: Entries, *keys: str) -> list[object]:
    """What the groups of an optimizer list under some keys."""
    groups = [entries(group) or {} for group in items_of(found[GROUPS]) or ()]
    return [item for group in groups for key in keys for item in items_of(group.get(key)) or ()]


def texts(values: Iterable[object]) -> list[str]:
    """Those of some values that are text."""
    return [value for value in values if isinstance(value, str)]
