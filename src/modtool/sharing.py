"""Which tensors share stored elements: ties and overlapping views, not views side by side.

Two tensors are tied when they have elements of one storage in common. Eight weights of an LSTM that
are eight parts of one storage are not.
"""

from collections.abc import Iterable, Sequence

from modtool.records import DTYPES, TensorInfo

__all__ = ["Sharing", "share"]

# Beyond this, two strided views whose spans cross are taken to overlap without proof.
MAX_EXACT = 200_000
# How many earlier views each one is compared with; more than a few is an attack.
MAX_CROSSING = 64


class Sharing:
    """What is shared among some tensors, in their order.

    Attributes:
        first: For each tensor, the index of the first tensor that it has elements in common with;
            None where it is the first itself, or shares with none.
        fresh: For each tensor, how many of its elements no earlier tensor stored.
    """

    __slots__ = ("first", "fresh")

    def __init__(self, first: list[int | None], fresh: list[int]) -> None:
        self.first = first
        self.fresh = fresh


def share(tensors: Sequence[TensorInfo]) -> Sharing:
    """Find what is shared. Linear where storages are not shared, which is nearly always."""
    first: list[int | None] = [None] * len(tensors)
    fresh = [stored_elements(tensor) for tensor in tensors]
    for indices in by_storage(tensors):
        resolve([(index, tensors[index]) for index in indices], first, fresh)
    return Sharing(first, fresh)


def by_storage(tensors: Sequence[TensorInfo]) -> Iterable[list[int]]:
    """Indices of the tensors that live in one storage, where there are several."""
    groups: dict[str, list[int]] = {}
    for index, tensor in enumerate(tensors):
        if tensor.storage is not None:
            groups.setdefault(tensor.storage.key, []).append(index)
    return (group for group in groups.values() if len(group) > 1)


def resolve(
    group: Sequence[tuple[int, TensorInfo]], first: list[int | None], fresh: list[int]
) -> None:
    """Compare the tensors of one storage; identical views are found without comparing pairs."""
    seen: dict[object, int] = {}
    distinct: list[tuple[int, TensorInfo]] = []
    for index, tensor in group:
        view = (tensor.offset, tensor.shape, tensor.stride, tensor.dtype)
        if view in seen:
            first[index], fresh[index] = seen[view], 0
            continue
        seen[view] = index
        distinct.append((index, tensor))
    if len(distinct) > 1:
        compare_spans(distinct, first, fresh)


def compare_spans(
    distinct: Sequence[tuple[int, TensorInfo]], first: list[int | None], fresh: list[int]
) -> None:
    """Sweep over the byte spans of different views; only those that cross are looked at closely."""
    ordered = sorted(distinct, key=lambda item: (span(item[1]), item[0]))
    reach: list[tuple[int, TensorInfo]] = []
    for index, tensor in ordered:
        begin = span(tensor)[0]
        reach = [other for other in reach if span(other[1])[1] > begin][-MAX_CROSSING:]
        for other_index, other in reach:
            if overlap(tensor, other):
                early, late = sorted((index, other_index))
                root = first[early] if first[early] is not None else early
                if first[late] is None:
                    first[late] = root
                fresh[late] = min(fresh[late], unshared(distinct, late, early))
        reach.append((index, tensor))


def unshared(distinct: Sequence[tuple[int, TensorInfo]], late: int, early: int) -> int:
    """Elements of the later tensor that lie outside the span of the earlier one."""
    tensors = dict(distinct)
    begin, end = span(tensors[late])
    other_begin, other_end = span(tensors[early])
    outside = max(0, other_begin - begin) + max(0, end - other_end)
    return outside * 8 // element_bits(tensors[late])


def element_bits(tensor: TensorInfo) -> int:
    """Size of one element; types that are no torch dtype count as bytes."""
    return DTYPES[tensor.dtype].bits if tensor.dtype in DTYPES else 8


def span(tensor: TensorInfo) -> tuple[int, int]:
    """First byte and one past the last byte of its elements inside the storage."""
    bits = element_bits(tensor)
    begin = tensor.offset * bits // 8
    if 0 in tensor.shape:
        return begin, begin
    if tensor.stride is None:
        return begin, begin + tensor.nbytes
    extent = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride, strict=True))
    return begin, begin + (extent + 1) * bits // 8


def stored_elements(tensor: TensorInfo) -> int:
    """Elements that are really there: an expanded dimension (stride 0) counts once."""
    if tensor.stride is None or 0 not in tensor.stride:
        return tensor.numel
    begin, end = span(tensor)
    return min(tensor.numel, (end - begin) * 8 // element_bits(tensor))


def overlap(one: TensorInfo, other: TensorInfo) -> bool:
    """True when two views whose spans cross have an element in common."""
    if 0 in one.shape or 0 in other.shape:
        return False
    if is_dense(one) and is_dense(other):
        return True
    if max(one.numel, other.numel) > MAX_EXACT or one.dtype != other.dtype:
        return True
    return not offsets(one).isdisjoint(offsets(other))


def is_dense(tensor: TensorInfo) -> bool:
    """True when its elements fill its span without gaps."""
    begin, end = span(tensor)
    return tensor.nbytes >= end - begin


def offsets(tensor: TensorInfo) -> set[int]:
    """The place of every element in the storage."""
    found = {tensor.offset}
    stride = tensor.stride or ()
    for size, step in zip(tensor.shape, stride, strict=bool(stride)):
        found = {offset + index * step for offset in found for index in range(size)}
    return found
