"""Where the tensors of an object lie: every container is looked into once, every walk bounded.

Objects may share parts and contain themselves. A list of a list of …, doubled forty times, takes
a hundred bytes and has a million million places.
"""

from collections.abc import Mapping, Sequence

from modtool.errors import UnsafeFileError
from modtool.pickles.display import key_text
from modtool.pickles.modules import module_parts
from modtool.pickles.optimizers import saved_optimizer
from modtool.pickles.plain import CONTAINERS, attributes_of, breadth, items_of, mapping_of
from modtool.pickles.quantized_modules import SCRIPT_OBJECT, IsTensor, packed_entries
from modtool.pickles.symbols import Call, Global, PersistentId
from modtool.pickles.torch_objects import TensorFacts, Tensors

__all__ = ["Places", "entries"]

MAX_NESTING = 10_000
MAX_DEPTH = 100
MAX_NAME = 2000
MAX_CYCLES = 1000
# A tensor may have several names. Beyond these many, all told, somebody is doubling.
FREE_NAMES = 20_000
NAMES_OF_A_TENSOR = 4
FREE_CHARACTERS = 1_000_000
FREE_STEPS = 500_000

LEAVES = frozenset({str, int, float, bool, bytes, bytearray, type(None), Global})

Named = list[tuple[str, object]]
FoundTensors = list[tuple[str, object, TensorFacts]]
"""The path, the symbol and the facts of each tensor that a walk came upon."""


class Places:
    """Which parts of an object hold tensors, and what a walk to them may cost.

    `budget` and `among` are those of `contents_of`.
    """

    def __init__(self, root: object, tensors: Tensors, budget: int, among: int = 1) -> None:
        self.tensors = tensors
        self.steps = FREE_STEPS // among + budget // 32
        self.characters = FREE_CHARACTERS // among + budget // 8
        self.names = FREE_NAMES // among
        self.holders: set[int] = set()
        self.direct: dict[int, int] = {}  # how many tensors lie in a holder itself
        self.made_containers: set[int] = set()  # calls that make a container
        self.open: set[int] = set()
        self.cyclic: list[str] = []
        # `state` of a saved optimizer -> the number of each parameter that is a key of it
        self.numbers: dict[int, Mapping[int, int]] = {}
        self.explore(root)

    # -- every container once --------------------------------------------------------------------

    def explore(self, root: object) -> None:
        """Look into everything that can be reached, and find what holds a tensor."""
        facts = self.tensors.facts
        tensors: set[int] = set()
        parents: dict[int, list[int]] = {id(root): []}
        pending = [(root, 0)] if facts(root) is None else []
        while pending:
            value, depth = pending.pop()
            if depth > MAX_NESTING:
                raise UnsafeFileError(f"its object is nested more than {MAX_NESTING:,} levels deep")
            self.spend(breadth(value))
            children = children_of(value, self.is_tensor)
            if children is None:
                continue
            key = id(value)
            if type(value) is Call:
                self.made_containers.add(key)
                self.number(value)
            held = 0
            for _, item in children:
                if facts(item) is not None:
                    tensors.add(id(item))
                    held += 1
                elif type(item) is PersistentId:
                    continue  # of no storage: it holds nothing
                elif id(item) in parents:
                    parents[id(item)].append(key)
                else:
                    parents[id(item)] = [key]
                    pending.append((item, depth + 1))
            if held:
                self.holders.add(key)
                self.direct[key] = held
        self.names += NAMES_OF_A_TENSOR * len(tensors)
        self.spread(parents)

    def number(self, value: Call) -> None:
        """Number the parameters of an optimizer, whose state is kept under them."""
        optimizer = saved_optimizer(value)
        if optimizer is not None:
            self.spend(sum(map(len, optimizer.parameters)))
            self.numbers[id(optimizer.state)] = optimizer.numbers

    def spread(self, parents: Mapping[int, list[int]]) -> None:
        """What holds a holder holds a tensor, too."""
        pending = list(self.holders)
        while pending:
            for parent in parents[pending.pop()]:
                if parent not in self.holders:
                    self.holders.add(parent)
                    pending.append(parent)

    def spend(self, steps: int) -> None:
        """Count the steps of a walk."""
        self.steps -= steps
        if self.steps < 0:
            raise UnsafeFileError("its object refers to the same parts too many times over")

    # -- what was found --------------------------------------------------------------------------

    def hold(self, value: object) -> bool:
        """True when there is a tensor in a value, or when it is one."""
        return id(value) in self.holders or self.is_tensor(value)

    def is_tensor(self, value: object) -> bool:
        """True for the symbol of a tensor."""
        return self.tensors.facts(value) is not None

    def hold_tensors_alone(self, value: object) -> bool:
        """True for a dict of tensors and nothing else."""
        held = self.direct.get(id(value))
        return held is not None and len(mapping_of(value) or ()) == held

    def is_container(self, value: object) -> bool:
        """True for what has parts, or could have."""
        return isinstance(value, CONTAINERS) or id(value) in self.made_containers

    def of(self, value: object, path: str = "") -> FoundTensors:
        """Every tensor inside a value, with the dotted path that leads to it."""
        found: FoundTensors = []
        facts = self.tensors.facts(value)
        if facts is not None:
            self.take_name(path)
            found.append((path, value, facts))
        elif id(value) in self.holders:
            self.look_into(value, path, found)
        return found

    def look_into(self, value: object, path: str, found: FoundTensors) -> None:
        """Add the tensors inside something that holds some."""
        if id(value) in self.open:
            self.take_cycle(path)
            return
        if len(self.open) > MAX_DEPTH:
            raise UnsafeFileError(f"a tensor lies more than {MAX_DEPTH} levels deep")
        self.open.add(id(value))
        self.spend(breadth(value))
        prefix = f"{path}." if path else ""
        for key, item in children_of(value, self.is_tensor, self.numbers.get(id(value))) or ():
            facts = self.tensors.facts(item)
            if facts is not None:
                self.take_name(prefix + key)
                found.append((prefix + key, item, facts))
            elif id(item) in self.holders:
                self.look_into(item, prefix + key, found)
        self.open.discard(id(value))

    def take_cycle(self, path: str) -> None:
        """Record a place where a value lies inside itself; it is walked once."""
        if len(self.cyclic) < MAX_CYCLES:
            self.cyclic.append(path)

    def take_name(self, name: str) -> None:
        """Count a name of a tensor."""
        self.names -= 1
        if self.names < 0:
            raise UnsafeFileError("its object gives the same tensors too many names")
        self.take_text(name)

    def take_text(self, name: str) -> None:
        """Count the characters of a name, which every report of a tensor repeats."""
        self.characters -= len(name)
        if self.characters < 0:
            raise UnsafeFileError("the names of its tensors are too long, all told")
        if len(name) > MAX_NAME:
            raise UnsafeFileError(f"a tensor whose name has {len(name):,} characters")


def entries(value: object) -> Mapping[object, object] | None:
    """The entries of a dict, or the attributes of an object that is no module and no dict."""
    mapping = mapping_of(value)
    return mapping if mapping is not None else attributes_of(value)  # type: ignore[return-value]


def children_of(
    value: object, is_tensor: IsTensor, numbers: Mapping[int, int] | None = None
) -> Named | None:
    """Keys and items of anything that can hold a tensor, plain values left out; None for a leaf.

    `numbers` are those that stand for keys, by their `id`.
    """
    parts = module_parts(value)
    if parts is not None:
        added = packed_entries(parts.class_name, parts.attributes, is_tensor, value)
        members = [
            *parts.children("_parameters").items(),
            *parts.children("_buffers").items(),
            *((entry.name, entry.value) for entry in added),
            *parts.children("_modules").items(),
        ]
        return [(key, item) for key, item in members if type(item) not in LEAVES]
    mapping = entries(value)
    if mapping is not None:
        known: Mapping[int, object] = numbers or {}
        return [
            (key if type(key) is str else key_text(known.get(id(key), key)), item)
            for key, item in mapping.items()
            if type(item) not in LEAVES
        ]
    items = packed_items(value) or items_of(value)
    if items is None:
        return None
    return [(str(index), item) for index, item in enumerate(items) if type(item) not in LEAVES]


def packed_items(value: object) -> Sequence[object]:
    """What a quantized module packed in an object of torch's C++ side."""
    match value:
        case Call(state=(list(items) | tuple(items), *_)) if value.callee == SCRIPT_OBJECT:
            return items
    return ()
