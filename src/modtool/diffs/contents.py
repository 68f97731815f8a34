"""Whether tensors hold the same bytes, without torch: streamed, in a megabyte of memory."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from modtool.diffs.blocks import parts_of
from modtool.diffs.workers import Meter, in_parallel, workers_for
from modtool.errors import CorruptFileError
from modtool.plan.views import math_bits, view_of
from modtool.records import DTYPES, FileRange, TensorInfo, contiguous_stride
from modtool.sharing import element_bits, span
from modtool.write import Progress
from modtool.write.streams import Sources

__all__ = ["Data", "compare_bytes", "first_of_each", "read_into"]

# Small enough to stay in the processor's cache, large enough that calls cost little.
PIECE = 256 << 10
# What one worker takes at a time.
TASK = 32 << 20

Data = FileRange | memoryview
Tensors = tuple[TensorInfo, TensorInfo]


def compare_bytes(pairs: Sequence[Tensors], progress: Progress | None = None) -> list[bool | None]:
    """For each pair of one shape: equal to the bit, not equal, or None where bytes cannot tell.

    Raises:
        CorruptFileError: A file ends too early.
    """
    firsts = first_of_each(pairs)
    found: dict[int, bool | None] = {}
    tasks: list[Task] = []
    for index in dict.fromkeys(firsts):
        made = tasks_of(index, *pairs[index])
        found[index] = None if made is None else True
        tasks += made or ()
    work = Work(Meter(progress, 2 * sum(task.length for task in tasks)))
    in_parallel(tasks, work.worker, workers_for(work.meter.total))
    found.update(work.unequal)
    return [found[first] for first in firsts]


def first_of_each(pairs: Sequence[Tensors]) -> list[int]:
    """For each pair, the first that is the same elements on both sides: tied ones are read once."""
    seen: dict[object, int] = {}
    return [seen.setdefault((view_of(a), view_of(b)), index) for index, (a, b) in enumerate(pairs)]


@dataclass(frozen=True, slots=True)
class Task:
    """Some bytes on both sides, which are to be equal.

    Attributes:
        index: Of the pair that they belong to.
        name: The tensor's name, for those who watch.
        a: The storage's bytes of A.
        b: Those of B.
        start_a: The first byte in them.
        start_b: Likewise.
        length: How many bytes.
        unequal: What is known of the pair when they are not equal: None where there are gaps
            between the elements, whose bytes mean nothing.
    """

    index: int
    name: str
    a: Data
    b: Data
    start_a: int
    start_b: int
    length: int
    unequal: bool | None


def tasks_of(index: int, a: TensorInfo, b: TensorInfo) -> list[Task] | None:
    """The ranges of bytes to compare for one pair; None where bytes alone cannot tell."""
    tasks: list[Task] = []
    for one, other in parts_of(a, b):
        if one.numel == 0:
            continue
        if one.storage is None or other.storage is None or not is_comparable(one, other):
            return None
        if one.storage.data is None or other.storage.data is None:
            return None
        start_a, end = span(one)
        start_b, length = span(other)[0], end - start_a
        unequal = False if one.is_contiguous and other.is_contiguous else None
        for at in range(0, length, TASK):
            tasks.append(
                Task(
                    index,
                    a.name,
                    one.storage.data,
                    other.storage.data,
                    start_a + at,
                    start_b + at,
                    min(TASK, length - at),
                    unequal,
                )
            )
    return tasks


def is_comparable(a: TensorInfo, b: TensorInfo) -> bool:
    """True when equal bytes are equal elements: same type, same order, same layout."""
    if (a.dtype, a.layout) != (b.dtype, b.layout) or math_bits(a) != math_bits(b):
        return False
    if a.storage is None or b.storage is None:
        return False
    if a.layout != "strided" and a.dtype in DTYPES:  # bytes are but a part: scales, indices
        return False
    if a.storage.byteorder != b.storage.byteorder and element_bits(a) > 8:
        return False
    return stride_of(a) == stride_of(b) or (a.is_contiguous and b.is_contiguous)


def stride_of(tensor: TensorInfo) -> tuple[int, ...]:
    """The stride, spelled out."""
    return tensor.stride if tensor.stride is not None else contiguous_stride(tensor.shape)


class Work:
    """The comparison of tasks, and which pairs turned out to be unequal."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.unequal: dict[int, bool | None] = {}

    @contextmanager
    def worker(self) -> Iterator[Callable[[Task], None]]:
        """What compares one task after another."""
        buffers = bytearray(PIECE), bytearray(PIECE)
        with Sources() as sources:
            yield lambda task: self.run(task, sources, *buffers)

    def run(self, task: Task, sources: Sources, one: bytearray, other: bytearray) -> None:
        """Compare piece by piece; the first that differs settles the pair."""
        if not is_same_place(task, sources):
            for at in range(0, task.length, PIECE):
                if task.index in self.unequal:
                    break
                length = min(PIECE, task.length - at)
                read_into(sources, task.a, task.start_a + at, memoryview(one)[:length])
                read_into(sources, task.b, task.start_b + at, memoryview(other)[:length])
                # Whole buffers are compared by memcmp, views of them byte by byte.
                if one != other if length == PIECE else one[:length] != other[:length]:
                    self.unequal[task.index] = task.unequal
        self.meter(2 * task.length, task.name)


def is_same_place(task: Task, sources: Sources) -> bool:
    """True when both sides are the very same bytes of one file."""
    if not isinstance(task.a, FileRange) or not isinstance(task.b, FileRange):
        return False
    if task.a.offset + task.start_a != task.b.offset + task.start_b:
        return False
    places = (os.fstat(sources.descriptor(part.path)) for part in (task.a, task.b))
    return len({(place.st_dev, place.st_ino) for place in places}) == 1


def read_into(sources: Sources, data: Data, start: int, buffer: memoryview) -> None:
    """Fill a buffer with the bytes of a storage, from byte `start` of it.

    Raises:
        CorruptFileError: There are not as many.
    """
    if isinstance(data, memoryview):
        buffer[:] = data.cast("B")[start : start + len(buffer)]
        return
    if start + len(buffer) > data.length:
        raise CorruptFileError(f"{data.path}: a tensor reaches beyond its storage")
    position = data.offset + start
    while buffer:
        count = os.preadv(sources.descriptor(data.path), [buffer], position)
        if not count:
            raise CorruptFileError(f"{data.path} ends too early", "was it changed meanwhile?")
        buffer, position = buffer[count:], position + count
