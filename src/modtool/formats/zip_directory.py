"""The central directory of a zip file, read by itself and proved against the file.

Python's `zipfile` refuses archives that torch writes without CRCs, and reads the last of two
members of one name where torch reads the first; so the directory is read here.
Source: PKWARE APPNOTE 6.3.10, sections 4.3 and 4.5.3.
"""

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from modtool.errors import CorruptFileError, UnsafeFileError
from modtool.formats.files import Reader
from modtool.records import FileRange

__all__ = ["Directory", "Member", "member_range", "read_directory", "read_member"]

END = struct.Struct("<4s4H2LH")
LOCATOR = struct.Struct("<4sLQL")
END64 = struct.Struct("<4sQ2H2L4Q")
ENTRY = struct.Struct("<4s6H3L5H2L")
LOCAL = struct.Struct("<4s5H3L2H")

STORED, DEFLATED = 0, 8
MAX_DIRECTORY = 1 << 30
MAX_INFLATED = 64 << 20


@dataclass(frozen=True, slots=True)
class Member:
    """One member of the archive; `header` is where its local header lies in the file."""

    name: str
    method: int
    crc: int
    compressed: int
    size: int
    header: int
    encrypted: bool


@dataclass(frozen=True, slots=True)
class Directory:
    """Every member by name, in the order of the directory; `prefix` bytes lie before the zip."""

    members: Mapping[str, Member]
    prefix: int
    trailing: int


def read_directory(reader: Reader) -> Directory:
    """Read and check the central directory.

    Raises:
        CorruptFileError: There is none, it contradicts the file, or two members have one name.
    """
    tail = reader.tail(END.size + 0xFFFF)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + END.size > len(tail):
        raise CorruptFileError(
            f"{reader.path}: truncated: a zip archive without its central directory",
            "download or save it again",
        )
    end_at = reader.size - len(tail) + at
    _, disk, start_disk, _, count, size, offset, comment = END.unpack_from(tail, at)
    trailing = reader.size - end_at - END.size - comment
    if has_locator(reader, end_at):  # torch writes one in every archive, needed or not
        end_at, count, size, offset = read_end64(reader, end_at)
    elif disk or start_disk:
        raise CorruptFileError(f"{reader.path}: an archive in several parts is not read")
    prefix = end_at - size - offset
    if prefix < 0 or size > MAX_DIRECTORY or count * ENTRY.size > size:
        raise CorruptFileError(f"{reader.path}: its central directory does not fit the file")
    data = reader.read(prefix + offset, size, "the central directory")
    members = parse_entries(reader, data, count, prefix, prefix + offset)
    return Directory(members, prefix, max(trailing, 0))


def has_locator(reader: Reader, end_at: int) -> bool:
    """True when a ZIP64 locator lies before the end record."""
    at = end_at - LOCATOR.size
    return at >= 0 and reader.read(at, 4) == b"PK\x06\x07"


def read_end64(reader: Reader, end_at: int) -> tuple[int, int, int, int]:
    """(where it lies, count, size, offset) of the ZIP64 end record."""
    at = end_at - LOCATOR.size
    locator = LOCATOR.unpack(reader.read(at, LOCATOR.size, "the ZIP64 locator"))
    # With bytes before the archive the recorded offset is off; the record then ends at the locator.
    for position in (locator[2], at - END64.size):
        if 0 <= position <= at - END64.size:
            record = END64.unpack(reader.read(position, END64.size, "the ZIP64 end record"))
            if record[0] == b"PK\x06\x06":
                return position, record[7], record[8], record[9]
    raise CorruptFileError(f"{reader.path}: its ZIP64 end record is missing")


def parse_entries(
    reader: Reader, data: bytes, count: int, prefix: int, limit: int
) -> dict[str, Member]:
    """The members of a central directory; every one proved to end before `limit`."""
    members: dict[str, Member] = {}
    at = 0
    for _ in range(count):
        if at + ENTRY.size > len(data):
            raise CorruptFileError(f"{reader.path}: its central directory ends too early")
        entry = ENTRY.unpack_from(data, at)
        name_end = at + ENTRY.size + entry[10]
        extra_end = name_end + entry[11]
        if entry[0] != b"PK\x01\x02" or extra_end + entry[12] > len(data):
            raise CorruptFileError(f"{reader.path}: its central directory is damaged")
        name = data[at + ENTRY.size : name_end].decode("utf-8", "surrogateescape")
        size, compressed, header = entry[9], entry[8], entry[16]
        if 0xFFFFFFFF in (size, compressed, header):
            size, compressed, header = wide_numbers(
                data[name_end:extra_end], size, compressed, header
            )
        header += prefix
        if header + LOCAL.size + compressed > limit:
            raise CorruptFileError(f"{reader.path}: member {name!r} reaches beyond the archive")
        if name in members:
            raise CorruptFileError(
                f"{reader.path}: two members are named {name!r}",
                "readers disagree on which one counts, so neither is read",
            )
        members[name] = Member(
            name, entry[4], entry[7], compressed, size, header, bool(entry[3] & 1)
        )
        at = extra_end + entry[12]
    refuse_overlaps(reader, members)
    return members


def wide_numbers(extra: bytes, size: int, compressed: int, header: int) -> tuple[int, int, int]:
    """Replace each number that is all ones by the next one of the ZIP64 extra field."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            count = min(length, len(extra) - at - 4) // 8
            wide = list(struct.unpack_from(f"<{count}Q", extra, at + 4))
            numbers = [
                wide.pop(0) if number == 0xFFFFFFFF and wide else number
                for number in (size, compressed, header)
            ]
            return numbers[0], numbers[1], numbers[2]
        at += 4 + length
    return size, compressed, header


def refuse_overlaps(reader: Reader, members: Mapping[str, Member]) -> None:
    """No two members may share bytes: that is how small files pretend to be large ones."""
    end = 0
    for member in sorted(members.values(), key=lambda member: member.header):
        if member.header < end:
            raise CorruptFileError(f"{reader.path}: member {member.name!r} overlaps another one")
        end = member.header + LOCAL.size + member.compressed


def member_range(reader: Reader, member: Member) -> FileRange:
    """Where the bytes of a stored member lie; the local header says how far its name reaches."""
    local = LOCAL.unpack(reader.read(member.header, LOCAL.size, f"member {member.name!r}"))
    start = member.header + LOCAL.size + local[9] + local[10]
    if local[0] != b"PK\x03\x04" or start + member.compressed > reader.size:
        raise CorruptFileError(f"{reader.path}: the header of member {member.name!r} is damaged")
    if member.encrypted or member.method != STORED or member.size != member.compressed:
        raise CorruptFileError(f"{reader.path}: member {member.name!r} is not stored plainly")
    return FileRange(reader.path, start, member.size, member.crc or None)


def read_member(reader: Reader, member: Member, limit: int) -> bytes:
    """The bytes of a member, inflated where it is deflated, at most `limit` of them."""
    if member.size > limit:
        raise UnsafeFileError(
            f"{reader.path}: member {member.name!r} of {member.size:,} bytes is too large"
        )
    if member.method == STORED:
        place = member_range(reader, member)
        return reader.read(place.offset, place.length, member.name)
    if member.method != DEFLATED or member.encrypted:
        raise CorruptFileError(f"{reader.path}: member {member.name!r} is packed in an unknown way")
    local = LOCAL.unpack(reader.read(member.header, LOCAL.size, f"member {member.name!r}"))
    start = member.header + LOCAL.size + local[9] + local[10]
    return inflate(reader, member, reader.read(start, member.compressed, member.name))


def inflate(reader: Reader, member: Member, packed: bytes) -> bytes:
    """Inflate a member; one that grows past what it declares, or past reason, is refused."""
    bound = min(member.size, MAX_INFLATED)
    try:
        plain = zlib.decompressobj(-15).decompress(packed, bound + 1)
    except zlib.error as error:
        raise CorruptFileError(f"{reader.path}: member {member.name!r}: {error}") from None
    if len(plain) > bound:
        raise UnsafeFileError(
            f"{reader.path}: member {member.name!r} inflates past {bound:,} bytes"
        )
    if len(plain) != member.size:
        raise CorruptFileError(f"{reader.path}: member {member.name!r} is shorter than it says")
    return plain
