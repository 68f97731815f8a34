"""The elements of a tensor that is stored in blocks, put together in row-major order.

Nothing is computed: runs of bytes go from where they lie to where they belong. A region of a few
megabytes is filled at a time; where runs follow each other in a file, the system scatters a
thousand of them in one call.
"""

import math
from collections.abc import Callable, Iterator
from itertools import islice, product
from typing import NamedTuple

from modtool.errors import CorruptFileError
from modtool.formats.dcp_items import locate
from modtool.records import DTYPES, Chunk, FileRange, TensorInfo, contiguous_stride
from modtool.write.blocks import BLOCK
from modtool.write.streams import Sources

__all__ = ["assembled"]

HELP_MISSING = "is a file of the checkpoint missing?"
SCATTERED = 1000  # of at most IOV_MAX, which is 1024 nearly everywhere

Numbers = tuple[int, ...]


class Box(NamedTuple):
    """A part of a tensor: where it begins, and how far it goes, along each dimension."""

    begin: Numbers
    sizes: Numbers

    @property
    def end(self) -> Numbers:
        """One past the last element along each dimension."""
        return tuple(map(int.__add__, self.begin, self.sizes))


def assembled(
    tensor: TensorInfo,
    sources: Sources,
    take: Callable[[int], memoryview],
    limit: int = BLOCK,
) -> Iterator[memoryview]:
    """The bytes of a tensor that is stored in blocks, a few megabytes at a time.

    Args:
        tensor: One with `chunks`.
        sources: The files that are open.
        take: Gives the memory of a piece, so many bytes; it may be the same each time.
        limit: Bytes of a piece at most.

    Raises:
        CorruptFileError: A block is not what the checkpoint says, or some elements lie in none.
    """
    size = DTYPES[tensor.dtype].bits // 8
    blocks = [(Box(chunk.offsets, chunk.sizes), located(tensor, chunk)) for chunk in tensor.chunks]
    for region in regions(tensor.shape, limit // size):
        piece = take(math.prod(region.sizes) * size)
        filled = sum(fill(piece, region, box, block, sources, size) for box, block in blocks)
        if filled < len(piece):
            raise CorruptFileError(
                f"{tensor.name}: some of its elements are not stored", HELP_MISSING
            )
        yield piece


def located(tensor: TensorInfo, chunk: Chunk) -> TensorInfo:
    """A block with the place of its bytes."""
    block = locate(tensor, chunk)
    if block.storage is None or not isinstance(block.storage.data, FileRange):
        raise CorruptFileError(
            f"{tensor.name}: its block at {chunk.offsets} is not stored", HELP_MISSING
        )
    if block.storage.byteorder != "little":
        raise CorruptFileError(f"{tensor.name}: its block at {chunk.offsets} is big-endian")
    return block


def regions(shape: Numbers, limit: int, outer: Numbers = ()) -> Iterator[Box]:
    """Consecutive parts of a shape, in row-major order, of at most `limit` elements each."""
    ones, zeros = (1,) * len(outer), (0,) * len(shape)
    row = math.prod(shape[1:])
    if not math.prod(shape):
        return
    if not shape or math.prod(shape) <= limit:
        yield Box(outer + zeros, ones + shape)
    elif row > limit:
        for index in range(shape[0]):
            yield from regions(shape[1:], limit, (*outer, index))
    else:
        step = limit // row
        for start in range(0, shape[0], step):
            rows = min(step, shape[0] - start)
            yield Box((*outer, start, *zeros[1:]), (*ones, rows, *shape[1:]))


def fill(
    piece: memoryview, region: Box, box: Box, block: TensorInfo, sources: Sources, size: int
) -> int:
    """Put what a block has of a region in its place; how many bytes."""
    begin = tuple(map(max, region.begin, box.begin))
    sizes = tuple(map(int.__sub__, map(min, region.end, box.end), begin))
    if min(sizes, default=1) <= 0:
        return 0
    here = contiguous_stride(region.sizes)
    there = block.stride or contiguous_stride(block.shape)
    to = dot(map(int.__sub__, begin, region.begin), here)
    start = block.offset + dot(map(int.__sub__, begin, box.begin), there)
    place = block.storage.data if block.storage is not None else None
    assert isinstance(place, FileRange)
    for source, target, length, repeat, step in runs(sizes, there, here):
        at = (to + target) * size
        rooms = (piece[at + index * step * size :][: length * size] for index in range(repeat))
        scatter(sources, place, (start + source) * size, rooms)
    return math.prod(sizes) * size


def dot(numbers: Iterator[int], stride: Numbers) -> int:
    """Elements from the start."""
    return sum(map(int.__mul__, numbers, stride))


def runs(sizes: Numbers, there: Numbers, here: Numbers) -> Iterator[tuple[int, int, int, int, int]]:
    """How a box is copied: (offset there, offset here, length of a run, runs, step here).

    Offsets, lengths and steps count elements; the runs of one item follow each other there.
    """
    length, inner = 1, len(sizes)
    while inner and (sizes[inner - 1] == 1 or there[inner - 1] == here[inner - 1] == length):
        inner -= 1
        length *= sizes[inner]
    repeat, step = 1, 0
    if inner and there[inner - 1] == length:
        inner -= 1
        repeat, step = sizes[inner], here[inner]
    for index in product(*map(range, sizes[:inner])):
        yield dot(iter(index), there), dot(iter(index), here), length, repeat, step


def scatter(sources: Sources, place: FileRange, offset: int, rooms: Iterator[memoryview]) -> None:
    """Fill buffers, one after the other, with the bytes of a range that begin at `offset`."""
    while group := list(islice(rooms, SCATTERED)):
        while group:
            if offset + sum(map(len, group)) > place.length:
                raise CorruptFileError(f"{place.path}: a block reaches beyond its storage")
            count = sources.read_into(place.path, place.offset + offset, *group)
            offset += count
            group = left_of(group, count)


def left_of(group: list[memoryview], count: int) -> list[memoryview]:
    """The buffers, or parts of one, that remain when the first `count` bytes are filled."""
    done = 0
    while done < len(group) and count >= len(group[done]):
        count -= len(group[done])
        done += 1
    rest = group[done:]
    if count:
        rest[0] = rest[0][count:]
    return rest
