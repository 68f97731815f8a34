"""Put back what plain values hold: containers, functions, objects of the user's, generators.

A function that caches a tensor (`functools.cache`, a dict at the top of a file or in a closure, a
helper object) would keep a fake one from a fake pass, and give it to the next real one.
"""

import contextlib
import functools
import operator
import random
import sys
from array import array
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from threading import Thread
from types import CellType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any

import torch
from torch import nn

from modtool.live.blame import is_library, is_of_torch

__all__ = ["contents_kept", "globals_kept", "reached", "restore_class"]

CONTAINERS = (list, dict, set, deque)
# What has nothing in it but its elements, or is kept by others.
SIMPLE = (*CONTAINERS, tuple, torch.Tensor, nn.Module)
COPIES = frozenset(
    kind.copy for kind in (list, dict, set, deque, OrderedDict, defaultdict, Counter)
)
READS = frozenset((list.__getitem__, dict.__getitem__, deque.__getitem__, None))
PLAIN = frozenset({bool, int, float, str, type(None), ModuleType, torch.dtype})
# Kept by others, or what stands for something that runs.
APART = (torch.Tensor, nn.Module, type, tuple, ModuleType, Thread)
# Objects of these stand for files, locks, processes and the like, or are a library's own affair.
# Of Python's own, those of a few modules hold values and nothing else.
HOLDERS = frozenset({"_thread", "argparse", "collections", "queue", "types"})
CLOSED = (sys.stdlib_module_names | {"torch", "numpy", "modtool"}) - HOLDERS
# What leads from a function, or from what stands for one, to what it may keep.
WITHIN: dict[type, tuple[str, ...]] = {
    FunctionType: ("__closure__", "__defaults__", "__kwdefaults__"),
    MethodType: ("__func__", "__self__"),
    functools.partial: ("func", "args", "keywords"),
    functools._lru_cache_wrapper: ("__wrapped__",),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    property: ("fget",),
}
MISSING = object()
# Elements of longer ones are data: they are kept in place, and not looked into.
LONGEST = 10_000
# Bytes for copies of the arrays that global variables hold: what is larger is data.
SPARE = 2**24


@contextlib.contextmanager
def contents_kept(roots: Iterable[object], spare: int) -> Iterator[None]:
    """Put back what is reached from some values: what they hold, and where generators are.

    Args:
        roots: Where to begin.
        spare: Bytes that copies of NumPy arrays may take; what is beyond is not put back.
    """
    kept: list[tuple[Any, Any]] = []
    rewind: list[Callable[[], object]] = []
    value: Any
    for value, holder in reached(roots):
        if holder is not None:
            kept.append((holder, holder.copy() if holder else None))  # most are empty
        if isinstance(value, SIMPLE):
            continue
        rewind.extend(rewinding(value))
        nbytes = size_of_elements(value)
        if 0 < nbytes <= spare:
            spare -= nbytes
            rewind.append(functools.partial(value.__setitem__, *elements_of(value)))
    try:
        yield
    finally:
        for holder, contents in kept:
            refill(holder, contents)
        for again in rewind:
            again()


def reached(roots: Iterable[object]) -> Iterator[tuple[object, Any]]:
    """Every value inside of others but plain ones, each once, with what of it can be refilled.

    That is a container itself, or the attributes of a function or an object; None of anything else.
    Classes of the user's are looked into, modules are not.
    """
    seen: dict[int, object] = {}  # which holds them, so that no other gets their id
    todo = list(roots)
    while todo:
        value = todo.pop()
        if type(value) in PLAIN or id(value) in seen:
            continue
        seen[id(value)] = value
        holder = holder_of(value)
        yield value, holder
        inside = value if isinstance(value, tuple) else holder
        if inside is not None and len(inside) <= LONGEST:
            todo.extend(inside.values() if isinstance(inside, dict) else inside)
        if isinstance(value, type):
            todo.extend(vars(value).values() if is_users(value) else ())
        elif not (isinstance(value, SIMPLE) or is_torchs(value)):
            todo.append(type(value))
            todo.extend(getattr(value, name, None) for name in WITHIN.get(type(value), ()))
            todo.extend(read(field, value) for field in fields_of(value))


def holder_of(value: object) -> Any:
    """What of a value can be refilled."""
    if isinstance(value, CONTAINERS):
        return value if is_ordinary(type(value)) else None
    if isinstance(value, FunctionType):
        return None if is_torchs(value) else vars(value)
    if isinstance(value, APART) or not is_holder(type(value)):
        return None
    try:
        attributes = getattr(value, "__dict__", None)
    except Exception:  # a proxy of what is not there yet
        return None
    return attributes if isinstance(attributes, dict) else None


def fields_of(value: object) -> Iterator[Any]:
    """What reads and writes the contents of a cell, or the slots of an object."""
    kind = type(value)
    if kind is CellType:
        yield vars(CellType)["cell_contents"]
    elif is_holder(kind) and not issubclass(kind, APART):
        spaces = (vars(each) for each in kind.__mro__ if "__slots__" in vars(each))
        for space in spaces:
            yield from (slot for slot in space.values() if type(slot) is MemberDescriptorType)


def read(field: Any, owner: object) -> object:
    """What a cell or a slot holds; MISSING where it is empty."""
    try:
        return field.__get__(owner)
    except (AttributeError, ValueError):
        return MISSING


def put(field: Any, owner: object, kept: object) -> None:
    """Have a cell or a slot hold what it held."""
    now = read(field, owner)
    if now is kept:
        return
    if kept is MISSING:
        field.__delete__(owner)
    else:
        field.__set__(owner, kept)


def is_torchs(value: object) -> bool:
    """True for a function of torch's: what it keeps is torch's own."""
    return isinstance(value, FunctionType) and is_of_torch(value)


def is_users(kind: type) -> bool:
    """True for a class that is no library's."""
    return is_users_module(sys.modules.get(kind.__module__))


def is_holder(kind: type) -> bool:
    """True for a class whose objects are looked into: the user's, and those that hold values."""
    return str(kind.__module__).partition(".")[0] not in CLOSED or is_users(kind)


def is_ordinary(kind: Any) -> bool:
    """False for a container that gives something else than what it holds."""
    return getattr(kind, "copy", None) in COPIES and getattr(kind, "__getitem__", None) in READS


def refill(holder: Any, contents: Any) -> None:
    """Make a container hold what it held, in that order, and stay the same object."""
    if contents and is_same(holder, contents):
        return
    holder.clear()
    if not contents:
        return
    if isinstance(holder, list | deque):
        holder.extend(contents)
    else:
        holder.update(contents)


def is_same(holder: Any, contents: Any) -> bool:
    """True where a container holds the very objects that it held."""
    if len(holder) != len(contents):
        return False
    if isinstance(holder, dict) and not all(map(operator.is_, holder.values(), contents.values())):
        return False
    return all(map(operator.is_, holder, contents))


def is_users_module(module: object) -> bool:
    """True for a module that is no library's; the one that was started may have no file."""
    if not isinstance(module, ModuleType):
        return False
    file = getattr(module, "__file__", None)
    if not isinstance(file, str):
        return module.__name__ == "__main__"
    return not ("site-packages" in file or is_library(file))


def rewinding(value: object) -> Iterator[Callable[[], object]]:
    """What puts back the class, cells, slots, cache or random generator that a value is or has."""
    if isinstance(value, type) and is_users(value):
        yield functools.partial(restore_class, value, dict(vars(value)))
    for field in fields_of(value):
        yield functools.partial(put, field, value, read(field, value))
    if isinstance(value, functools._lru_cache_wrapper):
        yield functools.partial(forget, value, value.cache_info().misses)
    if isinstance(value, torch.Generator):
        yield functools.partial(value.set_state, value.get_state())
    if isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
        yield functools.partial(value.setstate, value.getstate())
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return
    if isinstance(value, numpy.random.RandomState):
        yield functools.partial(value.set_state, value.get_state())
    if isinstance(value, numpy.random.Generator):
        source = value.bit_generator
        yield functools.partial(setattr, source, "state", source.state)


def size_of_elements(value: Any) -> int:
    """Bytes of an array or a bytearray; 0 for what is none, or has other bytes beside it."""
    if isinstance(value, bytearray | array):
        return sys.getsizeof(value)
    return int(value.nbytes) if is_writable_array(value) else 0


def elements_of(value: Any) -> tuple[object, object]:
    """Where to put what an array or a bytearray holds, and a copy of that."""
    everywhere = slice(None) if isinstance(value, bytearray | array) else ...
    return everywhere, value[everywhere].copy() if everywhere is ... else value[everywhere]


def is_writable_array(value: Any) -> bool:
    """True for an array of NumPy in memory: one in a file would be read and written as a whole."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.ndarray) or isinstance(value, numpy.memmap):
        return False
    return bool(value.flags.writeable)


def forget(cache: Any, misses: int) -> None:
    """Empty a cache that has computed something since."""
    if cache.cache_info().misses != misses:
        cache.cache_clear()


@contextlib.contextmanager
def globals_kept(names: Iterable[str] = ()) -> Iterator[None]:
    """Undo what a pass leaves in global variables, classes and caches of functions.

    Args:
        names: Of Python modules to look after, beside those that the user wrote.
    """
    modules = [*users_modules(names)]
    spaces = [vars(module) for module in modules]
    before = [
        {name: value for name, value in space.items() if not name.startswith("__")}
        for space in spaces
    ]
    classes = {kind: dict(vars(kind)) for module in modules for kind in classes_of(module)}
    try:
        values = (value for space in (*before, *classes.values()) for value in space.values())
        with contents_kept(values, SPARE):
            yield
    finally:
        for space, kept in zip(spaces, before, strict=True):
            rebind(space, kept)
        for kind, kept in classes.items():
            restore_class(kind, kept)


def restore_class(kind: type, kept: dict[str, object]) -> None:
    """Give a class its attributes again."""
    now = dict(vars(kind))
    for name in now.keys() - kept.keys():
        delattr(kind, name)
    for name, value in kept.items():
        if now.get(name, kept) is not value:
            setattr(kind, name, value)


def users_modules(names: Iterable[str]) -> Iterator[ModuleType]:
    """The modules of some names, and every one that is no library's."""
    wanted = set(names)
    for name, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and (name in wanted or is_users_module(module)):
            yield module


def classes_of(module: ModuleType) -> Iterator[type]:
    """The classes that a module defines; torch's are its own."""
    if module.__name__.startswith("torch."):
        return iter(())
    own = (value for value in list(vars(module).values()) if isinstance(value, type))
    return (kind for kind in own if kind.__module__ == module.__name__)


def rebind(space: dict[str, object], kept: dict[str, object]) -> None:
    """Give global names their values again; what was imported stays."""
    for name, value in list(space.items()):
        if name.startswith("__") or isinstance(value, ModuleType | type | FunctionType):
            continue
        if name not in kept:
            del space[name]
        elif kept[name] is not value:
            space[name] = kept[name]
