"""Modules in a full-model pickle: the tree and the state_dict, without their classes.

`nn.Module` pickles its `__dict__`: `_parameters`, `_buffers`, `_non_persistent_buffers_set`,
`_modules`, `training` and its plain attributes. The order of tensors is that of `state_dict()`:
own parameters, own buffers, then the children in order.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from modtool.errors import CorruptFileError
from modtool.pickles.nn_settings import mode_sensitive, settings_of
from modtool.pickles.plain import attributes_of, items_of, mapping_of
from modtool.pickles.symbols import Call
from modtool.pickles.torch_objects import Tensors
from modtool.records import ModuleNode, Role

__all__ = ["Found", "ModuleWalk", "module_parts"]

MAX_DEPTH = 200
MAX_MODULES = 2_000_000


@dataclass(frozen=True, slots=True)
class Found:
    """A tensor that a walk came upon."""

    name: str
    value: object
    role: Role
    persistent: bool = True


@dataclass(frozen=True, slots=True)
class ModuleParts:
    """What a module's pickle says: its class, and its attributes."""

    class_name: str
    attributes: Mapping[str, object]

    def children(self, kind: str) -> Mapping[str, object]:
        """`_parameters`, `_buffers` or `_modules` by name."""
        found = mapping_of(self.attributes.get(kind))
        return {key: item for key, item in (found or {}).items() if isinstance(key, str)}


def module_parts(value: object) -> ModuleParts | None:
    """What a value says of a module; None when it is none."""
    if not isinstance(value, Call):
        return None
    special = SPECIAL.get(value.callee)
    if special is not None:
        return special(value)
    attributes = attributes_of(value)
    if attributes is None or not {"_parameters", "_modules"} <= attributes.keys():
        return None
    return ModuleParts(value.callee, attributes)


def graph_module(call: Call) -> ModuleParts | None:
    """torch.fx: `reduce_graph_module(dict, imports)`; a real load would execute its `_code`."""
    attributes = call.arguments[0] if call.arguments else None
    if not isinstance(attributes, dict):
        return None
    name = attributes.get("_graphmodule_cls_name", "torch.fx.graph_module.GraphModule")
    named = name if isinstance(name, str) else "torch.fx.graph_module.GraphModule"
    return ModuleParts(named, attributes)


def compiled_module(call: Call) -> ModuleParts | None:
    """`torch.compile`: a call of OptimizedModule, whose first argument is the model."""
    if not call.arguments:
        return None
    return ModuleParts(call.callee, {"_modules": {"_orig_mod": call.arguments[0]}})


SPECIAL: Mapping[str, Callable[[Call], ModuleParts | None]] = {
    "torch.fx.graph_module.reduce_graph_module": graph_module,
    "torch.fx.graph_module.reduce_package_graph_module": graph_module,
    "torch._dynamo.eval_frame.OptimizedModule": compiled_module,
}


@dataclass(slots=True)
class ModuleWalk:
    """One walk over a module tree; `nodes` fills as the tensors are drawn from `walk`."""

    tensors: Tensors
    nodes: list[ModuleNode] = field(default_factory=list)
    first_path: dict[int, str] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)

    def walk(self, value: object, path: str = "") -> Iterator[Found]:
        """The tensors of a module and everything below it, in state_dict order."""
        parts = module_parts(value)
        if parts is None:
            return
        if id(value) in self.open:
            raise CorruptFileError(f"module {path!r} contains itself")
        if len(self.open) > MAX_DEPTH or len(self.nodes) > MAX_MODULES:
            raise CorruptFileError("a module tree too deep or too large to be one")
        self.open.add(id(value))
        self.nodes.append(self.node(value, path, parts))
        prefix = f"{path}." if path else ""
        yield from own_tensors(parts, prefix)
        for name, child in parts.children("_modules").items():
            yield from self.walk(child, prefix + name)
        self.open.remove(id(value))

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
            type=parts.class_name.rpartition(".")[2],
            settings=settings_of(parts.class_name, parts.attributes, shapes),
            training=training if isinstance(training, bool) else None,
            class_name=parts.class_name,
            alias_of=first if first != path else None,
            mode_sensitive=mode_sensitive(parts.class_name, parts.attributes),
        )


def own_tensors(parts: ModuleParts, prefix: str) -> Iterator[Found]:
    """A module's own parameters, then its own buffers; those registered as None are left out."""
    for name, value in parts.children("_parameters").items():
        if value is not None:
            yield Found(prefix + name, value, "parameter")
    hidden = set(map(str, items_of(parts.attributes.get("_non_persistent_buffers_set")) or ()))
    for name, value in parts.children("_buffers").items():
        if value is not None:
            yield Found(prefix + name, value, "buffer", name not in hidden)
