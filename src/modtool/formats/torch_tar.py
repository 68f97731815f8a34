"""What torch 0.1 saved: a tar of `sys_info`, `pickle`, `tensors` and `storages`.

`storages` holds a count, then for each storage a pickle (key, location, class), a count of elements
and the elements; at its end a pickle of the storages that are views of others. `tensors` holds a
count, then for each a pickle (key, key of its storage, class), and numbers: dimensions, sizes,
strides, offset. `pickle` is the object, which names both by key. Source: torch 2.13, `legacy_load`
in `torch/serialization.py`.
"""

import struct
from dataclasses import dataclass, field
from mmap import mmap

from modtool.errors import CorruptFileError, ModtoolError, UnknownFormatError
from modtool.formats.files import Reader, mapped
from modtool.formats.tar_directory import is_tar, read_tar_directory
from modtool.formats.torch_legacy import LegacyStorages
from modtool.pickles.contents import contents_of
from modtool.pickles.extra_state import extra_state_notes
from modtool.pickles.reader import Pickle, read_pickle
from modtool.pickles.sources import sources_in
from modtool.pickles.symbols import Call, Global, PersistentId
from modtool.pickles.torch_objects import StorageId, Tensors, storage_id
from modtool.records import Checkpoint, FileRange

__all__ = ["NAME", "SUFFIXES", "read", "sniff"]

NAME = "torch-tar"
SUFFIXES = (".pth", ".pt", ".tar")

MEMBERS = ("storages", "tensors", "pickle")
MAX_DIMENSIONS = 64
REBUILD = Global("torch._utils", "_rebuild_tensor")


def sniff(head: bytes) -> bool:
    """True for a tar archive of any kind."""
    return is_tar(head)


def read(reader: Reader) -> Checkpoint:
    """Read a tar of torch 0.1 from its pickles and the numbers between them.

    Raises:
        UnknownFormatError: A tar of another kind.
        CorruptFileError: It contradicts itself.
    """
    members = read_tar_directory(reader)
    if not all(name in members for name in MEMBERS):
        raise UnknownFormatError(
            f"{reader.path}: a tar archive, but not one that torch saved",
            "unpack it first: tar xf FILE",
        )
    with mapped(reader, reader.size) as data:
        tar = Tar(reader, data)
        tar.read_storages(Cursor(reader, data, members["storages"]))
        tar.read_tensors(Cursor(reader, data, members["tensors"]))
        body = Cursor(reader, data, members["pickle"]).pickle("pickle", tar)
    tar.pickles["pickle"] = body
    try:
        budget = 40 * members["pickle"].length + 10_000
        contents = contents_of(body.root, Tensors(tar.storages.find), budget)
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
        notes=(*contents.notes, *extra_state_notes(contents.modules, sources)),
        root=body.root,
        storages=tar.storages.found,
        sources=sources,
        pickles=tar.pickles,
    )


@dataclass(slots=True)
class Cursor:
    """A place inside a member, which is read from its beginning to its end."""

    reader: Reader
    data: mmap
    member: FileRange
    position: int = field(init=False)

    def __post_init__(self) -> None:
        self.position = self.member.offset

    def pickle(self, name: str, tar: "Tar | None" = None) -> Pickle:
        """The pickle that begins here."""
        where = f"{self.reader.path}: {name}"
        resolve = tar.resolve if tar is not None else None
        found = read_pickle(self.data, self.position, where=where, resolve=resolve)
        self.skip(found.end - self.position)
        return found

    def numbers(self, layout: str) -> tuple[int, ...]:
        """The numbers that lie here."""
        codec = struct.Struct(layout)
        start = self.position
        self.skip(codec.size)
        return codec.unpack(self.reader.read(start, codec.size, "a number"))

    def skip(self, count: int) -> None:
        """Go on, inside the member."""
        self.position += count
        if self.position > self.member.offset + self.member.length:
            raise CorruptFileError(f"{self.reader.path}: truncated: a member ends too early")


class Tar:
    """What the members said so far: each key's storage or tensor, as a symbol."""

    def __init__(self, reader: Reader, data: mmap) -> None:
        self.reader = reader
        self.data = data
        self.symbols: dict[str, object] = {}
        self.storages = LegacyStorages(reader, {})
        self.pickles: dict[str, Pickle] = {}
        self.modules: dict[int, PersistentId] = {}

    def take(self, cursor: Cursor, name: str) -> object:
        """The object of the next pickle, which is kept for the report of what would be called."""
        pickle = cursor.pickle(name)
        if pickle.globals or pickle.calls:
            self.pickles[f"{name} at {cursor.position:,}"] = pickle
        return pickle.root

    def count(self, cursor: Cursor, name: str) -> int:
        """How many records follow."""
        found = self.take(cursor, name)
        if type(found) is not int or not 0 <= found <= cursor.member.length:
            raise CorruptFileError(f"{self.reader.path}: an impossible number of {name}")
        return found

    def read_storages(self, cursor: Cursor) -> None:
        """Every storage, and the views of them."""
        for _ in range(self.count(cursor, "storages")):
            match self.take(cursor, "storages"):
                case (str() | int() as key, str(location), Global() as cls):
                    self.read_storage(cursor, str(key), location, cls)
                case _:
                    raise CorruptFileError(f"{self.reader.path}: a storage that is none")
        views = self.take(cursor, "storages")
        for view in views if isinstance(views, list) else ():
            match view:
                case (key, root, int(offset), int(size)) if str(root) in self.symbols:
                    self.add_view(str(key), self.symbols[str(root)], offset, size)
                case _:
                    raise CorruptFileError(f"{self.reader.path}: a storage view that is none")

    def read_storage(self, cursor: Cursor, key: str, location: str, cls: Global) -> None:
        """One storage: its elements are passed over."""
        (numel,) = struct.unpack("<Q", self.reader.read(cursor.position, 8, "a count"))
        symbol = PersistentId(("storage", cls, key, location, numel))
        identifier = identifier_of(symbol)
        cursor.skip(0)
        single = LegacyStorages(self.reader, {key: identifier}, self.storages.found)
        cursor.skip(single.locate([key], cursor.position) - cursor.position)
        self.symbols[key] = symbol

    def add_view(self, key: str, root: object, offset: int, size: int) -> None:
        """A storage that is a part of another one."""
        if not isinstance(root, PersistentId) or not isinstance(root.value, tuple):
            raise CorruptFileError(f"{self.reader.path}: a storage view of no storage")
        self.symbols[key] = PersistentId((*root.value[:5], (key, offset, size)))

    def read_tensors(self, cursor: Cursor) -> None:
        """Every tensor, as the call that would rebuild it."""
        for _ in range(self.count(cursor, "tensors")):
            match self.take(cursor, "tensors"):
                case (key, storage, _) if str(storage) in self.symbols:
                    arguments = self.geometry(cursor)
                    call = Call(REBUILD, (self.symbols[str(storage)], *arguments))
                    self.symbols[str(key)] = call
                case _:
                    raise CorruptFileError(f"{self.reader.path}: a tensor without a storage")

    def geometry(self, cursor: Cursor) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
        """Offset, shape and stride, as they follow a tensor's pickle."""
        dimensions, _ = cursor.numbers("<2i")
        if not 0 <= dimensions <= MAX_DIMENSIONS:
            raise CorruptFileError(f"{self.reader.path}: a tensor of {dimensions} dimensions")
        shape = cursor.numbers(f"<{dimensions}q")
        stride = cursor.numbers(f"<{dimensions}q")
        (offset,) = cursor.numbers("<q")
        return offset, shape, stride

    def resolve(self, value: object) -> object:
        """What a persistent id of the object stands for: a tensor, a storage, a class."""
        match value:
            case (Global() as cls, file, source):
                return PersistentId(("module", cls, file, source))
            case str() | int() if str(value) in self.symbols:
                return self.symbols[str(value)]
        raise CorruptFileError("a reference to a tensor that is not there")


def identifier_of(symbol: PersistentId) -> StorageId:
    """What a storage's symbol says; it is one."""
    found = storage_id(symbol)
    if found is None:
        raise CorruptFileError("a storage that is none")
    return found
