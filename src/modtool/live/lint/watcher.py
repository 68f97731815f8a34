"""What a check notices while a pass runs: functions called, attributes read, outputs that vary."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode

from modtool.live.blame import is_library, shown_path
from modtool.live.counter import tensors_in
from modtool.live.lint.biases import has_bias
from modtool.live.lint.dropping import probability_always_used
from modtool.live.lint.units import Units
from modtool.live.observer import Observer
from modtool.live.recorder import Call, Recorder

__all__ = ["Dropped", "Watcher"]


@dataclass(frozen=True, slots=True)
class Dropped:
    """A function that drops, called so that it drops in eval mode too.

    Attributes:
        path: The module that called it.
        function: Its name.
        probability: With which it drops an element.
        line: The user's own line that it comes from; "" where a library called it.
    """

    path: str
    function: str
    probability: float
    line: str


class Watcher(Observer):
    """Notices what checks ask for in one pass; in the last, where a trace takes several.

    Attributes:
        dropped: Functions that drop whatever the mode.
        read: Ids of modules that an attribute of another module gave to somebody.
        biased: (path of a layer, path of the batch normalisation that alone is given its output).
        units: Which layer is given what another gave.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget the pass before."""
        self.dropped: dict[Dropped, None] = {}
        self.read: set[int] = set()
        self.normalised: dict[int, str] = {}
        self.uses: dict[int, int] = {}
        self.layers: dict[int, str] = {}
        self.units = Units()

    @property
    def biased(self) -> list[tuple[str, str]]:
        """Pairs of layers and the batch normalisation that alone is given their output."""
        return [
            (self.layers[call], norm)
            for call, norm in self.normalised.items()
            if self.uses[call] == 1
        ]

    @contextlib.contextmanager
    def watching(self, recorder: Recorder) -> Iterator[None]:
        """Watch the functions that run, and the attributes that are read."""
        self.clear()
        with reads_noted(self.read), Functions(self, recorder):
            yield
        self.units.end()

    def see(
        self, recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: Any, made: object
    ) -> None:
        """A function of torch has run, and given a tensor."""
        caller = recorder.open[-1] if recorder.open else None
        if caller is None:
            return
        given = probability_always_used(func, args, kwargs)
        if given and not isinstance(caller.module, _DropoutNd):
            name = str(func.__name__)
            self.dropped.setdefault(Dropped(caller.path, name, given, calling_line()))
        tensors = list(tensors_in((*args, *kwargs.values())))
        self.units.see(caller.path, caller.module, func, tensors, made)
        for tensor in tensors:
            call = layer_behind(recorder, tensor)
            if call is not None:
                self.uses[call.index] = self.uses.get(call.index, 0) + 1
                self.layers[call.index] = call.path
                if takes_batch_mean(func, args, kwargs) and tensor is first_of(args, kwargs):
                    self.normalised[call.index] = caller.path


def takes_batch_mean(func: Any, args: tuple[Any, ...], kwargs: Any) -> bool:
    """True for a batch normalisation by its batch: running statistics know nothing of a bias."""
    if func is not torch.nn.functional.batch_norm:
        return False
    return bool(kwargs.get("training", args[5] if len(args) > 5 else False))


def first_of(args: tuple[Any, ...], kwargs: Any) -> object:
    """The input of a function."""
    return args[0] if args else kwargs.get("input")


def layer_behind(recorder: Recorder, tensor: torch.Tensor) -> Call | None:
    """The call of a layer with a trainable bias that gave this very tensor."""
    origins = recorder.watch.origins
    index = origins.of(tensor)
    if index is None or index < 0 or not origins.is_output(tensor):
        return None
    call = recorder.calls[index + 1]
    return call if has_bias(call.module) else None


def calling_line() -> str:
    """The innermost line of the user's own; "" where a library runs by itself."""
    frame = sys._getframe(1)
    while frame is not None and is_library(frame.f_code.co_filename):
        frame = frame.f_back  # type: ignore[assignment]
    return f"{shown_path(frame.f_code.co_filename)}:{frame.f_lineno}" if frame else ""


class Functions(TorchFunctionMode):
    """Shows a watcher every function of torch that gave a tensor."""

    def __init__(self, watcher: Watcher, recorder: Recorder) -> None:
        super().__init__()
        self.watcher = watcher
        self.recorder = recorder

    def __torch_function__(
        self,
        func: Any,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        # What gives no tensor looks at a description, and uses no elements.
        if next(tensors_in([result]), None) is not None:
            self.watcher.see(self.recorder, func, args, kwargs or {}, result)
        return result


@contextlib.contextmanager
def reads_noted(found: set[int]) -> Iterator[None]:
    """Note the modules that are read as attributes of others, for the body."""
    original = nn.Module.__getattr__

    def noting(module: nn.Module, name: str) -> Any:
        value = original(module, name)
        if isinstance(value, nn.Module):
            found.add(id(value))
        return value

    nn.Module.__getattr__ = noting  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.__getattr__ = original  # type: ignore[method-assign]
