"""Bytes from files to a file: by the kernel where they go over unchanged, in small pieces else."""

import contextlib
import errno
import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self
from zlib import crc32

from modtool.errors import CorruptFileError
from modtool.records import FileRange

__all__ = ["PIECE", "Data", "Progress", "Sink", "Sources"]

Data = bytes | bytearray | memoryview
Progress = Callable[[int, int, str], None]
"""Called with the bytes done, the bytes in all, and the name of the tensor."""

PIECE = 4 << 20
SMALL = 64 << 10
KERNEL_PIECE = 64 << 20
CANNOT = frozenset(
    {errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EPERM}
)
SWAPPED = {2: "H", 4: "I", 8: "Q"}


class Sources:
    """The files that are read, each opened once, never for writing."""

    LIMIT = 128

    def __init__(self) -> None:
        self.open: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for descriptor in self.open.values():
            os.close(descriptor)
        self.open.clear()

    def descriptor(self, path: str) -> int:
        """An open descriptor of a file; the oldest is closed when there are too many."""
        if path not in self.open:
            if len(self.open) >= self.LIMIT:
                os.close(self.open.pop(next(iter(self.open))))
            try:
                self.open[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise CorruptFileError(f"{path} cannot be read: {error.strerror}") from None
        return self.open[path]

    def pieces(self, place: FileRange) -> Iterator[bytes]:
        """The bytes of a range, a few megabytes at a time."""
        position, end = place.offset, place.offset + place.length
        while position < end:
            piece = self.read(place.path, position, min(PIECE, end - position))
            yield piece
            position += len(piece)

    def read(self, path: str, offset: int, length: int) -> bytes:
        """At least one byte and at most `length` from a file."""
        try:
            piece = os.pread(self.descriptor(path), length, offset)
        except OSError as error:
            raise CorruptFileError(f"{path} cannot be read: {error.strerror}") from None
        if not piece:
            raise ends_early(path)
        return piece


def ends_early(path: str) -> CorruptFileError:
    """What to say when a file is shorter than it was when its header was read."""
    return CorruptFileError(f"{path} ends too early", "was it changed meanwhile?")


class Sink:
    """A file that is written from beginning to end."""

    def __init__(
        self, descriptor: int, sources: Sources, total: int, progress: Progress | None
    ) -> None:
        self.descriptor = descriptor
        self.sources = sources
        self.total = total
        self.progress = progress
        self.done = 0
        self.pending = bytearray()

    def write(self, data: Data) -> None:
        """Append bytes; small ones are gathered first."""
        self.pending += data
        if len(self.pending) >= PIECE:
            self.flush()

    def flush(self) -> None:
        """Hand what was gathered to the system."""
        with memoryview(self.pending) as view:
            write_all(self.descriptor, view)
        self.pending.clear()

    def stream(self, pieces: Iterable[Data], name: str, *, crc: bool) -> int:
        """Append data piece by piece; its CRC-32, or 0 where none is wanted."""
        found = 0
        for piece in pieces:
            with memoryview(piece).cast("B") as view:
                found = crc32(view, found) if crc else 0
                if view.nbytes < SMALL:
                    self.write(view)
                else:
                    self.flush()
                    write_all(self.descriptor, view)
                self.advance(view.nbytes, name)
        return found

    def copy(self, place: FileRange, name: str) -> None:
        """Append a range of a file, inside the kernel where it can."""
        if place.length < SMALL:
            self.stream(self.sources.pieces(place), name, crc=False)
            return
        self.flush()
        copied = 0
        for method in (copy_range, send_file):
            with contextlib.suppress(CannotCopyError):
                while copied < place.length:
                    count = method(
                        self.sources.descriptor(place.path),
                        self.descriptor,
                        place.offset + copied,
                        min(KERNEL_PIECE, place.length - copied),
                    )
                    if not count:
                        break
                    copied += count
                    self.advance(count, name)
        rest = FileRange(place.path, place.offset + copied, place.length - copied)
        self.stream(self.sources.pieces(rest), name, crc=False)

    def advance(self, count: int, name: str) -> None:
        """Tell whoever watches how far it is."""
        self.done += count
        if self.progress is not None:
            self.progress(self.done, self.total, name)


class CannotCopyError(Exception):
    """The kernel does not copy between these files this way."""


def copy_range(source: int, target: int, offset: int, count: int) -> int:
    """`copy_file_range`: shares blocks or stays on the server where the file system can."""
    try:
        return os.copy_file_range(source, target, count, offset)
    except OSError as error:
        raise refusal(error) from None


def send_file(source: int, target: int, offset: int, count: int) -> int:
    """`sendfile`: between file systems."""
    try:
        return os.sendfile(target, source, offset, count)
    except OSError as error:
        raise refusal(error) from None


def refusal(error: OSError) -> Exception:
    """The error itself, unless it says that only this way of copying is not to be had."""
    return CannotCopyError() if error.errno in CANNOT else error


def write_all(descriptor: int, view: memoryview) -> None:
    """Write everything: one call may take only a part."""
    while view:
        view = view[os.write(descriptor, view) :]


def swapped(pieces: Iterable[Data], size: int) -> Iterator[Data]:
    """The bytes of every element of `size` bytes reversed, whatever the pieces are cut like."""
    rest = b""
    for piece in pieces:
        data = rest + bytes(piece)
        whole = len(data) - len(data) % size
        elements = array(SWAPPED[size], data[:whole])
        elements.byteswap()
        yield elements.tobytes()
        rest = data[whole:]
