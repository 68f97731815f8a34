"""The metadata of GGUF files: typed keys and values, read in pieces, arrays summarised."""

import struct
from collections.abc import Mapping
from types import MappingProxyType

from modtool.errors import CorruptFileError, UnsafeFileError
from modtool.formats.files import Reader

__all__ = ["Cursor", "read_values"]

PIECE = 1 << 20
MAX_HEADER = 1 << 30
MAX_TEXT = 64 << 20
MAX_SHOWN_TEXT = 10_000
MAX_NAME = 65_535
MAX_VALUES = 100_000
MAX_STRINGS = 4_000_000
MAX_SHOWN = 16
MAX_DEPTH = 4

# The number in the file -> (name, struct code).
SCALARS: Mapping[int, tuple[str, str]] = MappingProxyType(
    {
        0: ("uint8", "B"),
        1: ("int8", "b"),
        2: ("uint16", "H"),
        3: ("int16", "h"),
        4: ("uint32", "I"),
        5: ("int32", "i"),
        6: ("float32", "f"),
        7: ("bool", "?"),
        10: ("uint64", "Q"),
        11: ("int64", "q"),
        12: ("float64", "d"),
    }
)
STRING, ARRAY = 8, 9


class Cursor:
    """A place in the header, which moves forward only; the file is read a piece at a time.

    Attributes:
        reader: The file.
        order: `little` or `big`.
        width: Bytes of counts and lengths: 4 in version 1, 8 since.
    """

    __slots__ = ("at", "buffer", "left", "order", "reader", "start", "width")

    def __init__(self, reader: Reader, position: int, order: str, *, wide: bool) -> None:
        self.reader = reader
        self.order = order
        self.width = 8 if wide else 4
        self.start = position
        self.buffer = b""
        self.at = 0
        self.left = MAX_STRINGS

    @property
    def position(self) -> int:
        """Bytes from the beginning of the file."""
        return self.start + self.at

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if self.at + count > len(self.buffer):
            self.check_size(count)
            self.start, self.at = self.position, 0
            length = max(count, min(PIECE, self.reader.size - self.start))
            self.buffer = self.reader.read(self.start, length, "the header")
        self.at += count
        return self.buffer[self.at - count : self.at]

    def skip(self, count: int) -> None:
        """Pass over bytes; they must be there."""
        self.check_size(count)
        if self.at + count <= len(self.buffer):
            self.at += count
        else:
            self.start, self.at, self.buffer = self.position + count, 0, b""

    def check_size(self, count: int) -> None:
        """The next bytes must be in the file, and in what a header may take of it."""
        end = self.position + count
        if end > min(self.reader.size, MAX_HEADER):
            kind = CorruptFileError if end > self.reader.size else UnsafeFileError
            raise kind(
                f"{self.reader.path}: truncated or damaged: its header should reach to byte "
                f"{end:,}, the file ends at {self.reader.size:,}"
            )

    def number(self, width: int) -> int:
        """The next unsigned number."""
        return int.from_bytes(self.take(width), "little" if self.order == "little" else "big")

    def count(self) -> int:
        """A count or a length."""
        return self.number(self.width)

    def text(self, limit: int) -> str:
        """The next string."""
        length = self.count()
        if length > limit:
            raise UnsafeFileError(f"{self.reader.path}: a text of {length:,} bytes in its header")
        return self.take(length).decode("utf-8", "replace")

    def name(self) -> str:
        """The next key or tensor name."""
        return self.text(MAX_NAME)

    def numbers(self, code: str, count: int) -> tuple[object, ...]:
        """The next numbers of one type."""
        layout = struct.Struct(f"{'<' if self.order == 'little' else '>'}{count}{code}")
        found = layout.unpack(self.take(layout.size))
        return tuple(map(shortest, found)) if code == "f" else found

    def spend(self, count: int) -> None:
        """Count strings and arrays, so that empty ones without number end."""
        self.left -= count
        if self.left < 0:
            raise UnsafeFileError(f"{self.reader.path}: its header has too many strings")

    def skip_strings(self, count: int) -> None:
        """Pass over strings: half a million of them, in a tokenizer."""
        self.spend(count)
        order = "<" if self.order == "little" else ">"
        length_at = struct.Struct(f"{order}{'Q' if self.width == 8 else 'I'}").unpack_from
        while count:
            buffer, at = self.buffer, self.at
            last = len(buffer) - self.width
            while count and at <= last:
                following = at + self.width + length_at(buffer, at)[0]
                if following > len(buffer):
                    break
                at = following
                count -= 1
            self.at = at
            if count:  # the next one crosses the end of the piece
                self.skip(self.count())
                count -= 1


def shortest(value: float) -> float:
    """The number with the fewest digits that is the same float32: 1e-05, not 9.99999974e-06."""
    return next(
        (
            short
            for digits in range(6, 9)
            if struct.pack("<f", short := float(f"{value:.{digits}g}")) == struct.pack("<f", value)
        ),
        value,
    )


def read_values(cursor: Cursor, count: int) -> dict[str, object]:
    """All keys and values; a key that occurs twice is refused."""
    if count > MAX_VALUES:
        raise UnsafeFileError(f"{cursor.reader.path}: it claims to have {count:,} values")
    values: dict[str, object] = {}
    for _ in range(count):
        key = cursor.name()
        if key in values:
            raise CorruptFileError(f"{cursor.reader.path}: the key {key!r} occurs twice")
        values[key] = value_of(cursor, cursor.number(4))
    return values


def value_of(cursor: Cursor, kind: int, depth: int = 0) -> object:
    """One value of a type."""
    if kind in SCALARS:
        return cursor.numbers(SCALARS[kind][1], 1)[0]
    if kind == STRING:
        text = cursor.text(MAX_TEXT)
        return text if len(text) <= MAX_SHOWN_TEXT else f"{text[:MAX_SHOWN_TEXT]}…"
    if kind == ARRAY and depth < MAX_DEPTH:
        return array_of(cursor, depth)
    if kind == ARRAY:
        raise UnsafeFileError(f"{cursor.reader.path}: arrays nested more than {MAX_DEPTH} deep")
    raise CorruptFileError(f"{cursor.reader.path}: a value of the unknown type {kind}")


def array_of(cursor: Cursor, depth: int) -> object:
    """A short array as a list; of a long one, how many elements of which type it has."""
    kind, count = cursor.number(4), cursor.count()
    if count <= MAX_SHOWN and kind in (*SCALARS, STRING, ARRAY):
        cursor.spend(count)
        return [value_of(cursor, kind, depth + 1) for _ in range(count)]
    if kind in SCALARS:
        name, code = SCALARS[kind]
        cursor.skip(count * struct.calcsize(f"<{code}"))
    elif kind == STRING:
        name = "string"
        cursor.skip_strings(count)
    elif kind == ARRAY:
        name = "array"
        cursor.spend(count)
        for _ in range(count):
            value_of(cursor, kind, depth + 1)
    else:
        raise CorruptFileError(f"{cursor.reader.path}: an array of the unknown type {kind}")
    return f"<{count:,} × {name}>"
