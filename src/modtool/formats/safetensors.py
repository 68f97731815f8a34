"""safetensors: a length, a JSON header, and the tensors' bytes without a gap.

Format: safetensors 0.8, `safetensors/src/tensor.rs` and the README's "Format".
"""

import json
import math
from dataclasses import replace

from modtool.errors import CorruptFileError, TruncatedFileError, UnsafeFileError
from modtool.formats.files import Reader
from modtool.formats.json_text import parse_json
from modtool.pickles.roles import buffer_names
from modtool.records import DTYPES, FLOAT4_PAIR, Checkpoint, FileRange, Storage, TensorInfo

__all__ = ["NAME", "REQUIRES_GRAD", "SUFFIXES", "read", "read_truncated", "sniff"]

NAME = "safetensors"
SUFFIXES = (".safetensors",)
REQUIRES_GRAD = "modtool.requires_grad"

MAX_HEADER = 100_000_000
# Types that torch has no dtype for: name in the header -> (our name, bits of an element). Of F4 it
# has pairs, where the last dimension is even.
PACKED = {"F4": ("float4_e2m1fn", 4), "F6_E2M3": ("float6_e2m3", 6), "F6_E3M2": ("float6_e3m2", 6)}
BY_HEADER_NAME = {dtype.safetensors: (dtype.name, dtype.bits) for dtype in DTYPES.values()} | PACKED


def sniff(head: bytes) -> bool:
    """True for the length of a header, possible or not, and the beginning of a JSON object."""
    length = int.from_bytes(head[:8], "little")
    plausible = 2 <= length <= MAX_HEADER and head[8:9] == b"{"
    return plausible or head[8:10] in (b'{"', b"{}")


def read(reader: Reader) -> Checkpoint:
    """Read the header of a safetensors file, and prove it against the file.

    Raises:
        TruncatedFileError: The file ends before its tensors do.
        CorruptFileError: The header is no such header, or does not tile the file exactly.
    """
    return read_file(reader, lost=False)


def read_truncated(reader: Reader) -> Checkpoint:
    """Read a file that ends before its tensors do; those beyond its end have no data."""
    return read_file(reader, lost=True)


def read_file(reader: Reader, *, lost: bool) -> Checkpoint:
    """Read a header; tensors may lie beyond the end of the file if they may be `lost`."""
    length = int.from_bytes(reader.read(0, 8, "the header length"), "little")
    if length > MAX_HEADER:
        raise UnsafeFileError(f"{reader.path}: a header of {length:,} bytes is too large")
    header = parse_header(reader, reader.read(8, length, "the header"))
    metadata = text_metadata(reader, header.pop("__metadata__", {}))
    begin = 8 + length
    entries = {name: entry(reader, name, value) for name, value in header.items()}
    end = prove_tiling(reader, entries, begin)
    if end > reader.size and not lost:
        raise TruncatedFileError(
            f"{reader.path}: truncated: its tensors should end at byte {end:,}, "
            f"the file at {reader.size:,}"
        )
    return checkpoint(reader, entries, metadata, begin)


Entry = tuple[str, tuple[int, ...], int, int]
"""dtype and shape as torch has them, begin, end (bytes from the first tensor)."""


def parse_header(reader: Reader, data: bytes) -> dict[str, object]:
    """The JSON object of the header; a key that occurs twice is refused."""
    header = parse_json(data, reader.path, "its safetensors header")
    if not isinstance(header, dict):
        raise CorruptFileError(f"{reader.path}: its safetensors header is no JSON object")
    return header


def text_metadata(reader: Reader, value: object) -> dict[str, str]:
    """`__metadata__`: text to text."""
    if isinstance(value, dict) and all(isinstance(item, str) for item in value.values()):
        return value
    raise CorruptFileError(f"{reader.path}: its __metadata__ does not map text to text")


def entry(reader: Reader, name: str, value: object) -> Entry:
    """One entry of the header, its size checked against its shape."""
    match value:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(begin), int(end)]}:
            sizes = tuple(size for size in shape if type(size) is int and 0 <= size < 2**63)
            if dtype not in BY_HEADER_NAME:
                raise CorruptFileError(f"{reader.path}: {name!r} has the unknown dtype {dtype!r}")
            torch_name, bits = BY_HEADER_NAME[dtype]
            if len(sizes) == len(shape) and (end - begin) * 8 == math.prod(sizes) * bits:
                if dtype == "F4" and sizes and sizes[-1] % 2 == 0:
                    return FLOAT4_PAIR, (*sizes[:-1], sizes[-1] // 2), begin, end
                return torch_name, sizes, begin, end
    raise CorruptFileError(f"{reader.path}: the entry of {name!r} contradicts itself")


def prove_tiling(reader: Reader, entries: dict[str, Entry], begin: int) -> int:
    """The entries must cover the rest of the file: no hole, no overlap, no tail.

    Gives the byte at which the last one should end.
    """
    at = 0
    for name, (_, _, start, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if start != at or end < start:
            raise CorruptFileError(
                f"{reader.path}: {name!r} does not begin where the last one ends"
            )
        at = end
    if begin + at < reader.size:
        raise CorruptFileError(
            f"{reader.path}: damaged: its tensors should end at byte {begin + at:,}, "
            f"the file at {reader.size:,}"
        )
    return begin + at


def checkpoint(
    reader: Reader, entries: dict[str, Entry], metadata: dict[str, str], begin: int
) -> Checkpoint:
    """The file as a checkpoint; each tensor is a storage of its own."""
    buffers = buffer_names(entries)
    flags = recorded_flags(metadata)
    tensors = []
    for name, (dtype, shape, start, end) in entries.items():
        inside = begin + end <= reader.size or start == end
        place = FileRange(reader.path, begin + start, end - start) if inside else None
        tensors.append(
            TensorInfo(
                name,
                dtype,
                shape,
                Storage(name, end - start, "cpu", place),
                role="buffer" if name in buffers else "parameter",
                requires_grad=flags.get(name),
                stored_bytes=None if dtype in DTYPES else end - start,
            )
        )
    tensors.extend(tied_tensors(tensors, metadata))
    return Checkpoint(reader.path, NAME, "state_dict", tuple(tensors), metadata=metadata)


def tied_tensors(tensors: list[TensorInfo], metadata: dict[str, str]) -> list[TensorInfo]:
    """The names that `save_model` removed: `removed: kept` in the metadata."""
    stored = {tensor.name: tensor for tensor in tensors}
    return [
        replace(stored[kept], name=removed)
        for removed, kept in metadata.items()
        if kept in stored and removed not in stored
    ]


def recorded_flags(metadata: dict[str, str]) -> dict[str, bool]:
    """The `requires_grad` map that `modtool freeze` records."""
    try:
        flags = json.loads(metadata.get(REQUIRES_GRAD, "{}"))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(flags, dict):
        return {}
    return {name: flag for name, flag in flags.items() if isinstance(flag, bool)}
