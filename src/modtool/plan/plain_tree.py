"""The object of a torch file as plain containers that `torch.load(weights_only=True)` accepts.

Tensors are their `TensorInfo`. What that loader would refuse becomes its exact plain equivalent
where there is one, and is left out and named where there is none.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from modtool.errors import UnsafeFileError
from modtool.notes import first_names, note
from modtool.pickles.display import key_text
from modtool.pickles.modules import module_parts, modules_in
from modtool.pickles.numpy_values import (
    ARRAY_DTYPES,
    NUMPY_ARRAYS,
    saved_array,
)
from modtool.pickles.optimizers import SavedOptimizer, saved_optimizer
from modtool.pickles.plain import (
    Unknown,
    attributes_of,
    builtin,
    items_of,
    mapping_of,
    plain,
)
from modtool.pickles.policy import SCHEMES
from modtool.pickles.quantized_modules import SCRIPT_OBJECT, packed_entries, tensors_in
from modtool.pickles.symbols import ABSENT, Call, Global
from modtool.pickles.torch_objects import TensorFacts
from modtool.plan.plain_values import (
    RANGES,
    SCALAR,
    SCALARS,
    called,
    describe,
    described_array,
    kind_of,
    numbers_of,
    plain_key,
    value_of,
)
from modtool.plan.records import Dropped
from modtool.plan.tree import DROPPED, joined, path_of
from modtool.plan.versions import versions_of
from modtool.records import DTYPES, Checkpoint, Note, Storage, TensorInfo, contiguous_stride

__all__ = ["COUNTER", "PlainTree", "plain_tree"]


# Calls that weights_only loads as they are (torch 2.13, `_get_allowed_globals`).
ALLOWED = frozenset(
    {"torch.Size", "torch.device", "_codecs.encode", *builtin("complex", "bytearray")}
)
# Names that it loads as the values that they are.
CONSTANTS = frozenset({*SCHEMES, *(f"torch.{name}" for name in DTYPES)})
COUNTER = "collections.Counter"
# Objects in the attributes of others: linked lists would end in a RecursionError.
MAX_OBJECTS = 50
WHOLE = "the whole object"
BY_NUMBER = "its state_dict() takes its place, with its parameters by number"
NO_GROUP = "it has state of parameters that are in none of its groups, for which there is no number"
PACKED = (
    "an object of torch's C++ side, which weights_only=True refuses; its tensors stay, numbered, "
    "and load_state_dict() does not take those: it needs what torch.save(model.state_dict()) writes"
)
REFUSED = "weights_only=True would refuse it, and it has no plain equivalent"


@dataclass(frozen=True, slots=True)
class PlainTree:
    """What a torch file holds, as plain containers with `TensorInfo` leaves; and what it lost.

    Attributes:
        tree: The object.
        dropped: What is not in it, or not as it was.
        gone: The paths at which nothing of the source is left.
        again: Further paths of what lies at another one, of which something is gone.
        arrays: The NumPy arrays, which become tensors.
        changed: What has become another type -> where.
    """

    tree: object
    dropped: tuple[Dropped, ...]
    gone: frozenset[str]
    again: Mapping[str, str]
    arrays: tuple[TensorInfo, ...]
    changed: Mapping[str, Sequence[str]]

    def within(self, section: str | None) -> "PlainTree":
        """The part of it that a section is; the whole for None."""
        if section is None:
            return self
        inside = f"{section}."
        changed = {
            what: here
            for what, paths in self.changed.items()
            if (here := [path for path in paths if path.startswith(inside)])
        }
        arrays = tuple(array for array in self.arrays if array.section == section)
        dropped = tuple(item for item in self.dropped if item.name.startswith(inside))
        return replace(self, arrays=arrays, changed=changed, dropped=dropped)

    def notes(self) -> Iterator[Note]:
        """What is to be told of the types that changed."""
        for what, paths in self.changed.items():
            yield note("becomes-plain", "", f"{what}: {first_names(paths)}")

    def holds(self, tensor: TensorInfo) -> bool:
        """False for a tensor that lies in something that was left out."""
        path = ""
        for part in path_of(tensor).split(".") if self.gone else ():
            path = joined(path, part)
            path = self.again.get(path, path)
            if path in self.gone:
                return False
        return True


def plain_tree(checkpoint: Checkpoint, edited: Sequence[str | None] = ()) -> PlainTree:
    """The object of a torch file in plain containers.

    Containers that are shared, or contain themselves, stay so, but for those with tensors in one
    of the sections that are edited: what is done to the one is not done to the other.

    Raises:
        UnsafeFileError: Its values are nested too deeply.
    """
    by_path = {path_of(tensor): tensor for tensor in checkpoint.tensors}
    by_origin = {id(tensor.origin): tensor for tensor in reversed(checkpoint.tensors)}
    sections = tuple(section.name for section in checkpoint.sections)
    walk = Walk(by_path, by_origin, sections, tuple(name or "" for name in edited))
    try:
        tree = walk.plain(checkpoint.root, "")
    except RecursionError:
        raise UnsafeFileError(
            f"{checkpoint.target}: its values are nested too deeply to be written again",
            "take its tensors alone: --to state_dict or --to safetensors",
        ) from None
    kept = {} if tree is DROPPED else tree
    return PlainTree(
        kept,
        tuple(walk.dropped),
        frozenset(walk.gone),
        walk.again,
        tuple(walk.arrays),
        walk.changed,
    )


@dataclass(slots=True)
class Walk:
    """One walk over an object."""

    by_path: Mapping[str, TensorInfo]
    by_origin: Mapping[int, TensorInfo]
    sections: tuple[str, ...] = ()
    edited: tuple[str, ...] = ()
    arrays: list[TensorInfo] = field(default_factory=list)
    changed: dict[str, list[str]] = field(default_factory=dict)
    dropped: list[Dropped] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    lossy: dict[int, str] = field(default_factory=dict)
    again: dict[str, str] = field(default_factory=dict)
    holders: set[str] = field(default_factory=set)
    done: dict[int, object] = field(default_factory=dict)
    places: dict[int, str] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    objects: int = 0

    def plain(self, value: object, path: str) -> object:
        """The plain equivalent of one value, or DROPPED."""
        if isinstance(value, SCALARS):
            return value
        tensor = self.by_origin.get(id(value))
        if tensor is not None:
            return self.by_path.get(path, tensor)
        if id(value) not in self.done or self.is_apart(id(value), path):
            before = len(self.gone)
            self.places[id(value)] = path
            self.done[id(value)] = DROPPED  # a tuple inside itself: pickle makes it so, rarely
            self.done[id(value)] = self.fresh(value, path)
            if self.done[id(value)] is DROPPED:
                self.refused[id(value)] = self.dropped[-1].why
            if len(self.gone) > before:
                self.lossy[id(value)] = path
        elif id(value) in self.refused:
            return self.drop(path, self.refused[id(value)])
        elif id(value) in self.lossy and self.has_tensors(path):
            self.again[path] = self.lossy[id(value)]
        return self.done[id(value)]

    def is_apart(self, key: int, path: str) -> bool:
        """True for a container that was met at another place, where other edits may apply."""
        edited = self.is_edited(path) or self.is_edited(self.places[key])
        return edited and self.has_tensors(path)

    def is_edited(self, path: str) -> bool:
        """True for a place in a section that is edited, or around one."""
        return any(
            not name or f"{path}.".startswith(f"{name}.") or name.startswith(f"{path}.")
            for name in self.edited
        )

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
            return self.module(value, path)
        optimizer = saved_optimizer(value)
        if optimizer is not None:
            return self.optimizer(value, optimizer, path)
        if isinstance(value, Call) and value.callee == "collections.OrderedDict":
            return self.ordered(value, path)
        mapping = mapping_of(value)
        if mapping is not None and isinstance(value, Call) and value.callee == COUNTER:
            return self.counter(value, mapping, path)
        if mapping is not None:
            self.change(value, "dict", path)
            return self.mapping(value, mapping, path)
        if isinstance(value, Call) and value.callee in ALLOWED and value.state is ABSENT:
            return value
        items = items_of(value)
        if items is not None:
            return self.sequence(value, items, path)
        return self.symbol(value, path)

    def module(self, value: object, path: str) -> object:
        """The state_dict of a module."""
        found: dict[object, object] = {}
        for inner, module, parts in modules_in(value):
            for name in (*parts.children("_parameters"), *parts.children("_buffers")):
                self.registered(found, joined(inner, name), path)
            for entry in packed_entries(parts.class_name, parts.attributes, self.is_tensor, module):
                name = joined(inner, entry.name)
                if self.registered(found, name, path):
                    continue
                if entry.facts is None:
                    self.enter(found, name, entry.value, path)
                else:
                    found[name] = self.value(joined(path, name), entry.facts)
        if path:
            self.dropped.append(Dropped(path, "the module itself; its state_dict takes its place"))
        ordered = Global("collections", "OrderedDict")
        return Call(ordered, (), items=found, state=versions_of(value))

    def registered(self, made: dict[object, object], name: str, path: str) -> bool:
        """Put a tensor of a module into its state_dict, if it is one that belongs there."""
        tensor = self.by_path.get(joined(path, name))
        if tensor is None or not tensor.persistent:
            return False
        made[name] = tensor
        return True

    def is_tensor(self, value: object) -> bool:
        """True for the symbol of a tensor."""
        return id(value) in self.by_origin

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

    def counter(self, value: Call, mapping: Mapping[object, object], path: str) -> object:
        """A Counter stays one."""
        counts: dict[object, object] = {}
        self.fill(counts, mapping, path)
        if not all(isinstance(count, SCALARS) for count in counts.values()):
            self.change(value, "dict", path)
            return counts
        return Call(value.function, (counts,))

    def mapping(self, value: object, mapping: Mapping[object, object], path: str) -> object:
        """A dict; of a defaultdict or a subclass, its entries."""
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
            if name is not key:
                self.change(key, type(name).__name__, joined(path, name))
            self.enter(made, name, item, path)

    def enter(self, made: dict[object, object], name: object, value: object, path: str) -> None:
        """Put the plain equivalent of one entry into a dict; of what is packed, its tensors."""
        where = joined(path, name)
        if isinstance(value, Call) and value.callee == SCRIPT_OBJECT:
            inside = [place for place, _ in tensors_in(value, self.is_tensor)]
            made.update({f"{name}{place}": self.by_path[where + place] for place in inside})
            self.dropped.append(Dropped(where, PACKED if inside else f"{SCRIPT_OBJECT}: {REFUSED}"))
            return
        found = self.plain(value, where)
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
        kind = kind_of(value)
        self.change(value, kind.__name__, path)
        if kind is not set:
            return made if kind is list else kind(made)
        if all(isinstance(item, SCALARS) for item in made):
            return set(made)
        return self.drop(path, f"a {called(value) or 'set'} of what is no plain value: {REFUSED}")

    def symbol(self, value: object, path: str) -> object:
        """Anything else: its plain equivalent, entered again where that is a container."""
        if isinstance(value, Global) and value.qualified in CONSTANTS:
            return value
        if not isinstance(value, Call):
            return self.drop(path, f"{describe(value)}: {REFUSED}")
        if value.callee in NUMPY_ARRAYS:
            return self.array(value, path)
        found = plain(value) if value.callee not in RANGES else numbers_of(value)
        if isinstance(found, Unknown):
            return self.attributes(value, path)
        self.change(value, type(found).__name__, path)
        return self.mapping(value, found, path) if isinstance(found, dict) else found

    def array(self, value: Call, path: str) -> object:
        """A NumPy array of numbers, as a tensor of the same type."""
        found = saved_array(value)
        if found is None or found.data is None:
            return self.drop(path, f"{described_array(value, found)}: {REFUSED}")
        stride = contiguous_stride(found.shape[::-1])[::-1] if found.fortran else None
        storage = Storage(
            f"array {len(self.arrays)}", found.data.nbytes, "cpu", found.data, found.byteorder
        )
        facts = TensorFacts(ARRAY_DTYPES[found.kind], found.shape, storage, stride=stride)
        self.change(value, "tensor", path)
        return self.value(path, facts, value)

    def value(self, path: str, facts: TensorFacts, origin: object = None) -> TensorInfo:
        """A tensor of the output that is none of the source."""
        inside = [name for name in self.sections if path.startswith(f"{name}.")]
        section = max(inside, key=len, default=None)
        tensor = TensorInfo(
            path[len(section) + 1 :] if section else path,
            facts.dtype,
            facts.shape,
            facts.storage,
            stride=facts.stride,
            section=section,
            role="value",
            origin=origin,
        )
        self.arrays.append(tensor)
        return tensor

    def attributes(self, value: object, path: str) -> object:
        """An object of some class: its attributes, or the one value it is made of; else nothing."""
        attributes = attributes_of(value)
        if attributes is None:
            made_of = value_of(value)
            if made_of is DROPPED:
                return self.drop(path, f"{describe(value)}: {REFUSED}")
            why = f"{describe(value)} itself; the value that it is made of takes its place"
            self.dropped.append(Dropped(path, why))
            return made_of
        if self.objects == MAX_OBJECTS:
            return self.drop(path, f"{describe(value)}: objects in objects, {MAX_OBJECTS} deep")
        why = f"{describe(value)} itself; a dict of its attributes takes its place"
        self.dropped.append(Dropped(path, why))
        self.objects += 1
        made = self.mapping(value, attributes, path)  # type: ignore[arg-type]
        self.objects -= 1
        return made

    def change(self, value: object, to: str, path: str) -> None:
        """Tell that something has another type now, if it has."""
        was = called(value)
        if was is not None:
            to = "Python scalar" if was == SCALAR else to
            self.changed.setdefault(f"{was} becomes {to}", []).append(path)

    def drop(self, path: str, why: str) -> object:
        """Leave something out, and say so."""
        self.dropped.append(Dropped(path, why))
        self.gone.add(path)
        return DROPPED
