"""GGUF, versions 1 to 3: metadata, the tensors' names, shapes and quantisation types, then data.

Format: `docs/gguf.md` of ggml; the sizes of blocks are those of `ggml-common.h`.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from modtool.errors import CorruptFileError, UnknownFormatError, UnsafeFileError
from modtool.formats.files import Reader
from modtool.formats.gguf_values import Cursor, read_values
from modtool.records import DTYPES, Checkpoint, FileRange, Storage, TensorInfo

__all__ = ["NAME", "SUFFIXES", "TYPES", "GgmlType", "read", "sniff"]

NAME = "gguf"
SUFFIXES = (".gguf",)
MAGIC = b"GGUF"

MAX_DIMENSIONS = 8
MAX_TENSORS = 1_000_000
MAX_ALIGNMENT = 1 << 20
DEFAULT_ALIGNMENT = 32


@dataclass(frozen=True, slots=True)
class GgmlType:
    """An element type of ggml: `block` elements take `nbytes` bytes."""

    name: str
    block: int
    nbytes: int


# The number in the file -> the type. Missing numbers were given up before any release kept them.
TYPES: Mapping[int, GgmlType] = MappingProxyType(
    {
        0: GgmlType("float32", 1, 4),
        1: GgmlType("float16", 1, 2),
        2: GgmlType("Q4_0", 32, 18),
        3: GgmlType("Q4_1", 32, 20),
        6: GgmlType("Q5_0", 32, 22),
        7: GgmlType("Q5_1", 32, 24),
        8: GgmlType("Q8_0", 32, 34),
        9: GgmlType("Q8_1", 32, 36),
        10: GgmlType("Q2_K", 256, 84),
        11: GgmlType("Q3_K", 256, 110),
        12: GgmlType("Q4_K", 256, 144),
        13: GgmlType("Q5_K", 256, 176),
        14: GgmlType("Q6_K", 256, 210),
        15: GgmlType("Q8_K", 256, 292),
        16: GgmlType("IQ2_XXS", 256, 66),
        17: GgmlType("IQ2_XS", 256, 74),
        18: GgmlType("IQ3_XXS", 256, 98),
        19: GgmlType("IQ1_S", 256, 50),
        20: GgmlType("IQ4_NL", 32, 18),
        21: GgmlType("IQ3_S", 256, 110),
        22: GgmlType("IQ2_S", 256, 82),
        23: GgmlType("IQ4_XS", 256, 136),
        24: GgmlType("int8", 1, 1),
        25: GgmlType("int16", 1, 2),
        26: GgmlType("int32", 1, 4),
        27: GgmlType("int64", 1, 8),
        28: GgmlType("float64", 1, 8),
        29: GgmlType("IQ1_M", 256, 56),
        30: GgmlType("bfloat16", 1, 2),
        31: GgmlType("Q4_0_4_4", 32, 18),
        32: GgmlType("Q4_0_4_8", 32, 18),
        33: GgmlType("Q4_0_8_8", 32, 18),
        34: GgmlType("TQ1_0", 256, 54),
        35: GgmlType("TQ2_0", 256, 66),
        36: GgmlType("IQ4_NL_4_4", 32, 18),
        37: GgmlType("IQ4_NL_4_8", 32, 18),
        38: GgmlType("IQ4_NL_8_8", 32, 18),
        39: GgmlType("MXFP4", 32, 17),
        40: GgmlType("NVFP4", 64, 36),
        41: GgmlType("Q1_0", 128, 18),
    }
)


def sniff(head: bytes) -> bool:
    """True for the magic number; it is the same in big-endian files."""
    return head.startswith(MAGIC)


def read(reader: Reader) -> Checkpoint:
    """Read the metadata and the tensors' places.

    Shapes are given as torch has them: the outermost dimension first, ggml's order reversed.

    Raises:
        UnknownFormatError: A version that is not known.
        CorruptFileError: It contradicts itself.
    """
    version, order = version_of(reader)
    cursor = Cursor(reader, 8, order, wide=version > 1)
    tensor_count, value_count = cursor.count(), cursor.count()
    if tensor_count > MAX_TENSORS:
        raise UnsafeFileError(f"{reader.path}: it claims to have {tensor_count:,} tensors")
    values = read_values(cursor, value_count)
    entries = [entry(cursor) for _ in range(tensor_count)]
    alignment = alignment_of(reader, values)
    begin = -(-cursor.position // alignment) * alignment
    tensors = tuple(placed(reader, entries, begin, alignment, order))
    return Checkpoint(
        reader.path,
        NAME,
        "state_dict" if tensors else "values",
        tensors,
        values=values,
        metadata={"gguf_version": str(version)},
    )


def version_of(reader: Reader) -> tuple[int, str]:
    """(version, byte order); the order shows in which half of the number is empty."""
    data = reader.read(0, 8, "the header")
    little, big = (int.from_bytes(data[4:], order) for order in ("little", "big"))
    version, order = (little, "little") if little & 0xFFFF else (big, "big")
    if not 1 <= version <= 3:
        raise UnknownFormatError(
            f"{reader.path}: a GGUF file of version {version}, which is not known",
            "versions 1 to 3 are read",
        )
    return version, order


def alignment_of(reader: Reader, values: Mapping[str, object]) -> int:
    """Every tensor begins at a multiple of this."""
    alignment = values.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int or not 1 <= alignment <= MAX_ALIGNMENT:
        raise CorruptFileError(f"{reader.path}: an impossible alignment: {alignment!r}")
    return alignment


Entry = tuple[str, GgmlType, tuple[int, ...], int]
"""Name, type, shape (torch's order), offset from the first tensor."""


def entry(cursor: Cursor) -> Entry:
    """One tensor of the header."""
    name = cursor.name()
    dimensions = cursor.number(4)
    if dimensions > MAX_DIMENSIONS:
        raise CorruptFileError(f"{cursor.reader.path}: {name!r} has {dimensions:,} dimensions")
    sizes = [cursor.number(cursor.width) for _ in range(dimensions)]
    kind, offset = cursor.number(4), cursor.number(8)
    if kind not in TYPES:
        raise CorruptFileError(
            f"{cursor.reader.path}: {name!r} is of type {kind}, which is not known",
            "a newer version of modtool may know it",
        )
    row = sizes[0] if sizes else 1
    if math.prod(sizes) >= 2**63 or row % TYPES[kind].block:
        raise CorruptFileError(
            f"{cursor.reader.path}: {name!r} of type {TYPES[kind].name} cannot have the "
            f"shape {sizes[::-1]}"
        )
    return name, TYPES[kind], tuple(reversed(sizes)), offset


def placed(
    reader: Reader, entries: list[Entry], begin: int, alignment: int, order: str
) -> Iterator[TensorInfo]:
    """The tensors, each proved to lie inside the file, apart from the others."""
    if len({name for name, *_ in entries}) != len(entries):
        raise CorruptFileError(f"{reader.path}: two tensors have one name")
    ends: dict[str, int] = {}
    at = 0
    for name, kind, shape, offset in sorted(entries, key=lambda item: item[3]):
        if offset % alignment or offset < at:
            raise CorruptFileError(f"{reader.path}: {name!r} overlaps another tensor")
        at = ends[name] = offset + math.prod(shape) // kind.block * kind.nbytes
        if begin + at > reader.size:
            raise CorruptFileError(
                f"{reader.path}: truncated: {name!r} should end at byte {begin + at:,}, "
                f"the file at {reader.size:,}"
            )
    for name, kind, shape, offset in entries:
        place = FileRange(reader.path, begin + offset, ends[name] - offset)
        yield TensorInfo(
            name,
            kind.name,
            shape,
            Storage(name, place.length, "cpu", place, order),
            layout="strided" if kind.name in DTYPES else "quantized",
            stored_bytes=None if kind.name in DTYPES else place.length,
        )
