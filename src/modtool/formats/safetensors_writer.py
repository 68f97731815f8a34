"""The header that safetensors files begin with (safetensors 0.8, `tensor.rs`)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modtool.errors import OutputError
from modtool.records import DTYPES, FLOAT4_PAIR

__all__ = ["Entry", "file_header", "file_order"]

MAX_HEADER = 100_000_000
RESERVED = "__metadata__"


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of the file. `dtype` is torch's name, `shape` counts elements."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes that its elements take."""
        bits = DTYPES[self.dtype].bits
        for size in self.shape:
            bits *= size
        return bits // 8

    @property
    def written_shape(self) -> list[int]:
        """The shape in the header, which counts the numbers of a pair."""
        shape = list(self.shape)
        if self.dtype == FLOAT4_PAIR:
            shape[-1] *= 2
        return shape


def file_order(entry: Entry) -> tuple[int, str]:
    """The sort key of the file: element size, largest first, so that all are aligned; then name."""
    return -DTYPES[entry.dtype].bits, entry.name


def file_header(entries: Sequence[Entry], metadata: Mapping[str, str]) -> bytes:
    """Length, JSON and padding for tensors whose data follows in this very order, without gaps.

    Raises:
        OutputError: A name that the format reserves or cannot hold, or a header beyond its limit.
    """
    header: dict[str, object] = {RESERVED: dict(metadata)} if metadata else {}
    position = 0
    for entry in entries:
        if entry.name == RESERVED:
            raise OutputError(f"safetensors reserves the name {RESERVED}", "rename the tensor")
        header[entry.name] = {
            "dtype": DTYPES[entry.dtype].safetensors,
            "shape": entry.written_shape,
            "data_offsets": [position, position + entry.nbytes],
        }
        position += entry.nbytes
    try:
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise OutputError("safetensors holds only names that are valid UTF-8") from None
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise OutputError(f"a safetensors header of {len(text):,} bytes: no reader accepts it")
    return len(text).to_bytes(8, "little") + text
