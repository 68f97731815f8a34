"""What the elements of tensors are like, in one pass over a file, in a few megabytes of memory."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch

from modtool.checks.values import MODULUS, Facts
from modtool.diffs import Meter, first_of_each, in_parallel, workers_for
from modtool.live.comparing import has_elements, is_plain, one_thread_each, without_repeats
from modtool.live.compute import Scratch, source_parts
from modtool.records import TensorInfo
from modtool.write import Progress

__all__ = ["facts_of", "scan"]

# How many elements one worker takes at a time.
TASK = 16 << 20
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
# Types with numbers below their full precision that are worth a word.
WITH_SUBNORMALS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

Part = tuple[int, TensorInfo]
"""The index of a tensor, and a part of it."""


def scan(tensors: Sequence[TensorInfo], progress: Progress | None = None) -> dict[int, Facts]:
    """Index -> what the elements of that tensor are like; none for those that cannot be had.

    Args:
        tensors: Of one checkpoint; what has several names is read once.
        progress: Called with bytes done, bytes in all and the name of the tensor at hand.

    Raises:
        CorruptFileError: A file ends too early.
    """
    whole = tensors
    tensors = [without_repeats(tensor)[0] for tensor in whole]
    firsts = first_of_each([(tensor, tensor) for tensor in tensors])
    known = [has_data(tensor) for tensor in tensors]
    parts = [
        (index, part)
        for index in dict.fromkeys(firsts)
        if known[index]
        for part in parts_of(tensors[index])
    ]
    meter = Meter(progress, sum(part.nbytes for _, part in parts))
    with one_thread_each():
        made = in_parallel(parts, lambda: worker(meter), workers_for(meter.total))
    found = {index: Facts() for index in firsts if known[index]}
    for (index, _), facts in zip(parts, made, strict=True):
        found[index] += facts
    return {
        index: found[first].times(whole[index].numel // max(tensors[index].numel, 1))
        for index, first in enumerate(firsts)
        if first in found
    }


def has_data(tensor: TensorInfo) -> bool:
    """True when the elements can be had, and are no more than what is stored.

    Those of a tensor in blocks are looked up later.
    """
    storage = tensor.storage
    if tensor.stride is not None and storage is not None and tensor.nbytes > storage.nbytes:
        return False  # windows that overlap, perhaps without end
    if tensor.chunks:
        return all(
            has_elements(replace(tensor, storage=c.storage)) or c.item for c in tensor.chunks
        )
    return has_elements(tensor)


def parts_of(tensor: TensorInfo) -> Iterator[TensorInfo]:
    """A tensor whose elements lie one after another in parts that workers share; else the whole."""
    if tensor.chunks or not is_plain(tensor):
        yield tensor
        return
    for start in range(0, tensor.numel, TASK):
        count = min(TASK, tensor.numel - start)
        yield replace(tensor, shape=(count,), offset=tensor.offset + start, stride=None)


@contextmanager
def worker(meter: Meter) -> Iterator[Callable[[Part], Facts]]:
    """What looks at one part after another, in the same memory."""
    source, target = Scratch(), Scratch()

    def run(part: Part) -> Facts:
        found = Facts()
        for values in source_parts(part[1], source):
            found += facts_of(values.resolve_conj().resolve_neg(), target)
        meter(part[1].nbytes, part[1].name)
        return found

    yield run


def facts_of(values: torch.Tensor, scratch: Scratch) -> Facts:
    """What some elements are like.

    Args:
        values: A megabyte of them, of any shape and type that torch computes with.
        scratch: Memory to work in.
    """
    if not values.numel():
        return Facts()
    flat = values.reshape(-1)
    if flat.is_complex():
        nan, infinite = int(torch.isnan(flat).sum()), int(torch.isinf(flat).sum())
        parts = facts_of(torch.view_as_real(flat), scratch)
        return replace(parts, numel=len(flat), nan=nan, infinite=infinite)
    bits = flat.contiguous().view(INTEGERS[flat.element_size()])
    print_ = int(bits.sum(dtype=torch.int64)) % MODULUS
    if not flat.is_floating_point():
        return replace(whole_numbers(flat), fingerprint=print_)
    return replace(floats(flat, scratch), fingerprint=print_)


def whole_numbers(values: torch.Tensor) -> Facts:
    """Whole numbers and truth values."""
    if values.dtype in (torch.uint16, torch.uint32, torch.uint64):  # torch cannot order these
        order = values.to(torch.int64) if values.dtype != torch.uint64 else values.double()
        least, greatest = torch.aminmax(order)
    elif values.dtype == torch.bool:
        least, greatest = torch.aminmax(values.view(torch.uint8))
    else:
        least, greatest = torch.aminmax(values)
    return Facts(len(values), least=least.item(), greatest=greatest.item())


def floats(values: torch.Tensor, scratch: Scratch) -> Facts:
    """Floating-point numbers, looked at in float32, which holds all narrower types exactly."""
    work = torch.float64 if values.dtype == torch.float64 else torch.float32
    magnitudes = room(scratch, len(values), work)
    numbers = values if values.dtype == work else values.to(work)
    least, greatest = (float(each) for each in torch.aminmax(numbers))
    if math.isfinite(least) and math.isfinite(greatest):
        tiny = subnormals(values.dtype, torch.abs(numbers, out=magnitudes))
        return Facts(len(values), subnormal=tiny, least=least, greatest=greatest)
    nan = int(torch.isnan(numbers).sum())
    fine = numbers[torch.isfinite(numbers)]
    found = Facts()
    if len(fine):
        ends = torch.aminmax(fine)
        tiny = subnormals(values.dtype, fine.abs())
        found = Facts(subnormal=tiny, least=float(ends.min), greatest=float(ends.max))
    return replace(found, numel=len(values), nan=nan, infinite=len(values) - len(fine) - nan)


def room(scratch: Scratch, count: int, dtype: torch.dtype) -> torch.Tensor:
    """Memory for some elements."""
    return torch.frombuffer(scratch.take(count * dtype.itemsize), dtype=dtype)


def subnormals(dtype: torch.dtype, magnitudes: torch.Tensor) -> int:
    """How many magnitudes are too small for the full precision of a type, and not zero."""
    if dtype not in WITH_SUBNORMALS:
        return 0
    tiny = torch.finfo(dtype).tiny
    if float(magnitudes.amin()) >= tiny:
        return 0
    below = int(torch.count_nonzero(magnitudes < tiny))
    return below - (len(magnitudes) - int(torch.count_nonzero(magnitudes)))
