"""A zip that `torch.save` wrote and whose end is missing: read from its beginning.

Without its central directory, an archive is a chain: a local header, the data, a descriptor that
repeats the data's size, and so on. `torch.save` writes `data.pkl` first, which says where it ends
itself, and how large every storage is. Layout: PKWARE APPNOTE 6.3.10, sections 4.3.7 and 4.3.9.
"""

import struct
from collections.abc import Iterator, Mapping
from mmap import mmap

from modtool.errors import CorruptFileError, TruncatedFileError
from modtool.formats import torch_zip
from modtool.formats.files import Reader, mapped
from modtool.formats.zip_directory import (
    LOCAL,
    NOTHING_LEFT,
    STORED,
    Directory,
    Member,
    no_directory,
)
from modtool.pickles.reader import read_pickle
from modtool.pickles.torch_objects import storage_id
from modtool.records import Checkpoint

__all__ = ["read"]

DESCRIPTOR = b"PK\x07\x08"
FOLLOWS = 8  # the flag that says: CRC and sizes follow the data
MAX_SMALL = 1 << 16  # `byteorder`, `version` and their like
MAX_MEMBERS = 2_000_000


def read(reader: Reader) -> Checkpoint:
    """Read what is left of a file that `torch.save` wrote; lost storages have no data.

    Raises:
        TruncatedFileError: It ends inside `data.pkl`, or is an archive of another kind.
    """
    members: dict[str, Member] = {}
    with mapped(reader, reader.size) as data:
        for member in chain(reader, data):
            members.setdefault(member.name, member)  # of two, torch reads the first
    return torch_zip.read_archive(reader, Directory(members, 0, 0), lost=True)


def chain(reader: Reader, data: mmap) -> Iterator[Member]:
    """The members that are whole, one after the other; `data.pkl` whatever follows it."""
    first = header_at(data, 0)
    if first is None or first[0].partition("/")[2] != "data.pkl":
        raise TruncatedFileError(no_directory(reader).message, NOTHING_LEFT)
    name, start, _ = first
    try:
        pickle = read_pickle(data, start, where="data.pkl")
    except CorruptFileError as error:
        raise TruncatedFileError(
            f"{reader.path}: truncated, and what it holds cannot be told: {error.message}",
            NOTHING_LEFT,
        ) from None
    folder = name.removesuffix(".pkl")
    ids = filter(None, map(storage_id, pickle.persistent_ids))
    sizes = {f"{folder}/{found.key}": found.nbytes for found in ids}
    sizes[name] = size = pickle.end - start
    yield Member(name, STORED, 0, size, size, 0, False, pickle.end)
    yield from members(data, sizes)


def members(data: mmap, sizes: Mapping[str, int]) -> Iterator[Member]:
    """The chain of members; `sizes` has those that are known beforehand."""
    at = 0
    for _ in range(MAX_MEMBERS):
        header = header_at(data, at)
        if header is None:
            return
        name, start, written = header
        size = sizes.get(name, written)
        end = small_end(data, start) if size is None else start + size
        if end is None or end > len(data):
            return
        after = descriptor_end(data, end, end - start)
        if after is None and written is None:
            return
        crc = int.from_bytes(data[end + 4 : end + 8], "little") if after not in (None, end) else 0
        after = end if after is None else after
        yield Member(name, STORED, crc, end - start, end - start, at, False, after)
        at = after


def header_at(data: mmap, at: int) -> tuple[str, int, int | None] | None:
    """Name of a stored member, where its data begins, and its size where the header has it."""
    if at + LOCAL.size > len(data):
        return None
    mark, _, flags, method, _, _, _, size, _, name, extra = LOCAL.unpack_from(data, at)
    start = at + LOCAL.size + name + extra
    if mark != b"PK\x03\x04" or method != STORED or flags & 1 or start > len(data):
        return None
    text = data[at + LOCAL.size : at + LOCAL.size + name].decode("utf-8", "surrogateescape")
    return text, start, None if flags & FOLLOWS else size


def descriptor_end(data: mmap, at: int, size: int) -> int | None:
    """Where the descriptor of data of this size ends; None where something else follows.

    The file may end inside it, and an empty member has none.
    """
    rest = data[at : at + 24]
    short, wide = struct.pack("<2L", size % 2**32, size % 2**32), struct.pack("<2Q", size, size)
    for sizes in (short, wide):
        whole = DESCRIPTOR + rest[4:8] + sizes
        if rest.startswith(whole):
            return at + len(whole)
        if len(rest) < len(whole) and whole.startswith(rest):
            return at + len(rest)
    return at if not size and rest.startswith(b"PK\x03\x04") else None


def small_end(data: mmap, start: int) -> int | None:
    """Where the data of a small member ends: where a descriptor says so."""
    at = data.find(DESCRIPTOR, start, start + MAX_SMALL)
    while at >= 0:
        if descriptor_end(data, at, at - start) is not None:
            return at
        at = data.find(DESCRIPTOR, at + 1, start + MAX_SMALL)
    return None
