"""Tensors stored in blocks, taken apart so that what lies together can be compared."""

from collections.abc import Iterator
from dataclasses import replace

from modtool.formats.dcp_items import locate
from modtool.records import TensorInfo, contiguous_stride

__all__ = ["parts_of"]

Block = tuple[tuple[int, ...], TensorInfo]
"""Where a block begins in its tensor, and the block."""


def parts_of(a: TensorInfo, b: TensorInfo) -> Iterator[tuple[TensorInfo, TensorInfo]]:
    """Two tensors of one shape as pairs of parts that hold the same elements of each.

    Raises:
        CorruptFileError: A block is not what the file says.
    """
    if not (a.chunks or b.chunks):
        yield a, b
        return
    others = list(blocks(b))
    for begin, block in blocks(a):
        for other_begin, other in others:
            offsets = tuple(map(max, begin, other_begin))
            ends = map(min, end_of(begin, block), end_of(other_begin, other))
            sizes = tuple(end - offset for end, offset in zip(ends, offsets, strict=True))
            if all(size > 0 for size in sizes):
                yield (
                    part(block, inside(offsets, begin), sizes),
                    part(other, inside(offsets, other_begin), sizes),
                )


def blocks(tensor: TensorInfo) -> Iterator[Block]:
    """The blocks of a tensor; the whole of one that is stored in one piece."""
    if not tensor.chunks:
        yield (0,) * len(tensor.shape), tensor
    for chunk in tensor.chunks:
        yield chunk.offsets, locate(tensor, chunk)


def end_of(begin: tuple[int, ...], block: TensorInfo) -> tuple[int, ...]:
    """Where a block ends in its tensor."""
    return tuple(map(int.__add__, begin, block.shape))


def inside(offsets: tuple[int, ...], begin: tuple[int, ...]) -> tuple[int, ...]:
    """Offsets in a tensor as offsets in a block of it."""
    return tuple(map(int.__sub__, offsets, begin))


def part(block: TensorInfo, offsets: tuple[int, ...], sizes: tuple[int, ...]) -> TensorInfo:
    """A view of a part of a block; the block itself where that is all of it."""
    if sizes == block.shape:
        return block
    stride = block.stride or contiguous_stride(block.shape)
    start = block.offset + sum(map(int.__mul__, offsets, stride))
    return replace(block, shape=sizes, offset=start, stride=stride, chunks=(), stored_bytes=None)
