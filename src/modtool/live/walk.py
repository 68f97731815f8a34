"""Ways through a live model: every module under every path, and what plain containers hide."""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import nn

from modtool.live.keeping import reached

__all__ = [
    "classes_of_modules",
    "every_module",
    "hidden_objects",
    "modules_by_path",
    "training_flag",
]

# What nn.Module itself keeps in a module's __dict__.
BOOKKEEPING = frozenset(vars(nn.Module()))
CONTAINERS = (list, tuple, dict, set, frozenset)


def modules_by_path(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module under each of its paths, parents first, as `print(model)` walks them.

    A module that contains itself is not entered again.
    """
    todo: list[tuple[str, nn.Module, frozenset[int]]] = [("", model, frozenset())]
    while todo:
        path, module, above = todo.pop()
        yield path, module
        if not module._modules or id(module) in above:
            continue
        prefix, inside = f"{path}." if path else "", above | {id(module)}
        todo.extend(
            (prefix + name, child, inside)
            for name, child in reversed(module._modules.items())
            if child is not None
        )


def hidden_objects(module: nn.Module) -> Iterator[tuple[str, nn.Module | nn.Parameter]]:
    """Modules and parameters that a module keeps in plain containers, with the attribute's name."""
    own = [
        (name, value)
        for name, value in vars(module).items()
        if name not in BOOKKEEPING and isinstance(value, CONTAINERS) and value
    ]
    for name, value in own:
        for found in contents(value, set()):
            yield name, found


def contents(container: object, seen: set[int]) -> Iterator[nn.Module | nn.Parameter]:
    """The modules and parameters inside a container, however deeply nested."""
    if id(container) in seen:
        return
    seen.add(id(container))
    values = container.values() if isinstance(container, Mapping) else container
    for value in list(values):  # type: ignore[call-overload]
        if isinstance(value, CONTAINERS):
            yield from contents(value, seen)
        elif isinstance(value, nn.Module) or (
            isinstance(value, torch.Tensor) and isinstance(value, nn.Parameter)
        ):
            yield value


def every_module(model: nn.Module) -> list[nn.Module]:
    """Each module once: the registered ones, and those that containers and objects hide."""
    found: dict[int, nn.Module] = {}
    todo = [model]
    while todo:
        for _, module in modules_by_path(todo.pop()):
            if id(module) not in found:
                found[id(module)] = module
                hidden = (each for _, each in hidden_objects(module))
                todo.extend(each for each in hidden if isinstance(each, nn.Module))
                todo.extend(held_by_objects(module))
    return list(found.values())


def held_by_objects(module: nn.Module) -> Iterator[nn.Module]:
    """Modules that objects and functions hold which are attributes of a module."""
    own = [
        value
        for name, value in vars(module).items()
        if name not in BOOKKEEPING and not isinstance(value, ELSEWHERE)
    ]
    yield from (each for each, _ in reached(own) if isinstance(each, nn.Module))


# What holds no module, or one that is found otherwise.
ELSEWHERE = (*CONTAINERS, nn.Module, torch.Tensor, bool, int, float, str, type(None))


def classes_of_modules(kinds: Iterable[type[nn.Module]]) -> set[type]:
    """The classes of modules, and their bases, that are not torch's own."""
    bases = {base for kind in set(kinds) for base in kind.__mro__}
    return {base for base in bases if not base.__module__.startswith(("torch.", "builtins"))}


def training_flag(module: nn.Module) -> bool | None:
    """True in train mode; None for TorchScript that was frozen, which has but one mode."""
    flag = getattr(module, "training", None)
    return None if flag is None else bool(flag)
