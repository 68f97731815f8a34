"""What the object of a torch file is: a state_dict, a training checkpoint, a model, or else.

The object is walked once, bounded, and every tensor in it gets a section, a name and a role.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from modtool.errors import UnsafeFileError
from modtool.pickles.modules import Found, ModuleWalk, module_parts
from modtool.pickles.plain import attributes_of, display, items_of, key_text, mapping_of
from modtool.pickles.roles import MODEL_NAMES, buffer_names, primary, role_of
from modtool.pickles.torch_objects import Tensors
from modtool.records import Kind, ModuleNode, Role, Section, TensorInfo

__all__ = ["Contents", "contents_of"]

MAX_DEPTH = 100
# The key under which `modtool freeze` records name -> bool in a training checkpoint.
REQUIRES_GRAD = "requires_grad"


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file's object holds; the fields mean what they do in `Checkpoint`."""

    kind: Kind
    tensors: tuple[TensorInfo, ...]
    modules: tuple[ModuleNode, ...]
    sections: tuple[Section, ...]
    values: Mapping[str, object]


def contents_of(root: object, tensors: Tensors, budget: int) -> Contents:
    """Walk the object of a torch file.

    Args:
        root: The object, as symbols.
        tensors: What reads its tensors.
        budget: How many places may be visited: a few times what the pickle has opcodes for, so
            that objects shared a million times over end in an error and not in an endless walk.

    Raises:
        CorruptFileError: A tensor contradicts itself, or the object contains itself.
        UnsafeFileError: The walk would not end in time.
    """
    try:
        return Walk(tensors, budget).contents(root)
    except RecursionError:
        raise UnsafeFileError("its object is nested too deeply") from None


@dataclass(slots=True)
class Walk:
    """The state of one walk."""

    tensors: Tensors
    budget: int
    found: list[TensorInfo] = field(default_factory=list)
    modules: list[ModuleNode] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    values: dict[str, object] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)

    def contents(self, root: object) -> Contents:
        """Everything, with the kind that it turns out to be."""
        kind = self.kind_of(root)
        if kind == "checkpoint":
            self.checkpoint(root, "")
        else:
            self.section(root, None, "tensors" if kind == "tensors" else "model")
        sections = primary(self.sections)
        tensors = with_requires_grad(self.found, root, sections)
        if kind != "checkpoint":
            sections = ()
        if not self.found:
            kind = "values"
        return Contents(kind, tensors, tuple(self.modules), sections, self.values)

    def kind_of(self, root: object) -> Kind:
        """What the root is, by its shape alone."""
        if module_parts(root) is not None:
            return "full_model"
        mapping = entries(root)
        if mapping is None:
            return "tensors"
        if self.is_flat(mapping):
            return "state_dict"
        return "checkpoint"

    def is_flat(self, mapping: Mapping[object, object]) -> bool:
        """True for a state_dict: tensors by name, and nothing nested that holds any more."""
        if not all(isinstance(key, str) for key in mapping):
            return False
        others = [item for item in mapping.values() if self.tensors.facts(item) is None]
        return len(others) < len(mapping) and not any(map(self.holds_tensors, others))

    def holds_tensors(self, value: object) -> bool:
        """True when there is a tensor somewhere inside."""
        return next(self.places(value, ""), None) is not None

    # -- the parts of a training checkpoint ------------------------------------------------------

    def checkpoint(self, value: object, path: str) -> None:
        """Divide nested dicts into sections; what holds no tensor is a value."""
        mapping = entries(value) or {}
        for key, item in mapping.items():
            name = f"{path}.{key_text(key)}" if path else key_text(key)
            if not self.holds_tensors(item):
                if name != REQUIRES_GRAD:
                    self.keep_values(name, item)
            elif self.is_divided(name, item):
                self.checkpoint(item, name)
            else:
                self.sections.append(Section(name, role_of(name, item, self.tensors)))
                self.section(item, name, self.sections[-1].role)

    def is_divided(self, name: str, value: object) -> bool:
        """True for a dict that is no section itself but holds some: one part, or a known name."""
        mapping = entries(value)
        if mapping is None or module_parts(value) is not None or self.is_flat(mapping):
            return False
        if role_of(name, value, self.tensors) in ("optimizer", "scheduler", "scaler"):
            return False
        holders = {key: item for key, item in mapping.items() if self.holds_tensors(item)}
        if len(holders) == 1:
            return entries(next(iter(holders.values()))) is not None
        return any(
            key in MODEL_NAMES or role_of(key_text(key), item, self.tensors) == "optimizer"
            for key, item in holders.items()
        )

    def section(self, value: object, section: str | None, role: str) -> None:
        """Take the tensors of one section, and what plain values lie beside them."""
        if module_parts(value) is not None:
            walk = ModuleWalk(self.tensors)
            for found in walk.walk(value):
                self.take(found, section)
            self.modules.extend(walk.nodes if role == "model" else ())
            return
        places = list(self.places(value, ""))
        buffers = buffer_names([name for name, _ in places]) if role in WEIGHTS else ()
        for name, item in places:
            kind: Role = "buffer" if name in buffers else WEIGHTS.get(role, "state")
            self.take(Found(name, item, kind), section)
        self.keep_values(section or "", value)

    def take(self, found: Found, section: str | None) -> None:
        """Record one tensor."""
        facts = self.tensors.facts(found.value)
        if facts is None:
            return
        self.found.append(
            TensorInfo(
                found.name,
                facts.dtype,
                facts.shape,
                facts.storage,
                facts.offset,
                facts.stride,
                section,
                found.role,
                facts.requires_grad if found.role != "buffer" else None,
                facts.layout,
                found.persistent,
                facts.device,
                facts.stored_bytes,
                found.value,
            )
        )

    # -- walking ---------------------------------------------------------------------------------

    def places(self, value: object, path: str) -> Iterator[tuple[str, object]]:
        """Every tensor inside a value, with the dotted path that leads to it."""
        self.budget -= 1
        if self.budget < 0:
            raise UnsafeFileError("its object refers to the same parts too many times over")
        if self.tensors.facts(value) is not None:
            yield path, value
            return
        children = children_of(value)
        if children is None:
            return
        if id(value) in self.open or len(self.open) > MAX_DEPTH:
            return  # what contains itself is walked once
        self.open.add(id(value))
        try:
            for key, item in children:
                if not isinstance(item, SCALARS):
                    yield from self.places(item, f"{path}.{key}" if path else key)
        finally:
            self.open.discard(id(value))

    def keep_values(self, path: str, value: object) -> None:
        """Record the plain values inside a value, by dotted path; tensors are left out."""
        self.budget -= 1
        if self.budget < 0:
            raise UnsafeFileError("its object refers to the same parts too many times over")
        if self.tensors.facts(value) is not None or id(value) in self.open:
            return
        mapping = mapping_of(value)
        nested = mapping is None and has_containers(value) and items_of(value)
        children = mapping.items() if mapping is not None else enumerate(nested or ())
        if mapping is None and not nested:
            if path:
                self.values[path] = display(value)
            return
        if mapping is not None and not mapping and path:
            self.values[path] = {}
        if len(self.open) > MAX_DEPTH:
            return
        self.open.add(id(value))
        for key, item in children:
            self.keep_values(f"{path}.{key_text(key)}" if path else key_text(key), item)
        self.open.discard(id(value))


WEIGHTS: Mapping[str, Role] = {"model": "parameter", "ema": "parameter", "tensors": "tensor"}
SCALARS = (str, int, float, bytes, type(None))


def entries(value: object) -> Mapping[object, object] | None:
    """The entries of a dict, or the attributes of an object that is no module and no dict."""
    mapping = mapping_of(value)
    return mapping if mapping is not None else attributes_of(value)  # type: ignore[return-value]


def children_of(value: object) -> Iterator[tuple[str, object]] | None:
    """Keys and items of anything that can hold a tensor; None for a leaf."""
    parts = module_parts(value)
    if parts is not None:
        attributes = {
            name: child
            for kind in ("_parameters", "_buffers", "_modules")
            for name, child in parts.children(kind).items()
        }
        return iter(attributes.items())
    mapping = entries(value)
    if mapping is not None:
        return ((key_text(key), item) for key, item in mapping.items())
    items = items_of(value)
    if items is not None:
        return ((str(index), item) for index, item in enumerate(items))
    return None


def has_containers(value: object) -> bool:
    """True for a list or tuple that holds containers of its own."""
    items = items_of(value)
    return items is not None and any(children_of(item) is not None for item in items[:1000])


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
