"""What the object of a torch file is: a state_dict, a training checkpoint, a model, or else.

The object is walked once, bounded, and every tensor in it gets a section, a name and a role.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from modtool.errors import UnsafeFileError
from modtool.notes import first_names, note
from modtool.pickles.display import key_text
from modtool.pickles.extra_state import hook_notes
from modtool.pickles.modules import Found, ModuleWalk, described, module_parts
from modtool.pickles.places import FoundTensors, Places, entries
from modtool.pickles.plain import breadth, items_of, mapping_of
from modtool.pickles.roles import (
    are_random_states,
    buffer_names,
    is_model_name,
    is_opaque,
    is_parameter_name,
    packed_entries,
    primary,
    role_of,
    role_without_tensors,
    training_role,
)
from modtool.pickles.torch_objects import Tensors
from modtool.pickles.values import Names, Values
from modtool.records import ROOT, Kind, ModuleNode, Note, Role, Section, TensorInfo

__all__ = ["Contents", "contents_of"]

# The key under which `modtool freeze` records name -> bool in a training checkpoint.
REQUIRES_GRAD = "requires_grad"
# Megatron-LM saves its settings with the model: how many ranks each tensor is cut for.
MEGATRON_RANKS = "args.tensor_model_parallel_size"
# A list of more is one of tensors or of results, not of a model and what trains it.
MAX_PARTS = 100


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file's object holds; the fields mean what they do in `Checkpoint`."""

    kind: Kind
    tensors: tuple[TensorInfo, ...]
    modules: tuple[ModuleNode, ...]
    sections: tuple[Section, ...]
    values: Mapping[str, object]
    notes: tuple[Note, ...] = ()


def contents_of(root: object, tensors: Tensors, budget: int, among: int = 1) -> Contents:
    """Walk the object of a torch file.

    Args:
        root: The object, as symbols.
        tensors: What reads its tensors.
        budget: What the walk may cost: forty for each byte of the pickle will do, so that objects
            shared a million times over end in an error and not in an endless walk.
        among: How many objects of one file share what every file may cost, however small.

    Raises:
        CorruptFileError: A tensor contradicts itself, or the object contains itself.
        UnsafeFileError: The walk would not end in time.
    """
    try:
        places = Places(root, tensors, budget, among)
        return Walk(places, Values(places, budget, among)).contents(root)
    except RecursionError:
        raise UnsafeFileError("its object is nested too deeply") from None


@dataclass(slots=True)
class Walk:
    """The state of one walk."""

    places: Places
    values: Values
    found: list[TensorInfo] = field(default_factory=list)
    modules: list[ModuleNode] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    names: Names = field(default_factory=Names)  # of sections
    open: set[int] = field(default_factory=set)
    hooks: dict[str, dict[str, None]] = field(default_factory=dict)

    def contents(self, root: object) -> Contents:
        """Everything, with the kind that it turns out to be."""
        kind = self.kind_of(root)
        if kind == "checkpoint":
            self.checkpoint(root, "")
        else:
            self.section(root, None, "tensors" if kind == "tensors" else "model")
        sections = primary(self.sections, self.found)
        tensors = with_requires_grad(self.found, root, sections)
        if kind != "checkpoint":
            sections = ()
        if not self.found:
            kind = "values"
        modules, values = tuple(self.modules), self.values.found
        return Contents(kind, tensors, modules, sections, values, tuple(self.notes()))

    def kind_of(self, root: object) -> Kind:
        """What the root is, by its shape alone."""
        if module_parts(root) is not None:
            return "full_model"
        mapping = entries(root)
        if mapping is None:
            return "checkpoint" if self.is_several(root) else "tensors"
        if self.is_flat(root) and not self.is_random(mapping):
            return "state_dict" if all(isinstance(key, str) for key in mapping) else "tensors"
        return "checkpoint"

    def is_random(self, mapping: Mapping[object, object]) -> bool:
        """True for the states of random number generators, which are parts of no model."""
        return len(mapping) <= MAX_PARTS and are_random_states(mapping, self.places.tensors)

    def is_several(self, root: object) -> bool:
        """True for a list or tuple of parts, `[model, optimizer]` or `(state_dict, epoch)`.

        So is what holds such a list: `((parameter, optimizer, 5.0), epoch)`. Several state_dicts
        alone are no parts: they may be the layers of one model.
        """
        items = items_of(root) or ()
        if len(items) > MAX_PARTS:
            return False
        inner = [root, *(item for item in items if entries(item) is None)]
        return any(map(self.has_parts, inner)) or sum(map(self.is_weights, items)) == 1

    def has_parts(self, value: object) -> bool:
        """True for a list with a module in it, or the state of an optimizer."""
        items = items_of(value) or ()
        self.places.spend(breadth(value))
        return len(items) <= MAX_PARTS and any(
            module_parts(item) is not None or "param_groups" in (entries(item) or ())
            for item in items
        )

    def is_weights(self, value: object) -> bool:
        """True for what `state_dict()` of a model gives, as names and values tell."""
        self.places.spend(breadth(value))
        mapping = entries(value)
        if mapping is None or not self.is_flat(value):
            return False
        names = [key for key in mapping if isinstance(key, str)]
        return len(names) == len(mapping) and any(map(is_parameter_name, names))

    def is_flat(self, value: object) -> bool:
        """True for tensors by name or by number, and nothing nested that holds any more."""
        if self.places.hold_tensors_alone(value):
            return True
        mapping = entries(value) or {}
        facts = self.places.tensors.facts
        others = [pair for pair in mapping.items() if facts(pair[1]) is None]
        nested = [item for key, item in others if not is_opaque(key)]
        return len(nested) < len(mapping) and not any(map(self.places.hold, nested))

    # -- the parts of a training checkpoint ------------------------------------------------------

    def checkpoint(self, value: object, path: str) -> None:
        """Divide nested dicts into sections; what holds no tensor is a value."""
        if id(value) in self.open:
            self.places.take_cycle(path)
            return
        self.open.add(id(value))
        self.places.spend(breadth(value))
        mapping = entries(value) or dict(enumerate(items_of(value) or ()))
        # An optimizer's state_dict, and nothing else.
        whole = training_role("", mapping) == "optimizer"
        own: Mapping[object, object] = {}
        if entries(value) is None:
            own = self.trained(mapping)
        elif not path and not whole:
            own = self.own_tensors(mapping)
        prefix = f"{path}." if path else ""
        for key, item in mapping.items():  # "a.b" is called so, and not "b" in "a"
            if type(key) is str and "." in key and key not in own and self.places.hold(item):
                self.names.keep(prefix + key, item)
        for key, item in mapping.items():
            if key in own:
                if key == next(iter(own)):
                    self.take_own(own, mapping, path)
                continue
            name = prefix + key_text(key)
            if not self.places.hold(item):
                self.without_tensors(name, item, whole)
            elif not whole and self.is_divided(name, item):
                self.checkpoint(item, name)
            else:
                role = "optimizer" if whole else self.role(name, item)
                self.section(item, self.named(name, role, item), role)
        self.open.discard(id(value))

    def trained(self, mapping: Mapping[object, object]) -> dict[object, object]:
        """The parameters in a list, as 3D Gaussian Splatting has them beside their optimizer."""
        facts = {key: self.places.tensors.facts(item) for key, item in mapping.items()}
        return {key: mapping[key] for key, fact in facts.items() if fact and fact.requires_grad}

    def own_tensors(self, mapping: Mapping[object, object]) -> dict[object, object]:
        """What lies at the root as a state_dict has it, beside an optimizer, say; else nothing."""
        own: dict[object, object] = {
            key: item
            for key, item in mapping.items()
            if isinstance(key, str) and self.is_own(key, item)
        }
        return own if any(is_parameter_name(key_text(key)) for key in own) else {}

    def is_own(self, key: str, item: object) -> bool:
        """True for an entry of a state_dict: a tensor, or what a module keeps several in."""
        return self.places.is_tensor(item) or (is_opaque(key) and self.places.hold(item))

    def take_own(
        self, own: Mapping[object, object], mapping: Mapping[object, object], path: str
    ) -> None:
        """Take tensors that lie beside the parts: the model, unless a part is called so."""
        named = any(
            is_model_name(key_text(key)) and self.places.hold(item)
            for key, item in mapping.items()
            if key not in own
        )
        role = "other" if named else "model"
        section = self.named(path or ROOT, role)
        places = [
            place for key, item in own.items() for place in self.places.of(item, key_text(key))
        ]
        self.take_all(places, section, role)

    def without_tensors(self, name: str, value: object, whole: bool) -> None:
        """Take plain values; a scheduler's are a section of their own."""
        if name == REQUIRES_GRAD:
            return
        role = None if whole else role_without_tensors(name, value)
        if role is not None:
            name = self.named(name, role)
        self.values.keep(name, value)

    def named(self, name: str, role: str, value: object = None) -> str:
        """Record a section; of two with one path one is `a.b (2)`, as values are."""
        given = self.names.give(name, value)
        self.sections.append(Section(given, role))
        return given

    def notes(self) -> Iterator[Note]:
        """What may be otherwise in Python than it is shown."""
        yield from hook_notes(self.hooks)
        packed = packed_entries(tensor.name for tensor in self.found)
        cyclic = self.places.cyclic
        if packed:
            message = "one entry of state_dict() each, whose packed tensors are numbered here: "
            yield note("not-a-tensor", packed[0], message + first_names(packed))
        if cyclic:
            message = f"a value that contains itself, shown once: {first_names(cyclic)}"
            yield note("cyclic-value", cyclic[0], message)
        ranks = self.values.found.get(MEGATRON_RANKS)
        if isinstance(ranks, int) and ranks > 1 and "model" in self.names.taken:
            message = f"one of {ranks:,} ranks, each with slices of the same tensors: merge them"
            yield note("tensor-parallel", "model", message)

    def role(self, name: str, value: object) -> str:
        """What a section is."""
        self.places.spend(breadth(value))
        if is_model_name(name):  # then the items of a list are looked into
            self.places.spend(sum(map(breadth, items_of(value) or ())))
        return role_of(name, value, self.places.tensors)

    def is_divided(self, name: str, value: object) -> bool:
        """True for what is no section itself but holds some: one part, or a known name.

        So is what holds modules, each of which has a tree of its own, and a list of parts.
        """
        self.places.spend(breadth(value))
        if module_parts(value) is not None:
            return False
        mapping = entries(value)
        if mapping is not None and self.is_flat(value):
            return False
        if self.role(name, value) in ("optimizer", "scheduler", "scaler"):
            return False
        if mapping is None:
            return self.has_parts(value)
        holders = {key: item for key, item in mapping.items() if self.places.hold(item)}
        if any(module_parts(item) is not None for item in holders.values()):
            return True
        if any(self.is_part(key_text(key), item) for key, item in holders.items()):
            return True
        single = len(holders) == 1 and entries(next(iter(holders.values()))) is not None
        return single and not is_model_name(name)

    def is_part(self, name: str, value: object) -> bool:
        """True for a dict or module that is a section wherever it lies: a model, an optimizer."""
        if entries(value) is None:
            return False
        return is_model_name(name) or self.role(name, value) == "optimizer"

    def section(self, value: object, section: str | None, role: str) -> None:
        """Take the tensors of one section, and what plain values lie beside them."""
        if module_parts(value) is not None:
            walk = ModuleWalk(self.places.tensors, section)
            for found in walk.walk(value):
                self.places.take_name(found.name)
                self.take(found, section)
            for name, item in walk.beside.items():
                self.places.take_name(name)
                self.values.keep(f"{section}.{name}" if section else name, item)
            self.modules.extend(walk.nodes)
            self.hooks.update(walk.hooks)
            return
        self.take_all(self.places.of(value), section, role)
        self.values.keep(section or "", value)

    def take_all(self, places: FoundTensors, section: str | None, role: str) -> None:
        """Record tensors by name, as what they are in a section of this role."""
        buffers = buffer_names([name for name, *_ in places]) if role in WEIGHTS else ()
        usual = WEIGHTS.get(role, "state")
        for name, item, facts in places:
            kind = "buffer" if name in buffers else usual
            self.take(Found(name, item, kind, True, facts), section)

    def take(self, found: Found, section: str | None) -> None:
        """Record one tensor."""
        if section:
            self.places.take_text(section)
        info = described(found, self.places.tensors, section)
        if info is not None:
            self.found.append(info)


WEIGHTS: Mapping[str, Role] = {"model": "parameter", "ema": "parameter", "tensors": "tensor"}


def with_requires_grad(
    tensors: list[TensorInfo], root: object, sections: tuple[Section, ...]
) -> tuple[TensorInfo, ...]:
    """Apply the `requires_grad` map that `modtool freeze` writes beside a model section."""
    recorded = mapping_of((mapping_of(root) or {}).get(REQUIRES_GRAD)) or {}
    flags = {key: flag for key, flag in recorded.items() if isinstance(flag, bool)}
    if not flags:
        return tuple(tensors)
    models = {section.name for section in sections if section.role == "model"}
    return tuple(
        replace(tensor, requires_grad=flags.get(tensor.name, tensor.requires_grad))
        if tensor.section in models and tensor.role == "parameter"
        else tensor
        for tensor in tensors
    )
