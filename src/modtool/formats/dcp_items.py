"""The inside of the items of a distributed checkpoint, opened when their bytes are needed."""

from collections.abc import Iterator
from dataclasses import replace

from modtool.errors import CorruptFileError, TargetError
from modtool.formats import safetensors, torch_zip
from modtool.formats.dcp import StoredValue
from modtool.formats.files import Reader, open_reader
from modtool.pickles.tensor_calls import math_bits_of
from modtool.records import DTYPES, Checkpoint, Chunk, FileRange, Storage, TensorInfo

__all__ = ["locate", "read_item", "values_of"]


def locate(tensor: TensorInfo, chunk: Chunk) -> TensorInfo:
    """One block of a tensor as a tensor of its own, with the place of its bytes.

    Args:
        tensor: A tensor of a distributed checkpoint.
        chunk: One of its `chunks`.

    Returns:
        The block: its shape is `chunk.sizes`, its storage has `data`, and it may be strided.

    Raises:
        CorruptFileError: The item is not what `.metadata` says.
        TargetError: Its elements are not the stored ones, but those conjugated or negated.
    """
    if chunk.item is None:
        if chunk.storage.data is None:
            raise CorruptFileError(f"{tensor.name}: its block at {chunk.offsets} is not stored")
        block = replace(tensor, storage=chunk.storage, shape=chunk.sizes)
    else:
        block = replace(inside(tensor, chunk, chunk.item), name=tensor.name)
    if (block.dtype, block.shape) != (tensor.dtype, chunk.sizes):
        raise CorruptFileError(
            f"{tensor.name}: its block at {list(chunk.offsets)} should be {tensor.dtype} "
            f"{list(chunk.sizes)}, it is {block.dtype} {list(block.shape)}"
        )
    if math_bits_of(block.origin):
        raise TargetError(
            f"{tensor.name}: a conjugated or negated view, saved before it was computed",
            "save it again after resolve_conj() or resolve_neg(), or leave it out",
        )
    storage = block.storage and replace(block.storage, key=chunk.storage.key)
    return replace(
        block, storage=storage, chunks=(), section=tensor.section, role=tensor.role, origin=None
    )


def inside(tensor: TensorInfo, chunk: Chunk, item: FileRange) -> TensorInfo:
    """The one tensor of an item."""
    with open_reader(item.path) as reader:
        head = reader.read(item.offset, min(4, reader.size - item.offset))
        if not torch_zip.sniff(head):
            return in_safetensors(reader, tensor, chunk, item)
    tensors = read_item(item).tensors
    if len(tensors) != 1:
        raise CorruptFileError(f"{item.path}: the item at byte {item.offset:,} is no tensor")
    return tensors[0]


def read_item(item: FileRange, most: int = torch_zip.MAX_PICKLE) -> Checkpoint:
    """What one item holds: a tensor, or (`Checkpoint.root`) a value; its pickle may be too large.

    Raises:
        CorruptFileError: It is no archive of torch, or does not lie where it should.
    """
    with open_reader(item.path) as reader:
        end = item.offset + item.length
        if end > reader.size:
            raise CorruptFileError(
                f"{item.path}: truncated: an item should end at byte {end:,}, "
                f"the file at {reader.size:,}"
            )
        window = Reader(item.path, reader.descriptor, item.length, item.offset)
        return torch_zip.read(window, most)


def values_of(checkpoint: Checkpoint) -> Iterator[FileRange]:
    """The item of every value of a distributed checkpoint, each once, in the order of the file."""
    found: list[FileRange] = []
    pending = [checkpoint.root]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, StoredValue):
            found.append(value.item)
    return iter(sorted(dict.fromkeys(found), key=lambda item: (item.path, item.offset)))


def in_safetensors(reader: Reader, tensor: TensorInfo, chunk: Chunk, item: FileRange) -> TensorInfo:
    """A block in the body that ends a file of `SerializationFormat.SAFETENSORS`.

    Such a file holds the values first, then one body with all tensors under their flat names; the
    recorded offset of each tensor is where that body begins.
    """
    length = int.from_bytes(reader.read(item.offset, 8, "the header length"), "little")
    if length > safetensors.MAX_HEADER:
        raise CorruptFileError(f"{reader.path}: no item that is known at byte {item.offset:,}")
    header = safetensors.parse_header(reader, reader.read(item.offset + 8, length, "the header"))
    name = chunk.storage.key.rpartition("@")[0]
    if name not in header:
        raise CorruptFileError(f"{reader.path}: {name} is not in the file that should hold it")
    dtype, shape, begin, end = safetensors.entry(reader, name, header[name])
    start = item.offset + 8 + length + begin
    if begin < 0 or start + end - begin > reader.size or dtype not in DTYPES:
        raise CorruptFileError(f"{reader.path}: {name} reaches beyond the file")
    place = FileRange(reader.path, start, end - begin)
    return TensorInfo(
        tensor.name, dtype, shape, Storage(chunk.storage.key, end - begin, data=place)
    )
