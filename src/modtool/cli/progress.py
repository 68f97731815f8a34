"""Progress on a terminal; silence in a pipe, and for what is done within a second."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["progress_bar"]

QUIET = 1.0


@contextmanager
def progress_bar(counting: str = "") -> Iterator[Callable[[int, int, str], None] | None]:
    """What a verb takes as `progress`; a bar appears on stderr after a second.

    Args:
        counting: What is counted, when it is not bytes: `files`.
    """
    if not sys.stderr.isatty():
        yield None
        return
    bar = Bar(counting)
    try:
        yield bar
    finally:
        bar.stop()


class Bar:
    """A bar with bytes, rate and time left, or with a count, which rich draws."""

    def __init__(self, counting: str = "") -> None:
        self.counting = counting
        self.began = time.monotonic()
        self.stop: Callable[[], None] = lambda: None
        self.update: Callable[[int, int, str], None] | None = None

    def __call__(self, done: int, total: int, name: str) -> None:
        """Show how far it is."""
        if self.update is None and time.monotonic() - self.began > QUIET:
            self.start(total)
        if self.update is not None:
            self.update(done, total, name)

    def start(self, total: int) -> None:
        """Begin to draw."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        amounts: tuple[ProgressColumn, ...] = (DownloadColumn(), TransferSpeedColumn())
        if self.counting:
            amounts = (MofNCompleteColumn(), TextColumn(self.counting))
        drawn = Progress(
            BarColumn(bar_width=24),
            *amounts,
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
            transient=True,
        )
        task = drawn.add_task("", total=total)
        drawn.start()
        self.stop = drawn.stop
        self.update = lambda done, total, name: drawn.update(
            task, completed=done, total=total, description=escape(name)
        )


def escape(name: str) -> str:
    """A tensor's name as rich prints it and does not obey it."""
    from rich.markup import escape as escape_markup

    from modtool.render import clean

    return escape_markup(clean(name))[-40:]
