"""What a distributed checkpoint can hold: nested dicts whose keys are text, and lists.

`torch.distributed.checkpoint` flattens what it saves (torch 2.13, `_traverse.py`): every key
becomes text, and a dict without entries disappears. It does not look into tuples: each is one
value, a file of `torch.save` that keeps whatever lies in it as it was.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from modtool.errors import UsageError
from modtool.notes import note
from modtool.pickles.symbols import Call
from modtool.plan.plain_tree import COUNTER
from modtool.plan.records import Dropped, Plan, PlannedTensor
from modtool.plan.tree import entries, joined
from modtool.records import TensorInfo

__all__ = ["distributed", "flat_names", "is_entered"]

MANY = 3


def distributed(plan: Plan) -> Plan:
    """The plan of a torch file as one of a distributed checkpoint.

    Raises:
        UsageError: Its object contains itself.
    """
    walk = Walk()
    whole = plan.tree
    tree = walk.value(dict(enumerate(whole)) if isinstance(whole, list | tuple) else whole, "")
    notes = list(plan.notes)
    if walk.renamed:
        notes.append(note("keys-become-text", "", f"keys that are no text: {some(walk.renamed)}"))
    if walk.counters:
        notes.append(note("becomes-plain", "", f"{COUNTER} becomes dict: {some(walk.counters)}"))
    dropped = (*plan.dropped, *walk.dropped)
    return replace(plan, form="dcp", tree=tree, notes=tuple(notes), dropped=dropped)


def some(names: list[str]) -> str:
    """The first of many names."""
    return ", ".join(names[:MANY]) + (", …" if len(names) > MANY else "")


@dataclass(slots=True)
class Walk:
    """One walk over a tree."""

    dropped: list[Dropped] = field(default_factory=list)
    renamed: list[str] = field(default_factory=list)
    counters: list[str] = field(default_factory=list)
    around: set[int] = field(default_factory=set)

    def value(self, value: object, path: str) -> object:
        """A value as it can be held."""
        if isinstance(value, Call) and value.callee == COUNTER:
            self.counters.append(path)
            value = value.arguments[0]
        found = entries(value)
        if found is None and not isinstance(value, list):
            return value
        if id(value) in self.around:
            raise UsageError(
                f"{path}: an object that contains itself", "a distributed checkpoint holds none"
            )
        self.around.add(id(value))
        if found is not None:
            made: object = self.mapping(found, path)
        else:
            assert isinstance(value, list)
            made = [self.value(item, joined(path, index)) for index, item in enumerate(value)]
        self.around.remove(id(value))
        return made

    def mapping(self, found: Mapping[object, object], path: str) -> dict[object, object]:
        """A dict with text for keys."""
        if path and not found:
            self.dropped.append(Dropped(path, "an empty dict, which the format does not hold"))
        made: dict[object, object] = {}
        for key, item in found.items():
            below = joined(path, key)
            if not isinstance(key, str):
                self.renamed.append(below)
            if str(key) in made:
                raise UsageError(f"{below}: two keys of one dict are the same as text")
            made[str(key)] = self.value(item, below)
        return made


def is_entered(value: object) -> bool:
    """True for a list with something in it that is saved by itself."""
    return isinstance(value, list) and any(
        isinstance(item, TensorInfo | PlannedTensor)
        or entries(item) is not None
        or is_entered(item)
        for item in value
    )


def flat_names(tree: object, path: str = "") -> list[str]:
    """The names that the tensors and values of such a tree are saved under."""
    found = entries(tree)
    if found is not None:
        return [name for key, item in found.items() for name in flat_names(item, joined(path, key))]
    if isinstance(tree, list) and is_entered(tree):
        items = enumerate(tree)
        return [name for index, item in items for name in flat_names(item, joined(path, index))]
    return [path]
