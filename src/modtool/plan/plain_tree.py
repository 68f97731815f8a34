"""The object of a torch file as plain containers that `torch.load(weights_only=True)` accepts.

Tensors are their `TensorInfo`. What that loader would refuse becomes its exact plain equivalent
where there is one, and is left out and named where there is none.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from modtool.pickles.display import key_text
from modtool.pickles.modules import module_parts
from modtool.pickles.optimizers import SavedOptimizer, saved_optimizer
from modtool.pickles.plain import (
    FROZENSET,
    TUPLE,
    Unknown,
    attributes_of,
    items_of,
    mapping_of,
    plain,
)
from modtool.pickles.symbols import ABSENT, Call, Global
from modtool.plan.records import Dropped
from modtool.plan.tree import DROPPED, joined, path_of
from modtool.records import DTYPES, Checkpoint, TensorInfo

__all__ = ["PlainTree", "plain_tree"]


SCALARS = (type(None), bool, int, float, str, bytes, bytearray, complex)
# Calls that weights_only loads as they are (torch 2.13, `_get_allowed_globals`).
ALLOWED = frozenset(
    {"torch.Size", "torch.device", "_codecs.encode"}
    | {f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("set", "complex")}
    | {f"{module}.bytearray" for module in ("builtins", "__builtin__")}
)
WHOLE = "the whole object"
BY_NUMBER = "its state_dict() takes its place, with its parameters by number"
NO_GROUP = "it has state of parameters that are in none of its groups, for which there is no number"
REFUSED = "weights_only=True would refuse it, and it has no plain equivalent"


@dataclass(frozen=True, slots=True)
class PlainTree:
    """What a torch file holds, as plain containers with `TensorInfo` leaves; and what it lost.

    Attributes:
        tree: The object.
        dropped: What is not in it, or not as it was.
        gone: The paths at which nothing of the source is left.
        again: Further paths of what lies at another one, of which something is gone.
    """

    tree: object
    dropped: tuple[Dropped, ...]
    gone: frozenset[str]
    again: Mapping[str, str]

    def holds(self, tensor: TensorInfo) -> bool:
        """False for a tensor that lies in something that was left out."""
        path = ""
        for part in path_of(tensor).split(".") if self.gone else ():
            path = joined(path, part)
            path = self.again.get(path, path)
            if path in self.gone:
                return False
        return True


def plain_tree(checkpoint: Checkpoint) -> PlainTree:
    """The object of a torch file in plain containers.

    Containers that are shared, or contain themselves, stay so.
    """
    by_path = {path_of(tensor): tensor for tensor in checkpoint.tensors}
    by_origin = {id(tensor.origin): tensor for tensor in reversed(checkpoint.tensors)}
    walk = Walk(by_path, by_origin)
    tree = walk.plain(checkpoint.root, "")
    kept = {} if tree is DROPPED else tree
    return PlainTree(kept, tuple(walk.dropped), frozenset(walk.gone), walk.again)


@dataclass(slots=True)
class Walk:
    """One walk over an object."""

    by_path: Mapping[str, TensorInfo]
    by_origin: Mapping[int, TensorInfo]
    dropped: list[Dropped] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    lossy: dict[int, str] = field(default_factory=dict)
    again: dict[str, str] = field(default_factory=dict)
    holders: set[str] = field(default_factory=set)
    done: dict[int, object] = field(default_factory=dict)

    def plain(self, value: object, path: str) -> object:
        """The plain equivalent of one value, or DROPPED."""
        if isinstance(value, SCALARS):
            return value
        tensor = self.by_origin.get(id(value))
        if tensor is not None:
            return self.by_path.get(path, tensor)
        if id(value) not in self.done:
            before = len(self.gone)
            self.done[id(value)] = DROPPED  # a tuple inside itself: pickle makes it so, rarely
            self.done[id(value)] = self.fresh(value, path)
            if len(self.gone) > before:
                self.lossy[id(value)] = path
        elif id(value) in self.lossy and self.has_tensors(path):
            self.again[path] = self.lossy[id(value)]
        return self.done[id(value)]

    def has_tensors(self, path: str) -> bool:
        """True for a place with tensors below it."""
        if not self.holders:
            for name in self.by_path:
                while name:
                    name = name.rpartition(".")[0]
                    self.holders.add(name)
        return path in self.holders

    def fresh(self, value: object, path: str) -> object:
        """The plain equivalent of a value that was not met before."""
        if module_parts(value) is not None:
            return self.module(path)
        optimizer = saved_optimizer(value)
        if optimizer is not None:
            return self.optimizer(value, optimizer, path)
        if isinstance(value, Call) and value.callee == "collections.OrderedDict":
            return self.ordered(value, path)
        mapping = mapping_of(value)
        if mapping is not None:
            return self.mapping(value, mapping, path)
        if isinstance(value, Call) and value.callee in ALLOWED and value.state is ABSENT:
            return value
        items = items_of(value)
        if items is not None:
            return self.sequence(value, items, path)
        return self.symbol(value, path)

    def module(self, path: str) -> object:
        """The state_dict of a module that lies in a checkpoint."""
        prefix = f"{path}." if path else ""
        found: dict[object, object] = {}
        for name, tensor in self.by_path.items():
            if name.startswith(prefix) and tensor.persistent:
                found[name[len(prefix) :]] = tensor
        self.dropped.append(Dropped(path, "the module itself; its state_dict takes its place"))
        return found

    def optimizer(self, value: object, optimizer: SavedOptimizer, path: str) -> object:
        """The state_dict of an optimizer that was saved whole, its parameters by number."""
        state = mapping_of(optimizer.state) or {}
        if any(isinstance(key, Call) and id(key) not in optimizer.numbers for key in state):
            return self.drop(path, f"{describe(value)}: {NO_GROUP}")
        self.dropped.append(Dropped(path or WHOLE, f"{describe(value)} itself; {BY_NUMBER}"))
        numbered = {optimizer.numbers.get(id(key), key): item for key, item in state.items()}
        entered: dict[object, object] = {}
        groups: list[object] = []
        made = {"state": entered, "param_groups": groups}
        self.done[id(value)] = made
        self.fill(entered, numbered, joined(path, "state"))
        for index, settings in enumerate(optimizer.groups):
            group: dict[object, object] = {}
            below = joined(joined(path, "param_groups"), index)
            self.fill(group, settings, below)
            group["params"] = [optimizer.numbers[id(each)] for each in optimizer.parameters[index]]
            self.gone.add(f"{below}.params")
            groups.append(group)
        return made

    def ordered(self, value: Call, path: str) -> object:
        """An OrderedDict stays one, with the `_metadata` that `state_dict()` attaches."""
        made = Call(value.function, (), items={})
        self.done[id(value)] = made
        made.items = {}
        self.fill(made.items, mapping_of(value) or {}, path)
        if isinstance(value.state, dict):
            state: dict[object, object] = {}
            self.fill(state, value.state, path)
            made.state = state
        return made

    def mapping(self, value: object, mapping: Mapping[object, object], path: str) -> object:
        """A dict; of a Counter, a defaultdict or a subclass, its entries."""
        made: dict[object, object] = {}
        self.done[id(value)] = made
        self.fill(made, mapping, path)
        return made

    def fill(self, made: dict[object, object], mapping: Mapping[object, object], path: str) -> None:
        """Put the plain equivalents of all entries into a dict."""
        for key, item in mapping.items():
            name = plain_key(key)
            if name is DROPPED:
                self.drop(joined(path, "?"), f"its key is no plain value ({REFUSED})")
                self.gone.add(joined(path, key_text(key)))
                continue
            found = self.plain(item, joined(path, name))
            if found is not DROPPED:
                made[name] = found

    def sequence(self, value: object, items: list[object], path: str) -> object:
        """A list, tuple or set; what cannot be kept leaves None, so that the others stay put."""
        made: list[object] = []
        if not isinstance(value, tuple | set | frozenset):
            self.done[id(value)] = made
        for index, item in enumerate(items):
            found = self.plain(item, joined(path, index))
            made.append(None if found is DROPPED else found)
        kind = CALLED.get(value.callee) if isinstance(value, Call) else SEQUENCES.get(type(value))
        kind = kind or list
        return made if kind is list else kind(made)

    def symbol(self, value: object, path: str) -> object:
        """Anything else: its plain equivalent, entered again where that is a container."""
        if isinstance(value, Global) and value.module == "torch" and value.name in DTYPES:
            return value
        found = plain(value) if isinstance(value, Call) else Unknown(describe(value))
        if isinstance(found, Unknown):
            return self.attributes(value, path)
        return self.mapping(value, found, path) if isinstance(found, dict) else found

    def attributes(self, value: object, path: str) -> object:
        """An object of some class: its attributes where tensors are among them, else nothing."""
        attributes = attributes_of(value)
        below = f"{path}." if path else ""
        if attributes is None or not any(name.startswith(below) for name in self.by_path):
            return self.drop(path, f"{describe(value)}: {REFUSED}")
        why = f"{describe(value)} itself; a dict of its attributes takes its place"
        self.dropped.append(Dropped(path, why))
        return self.mapping(value, attributes, path)  # type: ignore[arg-type]

    def drop(self, path: str, why: str) -> object:
        """Leave something out, and say so."""
        self.dropped.append(Dropped(path, why))
        self.gone.add(path)
        return DROPPED


SEQUENCES: Mapping[type, Callable[[list[object]], object]] = MappingProxyType(
    {tuple: tuple, set: set, frozenset: set}
)
# weights_only knows no frozenset; a set is equal to one.
CALLED: Mapping[str, Callable[[list[object]], object]] = MappingProxyType(
    {**dict.fromkeys(FROZENSET, set), **dict.fromkeys(TUPLE, tuple)}
)


def plain_key(key: object) -> object:
    """A dictionary key that weights_only accepts, or DROPPED."""
    if isinstance(key, SCALARS):
        return key
    if isinstance(key, tuple):
        parts = tuple(plain_key(part) for part in key)
        return DROPPED if DROPPED in parts else parts
    found = plain(key) if isinstance(key, Call) else DROPPED
    return found if isinstance(found, SCALARS) else DROPPED


def describe(value: object) -> str:
    """What a value without an equivalent is."""
    if isinstance(value, Global):
        return f"the name {value.qualified}"
    if isinstance(value, Call):
        return f"an object of {value.callee or 'an unknown class'}"
    return f"a {type(value).__name__}"
