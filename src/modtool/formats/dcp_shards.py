"""Distributed checkpoints that are safetensors files alone, a file or more from each rank.

`HuggingFaceStorageWriter(save_distributed=True)` writes no index: each file's metadata says where
in the whole tensor each of its blocks begins.
Format: torch 2.13, `torch/distributed/checkpoint/{hf_storage,_hf_utils}.py`.
"""

import math
import os
import re
from collections.abc import Sequence

from modtool.errors import CorruptFileError
from modtool.formats import safetensors
from modtool.formats.dcp import NAME
from modtool.formats.files import open_reader
from modtool.formats.json_text import parse_json
from modtool.formats.members import errors_name, link_notes
from modtool.notes import first_names, note
from modtool.pickles.roles import buffer_names
from modtool.pickles.torch_values import numbers
from modtool.records import DTYPES, Checkpoint, Chunk, Note, Role, Storage, TensorInfo

__all__ = ["FILE_NAME", "read"]

FILE_NAME = re.compile(r"shard-(\d+)-model-(\d+)-of-(\d+)\.safetensors\Z")
OFFSETS = "DCP_SHARDING_INFO"

Blocks = dict[str, list[tuple[str, Chunk]]]


def read(folder: str, files: Sequence[str]) -> Checkpoint:
    """Read the headers of the ranks' files, and put the blocks of each tensor together.

    Raises:
        CorruptFileError: They contradict each other.
    """
    blocks: Blocks = {}
    notes: list[Note] = []
    for file in files:
        path = os.path.join(folder, file)
        notes.extend(link_notes(folder, path))
        with errors_name(path):
            take(blocks, path, file)
    buffers = buffer_names(blocks)
    with errors_name(folder):
        tensors = tuple(whole(name, found, name in buffers) for name, found in blocks.items())
    partial = [tensor.name for tensor in tensors if is_partial(tensor)]
    if partial:
        message = f"some of their elements are not stored: {first_names(partial)}"
        notes.append(note("missing-tensor", partial[0], message))
    return Checkpoint(folder, NAME, "state_dict", tensors, notes=tuple(notes))


def take(blocks: Blocks, path: str, file: str) -> None:
    """Take in the blocks of one file."""
    with open_reader(path) as reader:
        found = safetensors.read(reader)
    offsets = parse_json(found.metadata.get(OFFSETS, "{}").encode(), path, OFFSETS)
    for tensor in found.tensors:
        begin = offsets.get(tensor.name) if isinstance(offsets, dict) else None
        match begin:
            case {"saved_offsets": list(recorded)}:
                start = numbers(tuple(recorded), "offset")
            case _:
                start = (0,) * len(tensor.shape)
        if len(start) != len(tensor.shape) or tensor.storage is None:
            raise CorruptFileError(f"{path}: {tensor.name} does not fit its offsets")
        storage = Storage(f"{file}:{tensor.name}", tensor.nbytes, data=tensor.storage.data)
        chunk = Chunk(start, tensor.shape, storage)
        blocks.setdefault(tensor.name, []).append((tensor.dtype, chunk))


def whole(name: str, found: Sequence[tuple[str, Chunk]], is_buffer: bool) -> TensorInfo:
    """The tensor that some blocks make up: it ends where the outermost of them ends."""
    dtypes = {dtype for dtype, _ in found}
    chunks = tuple(chunk for _, chunk in found)
    if len(dtypes) != 1 or len({len(chunk.sizes) for chunk in chunks}) != 1:
        raise CorruptFileError(f"{name}: its blocks differ in dtype or in dimensions")
    shape = tuple(
        max(chunk.offsets[axis] + chunk.sizes[axis] for chunk in chunks)
        for axis in range(len(chunks[0].sizes))
    )
    role: Role = "buffer" if is_buffer else "parameter"
    dtype = dtypes.pop()
    return TensorInfo(
        name,
        dtype,
        numbers(shape, "shape"),
        role=role,
        device="cpu",
        stored_bytes=None if dtype in DTYPES else sum(chunk.storage.nbytes for chunk in chunks),
        chunks=chunks,
    )


def is_partial(tensor: TensorInfo) -> bool:
    """True when the blocks do not add up to the whole."""
    return sum(math.prod(chunk.sizes) for chunk in tensor.chunks) < tensor.numel
