"""What `torch.save` wrote before torch 1.6: five pickles in a row, then the storages' bytes.

The pickles: a magic number, a protocol version, facts of the machine, the object, the keys of the
storages. Then for each key, in that order, a count of elements and the elements. Source: torch
2.13, `torch/serialization.py` (`_legacy_save`, `_legacy_load`), `torch/csrc/serialization.cpp`.

Counts and elements are little-endian whatever `little_endian` says of the machine: big-endian
machines convert both when they write and when they read.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from mmap import mmap

from modtool.errors import CorruptFileError, ModtoolError, TruncatedFileError
from modtool.formats.files import Reader, mapped
from modtool.notes import note
from modtool.pickles.contents import contents_of
from modtool.pickles.extra_state import extra_state_notes
from modtool.pickles.plain import items_of, mapping_of
from modtool.pickles.reader import Pickle, read_pickle
from modtool.pickles.sources import sources_in
from modtool.pickles.torch_objects import StorageId, Tensors, storage_id
from modtool.records import DTYPES, Checkpoint, FileRange, Note, Storage

__all__ = ["NAME", "SUFFIXES", "read", "read_truncated", "sniff"]

NAME = "torch-legacy"
SUFFIXES = (".pth", ".pt", ".bin", ".tar", ".pkl", ".model")

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
# The magic number as LONG1, with or without a frame, or as protocol 0 and 1 write it in digits.
BEGINNING = re.compile(
    rb"(?:\x80[\x02-\x05])?(?:\x95.{8})?(?:\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19|"
    + b"L%dL\n)" % MAGIC,
    re.DOTALL,
)
MAX_PICKLES = 1 << 30
PARTS = ("magic number", "protocol version", "system info", "object", "storage keys")
COUNT = 8


def sniff(head: bytes) -> bool:
    """True for the magic number, in any protocol."""
    return BEGINNING.match(head) is not None


def read(reader: Reader) -> Checkpoint:
    """Read a legacy file from its pickles and the counts between its storages.

    Raises:
        TruncatedFileError: It ends inside its storages.
        CorruptFileError: It contradicts itself.
    """
    return read_file(reader, lost=False)


def read_truncated(reader: Reader) -> Checkpoint:
    """Read what is left of a file that ends inside its storages; lost ones have no data."""
    return read_file(reader, lost=True)


def read_file(reader: Reader, *, lost: bool) -> Checkpoint:
    """Read a file, which may end too early if storages may be `lost`."""
    with mapped(reader, MAX_PICKLES) as data:
        pickles = read_pickles(reader, data)
    body = pickles["object"]
    check_beginning(reader, pickles)
    storages = LegacyStorages(reader, declared(body))
    keys = keys_of(reader, pickles)
    end = storages.locate(keys, pickles["storage keys"].end, lost=lost)
    budget = 40 * (body.end - pickles["system info"].end) + 10_000
    try:
        contents = contents_of(body.root, Tensors(storages.find), budget)
    except ModtoolError as error:
        raise type(error)(f"{reader.path}: {error.message}", error.hint) from None
    sources = sources_in(body)
    return Checkpoint(
        target=reader.path,
        format=NAME,
        kind=contents.kind,
        tensors=contents.tensors,
        modules=contents.modules,
        sections=contents.sections,
        values=contents.values,
        notes=(
            *stray_bytes(reader, end),
            *contents.notes,
            *extra_state_notes(contents.modules, sources),
        ),
        root=body.root,
        storages=storages.found,
        sources=sources,
        pickles=pickles,
    )


def stray_bytes(reader: Reader, end: int) -> Iterator[Note]:
    """A note when the file goes on after its last storage."""
    if end < reader.size:
        message = f"{reader.size - end:,} bytes after the last storage belong to nothing"
        yield note("stray-bytes", "", message)


def read_pickles(reader: Reader, data: mmap) -> dict[str, Pickle]:
    """The five pickles by name, one after the other."""
    found: dict[str, Pickle] = {}
    end = 0
    for name in PARTS:
        found[name] = read_pickle(data, end, where=f"{reader.path}: {name}")
        end = found[name].end
    return found


def check_beginning(reader: Reader, pickles: Mapping[str, Pickle]) -> None:
    """Magic number and version must be those of this format."""
    if pickles["magic number"].root != MAGIC or pickles["protocol version"].root != PROTOCOL:
        raise CorruptFileError(f"{reader.path}: its protocol version is not {PROTOCOL}")
    if mapping_of(pickles["system info"].root) is None:
        raise CorruptFileError(f"{reader.path}: its system info is no dict")


def keys_of(reader: Reader, pickles: Mapping[str, Pickle]) -> list[str]:
    """The keys of the storages in the order of their bytes."""
    keys = items_of(pickles["storage keys"].root)
    if keys is None or not all(isinstance(key, str | int) for key in keys):
        raise CorruptFileError(f"{reader.path}: its list of storages is none")
    found = [str(key) for key in keys]
    if len(set(found)) != len(found):
        raise CorruptFileError(f"{reader.path}: a storage is listed twice")
    return found


def declared(pickle: Pickle) -> dict[str, StorageId]:
    """What the object says of each storage, by key; the first mention decides, as in torch."""
    found: dict[str, StorageId] = {}
    for symbol in pickle.persistent_ids:
        identifier = storage_id(symbol)
        if identifier is not None:
            found.setdefault(identifier.key, identifier)
    return found


@dataclass(slots=True)
class LegacyStorages:
    """The storages of a legacy file; `declared` is what its object says of each."""

    reader: Reader
    declared: Mapping[str, StorageId]
    found: dict[str, Storage] = field(default_factory=dict)

    def locate(self, keys: list[str], position: int, *, lost: bool = False) -> int:
        """Find every storage, from where the first count lies; returns where the last one ends.

        Those that the file ends before may be `lost`: they get no data.
        """
        for key in keys:
            identifier = self.declared.get(key)
            if identifier is None:
                raise CorruptFileError(f"{self.reader.path}: storage {key} belongs to no object")
            start = position + COUNT
            position = start + identifier.nbytes
            if start <= self.reader.size:
                self.check_count(identifier, start - COUNT)
            place: FileRange | None = FileRange(self.reader.path, start, identifier.nbytes)
            if position > self.reader.size:
                if not lost:
                    raise TruncatedFileError(
                        f"{self.reader.path}: truncated: storage {key} should end at byte "
                        f"{position:,}, the file at {self.reader.size:,}"
                    )
                place = None if identifier.nbytes else FileRange(self.reader.path, 0, 0)
                position = self.reader.size
            self.found[key] = Storage(key, identifier.nbytes, identifier.location, place)
        return position

    def check_count(self, identifier: StorageId, position: int) -> None:
        """The count before the bytes of a storage must be what the object says."""
        what = f"the count of storage {identifier.key}"
        count = int.from_bytes(self.reader.read(position, COUNT, what), "little")
        nbytes = count * DTYPES[identifier.dtype].bits // 8
        if nbytes != identifier.nbytes:
            raise CorruptFileError(
                f"{self.reader.path}: storage {identifier.key} should have "
                f"{identifier.nbytes:,} bytes, its count says {nbytes:,}"
            )

    def find(self, identifier: StorageId) -> Storage:
        """The storage that an id names, proved to have the size that the id says."""
        storage = self.found.get(identifier.key)
        if storage is None:
            raise CorruptFileError(f"storage {identifier.key} has no data")
        if storage.nbytes != identifier.nbytes:
            raise CorruptFileError(
                f"storage {identifier.key} is said to have {storage.nbytes:,} bytes, "
                f"and {identifier.nbytes:,}"
            )
        return storage
