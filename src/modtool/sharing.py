"""Which tensors share stored elements: ties and overlapping views, not views side by side.

Two tensors are tied when they have elements of one storage in common. Eight weights of an LSTM that
are eight parts of one storage are not; nor are the even and the odd elements of one.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, product
from operator import itemgetter

from modtool.records import DTYPES, TensorInfo, is_contiguous

__all__ = ["Sharing", "element_bits", "share", "span", "stored_elements"]

# How many runs of neighbouring elements the views of one storage may have in all; where there are
# more, a view is taken to fill its span.
MAX_RUNS = 200_000
# The same for one view by itself, of which there may be many: with strides of 2 and 3, say, only
# the places tell which elements are the same.
MAX_OWN_RUNS = 1_000

Dimensions = tuple[tuple[int, int], ...]
"""Size and stride of each dimension, the widest stride first."""
Run = tuple[int, int]
"""The first element, and one past the last, of neighbours in a storage."""


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
    sharing = Sharing([None] * len(tensors), [stored_elements(tensor) for tensor in tensors])
    runs_left = MAX_RUNS
    for indices in by_storage(tensors):
        views, repeats = distinct_views(tensors, indices)
        for cluster in clusters(views):
            runs_left -= resolve(cluster, runs_left, sharing)
        for index, earlier in repeats:
            first = sharing.first[earlier]
            sharing.first[index] = earlier if first is None else first
            sharing.fresh[index] = 0
    for index, earlier in same_parts(tensors):
        sharing.first[index], sharing.fresh[index] = earlier, 0
    return sharing


def same_parts(tensors: Sequence[TensorInfo]) -> Iterator[tuple[int, int]]:
    """Which tensor without a storage is the same as which earlier one."""
    seen: dict[object, int] = {}
    for index, tensor in enumerate(tensors):
        if tensor.parts and tensor.numel:
            earlier = seen.setdefault((tensor.shape, tensor.parts), index)
            if earlier != index:
                yield index, earlier


def by_storage(tensors: Sequence[TensorInfo]) -> list[list[int]]:
    """Indices of the tensors that live in one storage, where there are several."""
    groups: dict[str, list[int] | int] = {}
    for index, tensor in enumerate(tensors):
        if tensor.storage is not None:
            found = groups.setdefault(tensor.storage.key, index)
            if isinstance(found, list):
                found.append(index)
            elif found != index:
                groups[tensor.storage.key] = [found, index]
    return [group for group in groups.values() if isinstance(group, list)]


# -- one view ----------------------------------------------------------------------------------


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
    shape, stride = tensor.shape, tensor.stride
    if stride is None or is_contiguous(shape, stride) or 0 in shape:
        return tensor.numel
    return elements_reached(dimensions_of(shape, stride))


@lru_cache(maxsize=4096)  # the layers of a model have few shapes among them
def elements_reached(dimensions: Dimensions) -> int:
    """How many different elements the indices reach."""
    if is_injective(dimensions):
        return math.prod(size for size, _ in dimensions)
    return sum(end - begin for begin, end in runs_of(0, dimensions, MAX_OWN_RUNS))


@lru_cache(maxsize=4096)
def dimensions_of(shape: tuple[int, ...], stride: tuple[int, ...]) -> Dimensions:
    """The dimensions that reach different elements; those that continue or overlap are one."""
    pairs = zip(shape, stride, strict=True)
    merged: list[tuple[int, int]] = []
    for step, size in sorted((step, size) for size, step in pairs if size != 1 and step):
        inner_size, inner_step = merged[-1] if merged else (0, 1)
        times, rest = divmod(step, inner_step)
        if not rest and times <= inner_size:  # each begins inside the last, or where it ends
            merged[-1] = (inner_size + (size - 1) * times, inner_step)
        else:
            merged.append((size, step))
    return tuple(reversed(merged))


def is_injective(dimensions: Dimensions) -> bool:
    """True when it is plain that no two indices reach the same element."""
    extent = 0
    for size, step in reversed(dimensions):
        if step <= extent:
            return False
        extent += (size - 1) * step
    return True


def runs_of(offset: int, dimensions: Dimensions, most: int) -> list[Run]:
    """The runs of neighbouring elements in a view, in order; its span if there are too many."""
    length = dimensions[-1][0] if dimensions and dimensions[-1][1] == 1 else 1
    outer = dimensions[:-1] if length > 1 else dimensions
    if math.prod(size for size, _ in outer) > most:
        return [(offset, offset + 1 + sum((size - 1) * step for size, step in dimensions))]
    steps = [range(0, size * step, step) for size, step in outer]
    begins = sorted({offset + sum(place) for place in product(*steps)})
    return list(joined((begin, begin + length) for begin in begins))


def joined(runs: Iterable[Run]) -> Iterator[Run]:
    """Sorted runs, with those that touch or overlap made one."""
    iterator = iter(runs)
    begin, end = next(iterator)
    for next_begin, next_end in iterator:
        if next_begin > end:
            yield begin, end
            begin = next_begin
        end = max(end, next_end)
    yield begin, end


# -- the views of one storage ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class View:
    """A tensor as places in its storage, in units of which an element has `units`."""

    index: int
    offset: int
    dimensions: Dimensions
    units: int

    @property
    def extent(self) -> Run:
        """The first place, and one past the last."""
        last = self.offset + sum((size - 1) * step for size, step in self.dimensions)
        return self.offset, last + 1


def distinct_views(
    tensors: Sequence[TensorInfo], indices: Sequence[int]
) -> tuple[list[View], list[tuple[int, int]]]:
    """The different views among some tensors, and which tensor repeats which."""
    sizes = {element_bits(tensors[index]) for index in indices}
    seen: dict[object, int] = {}
    views: list[View] = []
    repeats: list[tuple[int, int]] = []
    for index in indices:
        if 0 in tensors[index].shape:
            continue
        view = view_of(index, tensors[index], in_bytes=len(sizes) > 1)
        earlier = seen.setdefault((view.offset, view.dimensions), index)
        if earlier == index:
            views.append(view)
        else:
            repeats.append((index, earlier))
    return views, repeats


def view_of(index: int, tensor: TensorInfo, *, in_bytes: bool) -> View:
    """The places of one tensor, counted in elements or in bytes."""
    size = element_bits(tensor) // 8
    if tensor.stride is None:
        shape: tuple[int, ...] = (max(tensor.nbytes // size, 1),)
        stride: tuple[int, ...] = (1,)
    else:
        shape, stride = tensor.shape, tensor.stride
    if not in_bytes:
        return View(index, tensor.offset, dimensions_of(shape, stride), 1)
    scaled = dimensions_of((*shape, size), (*(step * size for step in stride), 1))
    return View(index, tensor.offset * size, scaled, size)


def clusters(views: Sequence[View]) -> Iterator[list[View]]:
    """Groups of views whose spans cross; a view that crosses with no other is left out."""
    ordered = sorted(((view.extent, view) for view in views), key=itemgetter(0))
    if all(one[1] <= other[0] for (one, _), (other, _) in pairwise(ordered)):
        return
    cluster: list[View] = []
    reach = 0
    for (begin, end), view in ordered:
        if cluster and begin >= reach:
            yield from by_residue(cluster)
            cluster = []
        cluster.append(view)
        reach = max(reach, end)
    yield from by_residue(cluster)


def by_residue(cluster: list[View]) -> Iterator[list[View]]:
    """Divide views whose strides have a common divisor: even and odd elements never meet."""
    if len(cluster) < 2:
        return
    divisor = math.gcd(*(step for view in cluster for _, step in view.dimensions))
    if divisor < 2:
        yield cluster
        return
    classes: dict[int, list[View]] = {}
    for view in cluster:
        place, residue = divmod(view.offset, divisor)
        dimensions = tuple((size, step // divisor) for size, step in view.dimensions)
        classes.setdefault(residue, []).append(View(view.index, place, dimensions, view.units))
    for group in classes.values():
        yield from clusters(group)


def resolve(cluster: Sequence[View], most: int, sharing: Sharing) -> int:
    """Find what the views of a cluster share; gives the number of runs that were looked at.

    The views paint the storage in the order of the tensors, each what is not painted yet.
    """
    views = sorted(cluster, key=lambda view: view.index)
    painted: list[tuple[View, list[Run]]] = []
    for view in views:
        painted.append((view, runs_of(view.offset, view.dimensions, most)))
        most -= len(painted[-1][1])
    painter = Painter({border for _, runs in painted for run in runs for border in run})
    for view, runs in painted:
        fresh = sum(painter.paint(run, view.index) for run in runs) // view.units
        sharing.fresh[view.index] = min(sharing.fresh[view.index], fresh)
    painter.close()
    for view, runs in painted:
        first = min(map(painter.first_owner, runs))
        sharing.first[view.index] = None if first == view.index else first
    return sum(len(runs) for _, runs in painted)


class Painter:
    """A storage between known borders, each part of it owned by whoever paints it first."""

    def __init__(self, borders: Iterable[int]) -> None:
        self.borders = sorted(borders)
        self.places = {border: place for place, border in enumerate(self.borders)}
        self.owners = [0] * len(self.borders)
        self.bare = list(range(len(self.borders) + 1))  # the next part that is not painted
        self.minima: list[list[int]] = []

    def paint(self, run: Run, owner: int) -> int:
        """Paint a run, and say how much of it was bare."""
        end = self.places[run[1]]
        fresh = 0
        part = self.next_bare(self.places[run[0]])
        while part < end:
            fresh += self.borders[part + 1] - self.borders[part]
            self.owners[part] = owner
            self.bare[part] = part + 1
            part = self.next_bare(part + 1)
        return fresh

    def next_bare(self, part: int) -> int:
        """The first part from here on that is not painted."""
        end = part
        while self.bare[end] != end:
            end = self.bare[end]
        while self.bare[part] != end:  # whoever asks again, gets there at once
            self.bare[part], part = end, self.bare[part]
        return end

    def close(self) -> None:
        """Paint no more: find the first owner among 1, 2, 4, … neighbouring parts."""
        self.minima = [self.owners]
        width = 1
        while 2 * width <= len(self.owners):
            last = self.minima[-1]
            self.minima.append(list(map(min, last, last[width:])))
            width *= 2

    def first_owner(self, run: Run) -> int:
        """The first owner of any part of a run."""
        begin, end = self.places[run[0]], self.places[run[1]]
        level = (end - begin).bit_length() - 1
        return min(self.minima[level][begin], self.minima[level][end - (1 << level)])
