"""Work that is shared out among a few threads, each with files and buffers of its own."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from threading import Lock
from typing import TypeVar

from modtool.write import Progress

__all__ = ["Meter", "in_parallel", "workers_for"]

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST = 4
# Below this many bytes, threads cost more than they bring.
WORTH = 32 << 20


def workers_for(nbytes: int) -> int:
    """How many threads so many bytes are worth, on the processors that this process may use."""
    usable = getattr(os, "sched_getaffinity", None)
    processors = len(usable(0)) if usable is not None else os.cpu_count() or 1
    return 1 if nbytes < WORTH else min(MOST, processors)


def in_parallel(
    items: Sequence[Item],
    worker: Callable[[], AbstractContextManager[Callable[[Item], Result]]],
    workers: int,
) -> list[Result]:
    """The result for every item, in their order.

    Args:
        items: What is to be done.
        worker: Makes what does it; called once in every thread.
        workers: How many threads.
    """
    queue: Iterator[tuple[int, Item]] = iter(enumerate(items))
    found: dict[int, Result] = {}
    lock = Lock()

    def following() -> tuple[int, Item] | None:
        with lock:
            return next(queue, None)

    def work() -> None:
        with worker() as run:
            while (entry := following()) is not None:
                found[entry[0]] = run(entry[1])

    if workers == 1:
        work()
    else:
        with ThreadPoolExecutor(workers) as pool:
            try:
                for future in [pool.submit(work) for _ in range(workers)]:
                    future.result()
            finally:  # nobody goes on when one has failed, or when all is interrupted
                with lock:
                    queue = iter(())
    return [found[index] for index in range(len(items))]


class Meter:
    """Tells whoever watches how far it is, from whatever thread."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress = progress
        self.total = total
        self.done = 0
        self.lock = Lock()

    def __call__(self, nbytes: int, name: str) -> None:
        """So many bytes more are done."""
        if self.progress is not None:
            with self.lock:
                self.done += nbytes
                self.progress(self.done, self.total, name)
