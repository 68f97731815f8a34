"""Which parameter each number of an optimizer's state stands for, as far as that can be known.

`optimizer.state_dict()` numbers the parameters in the order in which the optimizer was given them
(torch 2.13, `Optimizer.state_dict`). Groups may have names. One group without names has the order
of `model.parameters()`, if the shapes of the state leave one possibility. Of several groups, and of
one whose shapes contradict that order, nobody recorded the order: there the shapes alone tell, each
of which a model may have many times.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from modtool.pickles.plain import items_of, mapping_of
from modtool.plan.conversion import is_parameter
from modtool.plan.records import Plan, PlannedTensor
from modtool.plan.views import view_of

__all__ = ["Candidates", "Told", "told_of"]

Shape = tuple[int, ...]
Candidates = Mapping[object, tuple[str, ...]]
"""An optimizer's number (or name) -> the parameters that it may be: one where that is known."""


class Told(NamedTuple):
    """What each number of an optimizer may be, by the parameters' names in the output.

    Attributes:
        candidates: What each number may be.
        alike: The parameters that only the model's order tells apart, where it was relied on.
    """

    candidates: Candidates
    alike: tuple[tuple[str, ...], ...] = ()


def told_of(plan: Plan, section: str, groups: Sequence[object]) -> Told:
    """What each number of an optimizer may be: by names, by order, or by shape."""
    parts = [mapping_of(group) or {} for group in groups]
    keys = [items_of(part.get("params")) or [] for part in parts]
    every = [key for group in keys for key in group]
    named = [name for part in parts for name in items_of(part.get("param_names")) or ()]
    if every and all(isinstance(key, str) for key in every):
        named = list(every)
    if len(named) == len(every):
        return Told({key: (str(name),) for key, name in zip(every, named, strict=True)})
    parameters = once(plan)
    shapes = kept_by(plan, section)
    found = by_order(every, parameters, shapes) if len(groups) == 1 else None
    if found is None:
        return by_shape(keys, parameters, shapes)
    candidates = {key: (each.name,) for key, each in zip(every, found, strict=True)}
    return Told(candidates, tuple(dict.fromkeys(fitting(every, parameters, shapes).values())))


def once(plan: Plan) -> list[PlannedTensor]:
    """The model's parameters in the order of `model.parameters()`, tied ones once."""
    found: dict[object, PlannedTensor] = {}
    for tensor in plan.model_tensors:
        if is_parameter(tensor.source):
            found.setdefault(view_of(tensor.source), tensor)
    return list(found.values())


class Kept(NamedTuple):
    """The shapes of what an optimizer keeps for a number; `factors` are rows and columns."""

    whole: frozenset[Shape] = frozenset()
    factors: frozenset[Shape] = frozenset()


NOTHING = Kept()


def kept_by(plan: Plan, section: str) -> dict[str, Kept]:
    """Number, as text -> what an optimizer keeps for it, but for plain numbers such as `step`."""
    found: dict[str, Kept] = {}
    for tensor in plan.source.tensors:
        if tensor.section != section or not tensor.name.startswith("state."):
            continue
        _, key, *rest = tensor.name.split(".")
        kept, shape = found.get(key, NOTHING), tensor.shape
        if any("row" in part or "col" in part for part in rest):
            found[key] = kept._replace(factors=kept.factors | {shape})
        elif shape not in ((), (1,)):
            found[key] = kept._replace(whole=kept.whole | {shape})
    return found


def fits(kept: Kept, shape: Shape) -> bool:
    """True when this may be kept for a parameter: all of it, or its rows and columns.

    Those are what Adafactor keeps, in transformers and in torch; all others keep what has the shape
    of the parameter, and perhaps more.
    """
    if kept.whole:
        return shape in kept.whole
    flat = {shape[:-1], shape[:-2] + shape[-1:]}
    spread = {(*shape[:-1], 1), (*shape[:-2], 1, *shape[-1:])}
    return not kept.factors or (len(shape) > 1 and kept.factors in (flat, spread))


# -- one group ---------------------------------------------------------------------------------


def by_order(
    keys: Sequence[object],
    parameters: Sequence[PlannedTensor],
    shapes: Mapping[str, Kept],
) -> list[PlannedTensor] | None:
    """The parameter of each number, in the model's order; None if there is not just one way."""
    trainable = [each for each in parameters if each.source.requires_grad is not False]
    for given in (parameters, trainable):
        if len(given) == len(keys) and leftmost(keys, given, shapes) is not None:
            return list(given)
    return in_order(keys, parameters, shapes)


def in_order(
    keys: Sequence[object],
    parameters: Sequence[PlannedTensor],
    shapes: Mapping[str, Kept],
) -> list[PlannedTensor] | None:
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
    return first


def leftmost(
    keys: Sequence[object],
    parameters: Sequence[PlannedTensor],
    shapes: Mapping[str, Kept],
) -> list[PlannedTensor] | None:
    """Each number with the first parameter after the last one that it fits; None if one is left."""
    found: list[PlannedTensor] = []
    left = iter(parameters)
    for key in keys:
        kept = shapes.get(str(key), NOTHING)
        fitting = next((each for each in left if fits(kept, each.source.shape)), None)
        if fitting is None:
            return None
        found.append(fitting)
    return found


# -- by shape alone -----------------------------------------------------------------------------


def by_shape(
    groups: Sequence[Sequence[object]],
    parameters: Sequence[PlannedTensor],
    shapes: Mapping[str, Kept],
) -> Told:
    """The parameters that each number may be by what is kept for it.

    Where one group has all parameters of a shape, they are in the model's order, unless the shapes
    in the group contradict that. Numbers of which there are more than parameters of their shape are
    none of the model's.
    """
    every = [key for keys in groups for key in keys]
    by_keys = fitting(every, parameters, shapes)
    alike: dict[tuple[str, ...], list[tuple[int, object]]] = {}
    for index, keys in enumerate(groups):
        for key in keys:
            names = by_keys[shapes.get(str(key), NOTHING)]
            alike.setdefault(names, []).append((index, key))
    ordered = [leftmost(keys, parameters, shapes) is not None for keys in groups]
    found: dict[object, tuple[str, ...]] = {}
    relied: list[tuple[str, ...]] = []
    for names, members in alike.items():
        within = {index for index, _ in members}
        whole = len(members) == len(names) and len(within) == 1 and ordered[min(within)]
        if whole:
            relied.append(names)
        for place, (_, key) in enumerate(members):
            if len(members) > len(names):
                found[key] = ()
            else:
                found[key] = names[place : place + 1] if whole else names
    return Told({key: found[key] for key in every}, tuple(relied))


def fitting(
    keys: Sequence[object],
    parameters: Sequence[PlannedTensor],
    shapes: Mapping[str, Kept],
) -> dict[Kept, tuple[str, ...]]:
    """What is kept for a number -> the parameters that it fits."""
    return {
        kept: tuple(each.name for each in parameters if fits(kept, each.source.shape))
        for kept in dict.fromkeys(shapes.get(str(key), NOTHING) for key in keys)
    }
