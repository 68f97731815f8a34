"""Many targets checked: one after another, or several at once."""

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from modtool.checks.records import Checked, Failure
from modtool.write import Progress

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["at_once", "in_threads", "one_by_one"]

# As in `modtool.cli.main`: reading makes millions of objects and hardly any garbage.
RARE_COLLECTION = (1_000_000, 50, 100)
# Files whose elements are read at a time: each of them is shared out among threads once more.
MOST_READ = 4


def one_by_one(
    targets: Sequence[str], check_one: Callable[[str], Checked], progress: Progress | None
) -> Iterator[Checked]:
    """The targets checked in this process."""
    for number, target in enumerate(targets):
        yield check_one(target)
        if progress is not None and len(targets) > 1:
            progress(number + 1, len(targets), target)


def at_once(
    targets: Sequence[str],
    check_one: Callable[[str], Checked],
    processes: int,
    progress: Progress | None,
) -> Iterator[Checked]:
    """The targets checked in several processes."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed

    # Not forked: whoever draws progress has a thread, which a fork would lose.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        processes, context, initializer=gc.set_threshold, initargs=RARE_COLLECTION
    ) as pool:
        futures = {pool.submit(check_one, target): target for target in targets}
        try:
            for number, future in enumerate(as_completed(futures)):
                target = futures[future]
                yield result_of(future, target)
                if progress is not None:
                    progress(number + 1, len(targets), target)
        finally:  # who is interrupted does not wait for what has not begun
            pool.shutdown(wait=False, cancel_futures=True)


def result_of(future: "Future[Checked]", target: str) -> Checked:
    """What another process found; a failure where the process is gone."""
    from concurrent.futures.process import BrokenProcessPool

    try:
        return future.result()
    except BrokenProcessPool:
        message = f"{target}: not checked, as a process that reads files was killed"
        return Checked(target, failure=Failure(message, "was there too little memory?"))


# -- elements ----------------------------------------------------------------------------------


class CheckOne(Protocol):
    """What checks one target, and tells how far it is."""

    def __call__(self, target: str, *, progress: Progress) -> Checked: ...


def in_threads(
    targets: Sequence[str], check_one: CheckOne, threads: int, progress: Progress | None
) -> Iterator[Checked]:
    """The targets checked by several threads, which torch leaves free while it computes.

    Args:
        targets: Files and folders.
        check_one: What checks one of them.
        threads: How many may work at once.
        progress: Called with bytes done, bytes in all, and the target at hand.
    """
    from concurrent.futures import ThreadPoolExecutor

    import modtool.live.scanning  # noqa: F401 (torch is not to be imported by several at once)

    shares = Shares(targets, progress)
    with ThreadPoolExecutor(min(threads, MOST_READ)) as pool:
        try:
            yield from pool.map(lambda each: check_one(each, progress=shares.of(each)), targets)
        finally:  # who is interrupted waits for none of what has begun
            shares.stopped = True
            pool.shutdown(wait=False, cancel_futures=True)


class Shares:
    """How far several targets are, as one: each counts with the bytes of its files.

    Attributes:
        stopped: Whether whoever tells of progress is to be stopped.
    """

    def __init__(self, targets: Sequence[str], progress: Progress | None) -> None:
        self.sizes = {target: size_of(target) for target in targets}
        self.done = dict.fromkeys(targets, 0)
        self.total = sum(self.sizes.values())
        self.so_far = 0
        self.progress = progress
        self.lock = Lock()
        self.stopped = False

    def of(self, target: str) -> Progress:
        """What takes the progress of one target."""
        return lambda done, total, _: self.advance(target, done, total)

    def advance(self, target: str, done: int, total: int) -> None:
        """One target is so far."""
        if self.stopped:
            from concurrent.futures import CancelledError

            raise CancelledError(target)
        with self.lock:
            share = self.sizes[target] * done // max(total, 1)
            self.so_far += share - self.done[target]
            self.done[target] = share
            if self.progress is not None:
                self.progress(self.so_far, self.total, target)


def size_of(target: str) -> int:
    """Bytes of a file, or of those in a folder; a file that lists others counts with its folder."""
    if target.endswith((".json", ".metadata")):
        target = os.path.dirname(target) or "."
    try:
        if not os.path.isdir(target):
            return os.path.getsize(target)
        return sum(each.stat().st_size for each in os.scandir(target) if each.is_file())
    except OSError:
        return 0
