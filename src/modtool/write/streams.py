"""Bytes from files to a file, a few megabytes at a time."""

import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self

from zlib_ng.zlib_ng import crc32

from modtool.errors import CorruptFileError
from modtool.records import FileRange
from modtool.write.blocks import Blocks

__all__ = ["PIECE", "Data", "Progress", "Sink", "Sources"]

Data = bytes | bytearray | memoryview
Progress = Callable[[int, int, str], None]
"""Called with the bytes done, the bytes in all, and the name of the tensor."""

PIECE = 4 << 20
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

    def pieces(self, place: FileRange) -> Iterator[memoryview]:
        """The bytes of a range, a few megabytes at a time; each piece is gone with the next."""
        buffer = memoryview(bytearray(min(PIECE, place.length)))
        position, end = place.offset, place.offset + place.length
        while position < end:
            count = self.read_into(place.path, position, buffer[: end - position])
            yield buffer[:count]
            position += count

    def is_whole(self, place: FileRange) -> bool:
        """Whether bytes give the checksum that was saved with them; True where none was."""
        if not place.crc:
            return True
        found = 0
        for piece in self.pieces(place):
            found = crc32(piece, found)
        return found == place.crc

    def read_into(self, path: str, offset: int, *rooms: memoryview) -> int:
        """Put bytes of a file into buffers, at least one byte; how many."""
        try:
            count = os.preadv(self.descriptor(path), rooms, offset)
        except OSError as error:
            raise CorruptFileError(f"{path} cannot be read: {error.strerror}") from None
        if not count:
            raise ends_early(path)
        return count


def ends_early(path: str) -> CorruptFileError:
    """What to say when a file is shorter than it was when its header was read."""
    return CorruptFileError(f"{path} ends too early", "was it changed meanwhile?")


class Sink:
    """A file that is written from beginning to end."""

    def __init__(
        self, blocks: Blocks, sources: Sources, total: int, progress: Progress | None
    ) -> None:
        self.blocks = blocks
        self.sources = sources
        self.total = total
        self.progress = progress
        self.done = 0

    def write(self, data: Data) -> None:
        """Append bytes."""
        with memoryview(data).cast("B") as view:
            position = 0
            while position < len(view):
                room = self.blocks.room
                count = min(len(room), len(view) - position)
                room[:count] = view[position : position + count]
                self.blocks.filled(count)
                position += count

    def stream(self, pieces: Iterable[Data], name: str, *, crc: bool) -> int:
        """Append data piece by piece; its CRC-32, or 0 where none is wanted."""
        found = 0
        for piece in pieces:
            found = crc32(piece, found) if crc else 0
            self.write(piece)
            self.advance(memoryview(piece).nbytes, name)
        return found

    def copy(self, place: FileRange, name: str, *, crc: bool) -> int:
        """Append a range of a file; its CRC-32, or 0 where none is wanted."""
        found, position, end = 0, place.offset, place.offset + place.length
        while position < end:
            count = 0
            if not crc:
                source = self.sources.descriptor(place.path)
                count = self.blocks.copied(source, position, end - position)
            if not count:
                room = self.blocks.room[: end - position]
                count = self.sources.read_into(place.path, position, room)
                found = crc32(room[:count], found) if crc else 0
                self.blocks.filled(count)
            self.advance(count, name)
            position += count
        return found

    def advance(self, count: int, name: str) -> None:
        """Tell whoever watches how far it is."""
        self.done += count
        if self.progress is not None:
            self.progress(self.done, self.total, name)


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
