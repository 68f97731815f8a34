"""A file read back, and compared with what should be in it, byte for byte.

The source is compared with its own checksums, for whoever has the new file and not the old one
could not tell any more what was damaged before.
"""

from collections.abc import Iterable, Iterator, Mapping

from modtool.errors import CorruptFileError, OutputError
from modtool.formats import open_checkpoint
from modtool.formats.dcp_values import with_values
from modtool.pickles.symbols import Call, PersistentId
from modtool.pickles.torch_objects import storage_id
from modtool.plan import Plan, PlannedTensor
from modtool.plan.salvage import storages_of
from modtool.plan.tree import place_of
from modtool.plan.views import has_data
from modtool.records import DTYPES, Checkpoint, FileRange, Storage, TensorInfo
from modtool.write.payload import Compute, elements, pieces_of, whole_storage
from modtool.write.streams import Data, Progress, Sources

__all__ = ["verify"]


def verify(
    plan: Plan, path: str, sources: Sources, compute: Compute | None, progress: Progress | None
) -> None:
    """Read a file back and compare every tensor with its source, after the same cast.

    Args:
        plan: What the file was written by.
        path: Where the file is now.
        sources: The files that are open.
        compute: What gathers, casts and fills elements.
        progress: Called with bytes done, bytes in all and the name of the tensor at hand.

    Raises:
        OutputError: A tensor is missing, or not what it should be.
        CorruptFileError: The source does not give its own checksums.
    """
    proved: set[str] = set()
    written = with_values(open_checkpoint(path))
    found = {place_of(tensor.section, tensor.name): tensor for tensor in written.tensors}
    total = sum(tensor.nbytes for tensor in plan.tensors)
    done = 0
    for tensor in plan.tensors:
        name = place_of(tensor.section, tensor.name)
        if name not in found:
            raise differs(name, "it is not in the file")
        prove(tensor, plan, sources, proved)
        compare(tensor, found[name], plan.source, written, sources, compute)
        done += tensor.nbytes
        if progress is not None:
            progress(done, total, f"verify {tensor.name}")


def prove(tensor: PlannedTensor, plan: Plan, sources: Sources, proved: set[str]) -> None:
    """See that what a tensor is made of gives the checksums that were saved with it."""
    if tensor.fill is not None:
        return
    for storage in storages_of(tensor.source, plan):
        place = storage.data
        if storage.key not in proved and isinstance(place, FileRange):
            if not sources.is_whole(place):
                raise CorruptFileError(
                    f"{place.path}: the bytes of {place_of(tensor.section, tensor.name)} do not "
                    "give the checksum that was saved with them; nothing was written",
                    "download or save it again; --salvage leaves out what is damaged, and without "
                    "--verify it is copied as it is",
                )
            proved.add(storage.key)


def differs(name: str, how: str) -> OutputError:
    """What to say of a tensor that did not come out right."""
    return OutputError(
        f"{name}: read back after writing, {how}; the new file was removed",
        "try again: if the same is told, report it, for modtool is wrong; if not, it is the disk, "
        "the memory, or a source that is being changed",
    )


def compare(
    tensor: PlannedTensor,
    found: TensorInfo,
    source: Checkpoint,
    written: Checkpoint,
    sources: Sources,
    compute: Compute | None,
) -> None:
    """Compare one tensor with what was read back."""
    if (found.dtype, found.shape) != (tensor.dtype, tensor.source.shape):
        what = f"it is {found.dtype} {list(found.shape)}"
        raise differs(tensor.name, f"{what}, not {tensor.dtype} {list(tensor.source.shape)}")
    plain = has_data(tensor.source) or tensor.fill is not None
    if not plain:
        one: Iterable[Data] = stored_parts(tensor.source, source, sources)
        other: Iterable[Data] = stored_parts(found, written, sources)
    else:
        one = elements(tensor, sources, compute)
        other = elements(PlannedTensor(tensor.name, None, found, found.dtype), sources, compute)
    place = first_difference(one, other)
    if place is not None:
        size = DTYPES[found.dtype].bits // 8
        where = f"element {place // size:,} of {found.numel:,}" if plain else f"byte {place:,}"
        raise differs(tensor.name, f"it differs from its source, first at {where}")


def stored_parts(tensor: TensorInfo, checkpoint: Checkpoint, sources: Sources) -> Iterator[Data]:
    """All bytes of the storages that a tensor without plain elements (sparse, say) is made of."""
    for symbol in references(tensor.origin, set()):
        identifier = storage_id(symbol)
        if identifier is None or identifier.location == "meta":
            continue
        storage = checkpoint.storages[identifier.key]
        yield from stored_bytes(storage, identifier.dtype, sources)


def stored_bytes(storage: Storage, dtype: str, sources: Sources) -> Iterable[Data]:
    """All bytes of a storage, little-endian."""
    return pieces_of(whole_storage(storage, dtype, storage.key), sources)


def references(value: object, seen: set[int]) -> Iterator[PersistentId]:
    """The references to storages inside a value, in order, each once."""
    if id(value) in seen:
        return
    seen.add(id(value))
    parts: Iterable[object] = ()
    if isinstance(value, PersistentId):
        yield value
    elif isinstance(value, Call):
        parts = (*value.arguments, value.state)
    elif isinstance(value, Mapping):
        parts = value.values()
    elif isinstance(value, tuple | list):
        parts = value
    for part in parts:
        yield from references(part, seen)


def first_difference(one: Iterable[Data], other: Iterable[Data]) -> int | None:
    """The first byte that differs in two streams, whatever pieces they come in; None for none."""
    left, right = iter(one), iter(other)
    a, b = memoryview(b""), memoryview(b"")
    done = 0
    while True:
        a, b = a or following(left), b or following(right)
        count = min(len(a), len(b))
        if a[:count] != b[:count]:
            return done + next(index for index in range(count) if a[index] != b[index])
        if not count:
            return done if a or b else None
        a, b, done = a[count:], b[count:], done + count


def following(pieces: Iterator[Data]) -> memoryview:
    """The next piece that is not empty; an empty one at the end."""
    for piece in pieces:
        view = memoryview(piece).cast("B")
        if view:
            return view
    return memoryview(b"")
