"""Whether `torch.load(..., weights_only=True)` would accept a pickle, and what it would need.

The rules are those of torch 2.13, `torch/_weights_only_unpickler.py` and `torch/serialization.py`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from keyword import iskeyword

from modtool.pickles.allowed_names import (
    ALLOWED,
    BIT_GENERATORS,
    BITS,
    BLOCKED_MODULES,
    DICTS,
    HIDDEN,
    IMPORT_MAPPING,
    KNOWN,
    LOWER_CASE_CLASSES,
    NAME_MAPPING,
    NAMED,
    NUMPY_DTYPES,
    NUMPY_LETTERS,
    OPTIMIZER,
    RANDOM,
    REGISTERED,
    UNSUPPORTED,
)
from modtool.pickles.machine import Pickle
from modtool.pickles.policy import MOVED, imported
from modtool.pickles.symbols import ABSENT, Call, Global, PersistentId

__all__ = ["WeightsOnly", "weights_only"]


@dataclass(frozen=True, slots=True)
class WeightsOnly:
    """What `weights_only=True` makes of a file.

    Attributes:
        accepted: True when it would load the file as it is.
        reasons: Why not, each once, in order.
        needed: The classes and functions that would have to be added, as Python expressions.
        imports: The modules that have to be imported beside torch: the expressions name them, or
            they are torch's own, and allow their classes once they are imported.
        lasting: The reasons that stay when those are added and imported.
        besides: The reasons that something else takes away, which they say.
    """

    accepted: bool
    reasons: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    lasting: tuple[str, ...] = ()
    besides: tuple[str, ...] = ()

    @property
    def possible(self) -> bool:
        """False when nothing that could be added would help."""
        return not self.lasting

    @property
    def line(self) -> str:
        """The line of Python that makes the file loadable; "" where none is needed or helps.

        It runs as it is after `import torch`.
        """
        if not self.possible:
            return ""
        steps = [f"import {', '.join(self.imports)}"] if self.imports else []
        if self.needed:
            steps.append(f"torch.serialization.add_safe_globals([{', '.join(self.needed)}])")
        return "; ".join(steps)


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One thing that stops the load.

    Attributes:
        reason: What it is.
        needed: What would have to be added; "" where nothing helps.
        module: The module that this needs imported, "" where `import torch` is enough; where
            nothing would have to be added, its import is all that is needed.
        possible: False where nothing helps.
    """

    reason: str
    needed: str = ""
    module: str = ""
    possible: bool = True

    @property
    def elsewhere(self) -> bool:
        """True where something helps that no line says."""
        return self.possible and not self.needed and not self.module


def weights_only(pickles: Mapping[str, Pickle]) -> WeightsOnly:
    """What `weights_only=True` makes of the pickles that one load reads.

    Args:
        pickles: By their name in the file.
    """
    found: dict[Obstacle, None] = {}
    for name, pickle in pickles.items():
        prefix = f"{name}: " if len(pickles) > 1 else ""
        for obstacle in dict.fromkeys(obstacles(pickle)):
            found[replace(obstacle, reason=prefix + obstacle.reason)] = None
    return WeightsOnly(
        accepted=not found,
        reasons=tuple(dict.fromkeys(each.reason for each in found)),
        needed=tuple(dict.fromkeys(each.needed for each in found if each.needed)),
        imports=tuple(dict.fromkeys(each.module for each in found if each.module)),
        lasting=tuple(dict.fromkeys(each.reason for each in found if not each.possible)),
        besides=tuple(dict.fromkeys(each.reason for each in found if each.elsewhere)),
    )


def obstacles(pickle: Pickle) -> Iterator[Obstacle]:
    """Everything in a pickle that would stop the load."""
    for opcode in sorted(pickle.unusual & UNSUPPORTED.keys()):
        yield Obstacle(f"the opcode {UNSUPPORTED[opcode]} is not supported", possible=False)
    if pickle.latin:
        yield Obstacle("text of Python 2 that is not UTF-8: load it with encoding='latin1'")
    for symbol in pickle.globals:
        yield from obstacle_of_global(symbol, pickle.protocol)
    for call in pickle.calls:
        yield from obstacles_of_call(call, pickle.protocol)
    for identifier in pickle.persistent_ids:
        found = obstacle_of_persistent_id(identifier)
        if found is not None:
            yield found


def mapped(symbol: Global) -> str:
    """The name that is looked up."""
    known = NAME_MAPPING.get((symbol.module, symbol.name))
    return known or f"{IMPORT_MAPPING.get(symbol.module, symbol.module)}.{symbol.name}"


def obstacle_of_global(symbol: Global, protocol: int) -> Iterator[Obstacle]:
    """A name that is not allowed, or that never can be."""
    name = mapped(symbol)
    module = name.rpartition(".")[0] if "." not in symbol.name else symbol.module
    if module in BLOCKED_MODULES:
        yield Obstacle(f"{name} lies in a module that is always blocked", possible=False)
    elif name in REGISTERED:
        home = REGISTERED[name]
        if home != "torch":
            yield Obstacle(f"{home} must be imported first", module=home)
    elif name not in ALLOWED:
        yield not_allowed(name, place_of(symbol, protocol))


@dataclass(frozen=True, slots=True)
class Place:
    """Where today's Python and torch have an object."""

    module: str
    name: str

    @property
    def qualified(self) -> str:
        return f"{self.module}.{self.name}"

    @property
    def hidden(self) -> bool:
        """True where no attributes lead to the module, or Python cannot spell its name."""
        return bool(HIDDEN.fullmatch(self.module)) or not spelled(self.module)

    @property
    def expression(self) -> str:
        """The Python that stands for the object, once what `needs` says is imported."""
        if OPTIMIZER.fullmatch(self.qualified):
            return f"torch.optim.{self.name}"
        if self.hidden:
            return f'__import__("importlib").import_module({self.module!r}).{self.name}'
        return self.qualified.removeprefix("builtins.")

    @property
    def needs(self) -> str:
        """The module that the expression needs imported; "" where `import torch` is enough."""
        return "" if self.hidden or KNOWN.fullmatch(self.module) else self.module


def spelled(name: str) -> bool:
    """True for a dotted name that can stand in Python: what is none must not reach the line."""
    return all(part.isidentifier() and not iskeyword(part) for part in name.split("."))


def place_of(symbol: Global, protocol: int) -> Place:
    """Where a global of a pickle is found."""
    module, name = imported(symbol, protocol)
    return Place(*MOVED.get(f"{module}.{name}", (module, name)))


def not_allowed(name: str, place: Place, *, named: bool = True) -> Obstacle:
    """A class or function that would have to be added.

    Args:
        name: What it is called in the file.
        place: Where it is.
        named: True when it is looked up by this name; False when it is compared as it is.
    """
    if not spelled(place.name):
        return Obstacle(f"{name} is no name that Python could have", possible=False)
    needed = place.expression
    if named and (NAMED.fullmatch(name) or place.qualified != name):
        needed = f"({needed}, {name!r})"
    return Obstacle(f"{name} is not an allowed global", needed, place.needs)


def obstacles_of_call(call: Call, protocol: int) -> Iterator[Obstacle]:
    """What is wrong with one call and what is put into its result."""
    function = call.function
    if not isinstance(function, Global):
        yield from obstacle_of_result(function, protocol)
        return
    name = mapped(function)
    if call.appended is not None:
        yield Obstacle(f"items are appended to a {name}, not to a list", possible=False)
    if call.items is not None and name not in DICTS:
        yield Obstacle(f"items are set in a {name}, not in a dict", possible=False)
    if call.state is not ABSENT:
        yield from obstacle_of_state(call, name)


def obstacle_of_result(function: object, protocol: int) -> Iterator[Obstacle]:
    """A call of what another call returns: an inner class fetched by `getattr`, or worse."""
    match function:
        case Call(function=Global() as getter, arguments=(Global() as outer, str(inner))) if (
            mapped(getter) == "builtins.getattr"
        ):
            place = place_of(outer, protocol)
            inside = Place(place.module, f"{place.name}.{inner}")
            yield not_allowed(f"{mapped(outer)}.{inner}", inside, named=False)
        case _:
            yield Obstacle("it calls what another call returns", possible=False)


def obstacle_of_state(call: Call, name: str) -> Iterator[Obstacle]:
    """A state for a result whose type is not allowed, although what made it is."""
    made = type_made(call, name)
    if made:
        yield Obstacle(f"{made} is not an allowed type", made, "numpy")
    elif name == "_codecs.encode":
        yield Obstacle("a state is given to bytes", possible=False)
    elif makes_something(call, name):
        yield Obstacle(f"{name} makes an object that gets a state: allow the class of it, too")


def makes_something(call: Call, name: str) -> bool:
    """True for a call of a function, as its name looks, that is told no class to make."""
    if call.how != "reduce" or name in ALLOWED or LOWER_CASE_CLASSES.fullmatch(name):
        return False
    told = any(isinstance(argument, Global) for argument in call.arguments)
    return name.rpartition(".")[2].lstrip("_")[:1].islower() and not told


def type_made(call: Call, name: str) -> str:
    """The type of what a function of numpy returns, of which the file says nothing; "" else."""
    match name, call.arguments:
        case "numpy.dtype", (str(text), *_):
            kind = text.lstrip("<>=|")
            made = NUMPY_DTYPES.get(kind) or NUMPY_LETTERS.get(kind[:1])
            return f"numpy.dtypes.{made}DType" if made else ""
        case "numpy.dtype", (Global(), *_):  # the class of the records in an array
            return "numpy.dtypes.VoidDType"
        case _ if name in RANDOM:
            return f"numpy.random.{RANDOM[name]}"
        case _, (str(kind), *_) if name == BITS and kind in BIT_GENERATORS:
            return f"numpy.random.{kind}"  # NumPy 1; newer ones name the class
    return ""


def obstacle_of_persistent_id(identifier: PersistentId) -> Obstacle | None:
    """References to anything but storages; the classes of old full-model saves are such."""
    value = identifier.value
    kind = value[0] if isinstance(value, tuple) and value else None
    if isinstance(kind, bytes):
        kind = kind.decode("ascii", "replace")
    if kind != "storage":
        what = kind if isinstance(kind, str) else type(value).__name__
        return Obstacle(f"a persistent id of {what!r}, not of a storage", possible=False)
    match value:
        case (_, Global(name="UntypedStorage"), _, _, _, _):  # it is asked for a dtype
            return Obstacle("an untyped storage in a legacy file", possible=False)
    return None


def refused(reasons: Iterable[str]) -> WeightsOnly:
    """The answer for a container that `weights_only=True` never reads."""
    found = tuple(reasons)
    return WeightsOnly(False, found, lasting=found)
