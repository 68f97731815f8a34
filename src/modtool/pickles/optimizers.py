"""Optimizers that were saved whole: what `optimizer.state_dict()` would make of them.

Such an object keeps the state of each parameter under the parameter itself; `state_dict()` puts a
number in its place (torch 2.13, `Optimizer.__getstate__` and `Optimizer.state_dict`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modtool.pickles.plain import attributes_of
from modtool.pickles.symbols import Call

__all__ = ["SavedOptimizer", "is_optimizer", "saved_optimizer"]

NEEDED = frozenset({"state", "param_groups"})
PICKLED = NEEDED | {"defaults"}


@dataclass(frozen=True, slots=True)
class SavedOptimizer:
    """An optimizer object, its parameters numbered.

    Attributes:
        state: What `state` holds.
        groups: The settings of each group.
        parameters: The parameters of each group.
        numbers: `id` of each parameter -> its number, in the order of the groups.
    """

    state: object
    groups: Sequence[Mapping[object, object]]
    parameters: Sequence[Sequence[object]]
    numbers: Mapping[int, int]


def is_optimizer(value: object) -> bool:
    """True for an object with what an optimizer pickles, and nothing else."""
    attributes = attributes_of(value)
    return attributes is not None and NEEDED <= attributes.keys() <= PICKLED


def saved_optimizer(value: object) -> SavedOptimizer | None:
    """What an optimizer object holds; None for anything else.

    It takes time in proportion to the number of parameters: each list of them is looked at once.
    """
    attributes = attributes_of(value) or {}
    groups = attributes.get("param_groups")
    if not is_optimizer(value) or not isinstance(groups, list) or not groups:
        return None
    parts: list[list[object]] = []
    for group in groups:
        part = group.get("params") if isinstance(group, dict) else None
        if not isinstance(part, list):
            return None
        parts.append(part)
    if len(set(map(id, parts))) < len(parts):
        return None
    every = [parameter for part in parts for parameter in part]
    if not all(isinstance(parameter, Call) for parameter in every):
        return None
    numbers: dict[int, int] = {}
    for number, parameter in enumerate(every):
        numbers.setdefault(id(parameter), number)
    settings = [{key: group[key] for key in group if key != "params"} for group in groups]
    return SavedOptimizer(attributes["state"], settings, parts, numbers)
