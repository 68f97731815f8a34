"""Which storages a torch file gets, and where in them its tensors lie."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from modtool.plan import Plan, PlannedTensor, view_of
from modtool.plan.views import has_data, math_bits
from modtool.records import DTYPES, Storage, TensorInfo, contiguous_stride
from modtool.sharing import share
from modtool.write.payload import Payload, cut, payload_of, swap_size, whole_storage

__all__ = ["Placement", "Record", "placements"]


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One storage of the output."""

    payload: Payload
    location: str


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a tensor lies: elements from the start of a record, and the stride between them."""

    record: Record
    offset: int
    stride: tuple[int, ...]


Key = tuple[str | None, str]
Span = tuple[int, int]


def key_of(tensor: PlannedTensor) -> Key:
    """What a planned tensor is found by: its section and name in the source."""
    return tensor.source.section, tensor.source.name


def placements(plan: Plan) -> dict[Key, Placement]:
    """A place for every tensor that has plain elements.

    What shares a storage goes on sharing it: one record for each storage of the source, copied
    whole. A storage of which every tensor is cast alike is cast as a whole. What is computed
    otherwise gets a record of its own, which it shares with the tensors that are the same.
    """
    groups: dict[str, list[PlannedTensor]] = {}
    placed: dict[Key, Placement] = {}
    for tensor in plan.tensors:
        storage = tensor.source.storage
        if tensor.source.chunks:
            placed[key_of(tensor)] = compact(tensor)
        elif storage is not None and (has_data(tensor.source) or tensor.fill is not None):
            groups.setdefault(storage.key, []).append(tensor)
    for group in groups.values():
        placed.update(place_group(plan, group))
    return placed


def place_group(plan: Plan, group: list[PlannedTensor]) -> Iterator[tuple[Key, Placement]]:
    """Places for the tensors of one storage."""
    storage = group[0].source.storage
    assert storage is not None
    if plan.tied == "clone":
        for tensor in group:
            yield key_of(tensor), compact(tensor)
        return
    if is_cast_as_one(group) and not plan.shrink:
        yield from cast_whole(storage, group)
        return
    kept = [tensor for tensor in group if not tensor.is_computed]
    scattered = smaller_apart(kept) if plan.shrink else set()
    together = [tensor for tensor in kept if key_of(tensor) not in scattered]
    yield from place_kept(storage, together, shrink=plan.shrink)
    made: dict[object, Placement] = {}
    for tensor in group:
        if tensor.is_computed or key_of(tensor) in scattered:
            same = (view_of(tensor.source), tensor.dtype, tensor.fill and tensor.fill.scheme)
            place = compact(tensor) if tensor.is_computed else compact_once(tensor)
            yield key_of(tensor), made.setdefault(same, place)


def compact(tensor: PlannedTensor) -> Placement:
    """A record that holds one tensor and nothing else."""
    record = Record(payload_of(tensor), tensor.location)
    return Placement(record, 0, contiguous_stride(tensor.source.shape))


def compact_once(tensor: PlannedTensor) -> Placement:
    """A record of one tensor that holds once what its expanded dimensions repeat."""
    once = replace(tensor, source=unexpanded(tensor.source))
    place = compact(once)
    repeated = zip(place.stride, stride_of(tensor.source), strict=True)
    return replace(place, stride=tuple(step if saved else 0 for step, saved in repeated))


def unexpanded(tensor: TensorInfo) -> TensorInfo:
    """The part of a tensor that its expanded dimensions (stride 0) repeat."""
    pairs = zip(tensor.shape, stride_of(tensor), strict=True)
    return replace(tensor, shape=tuple(size if step else min(size, 1) for size, step in pairs))


def stride_of(tensor: TensorInfo) -> tuple[int, ...]:
    """The stride, spelled out."""
    return tensor.stride if tensor.stride is not None else contiguous_stride(tensor.shape)


def is_cast_as_one(group: list[PlannedTensor]) -> bool:
    """True when all tensors of a storage go from one type to one other, and none is filled.

    A view whose elements are the stored ones negated is not what a cast of the storage would give.
    """
    casts = {(tensor.source.dtype, tensor.dtype) for tensor in group}
    return (
        len(casts) == 1
        and not any(tensor.fill or math_bits(tensor.source) for tensor in group)
        and group[0].is_computed
        and not is_oversized(group)
    )


def is_oversized(group: list[PlannedTensor]) -> bool:
    """True when the storage holds more bytes than its tensors use: those are not worth a cast."""
    storage = group[0].source.storage
    spans = spans_of([tensor.source for tensor in group])
    return storage is not None and sum(end - start for start, end in spans) < storage.nbytes


def cast_whole(storage: Storage, group: list[PlannedTensor]) -> Iterator[tuple[Key, Placement]]:
    """One record for a storage whose elements are all cast alike; the views stay as they were."""
    first = group[0]
    numel = storage.nbytes * 8 // DTYPES[first.source.dtype].bits
    flat = replace(first.source, shape=(numel,), offset=0, stride=(1,), origin=None)
    record = Record(payload_of(replace(first, source=flat)), first.location)
    for tensor in group:
        yield key_of(tensor), Placement(record, tensor.source.offset, stride_of(tensor.source))


def place_kept(
    storage: Storage, group: list[PlannedTensor], *, shrink: bool
) -> Iterator[tuple[Key, Placement]]:
    """Places in a storage whose bytes go over as they are, or in the used parts of it."""
    if not group:
        return
    spans = spans_of([tensor.source for tensor in group])
    if not shrink or sum(end - start for start, end in spans) == storage.nbytes:
        spans = [(0, storage.nbytes)]
    records = {span: record_of(storage, span, group[0]) for span in spans}
    for tensor in group:
        size = DTYPES[tensor.source.dtype].bits // 8
        start = tensor.source.offset * size
        span = span_at(spans, start)
        if span is None:  # it has no elements
            yield key_of(tensor), compact(tensor)
        else:
            offset = (start - span[0]) // size
            yield key_of(tensor), Placement(records[span], offset, stride_of(tensor.source))


def smaller_apart(group: list[PlannedTensor]) -> set[Key]:
    """The tensors that take less when each is written by itself than the span that they lie in."""
    spans = spans_of([tensor.source for tensor in group])
    inside: dict[Span, list[PlannedTensor]] = {}
    for tensor in group:
        start, end = extent(tensor.source)
        span = span_at(spans, start)
        if span is not None and start < end:
            inside.setdefault(span, []).append(tensor)
    return {
        key_of(tensor)
        for (start, end), tensors in inside.items()
        if is_scattered([tensor.source for tensor in tensors], end - start)
        for tensor in tensors
    }


def is_scattered(tensors: list[TensorInfo], room: int) -> bool:
    """True when different views take less than `room` bytes, and none shares a part of another."""
    views = [view_of(tensor) for tensor in tensors]
    sizes = {view: unexpanded(each).nbytes for view, each in zip(views, tensors, strict=True)}
    if sum(sizes.values()) >= room:
        return False
    pairs = zip(views, share(tensors).first, strict=True)
    return all(first is None or views[first] == view for view, first in pairs)


def record_of(storage: Storage, span: Span, tensor: PlannedTensor) -> Record:
    """The record of a storage, or of the part of it between two bytes."""
    start, end = span
    dtype = tensor.source.dtype
    if (start, end) == (0, storage.nbytes):
        return Record(whole_storage(storage, dtype, tensor.name), tensor.location)
    assert storage.data is not None
    part = cut(storage.data, start, end - start)
    payload = Payload(tensor.name, end - start, part, swap_size(storage, dtype))
    return Record(payload, tensor.location)


def spans_of(tensors: Sequence[TensorInfo]) -> list[Span]:
    """The bytes of a storage that its tensors reach over, those that touch taken together.

    Each begins where an element of any of the tensors can: places in it are counted in elements.
    """
    widest = max((DTYPES[tensor.dtype].bits // 8 for tensor in tensors), default=1)
    reached = [(start - start % widest, end) for start, end in map(extent, tensors) if start < end]
    merged: list[Span] = []
    for start, end in sorted(reached):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def span_at(spans: list[Span], byte: int) -> Span | None:
    """The one of sorted spans that a byte lies in."""
    place = bisect_right(spans, byte, key=lambda span: span[0]) - 1
    return spans[place] if place >= 0 and byte < spans[place][1] else None


def extent(tensor: TensorInfo) -> Span:
    """First byte and the byte after the last of what a tensor reaches over."""
    size = DTYPES[tensor.dtype].bits // 8
    start = tensor.offset * size
    if not tensor.numel:
        return start, start
    steps = zip(tensor.shape, stride_of(tensor), strict=True)
    return start, start + (sum((length - 1) * step for length, step in steps) + 1) * size
