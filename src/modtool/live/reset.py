"""The scheme `default`: modules reset their own parameters, and only those that were asked for.

Each module is reset from a random state of its own, made of the seed and its path, so that the
bits do not depend on what else is reset; the global random state is put back afterwards.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from modtool.errors import ModelError, UsageError
from modtool.live.fans import owner
from modtool.live.fill import fill_magnitude, generator_for

__all__ = ["all_tensors", "reset", "restored", "without_reset"]

Tensors = dict[str, torch.Tensor]


def reset(model: nn.Module, names: Sequence[str], seed: int = 0) -> None:
    """Let modules reset the named parameters and buffers, in place; no other tensor changes.

    `reset_parameters` is what is called (`_reset_parameters` where there is only that, as in
    MultiheadAttention). Parametrized, weight-normed, spectral-normed and pruned parameters are
    reset through their originals.

    Args:
        model: Any model whose tensors are real.
        names: Names as `named_parameters` and `named_buffers` have them, aliases allowed.
        seed: Any whole number.

    Raises:
        UsageError: A name is unknown, or a module has no way to reset itself; nothing is changed.
        ModelError: The module's own code raised.
    """
    tensors = all_tensors(model)
    if unknown := [name for name in names if name not in tensors]:
        raise UsageError(f"the model has no tensor {unknown[0]!r}")
    for name in names:
        if is_lazy(tensors[name]):
            raise UsageError(f"{name} is lazy: it has no shape before the first forward pass")
    if stubborn := without_reset(model, names):
        hint = "name another scheme for them, or leave them out"
        raise UsageError(f"no reset_parameters: {', '.join(stubborn)}", hint)
    modules, first = modules_and_paths(model)
    wanted: dict[str, set[int]] = {}
    for name in names:
        path = first[id(modules[owner(name)[0]])]
        wanted.setdefault(path, set()).add(id(tensors[name]))
    for path, chosen in wanted.items():
        reset_module(modules[path], path, chosen, seed)


@contextmanager
def restored(model: nn.Module, names: Iterable[str]) -> Iterator[None]:
    """The named tensors get the values back that they had when the block began."""
    tensors = all_tensors(model)
    kept = [(tensors[name], tensors[name].detach().clone()) for name in names]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, before in kept:
                tensor.copy_(before)


def without_reset(model: nn.Module, names: Sequence[str]) -> tuple[str, ...]:
    """Those of the names whose module has no `reset_parameters`."""
    modules, _ = modules_and_paths(model)
    return tuple(name for name in names if own_reset(modules.get(owner(name)[0])) is None)


def own_reset(module: nn.Module | None) -> Callable[[], object] | None:
    """What resets a module, if anything does."""
    for name in ("reset_parameters", "_reset_parameters"):
        method = getattr(module, name, None)
        if callable(method):
            return method  # type: ignore[no-any-return]
    return None


def reset_module(module: nn.Module, path: str, chosen: set[int], seed: int) -> None:
    """Reset one module, and put back every tensor in it that was not chosen."""
    method = own_reset(module)
    assert method is not None
    inside = all_tensors(module).values()
    kept = [(tensor, tensor.detach().clone()) for tensor in inside if id(tensor) not in chosen]
    try:
        with torch.no_grad(), random_state_of(path, seed, inside):
            reset_through_originals(module, method)
    except UsageError:
        raise
    except Exception as error:
        where = f"{path or 'the model'} ({type(module).__name__})"
        raise ModelError(f"{where}: resetting it raised {type(error).__name__}: {error}") from error
    finally:
        with torch.no_grad():
            for tensor, before in kept:
                tensor.copy_(before)


def reset_through_originals(module: nn.Module, method: Callable[[], object]) -> None:
    """Call the method, and carry what it wrote into derived tensors over to what they stem from."""
    # A parametrized tensor is computed anew at each access, unless it is cached: what the method
    # writes into the cached one is read again, and then set.
    with parametrize.cached():
        method()
        fresh = {name: getattr(module, name).clone() for name in parametrized(module)}
    for name, value in fresh.items():
        set_parametrized(module, name, value)
    for name, parameter in list(module._parameters.items()):
        stem, _, suffix = name.rpartition("_")
        value = vars(module).get(stem)
        if parameter is None or not isinstance(value, torch.Tensor):
            continue
        if suffix in ("orig", "v"):
            parameter.copy_(value)
        elif suffix == "g":
            dtype = str(value.dtype).removeprefix("torch.")
            parameter.copy_(fill_magnitude(value, tuple(parameter.shape), dtype))


def parametrized(module: nn.Module) -> list[str]:
    """The names of a module's parametrized tensors."""
    return list(module.parametrizations) if parametrize.is_parametrized(module) else []  # type: ignore[arg-type]


def set_parametrized(module: nn.Module, name: str, value: torch.Tensor) -> None:
    """Give a parametrized tensor a value; one that cannot be turned round takes it as it is."""
    lists: Any = module.parametrizations
    steps = lists[name]
    if all(hasattr(step, "right_inverse") for step in steps):
        setattr(module, name, value)
    else:
        steps.original.copy_(value)


def modules_and_paths(model: nn.Module) -> tuple[dict[str, nn.Module], dict[int, str]]:
    """Modules under each of their paths, and the first path of each."""
    modules = dict(model.named_modules(remove_duplicate=False))
    first: dict[int, str] = {}
    for path, module in modules.items():
        first.setdefault(id(module), path)
    return modules, first


def all_tensors(module: nn.Module) -> Tensors:
    """Every parameter and buffer, under each of its names."""
    parameters: Tensors = dict(module.named_parameters(remove_duplicate=False))
    return parameters | dict(module.named_buffers(remove_duplicate=False))


@contextmanager
def random_state_of(path: str, seed: int, tensors: Iterable[torch.Tensor]) -> Iterator[None]:
    """Random numbers that belong to one module; the global state is as before when it ends."""
    devices = {each.device.index for each in tensors if each.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(devices)):
        start = generator_for(path, seed).initial_seed()
        torch.default_generator.manual_seed(start)
        for index in devices:
            torch.cuda.default_generators[index].manual_seed(start)
        yield
