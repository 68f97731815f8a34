"""The central directory of a zip file, read by itself and proved against the file.

Python's `zipfile` refuses archives that torch writes without CRCs, and reads the last of two
members of one name where torch reads the first; so the directory is read here. Wherever two readers
could come to see two different archives in one file, it is refused.
Source: PKWARE APPNOTE 6.3.10, sections 4.3 and 4.5.3; miniz 3.0, as torch 2.13 has it.
"""

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from modtool.errors import CorruptFileError, DamagedFileError, TruncatedFileError, UnsafeFileError
from modtool.formats.files import Nearby, Reader
from modtool.records import FileRange

__all__ = [
    "NOTHING_LEFT",
    "Directory",
    "Member",
    "checksums",
    "member_range",
    "no_directory",
    "read_directory",
    "read_member",
]

END = struct.Struct("<4s4H2LH")
LOCATOR = struct.Struct("<4sLQL")
END64 = struct.Struct("<4sQ2H2L4Q")
# signature, flags, method, crc, sizes, lengths of name, extra and comment, offset of the header
ENTRY = struct.Struct("<4s4x2H4x3L3H8xL")
LOCAL = struct.Struct("<4s5H3L2H")
ENTRY_CRC, LOCAL_CRC = 16, 14
LOCAL_LENGTHS = struct.Struct("<4s22x2H")  # the first and the last two of these

STORED, DEFLATED = 0, 8
MAX_DIRECTORY = 1 << 28
MAX_NAME = 1 << 10
PICKLE = b"/data.pkl"
NOTHING_LEFT = "download or save it again: what is left does not say which tensors it has"
# A pickle becomes objects of fifty times its size, and code or JSON of several times: what deflates
# better than this is a bomb. All of an archive share the free bytes.
FREE_INFLATED = 2 << 20
MAX_RATIO = 20
MAX_INFLATED = 64 << 20
READ_WHOLE = (".pkl", ".py", "model.json")

# name, method, CRC, sizes, place of the header, whether it is encrypted
Entry = tuple[str, int, int, int, int, int, bool]


class Member(NamedTuple):
    """One member of the archive.

    `header` is where its local header lies in the file, `limit` where the next member begins.
    """

    name: str
    method: int
    crc: int
    compressed: int
    size: int
    header: int
    encrypted: bool
    limit: int


@dataclass(frozen=True, slots=True)
class Directory:
    """Every member by name, in the order of the directory, which begins at `start` in the file.

    `prefix` bytes lie before the zip, `trailing` ones after it.
    """

    members: Mapping[str, Member]
    prefix: int
    trailing: int
    start: int = 0


class End(NamedTuple):
    """What an end record says: where the directory ends, its entries, its size, its offset."""

    at: int
    entries: int
    size: int
    offset: int


def read_directory(reader: Reader) -> Directory:
    """Read and check the central directory.

    Raises:
        CorruptFileError: There is none, it contradicts the file, or two members have one name.
    """
    tail = reader.tail(END.size + 0xFFFF)
    at = tail.rfind(b"PK\x05\x06", 0, max(len(tail) - END.size + 4, 0))
    if at < 0:
        raise no_directory(reader)
    end_at = reader.size - len(tail) + at
    _, disk, start_disk, _, count, size, offset, comment = END.unpack_from(tail, at)
    if disk or start_disk:
        raise CorruptFileError(
            f"{reader.path}: one part of a zip archive in several", "join its parts: zip -s 0"
        )
    trailing = reader.size - end_at - END.size - comment
    end = End(end_at, count, size, offset)
    if has_locator(reader, end_at):  # torch writes one in every archive, needed or not
        end = read_end64(reader, end)
    prefix = end.at - end.size - end.offset
    if prefix < 0 or end.size > MAX_DIRECTORY or end.entries * ENTRY.size > end.size:
        raise CorruptFileError(f"{reader.path}: its central directory does not fit the file")
    if prefix and reader.read(end.offset, 4) == b"PK\x01\x02":
        raise CorruptFileError(f"{reader.path}: two central directories, of which readers take one")
    data = reader.read(prefix + end.offset, end.size, "the central directory")
    members = parse_entries(reader, data, end.entries, prefix, prefix + end.offset)
    return Directory(members, prefix, max(trailing, 0), prefix + end.offset)


def no_directory(reader: Reader) -> TruncatedFileError:
    """The error of an archive without a directory; only `torch.save` writes first what it holds."""
    torch_saved = PICKLE in reader.head(LOCAL.size + MAX_NAME)
    return TruncatedFileError(
        f"{reader.path}: truncated: a zip archive without its central directory",
        "" if torch_saved else NOTHING_LEFT,
    )


def has_locator(reader: Reader, end_at: int) -> bool:
    """True when a ZIP64 locator lies before the end record."""
    at = end_at - LOCATOR.size
    return at >= 0 and reader.read(at, 4) == b"PK\x06\x07"


def read_end64(reader: Reader, end: End) -> End:
    """The ZIP64 end record, which must agree with the end record that follows it.

    miniz goes where the locator says, others look before the locator: both must find the same.
    """
    at = end.at - LOCATOR.size - END64.size
    locator = LOCATOR.unpack(reader.read(at + END64.size, LOCATOR.size, "the ZIP64 locator"))
    record = END64.unpack(reader.read(at, END64.size, "the ZIP64 end record"))
    if record[0] != b"PK\x06\x06":
        raise CorruptFileError(f"{reader.path}: its ZIP64 end record is missing")
    wide = End(at, *record[7:])
    prefix = at - wide.size - wide.offset
    short = zip(end[1:], wide[1:], (0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF), strict=True)
    if locator[2] + prefix != at or any(number not in (full, most) for number, full, most in short):
        raise CorruptFileError(f"{reader.path}: its end records contradict each other")
    return wide


def parse_entries(
    reader: Reader, data: bytes, count: int, prefix: int, limit: int
) -> dict[str, Member]:
    """The members of a central directory; every one proved to end before the next begins."""
    parsed: list[Entry] = []
    names: set[bytes] = set()
    at = 0
    entry_size, unpack = ENTRY.size, ENTRY.unpack_from
    for _ in range(count):
        begin = at + entry_size
        if begin > len(data):
            raise CorruptFileError(f"{reader.path}: its central directory ends too early")
        mark, flags, method, crc, compressed, size, length, extra_length, comment, header = unpack(
            data, at
        )
        name_end = begin + length
        extra_end = name_end + extra_length
        at = extra_end + comment
        if mark != b"PK\x01\x02" or at > len(data):
            raise CorruptFileError(f"{reader.path}: its central directory is damaged")
        raw = data[begin:name_end]
        if size == 0xFFFFFFFF or compressed == 0xFFFFFFFF or header == 0xFFFFFFFF:
            extra = data[name_end:extra_end]
            size, compressed, header = wide_numbers(reader, extra, size, compressed, header)
        name = raw.decode("utf-8", "surrogateescape")
        names.add(raw.lower())  # as miniz compares them
        if len(names) == len(parsed):
            raise CorruptFileError(
                f"{reader.path}: two members are named {name!r}",
                "readers disagree on which one counts, so neither is read",
            )
        parsed.append((name, method, crc, compressed, size, header + prefix, bool(flags & 1)))
    check_inflated(reader, [entry for entry in parsed if entry[1] != STORED])
    return with_limits(reader, parsed, limit)


def check_inflated(reader: Reader, packed: list[Entry]) -> None:
    """Refuse an archive of many small members that together inflate past reason."""
    whole = [entry for entry in packed if entry[0].endswith(READ_WHOLE)]
    bound = FREE_INFLATED + MAX_RATIO * sum(compressed for _, _, _, compressed, *_ in whole)
    if sum(size for _, _, _, _, size, *_ in whole) > bound:
        raise UnsafeFileError(
            f"{reader.path}: what is packed in it inflates past {bound:,} bytes in all"
        )


def with_limits(reader: Reader, parsed: list[Entry], limit: int) -> dict[str, Member]:
    """The members by name; no two may share bytes: so do small files pretend to be large ones."""
    headers = [entry[5] for entry in parsed]
    ends = {}
    for header in sorted(headers, reverse=True):
        if header in ends:
            raise CorruptFileError(f"{reader.path}: two members overlap")
        ends[header] = limit
        limit = header
    for name, _, _, compressed, _, header, _ in parsed:
        if header + LOCAL.size + compressed > ends[header]:
            raise CorruptFileError(f"{reader.path}: member {name!r} reaches beyond its place")
    return {entry[0]: Member(*entry, ends[entry[5]]) for entry in parsed}


def wide_numbers(
    reader: Reader, extra: bytes, size: int, compressed: int, header: int
) -> tuple[int, int, int]:
    """Replace each number that is all ones by the next one of the ZIP64 extra field."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            wide = iter(
                struct.unpack_from(f"<{min(length, len(extra) - at - 4) // 8}Q", extra, at + 4)
            )
            numbers = [
                next(wide, -1) if number == 0xFFFFFFFF else number
                for number in (size, compressed, header)
            ]
            if -1 not in numbers:
                return numbers[0], numbers[1], numbers[2]
        at += 4 + length
    raise CorruptFileError(f"{reader.path}: a member of 4 GiB without its ZIP64 sizes")


def data_start(reader: Reader | Nearby, member: Member) -> int:
    """Where the data of a member begins; the local header says how far its name reaches."""
    local = reader.read(member.header, LOCAL_LENGTHS.size, "a member's header")
    mark, name_length, extra_length = LOCAL_LENGTHS.unpack(local)
    start: int = member.header + LOCAL_LENGTHS.size + name_length + extra_length
    if mark != b"PK\x03\x04" or start + member.compressed > member.limit:
        raise DamagedFileError(f"{reader.path}: the header of member {member.name!r} is damaged")
    return start


def member_range(reader: Reader | Nearby, member: Member) -> FileRange:
    """Where in the file the bytes of a stored member lie."""
    start = data_start(reader, member)
    if member.encrypted or member.method != STORED:
        how = "encrypted" if member.encrypted else "compressed"
        raise CorruptFileError(
            f"{reader.path}: member {member.name!r} is {how}, and cannot be read in its place",
            "unpack it, and pack it again as it is: zip -0Dr NEW.pth FOLDER",
        )
    if member.size != member.compressed:
        raise CorruptFileError(f"{reader.path}: member {member.name!r} has two sizes")
    return FileRange(reader.path, reader.base + start, member.size, member.crc or None)


def checksums(reader: Reader, directory: Directory, member: Member) -> list[int]:
    """Where in the file the CRC of a member stands: in its entry, in its header, after its data.

    A header may leave it to the four bytes after the data, with or without a signature.
    """
    crc = member.crc.to_bytes(4, "little")
    place = member_range(reader, member)
    end = place.offset - reader.base + member.compressed
    signed = reader.read(end, min(4, reader.size - end)) == b"PK\x07\x08"
    found = [member.header + LOCAL_CRC, end + 4 * signed]
    places = [at for at in found if at + 4 <= member.limit and reader.read(at, 4) == crc]
    return [*places, entry_of(reader, directory, member) + ENTRY_CRC]


def entry_of(reader: Reader, directory: Directory, member: Member) -> int:
    """Where in the file the entry of a member begins."""
    name = member.name.encode("utf-8", "surrogateescape")
    at = directory.start
    for _ in directory.members:
        *_, name_length, extra, comment, _ = ENTRY.unpack(reader.read(at, ENTRY.size))
        if reader.read(at + ENTRY.size, name_length) == name:
            break
        at += ENTRY.size + name_length + extra + comment
    return at


def read_member(reader: Reader, member: Member, limit: int) -> bytes:
    """The bytes of a member, inflated where it is deflated, at most `limit` of them."""
    if max(member.size, member.compressed) > limit:
        raise UnsafeFileError(
            f"{reader.path}: member {member.name!r} of {member.size:,} bytes is too large"
        )
    if member.method == STORED:
        place = member_range(reader, member)
        return reader.read(place.offset - reader.base, place.length, member.name)
    if member.method != DEFLATED or member.encrypted:
        raise CorruptFileError(f"{reader.path}: member {member.name!r} is packed in an unknown way")
    packed = reader.read(data_start(reader, member), member.compressed, member.name)
    return inflate(reader, member, packed)


def inflate(reader: Reader, member: Member, packed: bytes) -> bytes:
    """Inflate a member; one that grows past what it declares, or past reason, is refused."""
    bound = min(member.size, MAX_INFLATED, FREE_INFLATED + MAX_RATIO * member.compressed)
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
