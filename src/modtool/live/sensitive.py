"""Which modules compute differently in train and in eval mode."""

import functools
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FunctionType
from typing import Any

from torch import nn

from modtool.pickles.nn_settings import mode_rule

__all__ = ["is_mode_sensitive"]

# These set or show the flag; they do not compute with it.
NOT_COMPUTING = frozenset({"__init__", "train", "eval", "extra_repr", "__repr__", "__setstate__"})

TORCH = ("torch.nn.modules.", "torch.nn.utils.")


def is_mode_sensitive(module: nn.Module) -> bool:
    """True when the module itself, not what it contains, depends on its `training` flag.

    For torch's own classes this is known, by the same table that files are read with; any other
    class is where one of its methods reads an attribute called `training`.
    """
    kind: Any = type(module)
    return reads_training(kind) or any(heeds(vars(module)) for heeds in rules(kind))


@functools.cache
def rules(kind: type[nn.Module]) -> tuple[Callable[[Mapping[str, object]], bool], ...]:
    """What is known of a class and its bases that are torch's own."""
    names = (f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__)
    known = (mode_rule(name) for name in names if name.startswith("torch."))
    return tuple(rule for rule in known if rule is not None)


@functools.cache
def reads_training(kind: type[nn.Module]) -> bool:
    """True when a method of a class, or of a base outside torch.nn, reads `training`."""
    return any(
        "training" in code.co_names
        for base in kind.__mro__
        if not base.__module__.startswith(TORCH) and base is not object
        for name, function in vars(base).items()
        if isinstance(function, FunctionType) and name not in NOT_COMPUTING
        for code in codes(function.__code__)
    )


def codes(code: CodeType) -> Iterator[CodeType]:
    """A function's code and that of the functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)
