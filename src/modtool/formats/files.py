"""Reading files of strangers: bounded reads at checked offsets."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap

from modtool.errors import CorruptFileError, TargetError

__all__ = ["Nearby", "Reader", "mapped", "open_reader"]

KEPT = 4096


@dataclass(frozen=True, slots=True)
class Reader:
    """An open file: `size` bytes that can be read at any offset, and not beyond.

    `base` is where the first of them lies in the file: not at 0 where one file is read inside
    another.
    """

    path: str
    descriptor: int
    size: int
    base: int = 0

    def read(self, offset: int, length: int, what: str = "data") -> bytes:
        """Exactly `length` bytes from `offset`.

        Raises:
            CorruptFileError: The file does not reach that far.
        """
        if offset < 0 or length < 0 or offset + length > self.size:
            raise CorruptFileError(
                f"{self.path}: truncated or damaged: {what} should end at byte "
                f"{offset + length:,}, the file at {self.size:,}"
            )
        data = os.pread(self.descriptor, length, self.base + offset)
        while len(data) < length:  # one call reads 2 GiB at most
            part = os.pread(self.descriptor, length - len(data), self.base + offset + len(data))
            if not part:
                raise CorruptFileError(f"{self.path}: it became shorter while it was read")
            data += part
        return data

    def head(self, length: int) -> bytes:
        """The first `length` bytes, or all of a shorter file."""
        return self.read(0, min(length, self.size))

    def tail(self, length: int) -> bytes:
        """The last `length` bytes, or all of a shorter file."""
        length = min(length, self.size)
        return self.read(self.size - length, length)


class Nearby:
    """Reads small pieces of a file that lie near each other: what follows one is kept for the next.

    It stands for its reader where pieces are read in the order of the file.
    """

    __slots__ = ("base", "begin", "kept", "path", "reader")

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.path = reader.path
        self.base = reader.base
        self.begin = 0
        self.kept = b""

    def read(self, offset: int, length: int, what: str = "data") -> bytes:
        """As `Reader.read`."""
        at = offset - self.begin
        if at < 0 or at + length > len(self.kept):
            at = 0
            self.kept = self.reader.read(
                offset, max(length, min(KEPT, self.reader.size - offset)), what
            )
            self.begin = offset
        return self.kept[at : at + length]


@contextmanager
def open_reader(path: str) -> Iterator[Reader]:
    """Open a regular file for reading.

    Raises:
        TargetError: There is no such file, it is no regular file, or it may not be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise TargetError(f"{path}: {reason.lower()}", hint_for(error)) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise TargetError(f"{path}: not a regular file", "name a file, or a folder of files")
        yield Reader(path, descriptor, status.st_size)
    finally:
        os.close(descriptor)


@contextmanager
def mapped(reader: Reader, limit: int) -> Iterator[mmap]:
    """The first `limit` bytes of a file, mapped: only what is looked at costs memory."""
    with mmap(reader.descriptor, min(reader.size, limit), access=ACCESS_READ) as data:
        yield data


def hint_for(error: Exception) -> str:
    """What to do about a file that cannot be opened."""
    if isinstance(error, FileNotFoundError):
        return "check the path; a model is named as model.py, model.py:Net or pkg.module:Net"
    if isinstance(error, PermissionError):
        return "make the file readable for you"
    if getattr(error, "errno", None) == errno.ELOOP:
        return "it leads back to itself: name the file that it should lead to"
    return ""
