"""The members of a tar archive, read by itself and proved against the file.

Source: POSIX.1-2001 `pax`, "ustar Interchange Format" and "pax Extended Header".
"""

import re
from collections.abc import Mapping

from modtool.errors import CorruptFileError
from modtool.formats.files import Reader
from modtool.records import FileRange

__all__ = ["is_tar", "read_tar_directory"]

BLOCK = 512
MAX_MEMBERS = 10_000
MAX_EXTENDED = 1 << 20
PAX_SIZE = re.compile(rb"(?:\A|\n)\d{1,6} size=(\d{1,18})\n")


def is_tar(head: bytes) -> bool:
    """True for a tar archive of POSIX or GNU."""
    return head[257:262] == b"ustar"


def read_tar_directory(reader: Reader) -> Mapping[str, FileRange]:
    """Every regular member by name.

    Raises:
        CorruptFileError: It contradicts itself, or two members have one name.
    """
    members: dict[str, FileRange] = {}
    position = 0
    extended: int | None = None
    for _ in range(MAX_MEMBERS):
        if position + BLOCK > reader.size:
            break
        header = reader.read(position, BLOCK, "a tar header")
        if not header.strip(b"\0"):
            break
        start = position + BLOCK
        size = extended if extended is not None else size_in(reader, header)
        place = FileRange(reader.path, start, size)
        if start + size > reader.size:
            raise CorruptFileError(f"{reader.path}: truncated: a member of its tar reaches beyond")
        kind = header[156:157]
        extended = pax_size(reader, place) if kind == b"x" else None
        if kind in (b"0", b"\0"):
            name = header[:100].rstrip(b"\0").decode("utf-8", "surrogateescape")
            if name in members:
                raise CorruptFileError(f"{reader.path}: two members are named {name!r}")
            members[name] = place
        position = start + -(-size // BLOCK) * BLOCK
    return members


def size_in(reader: Reader, header: bytes) -> int:
    """The size that a header says: octal digits, or from 8 GiB on a binary number (GNU)."""
    field = header[124:136]
    if field[:1] == b"\x80":
        return int.from_bytes(field[4:], "big")
    digits = field.strip(b" \0")
    if not re.fullmatch(rb"[0-7]+", digits):
        raise CorruptFileError(f"{reader.path}: a damaged tar header")
    return int(digits, 8)


def pax_size(reader: Reader, place: FileRange) -> int | None:
    """The size that an extended header gives the next member; None where it gives none."""
    if place.length > MAX_EXTENDED:
        raise CorruptFileError(f"{reader.path}: a tar header too large to be one")
    found = PAX_SIZE.search(reader.read(place.offset, place.length, "a tar header"))
    return int(found[1]) if found else None
