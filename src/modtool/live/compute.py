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
from modtool.live.fill import fill, fill_magnitude
from modtool.live.filling import fans_for
from modtool.plan import Fill, PlannedTensor
from modtool.plan.views import math_bits
from modtool.records import DTYPES, FileRange, Storage, TensorInfo, contiguous_stride
from modtool.write.assembling import assembled
from modtool.write.streams import Sources

__all__ = ["compute", "elements", "source_parts"]

# Small enough for the processor's caches: a cast is then limited by nothing but the disk.
PIECE = 1 << 20

Look = Callable[[torch.Tensor], None]


class Scratch:
    """A buffer that is used again and again: fresh memory costs more than a cast does."""

    def __init__(self) -> None:
        self.buffer = bytearray()

    def take(self, nbytes: int) -> memoryview:
        """Room for that many bytes; what was taken before is lost."""
        if len(self.buffer) < nbytes:
            self.buffer = bytearray(nbytes)
        return memoryview(self.buffer)[:nbytes]


class Fresh(Scratch):
    """New memory each time, for those who keep what they were given."""

    def take(self, nbytes: int) -> memoryview:
        """Room for that many bytes."""
        return memoryview(bytearray(nbytes))


def compute(tensor: PlannedTensor, look: Look | None = None) -> Iterator[memoryview]:
    """The elements of a planned tensor, row-major, in pieces of at most a megabyte.

    This is what `modtool.write.write` takes as `compute`. A piece is lost when the next is made.
    `look` is shown the source's elements before they are cast.
    """
    if tensor.fill is None or tensor.fill.scheme == "default":
        # A module has reset these already, in memory: they are what the source holds now.
        with one_thread():
            yield from converted(tensor, Scratch(), Scratch(), look)
        return
    values, scratch = filled(tensor, tensor.fill), Scratch()
    yield from (row_major(part, scratch) for part in parts_of(values, values.dtype))


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch work in one thread: for a megabyte it would wait for others longer than it works.

    The number of threads is the process's, and is restored.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def elements(piece: memoryview, dtype: str) -> torch.Tensor:
    """A piece of what `compute` gives, as elements."""
    return torch.frombuffer(piece, dtype=torch.uint8).view(dtype_of(dtype))


def filled(tensor: PlannedTensor, wanted: Fill) -> torch.Tensor:
    """New values for a tensor, from its initialiser."""
    shape = tensor.source.shape
    if wanted.norms_of is not None and wanted.norms_of.fill is not None:
        direction = filled(wanted.norms_of, wanted.norms_of.fill)
        return fill_magnitude(direction, shape, tensor.dtype)
    return fill(
        wanted.name,
        shape,
        tensor.dtype,
        wanted.scheme,
        wanted.arguments,
        seed=wanted.seed,
        fans=fans_for(tensor, wanted),
    )


def dtype_of(name: str) -> torch.dtype:
    """The torch dtype of a name."""
    found = getattr(torch, name)
    assert isinstance(found, torch.dtype)
    return found


FRESH = Fresh()


def converted(
    tensor: PlannedTensor,
    source: Scratch = FRESH,
    target: Scratch = FRESH,
    look: Look | None = None,
) -> Iterator[memoryview]:
    """The source's elements in row-major order, as the planned dtype.

    Each piece has memory of its own, unless `target` says which to use again.
    """
    dtype = dtype_of(tensor.dtype)
    for part in source_parts(tensor.source, source):
        if look is not None:
            look(part)
        yield row_major(part, target, dtype)


def row_major(
    values: torch.Tensor, scratch: Scratch, dtype: torch.dtype | None = None
) -> memoryview:
    """The bytes of a small tensor, cast on the way."""
    dtype = dtype or values.dtype
    buffer = scratch.take(values.numel() * dtype.itemsize)
    if buffer:
        if values.dtype != dtype:
            # torch casts NaN to other bits where the strides differ; so it is as if none did.
            values = values.contiguous()
        copy = torch.frombuffer(buffer, dtype=torch.uint8).view(dtype)
        copy.view(values.shape).copy_(values)
    return buffer


def parts_of(values: torch.Tensor, dtype: torch.dtype) -> Iterator[torch.Tensor]:
    """Consecutive parts, in row-major order, each a megabyte at most."""
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


def source_parts(source: TensorInfo, scratch: Scratch = FRESH) -> Iterator[torch.Tensor]:
    """The elements of a tensor in row-major order, a megabyte at a time."""
    storage = source.storage
    if source.numel == 0:
        return
    if source.chunks:
        yield from block_parts(source, scratch)
        return
    if storage is None or storage.data is None:
        raise CorruptFileError(f"{source.name}: the file holds no data for it")
    bits = math_bits(source)
    for part in stored_parts(source, storage, scratch):
        # torch saves `x.conj()` and `x.imag` of such as the stored elements and a flag.
        conjugated = part.conj() if bits.get("conj") else part
        yield -conjugated if bits.get("neg") else conjugated


def stored_parts(source: TensorInfo, storage: Storage, scratch: Scratch) -> Iterator[torch.Tensor]:
    """The same, as they are stored."""
    dtype = dtype_of(source.dtype)
    if isinstance(storage.data, FileRange) and source.is_contiguous:
        yield from read_parts(source, storage.data, storage.byteorder, scratch)
        return
    with storage_bytes(storage) as (data, forget):
        stride = source.stride or contiguous_stride(source.shape)
        elements = in_native_order(data, dtype, storage.byteorder)
        view = elements.as_strided(source.shape, stride, source.offset)
        for part in parts_of(view, dtype):
            yield part
            forget()


def block_parts(source: TensorInfo, scratch: Scratch) -> Iterator[torch.Tensor]:
    """A tensor that is stored in blocks."""
    with Sources() as sources:
        for piece in assembled(source, sources, scratch.take):
            yield elements(piece, source.dtype)


def read_parts(
    source: TensorInfo, data: FileRange, byteorder: str, scratch: Scratch
) -> Iterator[torch.Tensor]:
    """A contiguous tensor read piece by piece: nothing is mapped, nothing stays in memory."""
    size = DTYPES[source.dtype].bits // 8
    position = data.offset + source.offset * size
    end = position + source.numel * size
    piece = PIECE - PIECE % size
    with open(data.path, "rb", buffering=0) as file:
        while position < end:
            buffer = scratch.take(min(piece, end - position))
            read_exactly(file.fileno(), buffer, position, data.path)
            values = torch.frombuffer(buffer, dtype=torch.uint8)
            yield in_native_order(values, dtype_of(source.dtype), byteorder)
            position += len(buffer)


def read_exactly(descriptor: int, view: memoryview, offset: int, path: str) -> None:
    """Fill a buffer from a file."""
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
