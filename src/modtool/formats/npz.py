"""`.npz`: a zip of NumPy arrays, stored or deflated."""

import zlib
from dataclasses import replace

from modtool.errors import CorruptFileError
from modtool.formats import npy
from modtool.formats.files import Reader
from modtool.formats.npy import array_tensor, parse_header, pickled_note
from modtool.formats.zip_directory import (
    DEFLATED,
    STORED,
    Directory,
    Member,
    data_start,
    member_range,
)
from modtool.notes import first_names, note
from modtool.pickles.roles import buffer_names
from modtool.records import Checkpoint, FileRange, Note, TensorInfo

__all__ = ["NAME", "SUFFIXES", "claims", "read_archive"]

NAME = npy.NAME
SUFFIXES = (".npz",)


def claims(directory: Directory) -> bool:
    """True when there is an array among the members."""
    return any(name.endswith(".npy") for name in directory.members)


def read_archive(reader: Reader, directory: Directory) -> Checkpoint:
    """Read the header of every array.

    Raises:
        CorruptFileError: The archive or one of the arrays contradicts itself.
    """
    tensors: list[TensorInfo] = []
    values: dict[str, object] = {}
    notes: list[Note] = []
    packed: list[str] = []
    for member in directory.members.values():
        if not member.name.endswith(".npy"):
            values[member.name] = f"<{member.size:,} bytes>"
            continue
        tensor = array_of(reader, member)
        tensors.append(tensor)
        if tensor.storage is None:
            notes.append(pickled_note(tensor.name))
        elif tensor.storage.data is None:
            packed.append(tensor.name)
    if packed:
        message = (
            f"compressed, so that their bytes cannot be copied as they lie: {first_names(packed)}"
        )
        notes.append(note("compressed-member", packed[0], message))
    buffers = buffer_names([tensor.name for tensor in tensors])
    return Checkpoint(
        reader.path,
        NAME,
        "state_dict" if tensors else "values",
        tuple(
            replace(tensor, role="buffer") if tensor.name in buffers else tensor
            for tensor in tensors
        ),
        values=values,
        notes=tuple(notes),
    )


def array_of(reader: Reader, member: Member) -> TensorInfo:
    """One array; where its bytes lie is known only if it is stored as it is."""
    name = member.name.removesuffix(".npy")
    where = f"{reader.path}: {member.name}"
    place = None
    if member.method == STORED:
        inside = member_range(reader, member)
        start = reader.read(
            data_start(reader, member), min(member.size, npy.MAX_START), member.name
        )
        header = parse_header(start, where)
        place = FileRange(reader.path, inside.offset + header.start, header.nbytes)
    else:
        header = parse_header(inflated_start(reader, member), where)
    stored = member.size - header.start
    if stored != header.nbytes and header.itemsize is not None:
        raise CorruptFileError(f"{where}: {stored:,} bytes of elements, not {header.nbytes:,}")
    return array_tensor(name, header, place, stored)


def inflated_start(reader: Reader, member: Member) -> bytes:
    """The first bytes of a deflated member, enough for a header."""
    if member.method != DEFLATED or member.encrypted:
        raise CorruptFileError(f"{reader.path}: member {member.name!r} is packed in an unknown way")
    count = min(member.compressed, npy.MAX_START)
    packed = reader.read(data_start(reader, member), count, member.name)
    try:
        return zlib.decompressobj(-15).decompress(packed, npy.MAX_START)
    except zlib.error as error:
        raise CorruptFileError(f"{reader.path}: member {member.name!r}: {error}") from None
