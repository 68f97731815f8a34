"""The zip that `torch.save` has written since torch 1.6: `data.pkl`, and a record per storage.

Layout: formats as torch 2.13 writes them (`torch/serialization.py`, `caffe2/serialize`).
"""

from dataclasses import dataclass, field

from modtool.errors import CorruptFileError, UnknownFormatError
from modtool.formats.files import Reader
from modtool.formats.zip_directory import Directory, member_range, read_directory, read_member
from modtool.notes import note
from modtool.pickles.contents import contents_of
from modtool.pickles.reader import Pickle, read_pickle
from modtool.pickles.torch_objects import StorageId, Tensors, storage_id
from modtool.records import Checkpoint, Note, Storage

__all__ = ["NAME", "SUFFIXES", "read", "sniff"]

NAME = "torch-zip"
SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".tar", ".pkl", ".model")

MAX_PICKLE = 2 << 30


def sniff(head: bytes) -> bool:
    """True for a zip archive of any kind."""
    return head.startswith(b"PK\x03\x04")


def read(reader: Reader) -> Checkpoint:
    """Read a file that `torch.save` wrote, from its directory and `data.pkl` alone.

    Raises:
        UnknownFormatError: A zip archive of another kind.
        CorruptFileError: It contradicts itself.
    """
    directory = read_directory(reader)
    root = root_folder(reader, directory)
    data = read_member(reader, directory.members[f"{root}/data.pkl"], MAX_PICKLE)
    pickle = read_pickle(data, where=f"{reader.path}: data.pkl")
    storages = Storages(reader, directory, root, byteorder(reader, directory, root))
    contents = contents_of(pickle.root, Tensors(storages.find), 40 * len(data) + 10_000)
    storages.find_all(pickle)
    return Checkpoint(
        target=reader.path,
        format=NAME,
        kind=contents.kind,
        tensors=contents.tensors,
        modules=contents.modules,
        sections=contents.sections,
        values=contents.values,
        notes=tuple(oddities(directory, pickle)),
        root=pickle.root,
        storages=storages.found,
    )


def root_folder(reader: Reader, directory: Directory) -> str:
    """The one folder that holds everything; it must hold `data.pkl`."""
    first = next(iter(directory.members), "")
    root = first.partition("/")[0]
    if f"{root}/data.pkl" not in directory.members:
        raise UnknownFormatError(
            f"{reader.path}: a zip archive, but not one that torch.save wrote (no data.pkl)",
            "unpack it and look for the checkpoint inside",
        )
    return root


def byteorder(reader: Reader, directory: Directory, root: str) -> str:
    """`little` or `big`; files without the record are little-endian."""
    member = directory.members.get(f"{root}/byteorder")
    order = read_member(reader, member, 64).decode("latin-1") if member else "little"
    if order not in ("little", "big"):
        raise CorruptFileError(f"{reader.path}: unknown byte order {order[:20]!r}")
    return order


@dataclass(slots=True)
class Storages:
    """The storages of an archive, each found and checked once."""

    reader: Reader
    directory: Directory
    root: str
    byteorder: str
    found: dict[str, Storage] = field(default_factory=dict)

    def find(self, identifier: StorageId) -> Storage:
        """The storage that an id names, proved to have the size that the id says."""
        storage = self.found.get(identifier.key)
        if storage is None:
            storage = self.found[identifier.key] = self.locate(identifier)
        if storage.nbytes != identifier.nbytes:
            raise CorruptFileError(
                f"{self.reader.path}: storage {identifier.key} should have {identifier.nbytes:,} "
                f"bytes, its record has {storage.nbytes:,}"
            )
        return storage

    def find_all(self, pickle: Pickle) -> None:
        """Find also those that no tensor is a view of, so that a rewrite loses nothing."""
        if len(self.found) < len(pickle.persistent_ids):
            for symbol in pickle.persistent_ids:
                identifier = storage_id(symbol)
                if identifier is not None:
                    self.find(identifier)

    def locate(self, identifier: StorageId) -> Storage:
        """The record that holds a storage."""
        if identifier.location == "meta":
            return Storage(identifier.key, identifier.nbytes, "meta")
        member = self.directory.members.get(f"{self.root}/data/{identifier.key}")
        if member is None:
            raise CorruptFileError(f"{self.reader.path}: storage {identifier.key} has no record")
        return Storage(
            identifier.key,
            member.size,
            identifier.location,
            member_range(self.reader, member),
            self.byteorder,
        )


def oddities(directory: Directory, pickle: Pickle) -> list[Note]:
    """What torch tolerates and a user may want to know."""
    found = []
    if directory.prefix or directory.trailing:
        message = (
            f"{directory.prefix:,} bytes before and {directory.trailing:,} after the archive "
            "belong to nothing"
        )
        found.append(note("stray-bytes", "", message))
    return found
