"""How far apart tensors are, streamed from both sides at once through small buffers.

Only tensors that are not known to be equal to the bit come here. Memory is a few megabytes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Lock

import torch

from modtool.diffs import (
    Measure,
    Meter,
    first_of_each,
    in_parallel,
    parts_of,
    read_into,
    workers_for,
)
from modtool.live.compute import dtype_of, in_native_order, source_parts
from modtool.live.kernel import ELEMENTS, Kernel
from modtool.plan.views import math_bits
from modtool.records import DTYPES, FLOAT4_PAIR, TensorInfo
from modtool.write import Progress
from modtool.write.streams import Sources

__all__ = ["has_elements", "is_plain", "measure", "one_thread_each", "without_repeats"]

# How many elements one worker takes at a time.
TASK = 8 << 20
GLANCE = 1024
# More elements than this that only expanding makes so many are not walked through.
MOST_REPEATED = 1 << 26
# Types whose elements torch cannot compute with.
OPAQUE = frozenset(
    {
        *(name for name in DTYPES if name.startswith(("quint", "qint", "bits"))),
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in range(1, 8)),
        FLOAT4_PAIR,
    }
)

Tensors = tuple[TensorInfo, TensorInfo]
# How many threads torch had when each of those came who now have it use one.
BEFORE: list[int] = []
LOCK = Lock()


def measure(
    pairs: Sequence[Tensors], rtol: float = 0.0, progress: Progress | None = None
) -> list[Measure | None]:
    """How far apart the tensors of each pair are; None where their elements cannot be had.

    Args:
        pairs: Each of one shape, from the two sides.
        rtol: What `Measure.excess` allows for.
        progress: Called with bytes done, bytes in all and the name of the tensor at hand.

    Raises:
        CorruptFileError: A file ends too early.
    """
    firsts = first_of_each(pairs)
    tasks: list[Task] = []
    found: dict[int, Measure | None] = {}
    repeats: dict[int, int] = {}
    for index in dict.fromkeys(firsts):
        one, other = without_repeats(*pairs[index])
        repeats[index] = pairs[index][0].numel // max(one.numel, 1)
        made = None if is_endless(one, other) else tasks_of(index, one, other)
        found[index] = None if made is None else Measure()
        tasks += made or ()
    meter = Meter(progress, sum(task.nbytes for task in tasks))
    with one_thread_each():
        parts = in_parallel(tasks, lambda: worker(meter, rtol), workers_for(meter.total))
    for task, part in zip(tasks, parts, strict=True):
        known = found[task.index]
        found[task.index] = part if known is None else known + part
    return [times(found[first], repeats[first]) for first in firsts]


def without_repeats(*tensors: TensorInfo) -> tuple[TensorInfo, ...]:
    """Tensors of one shape with each dimension once that all expand (stride 0), to any size."""
    shape = tensors[0].shape
    strides = [tensor.stride for tensor in tensors]
    if 0 in shape or None in strides or any(tensor.chunks for tensor in tensors):
        return tensors
    kept = [
        dimension for dimension in range(len(shape)) if any(s and s[dimension] for s in strides)
    ]
    if len(kept) == len(shape):
        return tensors
    return tuple(
        replace(
            tensor,
            shape=tuple(shape[each] for each in kept),
            stride=tuple(tensor.stride[each] for each in kept if tensor.stride is not None),
        )
        for tensor in tensors
    )


def is_endless(a: TensorInfo, b: TensorInfo) -> bool:
    """True for many elements of which neither side stores as many: each expands the other's."""
    return a.numel > MOST_REPEATED and all(
        each.stride is not None and each.storage is not None and each.nbytes > each.storage.nbytes
        for each in (a, b)
    )


def times(measure: Measure | None, repeats: int) -> Measure | None:
    """The measure of so many of the same tensor."""
    if measure is None or repeats == 1:
        return measure
    return replace(
        measure,
        square_a=measure.square_a * repeats,
        square_b=measure.square_b * repeats,
        square_difference=measure.square_difference * repeats,
        nan_a=measure.nan_a * repeats,
        nan_b=measure.nan_b * repeats,
        unlike=measure.unlike * repeats,
    )


@dataclass(frozen=True, slots=True)
class Task:
    """Some elements of a pair: from `start`, or all where `count` is None."""

    index: int
    a: TensorInfo
    b: TensorInfo
    start: int = 0
    count: int | None = None

    @property
    def nbytes(self) -> int:
        """Bytes on both sides."""
        count = self.a.numel if self.count is None else self.count
        return count * (DTYPES[self.a.dtype].bits + DTYPES[self.b.dtype].bits) // 8


def tasks_of(index: int, a: TensorInfo, b: TensorInfo) -> list[Task] | None:
    """What is to be done for one pair; None where the elements of one side cannot be had."""
    tasks: list[Task] = []
    for one, other in parts_of(a, b):
        if one.numel == 0:
            continue
        if not (has_elements(one) and has_elements(other)):
            return None
        if is_plain(one) and is_plain(other):
            for start in range(0, one.numel, TASK):
                tasks.append(Task(index, one, other, start, min(TASK, one.numel - start)))
        else:
            tasks.append(Task(index, one, other))
    return tasks


def has_elements(tensor: TensorInfo) -> bool:
    """True when torch can compute with the elements, and they are at hand."""
    known = tensor.layout == "strided" and tensor.dtype in DTYPES and tensor.dtype not in OPAQUE
    return known and tensor.storage is not None and tensor.storage.data is not None


def is_plain(tensor: TensorInfo) -> bool:
    """True when its elements lie one after another as they are."""
    return tensor.is_contiguous and not math_bits(tensor)


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Torch's own threads put aside: each worker is one. Several may ask for it at a time."""
    with LOCK:
        BEFORE.append(torch.get_num_threads())
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with LOCK:  # whoever leaves last finds what the first one found
            torch.set_num_threads(BEFORE.pop())


@contextmanager
def worker(meter: Meter, rtol: float) -> Iterator[Callable[[Task], Measure]]:
    """What measures one task after another."""
    kernel = Kernel(rtol)
    readers = Reader(), Reader()
    with Sources() as sources:

        def run(task: Task) -> Measure:
            streamed = task.count is None
            pieces = streams(task) if streamed else ranges(task, sources, *readers)
            found = Measure()
            for a, b, equal in pieces:
                part = kernel.equal(a) if equal else kernel.measure(a, b)
                found += replace(part, identical=is_identical(a, b, equal, part))
            meter(task.nbytes, task.a.name)
            return found

        yield run


Piece = tuple[torch.Tensor, torch.Tensor, bool | None]
"""Elements of A and of B, and whether they are equal to the bit, where that is known."""


def is_identical(a: torch.Tensor, b: torch.Tensor, equal: bool | None, part: Measure) -> bool:
    """Whether elements are equal to the bit, or in value where their types differ."""
    if equal is not None:
        return equal
    if a.dtype != b.dtype:
        return not (part.max_abs or part.unlike)
    return torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


class Reader:
    """A buffer that elements are read into, again and again."""

    def __init__(self) -> None:
        self.buffer = bytearray(ELEMENTS * 16)
        self.values = torch.frombuffer(self.buffer, dtype=torch.uint8)

    def read(self, sources: Sources, tensor: TensorInfo, start: int, count: int) -> torch.Tensor:
        """Some elements of a tensor that lie one after another."""
        storage = tensor.storage
        assert storage is not None and storage.data is not None  # noqa: PT018
        size = DTYPES[tensor.dtype].bits // 8
        view = memoryview(self.buffer)[: count * size]
        read_into(sources, storage.data, (tensor.offset + start) * size, view)
        whole = self.values[: count * size]
        return in_native_order(whole, dtype_of(tensor.dtype), storage.byteorder)

    def holds_same(self, other: "Reader", nbytes: int) -> bool:
        """True when both buffers begin with the same bytes; a look at the first few goes before."""
        return all(self.buffer[:end] == other.buffer[:end] for end in (min(GLANCE, nbytes), nbytes))


def ranges(task: Task, sources: Sources, one: Reader, other: Reader) -> Iterator[Piece]:
    """The elements of a task, read from where they lie."""
    assert task.count is not None
    for at in range(task.start, task.start + task.count, ELEMENTS):
        count = min(ELEMENTS, task.start + task.count - at)
        a = one.read(sources, task.a, at, count)
        b = other.read(sources, task.b, at, count)
        same = one.holds_same(other, count * a.element_size()) if is_alike(task) else None
        yield a, b, same


def is_alike(task: Task) -> bool:
    """True when equal bytes are equal elements."""
    places = task.a.storage, task.b.storage
    orders = {place.byteorder for place in places if place is not None}
    return task.a.dtype == task.b.dtype and len(orders) == 1


def streams(task: Task) -> Iterator[Piece]:
    """The elements of a task in row-major order, gathered from wherever they are."""
    left, right = flat(source_parts(task.a)), flat(source_parts(task.b))
    a = b = torch.empty(0)
    while True:
        a = a if len(a) else next(left, a)
        b = b if len(b) else next(right, b)
        count = min(len(a), len(b))
        if not count:
            return
        yield a[:count], b[:count], None
        a, b = a[count:], b[count:]


def flat(parts: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Parts as runs of a few elements each."""
    for part in parts:
        run = part.resolve_conj().resolve_neg().reshape(-1)
        yield from (run[start : start + ELEMENTS] for start in range(0, len(run), ELEMENTS))
