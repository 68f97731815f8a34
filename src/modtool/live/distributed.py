"""Writes distributed checkpoints: what `modtool.write.write_distributed` takes as `save`.

`torch.distributed.checkpoint` would have the whole object in memory. Here it is given tensors
without data, and a planner that reads a block at the moment that it is written: memory is one
block, whatever the size, or one tuple, which torch saves whole. Written against torch 2.13
(`default_planner.py`, `filesystem.py`).
"""

import errno
import math
import os
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    TensorProperties,
)
from torch.distributed.checkpoint.planner import (
    SavePlan,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.state_dict_saver import save

from modtool.errors import CorruptFileError, OutputError
from modtool.live.compute import dtype_of
from modtool.pickles.plain import Unknown, items_of, mapping_of, plain
from modtool.pickles.symbols import Call, Global
from modtool.plan import PlannedTensor
from modtool.plan.distributed import is_entered
from modtool.plan.plain_tree import COUNTER
from modtool.plan.tree import entries
from modtool.write.assembling import Box, regions
from modtool.write.streams import Data

__all__ = ["save_distributed"]

# Large enough that what each block costs beside its bytes (a small archive) does not count.
BLOCK = 16 << 20

Elements = Callable[[PlannedTensor], Iterable[Data]]


def save_distributed(tree: object, folder: str, elements: Elements, *, synced: bool = True) -> None:
    """Save an object in a folder as one process does.

    Args:
        tree: Plain containers and symbols, with `PlannedTensor` for tensors.
        folder: An empty one.
        elements: Gives the elements of a tensor, row-major, in pieces.
        synced: Wait until the disk has it.

    Raises:
        OutputError: A value of it cannot be saved, or torch could not write it.
        OSError: The system would not let it be written.
    """
    planner = Streaming(elements)
    whole = planner.realised(tree)
    assert isinstance(whole, dict)
    # Nothing is read ahead: a block lies where the one before it lay.
    writer = FileSystemWriter(folder, thread_count=1, per_thread_copy_ahead=0, sync_files=synced)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that this is one process alone
            save(whole, storage_writer=writer, planner=planner, no_dist=True)
    except CheckpointException as error:  # which hides even that someone pressed Ctrl-C
        cause = next((cause for cause, _ in error.failures.values()), error)
        raise told(cause, folder) if isinstance(cause, RuntimeError) else cause from None


def told(error: RuntimeError, folder: str) -> OSError | OutputError:
    """What a failure in torch's own archive writer means, which forgets why it could not write."""
    found = os.statvfs(folder)
    if found.f_bavail * found.f_frsize < BLOCK:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return OutputError(f"torch could not write {folder}: {str(error).splitlines()[0]}")


class Streaming(DefaultSavePlanner):
    """Saves every tensor in blocks, each read when it is written."""

    def __init__(self, elements: Elements) -> None:
        super().__init__()
        self.elements = elements
        self.tensors: dict[int, PlannedTensor] = {}
        self.stream = Stream("", ())
        self.buffer = bytearray()

    def realised(self, value: object) -> object:
        """The tree as torch flattens it; tensors have a shape and a type, and no data.

        What it saves as one value is left to `lookup_object`.
        """
        if isinstance(value, PlannedTensor):
            shape, dtype = value.source.shape, dtype_of(value.dtype)
            empty = torch.empty(shape, dtype=dtype, device="meta")
            self.tensors[id(empty)] = value
            return empty
        found = entries(value)
        if found is not None:
            return {key: self.realised(item) for key, item in found.items()}
        if isinstance(value, list) and is_entered(value):
            return [self.realised(item) for item in value]
        return value

    def create_local_plan(self) -> SavePlan:
        """One item for every block of every tensor, and one for every value."""
        items = [
            item for name, value in self.state_dict.items() for item in write_items(name, value)
        ]
        self.plan = SavePlan(items, planner_data=self.mappings)
        return self.plan

    def resolve_data(self, write_item: WriteItem) -> object:  # type: ignore[override]
        """What an item holds; of a tensor, the next block in order."""
        data = write_item.tensor_data
        if data is None:
            return super().resolve_data(write_item)
        name = write_item.index.fqn
        if not any(data.chunk.offsets):  # its first block; they come in order
            self.stream = Stream(name, self.elements(self.tensor_of(name)))
        assert self.stream.name == name
        dtype, sizes = data.properties.dtype, tuple(data.chunk.sizes)
        nbytes = math.prod(sizes) * dtype.itemsize
        if len(self.buffer) < nbytes:
            self.buffer = bytearray(nbytes)
        return self.stream.tensor(memoryview(self.buffer)[:nbytes], dtype, sizes)

    def lookup_object(self, index: MetadataIndex) -> object:
        """A value as Python has it, at the moment that it is saved."""
        return self.python(super().lookup_object(index), {})

    def python(self, value: object, made: dict[int, object]) -> object:
        """A value with all that lies in it; what is shared, or contains itself, stays so."""
        if isinstance(value, PlannedTensor):
            room = memoryview(bytearray(value.nbytes))
            stream = Stream(value.name, self.elements(value))
            return stream.tensor(room, dtype_of(value.dtype), value.source.shape)
        if id(value) in made:
            return made[id(value)]
        found = entries(value)
        if found is not None:
            mapping: dict[object, object] = {} if isinstance(value, dict) else OrderedDict()
            made[id(value)] = mapping
            mapping.update((key, self.python(item, made)) for key, item in found.items())
            return mapping
        if isinstance(value, list):
            items = made[id(value)] = list[object]()
            items.extend(self.python(item, made) for item in value)
            return items
        if isinstance(value, tuple):
            return tuple(self.python(item, made) for item in value)
        return python_value(value)

    def tensor_of(self, name: str) -> PlannedTensor:
        """The planned tensor of a flat name."""
        return self.tensors[id(self.state_dict[name])]


def write_items(name: str, value: object) -> Iterator[WriteItem]:
    """The items that something is saved in: a tensor in blocks, in row-major order."""
    if not isinstance(value, torch.Tensor):
        yield WriteItem(MetadataIndex(name), WriteItemType.BYTE_IO)
        return
    shape = value.shape
    blocks = list(regions(tuple(shape), max(1, BLOCK // value.dtype.itemsize)))
    whole = Box((0,) * len(shape), tuple(shape))
    for begin, sizes in blocks or [whole]:
        offsets = torch.Size(begin)
        data = TensorWriteData(
            ChunkStorageMetadata(offsets, torch.Size(sizes)),
            TensorProperties(dtype=value.dtype),
            shape,
        )
        kind = WriteItemType.SHARD if len(blocks) > 1 else WriteItemType.TENSOR
        yield WriteItem(MetadataIndex(name, offsets), kind, tensor_data=data)


class Stream:
    """The elements of one tensor, taken from the beginning to the end."""

    def __init__(self, name: str, pieces: Iterable[Data]) -> None:
        self.name = name
        self.pieces = iter(pieces)
        self.rest = memoryview(b"")

    def fill(self, room: memoryview) -> None:
        """Put the next bytes into a buffer, until it is full.

        Raises:
            CorruptFileError: There are not so many left.
        """
        while room:
            while not self.rest:
                piece = next(self.pieces, None)
                if piece is None:
                    raise CorruptFileError(f"{self.name} ends too early")
                self.rest = memoryview(piece).cast("B")
            count = min(len(room), len(self.rest))
            room[:count] = self.rest[:count]
            room, self.rest = room[count:], self.rest[count:]

    def tensor(self, room: memoryview, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
        """The next elements, in a buffer that they fill."""
        if not room:
            return torch.empty(shape, dtype=dtype)
        self.fill(room)
        return torch.frombuffer(room, dtype=torch.uint8).view(dtype).view(shape)


def python_value(value: object) -> object:
    """A value that is no tensor, as torch saves it.

    Raises:
        OutputError: It is of a kind that cannot be made again.
    """
    if isinstance(value, Global) and value.module == "torch":
        return getattr(torch, value.name)
    if not isinstance(value, Call):
        return value
    if value.callee == COUNTER:
        return Counter(mapping_of(value))
    items = items_of(value)
    if items is not None:
        if value.callee == "torch.Size":
            return torch.Size([item for item in items if isinstance(item, int)])
        return {python_value(item) for item in items}
    found = plain(value)
    if isinstance(found, Unknown):
        raise OutputError(f"an object of {found.what} cannot be saved")
    if value.callee == "torch.device" and isinstance(found, str):
        return torch.device(found)
    return found
