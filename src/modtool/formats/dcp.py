"""Distributed checkpoints: a folder with `.metadata` and slices of files, one item in each.

Only `.metadata`, a pickle, is read to say what there is. Where the bytes of a block lie inside its
item, an archive of its own, is found when they are needed: `locate`.
Format: torch 2.13, `torch/distributed/checkpoint/{metadata,filesystem,default_planner}.py`.
"""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from modtool.errors import CorruptFileError, UnsafeFileError
from modtool.formats.files import open_reader
from modtool.formats.members import errors_name, is_missing, link_notes, path_inside
from modtool.notes import first_names, note
from modtool.pickles.contents import contents_of
from modtool.pickles.plain import Unknown, mapping_of
from modtool.pickles.reader import Pickle, read_pickle
from modtool.pickles.symbols import Call
from modtool.pickles.torch_objects import Tensors
from modtool.pickles.torch_values import StorageId, TensorFacts, dtype_named, numbers
from modtool.records import DTYPES, Checkpoint, Chunk, FileRange, Note, Storage, TensorInfo

__all__ = ["METADATA", "NAME", "StoredTensor", "StoredValue", "read"]

NAME = "dcp"
METADATA = ".metadata"

MAX_METADATA = 1 << 30
MAX_FILES = 50_000
MAX_FIELDS = 64
MAX_PATH = 64
# What a block costs at least in `.metadata`, so that one that is shared a million times over ends.
BLOCK_BYTES = 30


@dataclass(frozen=True, slots=True, eq=False)
class StoredTensor:
    """A tensor of the object, in the place where it lies in it."""

    facts: TensorFacts
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True, eq=False)
class StoredValue(Unknown):
    """A value of the object that lies in an item of its own, which was not opened."""

    item: FileRange


class StoredTensors(Tensors):
    """Reads the facts off the places of tensors, and off those inside values that were read.

    `stored` are the storages of these values; `.metadata` itself refers to none.
    """

    def __init__(self, stored: Mapping[str, Storage]) -> None:
        super().__init__(self.find)
        self.stored = stored

    def find(self, identifier: StorageId) -> Storage:
        """The storage that an id in a value names."""
        if identifier.key not in self.stored:
            raise CorruptFileError(f"metadata with a storage: {identifier.key}")
        return self.stored[identifier.key]

    def facts(self, value: object) -> TensorFacts | None:
        """What a value says of a tensor; None when it is no tensor."""
        return value.facts if isinstance(value, StoredTensor) else super().facts(value)


def read(folder: str) -> Checkpoint:
    """Read the `.metadata` of a folder.

    Raises:
        CorruptFileError: It contradicts itself.
        UnsafeFileError: It names files outside the folder.
    """
    path = os.path.join(folder, METADATA)
    with open_reader(path) as reader:
        if reader.size > MAX_METADATA:
            raise UnsafeFileError(f"{path}: metadata of {reader.size:,} bytes is too large")
        data = reader.read(0, reader.size)
    pickle = read_pickle(data, where=path)
    with errors_name(path):
        return checkpoint(folder, path, pickle)


def checkpoint(folder: str, path: str, pickle: Pickle) -> Checkpoint:
    """What a `.metadata` says."""
    metadata = fields(pickle.root)
    entries = mapping_of(metadata.get("state_dict_metadata"))
    if entries is None:
        raise CorruptFileError(f"{path}: no metadata of a distributed checkpoint")
    items = Items(folder, path, pickle.end // BLOCK_BYTES + 100)
    items.index(metadata.get("storage_data"))
    root = nested(items.objects(entries), mapping_of(metadata.get("planner_data")) or {})
    found = Checkpoint(
        folder, NAME, "values", notes=tuple(items.notes()), root=root, pickles={METADATA: pickle}
    )
    return replace(with_small_values(found), root=root)


def with_small_values(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with what its object and the small values of it hold."""
    from modtool.formats import dcp_values  # which reads with this module

    return dcp_values.with_small_values(checkpoint)


def with_object(
    checkpoint: Checkpoint, root: object, storages: Mapping[str, Storage], size: int
) -> Checkpoint:
    """The checkpoint with what an object holds, which takes its object's place.

    Args:
        checkpoint: What is known of the folder.
        root: Its object, in which values may be read.
        storages: Those that the values refer to.
        size: The bytes of the pickles that it was read from.
    """
    contents = contents_of(root, StoredTensors(storages), 40 * size + 10_000)
    return replace(
        checkpoint,
        kind=contents.kind,
        tensors=tuple(map(with_chunks, contents.tensors)),
        modules=contents.modules,
        sections=contents.sections,
        values=contents.values,
        notes=tuple(dict.fromkeys((*checkpoint.notes, *contents.notes))),
        root=root,
        storages=storages,
    )


def with_chunks(tensor: TensorInfo) -> TensorInfo:
    """The tensor with the blocks that its place in the object has."""
    place = tensor.origin
    return replace(tensor, chunks=place.chunks) if isinstance(place, StoredTensor) else tensor


# -- where the items lie -------------------------------------------------------------------------

ItemKey = tuple[str, tuple[int, ...] | None]


@dataclass(slots=True)
class Items:
    """The items that `.metadata` lists, and what is odd about them."""

    folder: str
    source: str
    budget: int
    places: dict[ItemKey, FileRange] = field(default_factory=dict)
    transformed: set[ItemKey] = field(default_factory=set)
    paths: dict[str, str] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    def index(self, storage_data: object) -> None:
        """Take in `storage_data`: MetadataIndex -> _StorageInfo."""
        found = mapping_of(storage_data)
        if found is None:
            raise CorruptFileError(f"{self.source}: it does not say where its data is")
        for key, value in found.items():
            found_at, stored = self.key(key), fields(value)
            self.places[found_at] = self.place(stored)
            if stored.get("transform_descriptors") not in (None, [], ()):
                self.transformed.add(found_at)

    def key(self, index: object) -> ItemKey:
        """What an item is found by: the tensor's name and where the block begins."""
        match fields(index):
            case {"fqn": str(name), **rest}:
                offset = rest.get("offset")
                return name, None if offset is None else numbers(offset, "offset")
        raise CorruptFileError(f"{self.source}: an item without a name")

    def place(self, value: Mapping[str, object]) -> FileRange:
        """The slice of a file that an item is."""
        file, offset, length = (value.get(key) for key in ("relative_path", "offset", "length"))
        if type(offset) is not int or type(length) is not int or offset < 0 or length < 0:
            raise CorruptFileError(f"{self.source}: an item at no possible place in {file!r}")
        path = self.paths.get(file) if isinstance(file, str) else None
        if path is None:
            path = path_inside(self.folder, file, self.source)
            self.paths[str(file)] = path
            if len(self.paths) > MAX_FILES:
                raise UnsafeFileError(f"{self.source}: it names more than {MAX_FILES:,} files")
        self.ends[path] = max(self.ends.get(path, 0), offset + length)
        return FileRange(path, offset, length)

    # -- what they hold --------------------------------------------------------------------------

    def objects(self, entries: Mapping[object, object]) -> Iterator[tuple[str, object]]:
        """Flat name and stored object of every entry."""
        for name, entry in entries.items():
            attributes = fields(entry)
            if not isinstance(name, str):
                raise CorruptFileError(f"{self.source}: an entry without a name")
            if "size" in attributes:
                yield name, self.tensor(name, attributes)
            else:
                place = self.places.get((name, None), FileRange("", 0, 0))
                yield name, StoredValue(f"{place.length:,} bytes", place)

    def tensor(self, name: str, attributes: Mapping[str, object]) -> StoredTensor:
        """A tensor and its blocks, each proved to lie inside it."""
        dtype, grad = properties(attributes.get("properties"))
        shape = numbers(attributes["size"], "shape")
        blocks = attributes.get("chunks")
        if not isinstance(blocks, list):
            raise CorruptFileError(f"{self.source}: {name} has no list of blocks")
        self.budget -= len(blocks)
        if self.budget < 0:
            raise UnsafeFileError(f"{self.source}: its tensors have too many blocks")
        chunks = tuple(self.chunk(name, dtype, shape, block) for block in blocks)
        held = [chunk for chunk in chunks if chunk.item is not None]
        if sum(math.prod(chunk.sizes) for chunk in held) < math.prod(shape):
            self.lost.append(name)
        facts = TensorFacts(dtype, shape, requires_grad=grad, device="cpu")
        return StoredTensor(facts, chunks)

    def chunk(self, name: str, dtype: str, shape: tuple[int, ...], block: object) -> Chunk:
        """One block of a tensor."""
        attributes = fields(block)
        offsets = numbers(attributes.get("offsets"), "offset")
        sizes = numbers(attributes.get("sizes"), "shape")
        if (
            len(offsets) != len(shape)
            or len(sizes) != len(shape)
            or any(
                begin + size > whole
                for begin, size, whole in zip(offsets, sizes, shape, strict=True)
            )
        ):
            raise CorruptFileError(f"{self.source}: a block of {name} lies outside of it")
        nbytes = math.prod(sizes) * DTYPES[dtype].bits // 8
        where = ",".join(map(str, offsets))
        return Chunk(offsets, sizes, Storage(f"{name}@{where}", nbytes), self.find(name, offsets))

    def find(self, name: str, offsets: tuple[int, ...]) -> FileRange | None:
        """The item of a block; one that was packed by an extension cannot be opened."""
        key: ItemKey = (name, offsets)
        if key not in self.places:
            key = (name, None)
        return None if key in self.transformed else self.places.get(key)

    # -- what is odd -----------------------------------------------------------------------------

    def notes(self) -> Iterator[Note]:
        """Files that are missing, too short or elsewhere, and tensors that are not whole."""
        for file, path in sorted(self.paths.items()):
            if is_missing(path):
                yield note("missing-shard", file, f"{file} is not there")
                continue
            yield from link_notes(self.folder, path)
            with open_reader(path) as reader:
                if reader.size < self.ends[path]:
                    message = f"{file} ends at byte {reader.size:,}, its items at "
                    yield note("missing-shard", file, f"{message}{self.ends[path]:,}")
        if self.lost:
            message = f"some of their elements are not stored: {first_names(self.lost)}"
            yield note("missing-tensor", self.lost[0], message)
        if self.transformed:
            names = first_names(sorted({name for name, _ in self.transformed}))
            message = f"packed by an extension of the writer, and not read: {names}"
            yield note("compressed-member", min(self.transformed, key=str)[0], message)


def fields(value: object) -> Mapping[str, object]:
    """The fields of a small dataclass object; none where it is something else."""
    state = value.state if isinstance(value, Call) else None
    return state if isinstance(state, dict) and len(state) <= MAX_FIELDS else {}


def properties(value: object) -> tuple[str, bool | None]:
    """(dtype, requires_grad) of `TensorProperties`, whose state is a tuple or a dict."""
    state = value.state if isinstance(value, Call) else None
    if isinstance(state, dict):
        state = (state.get("dtype"), None, state.get("requires_grad"))
    if not isinstance(state, tuple) or len(state) < 3:
        raise CorruptFileError("a tensor without properties")
    # As in torch files: False may only mean that state_dict() detached it.
    return dtype_named(state[0]), True if state[2] is True else None


# -- the object that was saved -------------------------------------------------------------------


def nested(flat: Iterator[tuple[str, object]], paths: Mapping[object, object]) -> object:
    """The object that was flattened; `paths` maps each flat name to the keys that lead to it.

    A number in a path is the place in a list (torch 2.13, `_nested_dict.py`: keys are text).
    """
    root: dict[object, object] = {}
    parents: list[tuple[dict[object, object], object]] = []
    count = 0
    for name, value in flat:
        count += 1
        *outer, last = path_of(name, paths.get(name))
        inside = root
        for key in outer:
            if key not in inside:
                inside[key] = {}
                parents.append((inside, key))
            below = inside[key]
            if not isinstance(below, dict):
                raise CorruptFileError(f"{name}: it lies inside something that holds nothing")
            inside = below
        if last in inside:
            raise CorruptFileError(f"{name}: its place is taken")
        inside[last] = value
    budget = 2 * count + MAX_FIELDS
    for parent, place in reversed(parents):  # from the inside outwards
        found = parent[place]
        assert isinstance(found, dict)
        if any(isinstance(inner, int) for inner in found):
            parent[place] = made = listed(found, str(place), budget)
            budget -= len(made)
    return root


def listed(found: Mapping[object, object], name: str, budget: int) -> list[object]:
    """The list whose items are found by number; one that held an empty dict became None."""
    numbers = [key for key in found if isinstance(key, int) and 0 <= key < budget]
    if len(numbers) < len(found):
        raise CorruptFileError(f"{name}: its items are not where a list would have them")
    made: list[object] = [None] * (max(numbers) + 1)
    for number in numbers:
        made[number] = found[number]
    return made


def path_of(name: str, path: object) -> tuple[str | int, ...]:
    """The keys that lead to an entry; its flat name where nothing tells."""
    if path is None:
        return (name,)
    keys = path if isinstance(path, tuple | list) else ()
    if not 0 < len(keys) <= MAX_PATH or not all(isinstance(key, str | int) for key in keys):
        raise CorruptFileError(f"{name}: the path to it is none")
    return tuple(keys)
