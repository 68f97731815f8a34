"""How long each call takes: passes with nothing on but a clock."""

import time
from collections.abc import Callable, Mapping
from statistics import median

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

__all__ = ["Times", "time_calls"]

Times = Mapping[tuple[str, int], float]
"""Path and number of a call -> seconds."""


class Clock:
    """Hooks that note when calls begin and end."""

    def __init__(self, modules: Mapping[str, nn.Module], on_cuda: bool) -> None:
        self.on_cuda = on_cuda
        self.open: list[tuple[str, int, float]] = []
        self.counts: dict[str, int] = {}
        self.seconds: dict[tuple[str, int], list[float]] = {}
        self.handles: list[RemovableHandle] = []
        for path, module in modules.items():
            self.attach(path, module)

    def attach(self, path: str, module: nn.Module) -> None:
        """Put the hooks on one module: the last to begin and the first to end."""

        def begin(*_: object) -> None:
            self.counts[path] = self.counts.get(path, 0) + 1
            self.open.append((path, self.counts[path], self.now()))

        def end(*_: object) -> None:
            now = self.now()
            while self.open:
                place, number, start = self.open.pop()
                if place == path:
                    self.seconds.setdefault((path, number), []).append(now - start)
                    return

        self.handles.append(module.register_forward_pre_hook(begin))
        self.handles.append(module.register_forward_hook(end, prepend=True))

    def now(self) -> float:
        """Seconds; what was asked of a GPU is done by then."""
        if self.on_cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def detach(self) -> None:
        """Take the hooks off."""
        for handle in self.handles:
            handle.remove()


def time_calls(
    modules: Mapping[str, nn.Module], run: Callable[[], object], repeat: int, *, on_cuda: bool
) -> Times:
    """The median time of each call, and of the whole pass: that of the path "".

    Args:
        modules: The modules to time, by path; none of them takes no hooks.
        run: One pass; it has been warmed up.
        repeat: How many passes to make.
        on_cuda: Wait for the GPU before every look at the clock.
    """
    clock = Clock(modules, on_cuda)
    try:
        for _ in range(repeat):
            clock.counts.clear()
            clock.open.clear()
            start = clock.now()
            run()
            clock.seconds.setdefault(("", 1), []).append(clock.now() - start)
    finally:
        clock.detach()
    return {call: median(seconds) for call, seconds in clock.seconds.items()}
