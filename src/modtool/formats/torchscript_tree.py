"""The module tree of a TorchScript archive: objects of its pickle, understood by its code."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from modtool.errors import CorruptFileError, UnsafeFileError
from modtool.formats.torchscript_code import ScriptClass, ScriptCode
from modtool.pickles.modules import Found, ModuleParts, ModuleWalk, described
from modtool.pickles.plain import attributes_of
from modtool.pickles.symbols import Call, PersistentId
from modtool.pickles.torch_objects import Tensors
from modtool.records import ModuleNode, TensorInfo

__all__ = ["MAX_PLACES", "ScriptTree", "constants_of"]

MANGLED = re.compile(r"\.___torch_mangle_\d+")
MAX_DEPTH = 100
MAX_PLACES = 1_000_000
# How many names may be second ones of a tensor.
MAX_REPEATS = 20_000
# How many constants the classes of all objects may have: a module has some ten of its own.
MAX_SHARED = 5_000_000
# Calls that only say which type a container has. Source: torch 2.13, `torch/jit/_pickle.py`.
TYPED = frozenset(
    f"torch.jit._pickle.{name}"
    for name in (
        "build_tensorlist",
        "build_intlist",
        "build_doublelist",
        "build_boollist",
        "restore_type_tag",
    )
)


@dataclass(slots=True)
class ScriptTree:
    """One walk over the objects of `data.pkl`; `nodes` fills as tensors are drawn from `walk`."""

    tensors: Tensors
    code: ScriptCode
    nodes: list[ModuleNode] = field(default_factory=list)
    known: dict[int, ModuleParts | None] = field(default_factory=dict)
    barren: set[int] = field(default_factory=set)
    seen: set[int] = field(default_factory=set)
    left: int = MAX_PLACES
    repeats: int = 0
    shared: int = 0
    depth: int = 0

    def walk(self, root: object) -> Iterator[TensorInfo]:
        """The tensors in state_dict order; those that are in no state_dict follow their module's.

        Raises:
            CorruptFileError: A tensor contradicts itself, or a module contains itself.
        """
        walk = ModuleWalk(self.tensors, nodes=self.nodes, understand=self.parts)
        for parts, path, found in walk.modules(root):
            for each in found:
                info = described(each, self.tensors, None)
                if info is not None:
                    yield info
            yield from self.others(parts, f"{path}." if path else "")

    def parts(self, value: object) -> ModuleParts | None:
        """What an object says of a module; None when its class is none."""
        if id(value) not in self.known:
            self.known[id(value)] = self.understood(value)
        return self.known[id(value)]

    def understood(self, value: object) -> ModuleParts | None:
        """An object's attributes, divided by what the code says of its class."""
        cls = self.class_of(value)
        if cls is None or not isinstance(value, Call):
            return None
        state = value.state
        attributes = state if isinstance(state, dict) else {"__getstate__()": state}
        self.shared += len(cls.constants)
        if self.shared > MAX_SHARED:
            raise UnsafeFileError("its objects share a class of too many constants")
        parts: dict[str, object] = dict(cls.constants)
        parts["training"] = attributes.get("training")
        names = [name for name in attributes if isinstance(name, str)]
        parameters = {name: attributes[name] for name in names if name in cls.parameters}
        buffers = {name: attributes[name] for name in names if name in cls.buffers}
        registered = parameters.keys() | buffers.keys()
        rest = [name for name in names if name not in registered]
        children = {
            name: attributes[name] for name in rest if self.class_of(attributes[name]) is not None
        }
        parts.update(_parameters=parameters, _buffers=buffers, _modules=children)
        parts[OTHERS] = {name: attributes[name] for name in rest if name not in children}
        name = MANGLED.sub("", value.callee).removeprefix("__torch__.")
        return ModuleParts(name, parts)

    def class_of(self, value: object) -> ScriptClass | None:
        """The class of a module; None for all other values."""
        if not isinstance(value, Call) or not value.callee.startswith("__torch__."):
            return None
        cls = self.code.classes.get(value.callee)
        if cls is None:  # archives without code: a module has a flag that tells so
            return ScriptClass(True) if "training" in (attributes_of(value) or ()) else None
        return cls if cls.is_module else None

    def others(self, parts: ModuleParts, prefix: str) -> Iterator[TensorInfo]:
        """The tensors in a module's plain attributes, in lists and in objects that are no modules.

        They are part of no state_dict.
        """
        attributes = parts.attributes.get(OTHERS)
        if isinstance(attributes, dict):
            for name, value in attributes.items():
                yield from self.below(value, prefix + name)

    def below(self, value: object, path: str) -> Iterator[TensorInfo]:
        """Every tensor inside a value."""
        self.left -= 1
        if self.left < 0 or self.depth > MAX_DEPTH or self.repeats > MAX_REPEATS:
            raise UnsafeFileError("its objects are nested too deeply, or shared too many times")
        if self.tensors.facts(value) is not None:
            self.repeats += id(value) in self.seen
            self.seen.add(id(value))
            yield from outside(path, value, self.tensors)
            return
        found = False
        self.depth += 1
        for key, item in parts_of(value):
            if not isinstance(item, str | int | float | bytes | None):
                if id(item) in self.barren:
                    continue
                for info in self.below(item, f"{path}.{key}"):
                    found = True
                    yield info
        self.depth -= 1
        if not found:
            self.barren.add(id(value))


OTHERS = "<others>"


def parts_of(value: object) -> Iterable[tuple[object, object]]:
    """What is directly inside a value, with its key."""
    if isinstance(value, Call):
        if value.callee in TYPED and value.arguments:
            return parts_of(value.arguments[0])
        return parts_of(value.state)
    if isinstance(value, list | tuple):
        return enumerate(value)
    return value.items() if isinstance(value, Mapping) else ()


def outside(path: str, value: object, tensors: Tensors) -> Iterator[TensorInfo]:
    """A tensor that is part of no state_dict."""
    info = described(Found(path, value, "tensor", persistent=False), tensors, None)
    if info is not None:
        yield replace(info, requires_grad=None)


def constants_of(root: object, tensors: Tensors) -> Iterator[TensorInfo]:
    """The tensors of `constants.pkl`, named as the code names them."""
    if not isinstance(root, tuple | list):
        raise CorruptFileError("its constants are no tuple")
    for index, value in enumerate(root):
        if isinstance(value, Call | PersistentId):  # else no tensor
            yield from outside(f"CONSTANTS.c{index}", value, tensors)
