"""Modules in a full-model pickle: the tree and the state_dict, without their classes.

`nn.Module` pickles its `__dict__`: `_parameters`, `_buffers`, `_non_persistent_buffers_set`,
`_modules`, `training` and its plain attributes. The order of tensors is that of `state_dict()`:
own parameters, own buffers, what the class itself adds, then the children in order.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from modtool.errors import CorruptFileError, UnsafeFileError
from modtool.pickles.extra_state import hooks_of
from modtool.pickles.nn_settings import (
    mode_sensitive,
    printed_name,
    quantized_conv_attributes,
    settings_of,
)
from modtool.pickles.plain import attributes_of, breadth, items_of, mapping_of
from modtool.pickles.quantized_modules import packed_entries, tensors_in
from modtool.pickles.symbols import Call, Global, PersistentId, class_named
from modtool.pickles.torch_objects import TensorFacts, Tensors
from modtool.records import ModuleNode, Role, TensorInfo

__all__ = [
    "HOOKS",
    "Found",
    "ModuleParts",
    "ModuleWalk",
    "described",
    "module_parts",
    "modules_in",
]

MAX_DEPTH = 200
MAX_MODULES = 2_000_000
MAX_PATH = 2000
# How many attributes and children the modules under second paths may have, all told: more is not
# weight sharing but an attack.
MAX_REPEATED = 200_000
# The table of `nn.Module` that a hook stands in, and what such a hook is called.
HOOKS: Mapping[str, str] = MappingProxyType(
    {
        "_forward_pre_hooks": "forward pre-hook",
        "_forward_hooks": "forward hook",
        "_backward_pre_hooks": "backward pre-hook",
        "_backward_hooks": "backward hook",
    }
)


class Found(NamedTuple):
    """A tensor that a walk came upon; `facts` are known where no symbol in the file tells them.

    A tensor that is `registered` is a parameter of a module, where False means what it says: it is
    not trained. In a state_dict it may also mean "detached".
    """

    name: str
    value: object
    role: Role
    persistent: bool = True
    facts: TensorFacts | None = None
    registered: bool = False


def described(found: Found, tensors: Tensors, section: str | None) -> TensorInfo | None:
    """The record of a tensor; None when the value is none."""
    facts = found.facts or tensors.facts(found.value)
    if facts is None:
        return None
    flag = facts.requires_grad if found.role != "buffer" else None
    if found.registered:
        flag = flag is True
    return TensorInfo(
        found.name,
        facts.dtype,
        facts.shape,
        facts.storage,
        facts.offset,
        facts.stride,
        section,
        found.role,
        flag,
        facts.layout,
        found.persistent,
        facts.device,
        facts.stored_bytes,
        found.value,
        parts=made_of(found, facts),
    )


def made_of(found: Found, facts: TensorFacts) -> tuple[object, ...]:
    """What makes a tensor without a storage the same as another: its parts, or its one symbol."""
    if facts.storage is not None or found.value is None:
        return ()
    return facts.parts or (id(found.value),)


@dataclass(frozen=True, slots=True)
class ModuleParts:
    """What a module's pickle says: its class, and its attributes."""

    class_name: str
    attributes: Mapping[str, object]

    @property
    def size(self) -> int:
        """How much there is to look at."""
        members = (self.attributes.get(kind) for kind in ("_parameters", "_buffers", "_modules"))
        return len(self.attributes) + sum(map(breadth, members))

    def children(self, kind: str) -> Mapping[str, object]:
        """`_parameters`, `_buffers` or `_modules` by name."""
        found = mapping_of(self.attributes.get(kind))
        return {key: item for key, item in (found or {}).items() if isinstance(key, str)}


def module_parts(value: object) -> ModuleParts | None:
    """What a value says of a module; None when it is none."""
    if isinstance(value, PersistentId):
        return packaged_module(value)
    if not isinstance(value, Call):
        return None
    special = SPECIAL.get(value.callee)
    if special is not None:
        return special(value)
    attributes = attributes_of(value)
    if attributes is None:
        convolution = quantized_conv_attributes(value.state)
        if convolution is None or ".quantized." not in value.made:
            return None
        return ModuleParts(value.made, {**convolution, **NOTHING_REGISTERED})
    own = dict_of_module(attributes)
    return None if own is None else ModuleParts(value.made, own)


def dict_of_module(attributes: Mapping[str, object]) -> Mapping[str, object] | None:
    """The `__dict__` of a module, which the `__getstate__` of its class may put into a dict."""
    if attributes.keys() >= TABLES:
        return attributes
    inside = [item for item in attributes.values() if isinstance(item, dict)]
    found = [item for item in inside if item.keys() >= TABLES]
    whole = len(found) == 1 and all(isinstance(key, str) for key in found[0])
    return found[0] if whole else None


TABLES = frozenset({"_parameters", "_modules"})
NOTHING_REGISTERED: Mapping[str, object] = {"_parameters": {}, "_buffers": {}, "_modules": {}}


def graph_module(call: Call) -> ModuleParts | None:
    """torch.fx: `reduce_graph_module(dict, imports)`; a real load would execute its `_code`."""
    attributes = call.arguments[0] if call.arguments else None
    if not isinstance(attributes, dict):
        return None
    name = attributes.get("_graphmodule_cls_name", "torch.fx.graph_module.GraphModule")
    named = name if isinstance(name, str) else "torch.fx.graph_module.GraphModule"
    return ModuleParts(named, attributes)


def compiled_module(call: Call) -> ModuleParts | None:
    """`torch.compile`: a call of OptimizedModule, whose first argument is the model.

    The wrapper is made anew by a load, in the mode of its model.
    """
    model = module_parts(call.arguments[0]) if call.arguments else None
    if model is None:
        return None
    children = {"_orig_mod": call.arguments[0]}
    attributes = {"training": model.attributes.get("training"), "_modules": children}
    return ModuleParts(call.callee, attributes)


def packaged_module(symbol: PersistentId) -> ModuleParts | None:
    """torch.package: `("reduce_package", id, function, arguments)` stands for a call."""
    match symbol.value:
        case ("reduce_package", _, Global() as function, tuple(arguments)):
            special = SPECIAL.get(function.qualified)
            return special(Call(function, arguments)) if special is not None else None
    return None


SPECIAL: Mapping[str, Callable[[Call], ModuleParts | None]] = {
    "torch.fx.graph_module.reduce_graph_module": graph_module,
    "torch.fx.graph_module.reduce_package_graph_module": graph_module,
    "torch._dynamo.eval_frame.OptimizedModule": compiled_module,
}


def modules_in(value: object, path: str = "") -> Iterator[tuple[str, object, ModuleParts]]:
    """Path, symbol and parts of each module, parents first, of a tree that was walked before."""
    parts = module_parts(value)
    if parts is None:
        return
    yield path, value, parts
    for name, child in parts.children("_modules").items():
        yield from modules_in(child, f"{path}.{name}" if path else name)


@dataclass(slots=True)
class ModuleWalk:
    """One walk over a module tree; `nodes` fills as the tensors are drawn from `walk`.

    Attributes:
        tensors: What reads the tensors.
        section: The part of a training checkpoint that the modules belong to.
        nodes: The modules, in the order of the walk.
        understand: What tells a module from other values.
        beside: What `state_dict()` has that is no tensor, by name.
        hooks: What may change `state_dict()`, in words, with the paths of the modules.
        first_path: Where each module was met first, by identity.
        open: The modules that the walk is inside of.
        repeated: How much there was in modules that were known already.
    """

    tensors: Tensors
    section: str | None = None
    nodes: list[ModuleNode] = field(default_factory=list)
    understand: Callable[[object], ModuleParts | None] = module_parts
    beside: dict[str, object] = field(default_factory=dict)
    hooks: dict[str, dict[str, None]] = field(default_factory=dict)
    first_path: dict[int, str] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)
    repeated: int = 0

    def walk(self, value: object, path: str = "") -> Iterator[Found]:
        """The tensors of a module and everything below it, in state_dict order."""
        for _, _, found in self.modules(value, path):
            yield from found

    def modules(
        self, value: object, path: str = ""
    ) -> Iterator[tuple[ModuleParts, str, Iterator[Found]]]:
        """Each module, parents first, with its path and its own tensors."""
        parts = self.understand(value)
        if parts is None:
            return
        if id(value) in self.open:
            raise CorruptFileError(f"module {path!r} contains itself")
        self.check_size(value, path, parts)
        self.open.add(id(value))
        self.nodes.append(self.node(value, path, parts))
        for hook in hooks_of(parts.attributes):
            self.hooks.setdefault(hook, {})[path] = None
        prefix = f"{path}." if path else ""
        yield parts, path, self.own_tensors(value, parts, prefix)
        for name, child in parts.children("_modules").items():
            yield from self.modules(child, prefix + name)
        self.open.remove(id(value))

    def check_size(self, value: object, path: str, parts: ModuleParts) -> None:
        """Refuse a tree that no model has: a hundred bytes can share modules a million times."""
        if id(value) in self.first_path:
            self.repeated += parts.size
        if (
            len(self.open) > MAX_DEPTH
            or len(self.nodes) > MAX_MODULES
            or len(path) > MAX_PATH
            or self.repeated > MAX_REPEATED
        ):
            raise UnsafeFileError("a module tree too deep or too large to be one")

    def node(self, value: object, path: str, parts: ModuleParts) -> ModuleNode:
        """The record of one module."""
        shapes: dict[str, tuple[int, ...] | None] = {}
        for name, parameter in parts.children("_parameters").items():
            facts = self.tensors.facts(parameter)
            shapes[name] = facts.shape if facts else None
        training = parts.attributes.get("training")
        first = self.first_path.setdefault(id(value), path)
        return ModuleNode(
            path=path,
            type=printed_name(parts.class_name),
            settings=settings_of(parts.class_name, parts.attributes, shapes),
            training=training if isinstance(training, bool) else None,
            class_name=parts.class_name,
            alias_of=first if first != path else None,
            mode_sensitive=mode_sensitive(parts.class_name, parts.attributes),
            hooks=tuple(hooks_in(parts.attributes)),
            section=self.section,
        )

    def own_tensors(self, module: object, parts: ModuleParts, prefix: str) -> Iterator[Found]:
        """A module's own parameters, its own buffers, and what its class adds of itself.

        Those registered as None are left out.
        """
        for name, value in parts.children("_parameters").items():
            if value is not None:
                yield Found(prefix + name, value, "parameter", registered=True)
        items = items_of(parts.attributes.get("_non_persistent_buffers_set")) or ()
        hidden = {name for name in items if isinstance(name, str)}
        for name, value in parts.children("_buffers").items():
            if value is not None:
                yield Found(prefix + name, value, "buffer", name not in hidden)
        yield from self.added(module, parts, prefix)

    def added(self, module: object, parts: ModuleParts, prefix: str) -> Iterator[Found]:
        """What the class of a quantized module adds; the tensors of one entry are numbered."""
        for entry in packed_entries(parts.class_name, parts.attributes, self.is_tensor, module):
            if entry.facts is not None:
                yield Found(prefix + entry.name, None, "buffer", facts=entry.facts)
                continue
            for path, value in tensors_in(entry.value, self.is_tensor):
                yield Found(f"{prefix}{entry.name}{path}", value, "parameter")
            for path, value in parts_of(entry.value):
                if not self.is_tensor(value):
                    self.beside[f"{prefix}{entry.name}{path}"] = value

    def is_tensor(self, value: object) -> bool:
        """True for the symbol of a tensor."""
        return self.tensors.facts(value) is not None


def parts_of(value: object) -> list[tuple[str, object]]:
    """The items of a tuple with their places; any other value as it is."""
    if isinstance(value, tuple):
        return [(f".{index}", item) for index, item in enumerate(value)]
    return [("", value)]


def hooks_in(attributes: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """The kind of each hook and the qualified name of what it calls; no methods of objects."""
    for table, kind in HOOKS.items():
        for hook in (mapping_of(attributes.get(table)) or {}).values():
            name = name_of(hook)
            if name:
                yield kind, name


def name_of(hook: object) -> str:
    """The function, or the class of the object that is called; "" for an object's own method."""
    match hook:
        case Call(callee="functools.partial", arguments=(function, *_)):
            return class_named(function)
        case Call():
            fetched = hook.callee.endswith(".getattr")
            return class_named(hook) if fetched else hook.made
    return class_named(hook)
