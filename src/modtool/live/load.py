"""A model target becomes an `nn.Module`. This imports and runs the user's code.

    model.py  model.py:Net  model.py:build()  pkg.module:Net

A definition need not be built for real: under `torch.device("meta")` or a `FakeTensorMode` its
tensors have shapes and no bytes, and seventy billion parameters cost megabytes.
"""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from modtool.errors import ModelError, TargetError, UsageError, a_kind
from modtool.live.choose import Definition, choose, named
from modtool.live.fake import fake_mode, fake_tensors_only
from modtool.live.importing import Surroundings, attempt, import_target, surroundings_of
from modtool.live.keeping import globals_kept
from modtool.live.targets import ModelTarget, parse_target

__all__ = [
    "Built",
    "LoadedModel",
    "building",
    "check_device",
    "load_model",
    "moved",
    "returned",
]

Built = Literal["real", "meta", "fake"]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model, and how it came to be.

    Attributes:
        model: The model.
        target: What the user named.
        built: `real`; `meta` or `fake` where its tensors have no bytes.
        device: Where tensors of a `meta` build would be if they were real.
        rebuild: Builds it for real; the very same model where that is real already.
        entered: What the user's code is to run inside of, so that it finds its own modules.
    """

    model: nn.Module
    target: str
    built: Built
    device: str
    rebuild: Callable[[], nn.Module]
    entered: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext


def load_model(
    target: str,
    arguments: Mapping[str, object] | None = None,
    *,
    device: str | None = None,
    build: Built = "real",
) -> LoadedModel:
    """Import and build the model that a target names.

    Args:
        target: `model.py`, `model.py:Net`, `model.py:build()` or `pkg.module:Net`.
        arguments: Passed to the constructor or factory, by name.
        device: `cpu`, `cuda`, `cuda:1` or `meta`; None leaves every tensor where the model put it.
        build: `meta` or `fake` asks for tensors without bytes. Where the constructor needs values,
            and where the file holds a finished instance, the result is `real` all the same.

    Raises:
        TargetError: No such file or name, or no single model in the file.
        UsageError: The constructor does not take these arguments, or there is no such device.
        ModelError: The user's code raised; the message has its file and line.
    """
    arguments = arguments or {}
    check_device(device)
    parsed = parse_target(target)
    surroundings = surroundings_of(parsed)
    module = import_target(parsed, surroundings)
    find = named if parsed.name else choose
    definition = find(module, parsed, arguments)
    rebuild = functools.partial(construct, definition, parsed, surroundings, arguments, device)
    if device == "meta":
        build = "meta"
    if build != "real" and not definition.is_instance:
        with contextlib.suppress(ModelError, TargetError):
            model = rebuild(build)
            return LoadedModel(model, target, build, device or "cpu", rebuild, surroundings.entered)
    model = rebuild("real")
    same = functools.partial(returned, model)
    return LoadedModel(model, target, "real", device or "cpu", same, surroundings.entered)


def returned(model: nn.Module) -> nn.Module:
    """The model itself."""
    return model


def construct(
    definition: Definition,
    target: ModelTarget,
    surroundings: Surroundings,
    arguments: Mapping[str, object],
    device: str | None,
    build: Built = "real",
) -> nn.Module:
    """Build a definition, its tensors real, on the meta device, or fake."""
    value = definition.value
    doing = f"building {definition.name} of {target.place}"
    with surroundings.entered(), building(build, getattr(value, "__module__", "")):
        if not isinstance(value, nn.Module):
            made = attempt(functools.partial(value, **arguments), doing)
        else:
            made = value
        if not isinstance(made, nn.Module):
            raise TargetError(
                f"{target.place}: {definition.name}() gave {a_kind(made)}, not a model"
            )
        return attempt(functools.partial(moved, made, device), doing)


def moved(model: nn.Module, device: str | None) -> nn.Module:
    """The model on a device."""
    return model if device is None else model.to(torch.device(device))


@contextlib.contextmanager
def building(build: Built, *modules: str) -> Iterator[None]:
    """Give new tensors no bytes, unless they are to be real; none stays in a global variable.

    Args:
        build: What tensors are to be.
        modules: Whose global variables to look after, beside those of the user's modules.
    """
    if build == "real":
        yield
        return
    with warnings.catch_warnings():
        # Loading values into tensors without bytes does nothing, and torch warns of it.
        warnings.simplefilter("ignore")
        hollow = torch.device("meta") if build == "meta" else fake_tensors_only(fake_mode())
        with globals_kept(modules), hollow:
            yield


def check_device(device: str | None) -> None:
    """Refuse a device that is none, or that this machine does not have.

    Raises:
        UsageError: With the devices that there are.
    """
    if device is None:
        return
    try:
        kind = torch.device(device)
    except RuntimeError:
        raise UsageError(f"{device!r} is no device", f"one of {', '.join(devices())}") from None
    names = devices()
    if kind.type not in ("cpu", "meta") and str(kind) not in names:
        raise UsageError(f"there is no {device} on this machine", f"one of {', '.join(names)}")


def devices() -> list[str]:
    """The devices of this machine."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cuda = ["cuda", *(f"cuda:{index}" for index in range(count))] if count else []
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *cuda, *mps, "meta"]
