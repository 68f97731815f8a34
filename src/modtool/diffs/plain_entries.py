"""What a state_dict holds beside tensors: extra states, and what no load_state_dict expects."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from modtool.diffs.records import Side, ValueChange
from modtool.diffs.sides import Entries, model_of
from modtool.names import Renamer
from modtool.pickles.plain import mapping_of
from modtool.pickles.roles import is_opaque
from modtool.plan.tree import at, beginnings, joined
from modtool.records import ROOT, Checkpoint, TensorInfo

__all__ = ["Beside", "beside_tensors_of", "without_extra_states"]

EXTRA = "_extra_state"
EXTRA_STATE = re.compile(rf"\A(?:.*\.)?{EXTRA}(?=\.|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Beside:
    """What lies beside the tensors of a state_dict, and what a model wants of it.

    Attributes:
        wanted: The extra states that load_state_dict hands to modules, be they tensors or not.
        taken: What else the model's own `state_dict()` has that is no tensor.
        given: What the checkpoint has, by the names in the file.
        rename: What becomes of the names of what need not be a tensor.
        at_root: Whether the tensors lie at the root of a training checkpoint, of which convert
            takes them and the modules' own entries alone.
    """

    wanted: tuple[str, ...] = ()
    taken: frozenset[str] = frozenset()
    given: Mapping[str, object] = field(default_factory=dict)
    rename: Renamer = str
    at_root: bool = False

    def name(self, key: str) -> str:
        """What an entry is compared as: it moves with its module, if it is a module's."""
        return self.rename(key) if is_opaque(key) else key

    @property
    def missing(self) -> list[str]:
        """What the model wants and the checkpoint has not."""
        names = set(map(self.name, self.given))
        return [name for name in self.wanted if name not in names]

    @property
    def unexpected(self) -> list[str]:
        """What the checkpoint has and load_state_dict refuses, by the names in the file."""
        known = self.taken.union(self.wanted)
        return [key for key in self.given if self.name(key) not in known]

    @property
    def surplus(self) -> list[str]:
        """What convert has to be told to leave out."""
        return [key for key in self.unexpected if is_opaque(key) or not self.at_root]

    def after(self, change: Renamer) -> "Beside":
        """The same with names changed further."""
        return replace(self, rename=lambda name: change(self.rename(name)))

    def changes(self, model: Side) -> Iterator[ValueChange]:
        """What does not fit, as what one side has."""
        old: Side = "b" if model == "a" else "a"
        yield from (ValueChange(name, (model,)) for name in self.missing)
        for key in self.unexpected:
            yield ValueChange(self.name(key), (old,), **{old: self.given[key]})


def beside_tensors_of(model: Checkpoint, checkpoint: Checkpoint, rename: Renamer) -> Beside:
    """What lies beside the tensors of a state_dict that a model is to load.

    Args:
        model: What is to load it; what its `state_dict()` has that is no tensor is in its notes.
        checkpoint: Of a whole model, or of several, nothing is known.
        rename: What the names of the checkpoint are changed by.
    """
    section = model_of(checkpoint)
    if checkpoint.kind == "full_model" or (checkpoint.sections and section is None):
        return Beside()
    saved = {each.where for each in model.notes if each.code == "not-a-tensor"}
    wanted = (joined(node.path, EXTRA) for node in model.modules if node.takes_extra_state)
    return Beside(
        tuple(wanted),
        frozenset(name for name in saved if extra_state_in(name) is None),
        dict(given(checkpoint, section)),
        rename,
        section == ROOT,
    )


def given(checkpoint: Checkpoint, section: str | None) -> Iterator[tuple[str, object]]:
    """Name and value of each entry of a state_dict that is no tensor, or an extra state."""
    known: set[str] = set()
    extra: dict[str, TensorInfo] = {}
    for tensor in checkpoint.model_tensors:
        known.update(beginnings(tensor.name))
        state = extra_state_in(tensor.name)
        if state is not None:
            extra.setdefault(state, tensor)
    for name, tensor in extra.items():
        whole = tensor.name == name
        yield name, f"{tensor.dtype} {list(tensor.shape)}" if whole else "a dict with tensors"
    part = checkpoint.root if section is None else at(checkpoint.root, section)
    chosen = section == ROOT and not checkpoint.sections  # somebody asked for its tensors alone
    for key in mapping_of(part) or ():
        if isinstance(key, str) and key not in known and (is_opaque(key) or not chosen):
            yield key, value_at(checkpoint, joined(section or "", key))


def extra_state_in(name: str) -> str | None:
    """The extra state that a tensor is, or is a part of; None for any other."""
    found = EXTRA_STATE.match(name) if EXTRA in name else None
    return found and found[0]


def without_extra_states(entries: Entries) -> dict[str, TensorInfo]:
    """The tensors that load_state_dict looks at: extra states go to their modules as they are."""
    return {name: tensor for name, tensor in entries.items() if extra_state_in(name) is None}


def value_at(checkpoint: Checkpoint, path: str) -> object:
    """A plain value, or those that lie in a dict, by the rest of their paths."""
    if path in checkpoint.values:
        return checkpoint.values[path]
    start = f"{path}."
    inside = [name for name in checkpoint.values if name.startswith(start)]
    return {name.removeprefix(start): checkpoint.values[name] for name in inside}
