"""Many targets checked: one after another, or several at once."""

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from modtool.checks.records import Checked, Failure
from modtool.write import Progress

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["at_once", "one_by_one"]

# As in `modtool.cli.main`: reading makes millions of objects and hardly any garbage.
RARE_COLLECTION = (1_000_000, 50, 100)


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
