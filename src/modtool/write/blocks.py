"""A new file, written from beginning to end in large blocks by a few threads.

Blocks go past the page cache (`O_DIRECT`) where the file system can do that. Two reasons: copying
into the cache and having the system write it back takes about twice as long as the disk needs,
and what has not passed through the cache needs no long `fsync` before the file gets its name.
What need not be on the disk when it is done goes through the cache, and long ranges of another
file are left to the system to copy, which moves the bytes once where a process moves them twice.
"""

import errno
import fcntl
import mmap
import os
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import NamedTuple, Self

__all__ = ["BLOCK", "Blocks"]

BLOCK = 4 << 20
WRITERS = 4
# What memory, offset and length of a direct write are multiples of, on any usual disk.
ALIGNMENT = 4096
# Below this a file is soon synced anyway, and whoever reads it next finds it in the cache.
DIRECT_FROM = 64 << 20
# Larger ones miss the processor's caches.
CACHED_WRITE = 256 << 10
DIRECT = getattr(os, "O_DIRECT", 0)
# Shorter ranges are put together in a block; one of these takes a few milliseconds.
LONG_RANGE = 1 << 20
SYSTEM_COPY = 16 << 20
CANNOT_COPY = frozenset(
    {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF}
)


class Job(NamedTuple):
    """The first `length` bytes of a block, to be written at an offset of the file."""

    block: memoryview
    offset: int
    length: int


class Blocks:
    """A file that grows block by block: take `room`, put data in, say how much with `filled`."""

    def __init__(self, descriptor: int, size: int, *, cached: bool = False) -> None:
        """Prepare to write about `size` bytes; `cached` wants all of them in the page cache.

        Raises:
            OSError: So many do not fit.
        """
        self.descriptor = descriptor
        direct = bool(DIRECT) and size >= DIRECT_FROM and not cached
        self.direct = direct and self.go_direct(True)
        self.copies = not self.direct and hasattr(os, "copy_file_range")
        self.left = min(WRITERS + 2, size // BLOCK + 1)
        self.offset = 0
        self.used = 0
        self.error: OSError | None = None
        self.free: SimpleQueue[memoryview] = SimpleQueue()
        self.jobs: SimpleQueue[Job | None] = SimpleQueue()
        self.block = self.next_block()
        os.ftruncate(descriptor, size)  # blocks that are not the last of the file go in parallel
        self.writers = [
            Thread(target=self.work, daemon=True) for _ in range(WRITERS if self.direct else 1)
        ]

    def __enter__(self) -> Self:
        for writer in self.writers:
            writer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None and self.error is None:
            self.error = OSError(errno.ECANCELED, "stopped")
        self.stop()

    # -- the one who fills -----------------------------------------------------------------------

    @property
    def room(self) -> memoryview:
        """The free part of the block at hand; never empty."""
        return self.block[self.used :]

    def filled(self, count: int) -> None:
        """The first `count` bytes of the room are data now.

        Raises:
            OSError: Something written earlier did not get to the file.
        """
        self.used += count
        if self.used == len(self.block):
            self.put_away()

    def put_away(self) -> None:
        """Have the block at hand written, and take another."""
        self.jobs.put(Job(self.block, self.offset, self.used))
        self.offset += self.used
        self.used = 0
        self.block = self.next_block()

    def copied(self, source: int, position: int, count: int) -> int:
        """Let the system append bytes of an open file; how many, 0 where it is not to or cannot.

        Raises:
            OSError: They could not be read or written.
        """
        if not self.copies or count < LONG_RANGE:
            return 0
        if self.used:
            self.put_away()
        try:
            done = os.copy_file_range(
                source, self.descriptor, min(count, SYSTEM_COPY), position, self.offset
            )
        except OSError as error:
            if error.errno not in CANNOT_COPY:
                raise
            done = 0
        self.copies = done > 0  # else whoever reads and writes finds out what is wrong
        self.offset += done
        return done

    def finish(self) -> None:
        """Write what is left, and wait until everything is in the file.

        Raises:
            OSError: Something did not get there.
        """
        whole = self.used - self.used % ALIGNMENT
        self.jobs.put(Job(self.block, self.offset, whole))
        self.stop()
        if self.error is not None:
            raise self.error
        if self.direct:
            self.go_direct(False)
        self.put(Job(self.block[whole:], self.offset + whole, self.used - whole))
        os.ftruncate(self.descriptor, self.offset + self.used)

    def next_block(self) -> memoryview:
        """An empty block; a new one while there are few."""
        if self.error is not None:
            raise self.error
        if self.left:
            self.left -= 1
            return memoryview(mmap.mmap(-1, BLOCK))
        block = self.free.get()
        if self.error is not None:
            raise self.error
        return block

    def stop(self) -> None:
        """Let the writers end, those jobs done that are waiting."""
        for _ in self.writers:
            self.jobs.put(None)
        for writer in self.writers:
            writer.join()
        self.writers = []

    # -- the ones who write ----------------------------------------------------------------------

    def work(self) -> None:
        """Write blocks until there are no more; after an error only take them away."""
        while (job := self.jobs.get()) is not None:
            try:
                if self.error is None:
                    self.put(job)
            except OSError as error:
                self.error = error
            self.free.put(job.block)

    def put(self, job: Job) -> None:
        """Write one block: a call may take only a part of it."""
        view, offset = job.block[: job.length], job.offset
        while view:
            direct = self.direct  # now: another writer may find out first that this cannot be
            try:
                count = os.pwrite(self.descriptor, view if direct else view[:CACHED_WRITE], offset)
            except OSError as error:
                if error.errno != errno.EINVAL or not direct:
                    raise
                self.go_direct(False)  # what is left is not aligned as this disk would have it
                continue
            view, offset = view[count:], offset + count

    def go_direct(self, wanted: bool) -> bool:
        """Write past the page cache from now on, or no longer; whether it does."""
        flags = fcntl.fcntl(self.descriptor, fcntl.F_GETFL)
        try:
            fcntl.fcntl(
                self.descriptor, fcntl.F_SETFL, flags | DIRECT if wanted else flags & ~DIRECT
            )
        except OSError:
            wanted = False
        self.direct = wanted
        return wanted
