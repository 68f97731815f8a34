"""Where the bytes of one piece of output come from."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from modtool.errors import OutputError
from modtool.plan.records import PlannedTensor
from modtool.plan.views import math_bits
from modtool.records import DTYPES, FileRange, Storage, TensorInfo
from modtool.write.assembling import assembled
from modtool.write.blocks import BLOCK
from modtool.write.streams import Data, Sink, Sources, swapped

__all__ = ["Compute", "Payload", "elements", "payload_of", "pieces_of", "put", "whole_storage"]

Compute = Callable[[PlannedTensor], Iterable[Data]]
"""The elements of a tensor in row-major order, little-endian, in pieces: gathered, cast, filled."""


@dataclass(frozen=True, slots=True, eq=False)
class Payload:
    """Bytes of the output.

    Attributes:
        name: Whose they are, for those who watch.
        nbytes: How many.
        data: Where they lie, when they go over as they are.
        swap: Bytes of each number to be reversed; 1 for none.
        compute: The tensor to be computed, when they do not.
        blocks: The tensor to be put together, when they lie in blocks.
    """

    name: str
    nbytes: int
    data: FileRange | memoryview | None = None
    swap: int = 1
    compute: PlannedTensor | None = None
    blocks: TensorInfo | None = None


def payload_of(tensor: PlannedTensor) -> Payload:
    """The elements of one tensor, row-major and without gaps."""
    source = tensor.source
    if tensor.is_computed or not source.is_contiguous or math_bits(source):
        return Payload(tensor.name, tensor.nbytes, compute=tensor)
    if source.chunks:
        return Payload(tensor.name, source.nbytes, blocks=source)
    if source.storage is None or source.storage.data is None:
        raise OutputError(f"{tensor.name}: its source holds no data for it")
    start = source.offset * DTYPES[source.dtype].bits // 8
    part = cut(source.storage.data, start, source.nbytes)
    return Payload(tensor.name, source.nbytes, part, swap_size(source.storage, source.dtype))


def whole_storage(storage: Storage, dtype: str, name: str) -> Payload:
    """All the bytes of a storage whose elements are of one type."""
    if storage.data is None:
        raise OutputError(f"{name}: its source holds no data for it")
    data = cut(storage.data, 0, storage.nbytes)
    return Payload(name, storage.nbytes, data, swap_size(storage, dtype))


def cut(data: FileRange | memoryview, start: int, length: int) -> FileRange | memoryview:
    """A part of bytes; the CRC is known for the whole only."""
    if isinstance(data, memoryview):
        return data.cast("B")[start : start + length]
    if start == 0 and length == data.length:
        return data
    return FileRange(data.path, data.offset + start, length)


def swap_size(storage: Storage, dtype: str) -> int:
    """How many bytes to reverse at a time: of big-endian numbers, complex ones being two each."""
    if storage.byteorder == "little":
        return 1
    size = DTYPES[dtype].bits // 8
    return size // 2 if dtype.startswith("complex") else size


def put(payload: Payload, sink: Sink, compute: Compute | None, *, crc: bool) -> int:
    """Write the bytes; their CRC-32, or 0 where none is wanted.

    Raises:
        OutputError: Something is to be computed, and there is nothing to compute it with.
    """
    if not payload.nbytes:
        return 0
    known = payload.data.crc if isinstance(payload.data, FileRange) else None
    if payload.compute is not None:
        return computed(payload, sink, compute, crc=crc)
    if payload.swap == 1 and isinstance(payload.data, FileRange):
        return sink.copy(payload.data, payload.name, crc=crc and not known) or known or 0
    return sink.stream(pieces_of(payload, sink.sources), payload.name, crc=crc)


def pieces_of(payload: Payload, sources: Sources) -> Iterable[Data]:
    """The bytes of what needs no computing; each piece is lost when the next is made."""
    if payload.blocks is not None:
        buffer = memoryview(bytearray(min(BLOCK, payload.nbytes)))
        return assembled(payload.blocks, sources, lambda nbytes: buffer[:nbytes])
    if payload.data is None:
        return []
    pieces: Iterable[Data] = (
        [payload.data] if isinstance(payload.data, memoryview) else (sources.pieces(payload.data))
    )
    return swapped(pieces, payload.swap) if payload.swap > 1 else pieces


def elements(tensor: PlannedTensor, sources: Sources, compute: Compute | None) -> Iterable[Data]:
    """The elements of a tensor as they are to be written, in pieces; each is lost with the next.

    Raises:
        OutputError: They are to be computed, and there is nothing to compute them with.
    """
    payload = payload_of(tensor)
    if payload.compute is None:
        return pieces_of(payload, sources)
    if compute is None:
        raise OutputError(f"{tensor.name} has to be computed, which needs torch")
    return compute(payload.compute)


def computed(payload: Payload, sink: Sink, compute: Compute | None, *, crc: bool) -> int:
    """Write what is computed, and see that it is as much as it should be."""
    if compute is None or payload.compute is None:
        raise OutputError(f"{payload.name} has to be computed, which needs torch")
    before = sink.done
    found = sink.stream(compute(payload.compute), payload.name, crc=crc)
    if sink.done - before != payload.nbytes:
        raise OutputError(f"{payload.name}: {sink.done - before:,} bytes of {payload.nbytes:,}")
    return found
