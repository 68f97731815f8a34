"""Put back what plain values hold: containers, objects of the user's, random generators, caches.

A function that caches a tensor (`functools.cache`, a dict at the top of a file, a helper object)
would keep a fake one from a fake pass, and give it to the next real one.
"""

import contextlib
import functools
import operator
import random
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import nn

from modtool.live.blame import is_library

__all__ = ["contents_kept", "globals_kept", "reached"]

CONTAINERS = (list, dict, set, deque)
COPIES = frozenset(
    kind.copy for kind in (list, dict, set, deque, OrderedDict, defaultdict, Counter)
)
READS = frozenset((list.__getitem__, dict.__getitem__, deque.__getitem__, None))
PLAIN = frozenset({bool, int, float, str, type(None), FunctionType, ModuleType, torch.dtype})
# Elements of longer ones are data: they are kept in place, and not looked into.
LONGEST = 10_000


@contextlib.contextmanager
def contents_kept(roots: Iterable[object]) -> Iterator[None]:
    """Put back what is reached from some values: in containers, objects and random generators."""
    kept, rewind = [], []
    for value, holder in reached(roots):
        if holder is not None:
            kept.append((holder, holder.copy() if holder else None))  # most are empty
        elif (again := rewinding(value)) is not None:
            rewind.append(again)
    try:
        yield
    finally:
        for holder, contents in kept:
            refill(holder, contents)
        for again in rewind:
            again()


def reached(roots: Iterable[object]) -> Iterator[tuple[object, Any]]:
    """Every value inside of others but plain ones, each once, with what of it can be refilled.

    That is a container itself, or the attributes of an object of the user's; None of anything
    else. Modules are not looked into.
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


def holder_of(value: object) -> Any:
    """What of a value can be refilled."""
    if isinstance(value, CONTAINERS):
        return value if is_ordinary(type(value)) else None
    if isinstance(value, torch.Tensor | nn.Module | type | tuple):
        return None
    is_users = is_users_module(sys.modules.get(type(value).__module__))
    attributes = getattr(value, "__dict__", None) if is_users else None
    return attributes if isinstance(attributes, dict) else None


def is_ordinary(kind: Any) -> bool:
    """False for a container that gives something else than what it holds."""
    return kind.copy in COPIES and getattr(kind, "__getitem__", None) in READS


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


def rewinding(value: object) -> Callable[[], object] | None:
    """What puts a random generator back to where it is now; None for anything else."""
    if isinstance(value, torch.Generator):
        return functools.partial(value.set_state, value.get_state())
    if isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
        return functools.partial(value.setstate, value.getstate())
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    if isinstance(value, numpy.random.RandomState):
        return functools.partial(value.set_state, value.get_state())
    if isinstance(value, numpy.random.Generator):
        source = value.bit_generator
        return functools.partial(setattr, source, "state", source.state)
    return None


@contextlib.contextmanager
def globals_kept(names: Iterable[str] = ()) -> Iterator[None]:
    """Undo what fake tensors leave in global variables and caches of functions.

    Args:
        names: Of Python modules to look after, beside those that the user wrote.
    """
    modules = [*users_modules(names)]
    spaces = [vars(module) for module in modules]
    before = [
        {name: value for name, value in space.items() if not name.startswith("__")}
        for space in spaces
    ]
    classes = [dict(vars(kind)) for module in modules for kind in classes_of(module)]
    caches = [
        (cache, cache.cache_info().misses)
        for values in (*before, *classes)
        for value in values.values()
        if (cache := cache_of(value)) is not None
    ]
    try:
        with contents_kept(value for values in (*before, *classes) for value in values.values()):
            yield
    finally:
        for space, kept in zip(spaces, before, strict=True):
            rebind(space, kept)
        for cache, misses in caches:
            if cache.cache_info().misses != misses:
                cache.cache_clear()


def users_modules(names: Iterable[str]) -> Iterator[ModuleType]:
    """The modules of some names, and every one that is no library's."""
    wanted = set(names)
    for name, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and (name in wanted or is_users_module(module)):
            yield module


def classes_of(module: ModuleType) -> Iterator[type]:
    """The classes that a module defines."""
    own = (value for value in list(vars(module).values()) if isinstance(value, type))
    return (kind for kind in own if kind.__module__ == module.__name__)


def cache_of(value: object) -> Any:
    """What `functools.cache` or `lru_cache` made of a function or a method; None for another."""
    function = value.__func__ if isinstance(value, staticmethod | classmethod) else value
    return function if isinstance(function, functools._lru_cache_wrapper) else None


def rebind(space: dict[str, object], kept: dict[str, object]) -> None:
    """Give global names their values again; what was imported stays."""
    for name, value in list(space.items()):
        if name.startswith("__") or isinstance(value, ModuleType | type | FunctionType):
            continue
        if name not in kept:
            del space[name]
        elif kept[name] is not value:
            space[name] = kept[name]
