"""The storages of a torch archive: a record each, in a folder that depends on the kind of archive.

Layout: torch 2.13, `torch/serialization.py` and `torch/csrc/jit/serialization/export_module.cpp`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from modtool.errors import CorruptFileError, DamagedFileError
from modtool.formats.files import Nearby, Reader
from modtool.formats.zip_directory import Directory, member_range, read_member
from modtool.notes import note
from modtool.pickles.reader import Pickle
from modtool.pickles.torch_objects import StorageId, storage_id
from modtool.records import FileRange, Note, Storage

__all__ = ["ArchiveStorages", "archive_root", "byteorder", "stray_bytes", "text_of"]

MAX_TEXT = 64 << 10


def archive_root(directory: Directory) -> str:
    """The one folder that holds everything; "" in an empty archive."""
    return next(iter(directory.members), "").partition("/")[0]


def text_of(reader: Reader, directory: Directory, name: str) -> str | None:
    """A short text record; None where there is none."""
    member = directory.members.get(name)
    if member is None:
        return None
    return read_member(reader, member, MAX_TEXT).decode("utf-8", "replace")


def byteorder(reader: Reader, directory: Directory) -> str:
    """`little` or `big`; files without the record are little-endian."""
    order = text_of(reader, directory, f"{archive_root(directory)}/byteorder")
    if order not in (None, "little", "big"):
        raise CorruptFileError(f"{reader.path}: unknown byte order {order[:20]!r}")
    return order or "little"


def stray_bytes(directory: Directory) -> list[Note]:
    """What torch tolerates and a user may want to know."""
    if not directory.prefix and not directory.trailing:
        return []
    message = (
        f"{directory.prefix:,} bytes before and {directory.trailing:,} after the archive "
        "belong to nothing"
    )
    return [note("stray-bytes", "", message)]


@dataclass(slots=True)
class ArchiveStorages:
    """The storages that one pickle of an archive refers to, each found and checked once.

    Attributes:
        reader: The file.
        directory: Its directory.
        folder: Where the records lie: `archive/data`.
        byteorder: Of the archive.
        suffix: What follows the key in a record's name.
        prefix: What makes the keys of this pickle unique among those of others.
        found: Every storage found so far, by its unique key; may be shared with other pickles.
        lost: Whether a record may be missing or damaged; the storage then has no data.
    """

    reader: Reader
    directory: Directory
    folder: str
    byteorder: str
    suffix: str = ""
    prefix: str = ""
    found: dict[str, Storage] = field(default_factory=dict)
    lost: bool = False
    headers: Nearby = field(init=False)

    def __post_init__(self) -> None:
        self.headers = Nearby(self.reader)

    def find(self, identifier: StorageId) -> Storage:
        """The storage that an id names, proved to have the size that the id says."""
        key = f"{self.prefix}{identifier.key}{self.suffix}"
        storage = self.found.get(key)
        if storage is None:
            storage = self.found[key] = self.locate(key, identifier)
        if storage.nbytes != identifier.nbytes:
            raise CorruptFileError(
                f"{self.reader.path}: storage {identifier.key} should have {identifier.nbytes:,} "
                f"bytes, its record has {storage.nbytes:,}"
            )
        return storage

    def find_all(self, pickle: Pickle) -> Mapping[str, Storage]:
        """Find also those that no tensor is a view of, so that a rewrite loses nothing."""
        if len(self.found) < len(pickle.persistent_ids):
            for symbol in pickle.persistent_ids:
                identifier = storage_id(symbol)
                if identifier is not None:
                    self.find(identifier)
        return self.found

    def locate(self, key: str, identifier: StorageId) -> Storage:
        """The record that holds a storage."""
        if identifier.location == "meta":
            return Storage(key, identifier.nbytes, "meta")
        name = f"{self.folder}/{identifier.key}{self.suffix}"
        try:
            place = self.record(name)
        except DamagedFileError:
            if not self.lost:
                raise
            empty = None if identifier.nbytes else FileRange(self.reader.path, 0, 0)
            return Storage(key, identifier.nbytes, identifier.location, empty, self.byteorder)
        return Storage(key, place.length, identifier.location, place, self.byteorder)

    def record(self, name: str) -> FileRange:
        """Where a record lies."""
        member = self.directory.members.get(name)
        if member is None:
            key = name.removeprefix(f"{self.folder}/").removesuffix(self.suffix)
            raise DamagedFileError(f"{self.reader.path}: storage {key} has no record")
        return member_range(self.headers, member)
