"""Elements that are not a range of a file: gathered from strides, cast, or filled anew.

The writer asks for them through a callable, so that nothing on the header side imports torch.
Memory is a few megabytes, or the largest tensor that is filled.
"""

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from modtool.errors import CorruptFileError
from modtool.live.fans import fans
from modtool.live.fill import fill
from modtool.plan import Fill, PlannedTensor
from modtool.plan.views import math_bits
from modtool.records import DTYPES, FileRange, Storage, TensorInfo, contiguous_stride

__all__ = ["compute"]

PIECE = 4 << 20


def compute(tensor: PlannedTensor) -> Iterator[memoryview]:
    """The elements of a planned tensor, row-major, in pieces of a few megabytes.

    This is what `modtool.write.write` takes as `compute`.
    """
    if tensor.fill is None:
        yield from converted(tensor)
        return
    values = filled(tensor, tensor.fill)
    yield from (row_major(part) for part in parts_of(values, values.dtype))


def filled(tensor: PlannedTensor, wanted: Fill) -> torch.Tensor:
    """New values for a tensor, from its initialiser."""
    shape = tensor.source.shape
    return fill(
        wanted.name,
        shape,
        tensor.dtype,
        wanted.scheme,
        wanted.arguments,
        seed=wanted.seed,
        fans=fans(shape, wanted.module_type, name=wanted.name, settings=wanted.settings),
    )


def dtype_of(name: str) -> torch.dtype:
    """The torch dtype of a name."""
    found = getattr(torch, name)
    assert isinstance(found, torch.dtype)
    return found


def converted(tensor: PlannedTensor) -> Iterator[memoryview]:
    """The source's elements in row-major order, as the planned dtype."""
    target = dtype_of(tensor.dtype)
    for part in source_parts(tensor.source):
        yield row_major(part, target)


def row_major(values: torch.Tensor, dtype: torch.dtype | None = None) -> memoryview:
    """The bytes of a small tensor, cast on the way."""
    dtype = dtype or values.dtype
    buffer = bytearray(values.numel() * dtype.itemsize)
    if buffer:
        copy = torch.frombuffer(buffer, dtype=torch.uint8).view(dtype)
        copy.view(values.shape).copy_(values)
    return memoryview(buffer)


def parts_of(values: torch.Tensor, dtype: torch.dtype) -> Iterator[torch.Tensor]:
    """Consecutive parts, in row-major order, each a few megabytes at most."""
    largest = max(values.element_size(), dtype.itemsize)
    if values.numel() * largest <= PIECE or values.dim() == 0:
        yield values
        return
    rows = values.shape[0]
    row = values.numel() // rows * largest
    if row > PIECE:
        for index in range(rows):
            yield from parts_of(values[index], dtype)
        return
    step = max(1, PIECE // row)
    for start in range(0, rows, step):
        yield values[start : start + step]


# -- the source --------------------------------------------------------------------------------


def source_parts(source: TensorInfo) -> Iterator[torch.Tensor]:
    """The elements of a tensor in row-major order, a few megabytes at a time."""
    storage = source.storage
    if storage is None or storage.data is None:
        raise CorruptFileError(f"{source.name}: the file holds no data for it")
    if source.numel == 0:
        return
    bits = math_bits(source)
    for part in stored_parts(source, storage):
        # torch saves `x.conj()` and `x.imag` of such as the stored elements and a flag.
        conjugated = part.conj() if bits.get("conj") else part
        yield -conjugated if bits.get("neg") else conjugated


def stored_parts(source: TensorInfo, storage: Storage) -> Iterator[torch.Tensor]:
    """The same, as they are stored."""
    dtype = dtype_of(source.dtype)
    if isinstance(storage.data, FileRange) and source.is_contiguous:
        yield from read_parts(source, storage.data, storage.byteorder)
        return
    with storage_bytes(storage) as (data, forget):
        stride = source.stride or contiguous_stride(source.shape)
        elements = in_native_order(data, dtype, storage.byteorder)
        view = elements.as_strided(source.shape, stride, source.offset)
        for part in parts_of(view, dtype):
            yield part
            forget()


def read_parts(source: TensorInfo, data: FileRange, byteorder: str) -> Iterator[torch.Tensor]:
    """A contiguous tensor read piece by piece: nothing is mapped, nothing stays in memory."""
    size = DTYPES[source.dtype].bits // 8
    position = data.offset + source.offset * size
    end = position + source.numel * size
    piece = PIECE - PIECE % size
    with open(data.path, "rb", buffering=0) as file:
        while position < end:
            buffer = bytearray(min(piece, end - position))
            read_exactly(file.fileno(), buffer, position, data.path)
            values = torch.frombuffer(buffer, dtype=torch.uint8)
            yield in_native_order(values, dtype_of(source.dtype), byteorder)
            position += len(buffer)


def read_exactly(descriptor: int, buffer: bytearray, offset: int, path: str) -> None:
    """Fill a buffer from a file."""
    view = memoryview(buffer)
    while view:
        count = os.preadv(descriptor, [view], offset)
        if not count:
            raise CorruptFileError(f"{path} ends too early", "was it changed meanwhile?")
        view, offset = view[count:], offset + count


def in_native_order(data: torch.Tensor, dtype: torch.dtype, byteorder: str) -> torch.Tensor:
    """Bytes as elements; those of big-endian files are turned round."""
    size = dtype.itemsize // 2 if dtype.is_complex else dtype.itemsize
    whole = data[: len(data) // dtype.itemsize * dtype.itemsize]
    if byteorder == "big" and size > 1:
        whole = whole.view(-1, size).flip(1).contiguous().view(-1)
    return whole.view(dtype)


@contextmanager
def storage_bytes(storage: Storage) -> Iterator[tuple[torch.Tensor, Callable[[], None]]]:
    """All bytes of a storage, mapped; and what to call so that those seen leave memory again."""
    if isinstance(storage.data, memoryview):
        yield torch.frombuffer(bytearray_view(storage.data), dtype=torch.uint8), lambda: None
        return
    assert storage.data is not None
    place = storage.data
    start = place.offset - place.offset % mmap.ALLOCATIONGRANULARITY
    length = place.offset + place.length - start
    with open(place.path, "rb") as file:
        if os.fstat(file.fileno()).st_size < start + length:
            raise CorruptFileError(f"{place.path} ends too early", "was it changed meanwhile?")
        # Private and writable: torch warns of buffers that cannot be written to.
        mapped = mmap.mmap(file.fileno(), length, offset=start, access=mmap.ACCESS_COPY)
    data = torch.frombuffer(mapped, dtype=torch.uint8, offset=place.offset - start)
    yield data[: place.length], lambda: mapped.madvise(mmap.MADV_DONTNEED)


def bytearray_view(data: memoryview) -> memoryview | bytearray:
    """A buffer that torch takes without a warning; a read-only one is copied."""
    return bytearray(data) if data.readonly else data.cast("B")
