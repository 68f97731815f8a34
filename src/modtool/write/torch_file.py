"""A plan as one torch file: the pickle, and the storages in the order it names them."""

import os
from dataclasses import dataclass, field

from zlib_ng.zlib_ng import crc32

from modtool.errors import OutputError
from modtool.formats.zip_writer import ALIGNMENT, ZipLayout
from modtool.pickles.symbols import Global, PersistentId
from modtool.pickles.torch_objects import storage_id
from modtool.pickles.writer import write_pickle
from modtool.plan import Plan, PlannedTensor
from modtool.records import Storage
from modtool.write.payload import Compute, Payload, put, whole_storage
from modtool.write.rewriting import rewritten
from modtool.write.storages import Placement, Record, key_of, placements
from modtool.write.streams import Sink
from modtool.write.torch_symbols import StorageOf, tensor_symbol
from modtool.write.trees import Tree

__all__ = ["layout", "write_torch"]


def layout(plan: Plan) -> tuple[bytes, list[Payload]]:
    """`data.pkl`, and the data of the records `data/0`, `data/1`, … in this order."""
    placed = placements(plan)
    keys = Keys(plan, placed)
    if plan.form == "full_model":
        root, changes = plan.tree, rewritten(plan, placed)
    else:
        root, changes = Tree(plan, Symbols(plan, placed).tensor).root(), {}
    data = write_pickle(root, persistent_id=keys.symbol, replace=changes)
    return data, [record.payload for record in keys.records]


# -- storages ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Keys:
    """Gives every storage its key at the moment that the pickle first names it.

    `torch.load` may calculate where records lie from their order in the pickle, so the records
    have to follow it.
    """

    plan: Plan
    placed: dict[tuple[str | None, str], Placement]
    records: list[Record] = field(default_factory=list)
    keys: dict[int, str] = field(default_factory=dict)
    whole: dict[str, Record] = field(default_factory=dict)

    def symbol(self, symbol: PersistentId) -> object:
        """The persistent id of a storage as torch writes it."""
        value = symbol.value
        if isinstance(value, StorageOf):
            key = self.key(value.record)
            return stored(value.storage_class, key, value.record.location, value.numel)
        if isinstance(value, tuple) and len(value) == 4 and value[0] == "module":
            return value[1]  # legacy files wrap a class so, to carry its source text along
        found = storage_id(symbol)
        if found is None or not isinstance(value, tuple):
            raise OutputError("the file refers to something outside that is no storage")
        if found.location == "meta":
            return None
        storage_class = value[1]
        assert isinstance(storage_class, Global)
        record = self.source_record(found.key, found.dtype)
        return stored(storage_class, self.key(record), record.location, found.numel)

    def key(self, record: Record) -> str:
        """The key of a record, the next free number the first time."""
        if id(record) not in self.keys:
            self.keys[id(record)] = str(len(self.records))
            self.records.append(record)
        return self.keys[id(record)]

    def source_record(self, key: str, dtype: str) -> Record:
        """The record of a storage that goes over whole."""
        if not self.whole:
            for tensor in self.plan.tensors:
                place = self.placed.get(key_of(tensor))
                storage = tensor.source.storage
                if place and storage and is_whole(place.record, storage):
                    self.whole[storage.key] = place.record
        if key not in self.whole:
            storage = self.storage(key)
            payload = whole_storage(storage, dtype, f"storage {key}")
            self.whole[key] = Record(payload, self.moved(storage.location))
        return self.whole[key]

    def storage(self, key: str) -> Storage:
        """A storage of the source, with or without a tensor of it."""
        found = self.plan.source.storages.get(key)
        if found is None:
            storages = (tensor.storage for tensor in self.plan.source.tensors)
            found = next((item for item in storages if item and item.key == key), None)
        if found is None:
            raise OutputError(f"{self.plan.source.target}: storage {key} was not read")
        return found

    def moved(self, location: str) -> str:
        """Where the plan moves the tensors of a device."""
        moves = {tensor.source.location: tensor.location for tensor in self.plan.tensors}
        return moves.get(location, location)


def is_whole(record: Record, storage: Storage) -> bool:
    """True for the record that is a storage of the source, unchanged."""
    return record.payload.data is storage.data and record.payload.nbytes == storage.nbytes


def stored(storage_class: Global, key: str, location: str, numel: int) -> PersistentId:
    """The persistent id that `torch.load` understands."""
    return PersistentId(("storage", storage_class, key, location, numel))


# -- what the file holds -----------------------------------------------------------------------


@dataclass(slots=True)
class Symbols:
    """The symbols of tensors; one that was saved once under several names stays one."""

    plan: Plan
    placed: dict[tuple[str | None, str], Placement]
    made: dict[object, object] = field(default_factory=dict)

    def tensor(self, tensor: PlannedTensor) -> object:
        """The symbol of a tensor."""
        place = self.placed.get(key_of(tensor))
        origin = tensor.source.origin
        if origin is None or place is None:
            return tensor_symbol(tensor, place, self.plan)
        same = (id(origin), id(place.record), place.offset, tensor.dtype)
        if same not in self.made:
            self.made[same] = tensor_symbol(tensor, place, self.plan)
        return self.made[same]


# -- the file ----------------------------------------------------------------------------------


def write_torch(
    data: bytes, payloads: list[Payload], sink: Sink, compute: Compute | None, path: str
) -> None:
    """The whole archive, record by record, as `torch.save` orders them."""
    archive = ZipLayout(root_name(path))
    for label, text in (
        ("data.pkl", data),
        (".format_version", b"1"),
        (".storage_alignment", str(ALIGNMENT).encode()),
        ("byteorder", b"little"),
    ):
        small(archive, sink, label, text)
    crcs = crc32(data)
    for index, payload in enumerate(payloads):
        sink.write(archive.begin(f"data/{index}", payload.nbytes))
        crc = put(payload, sink, compute, crc=True)
        sink.write(archive.end(crc))
        crcs = crc32(crc.to_bytes(4, "little"), crcs)
    small(archive, sink, "version", b"3\n")
    names = crc32("".join(payload.name for payload in payloads).encode("utf-8", "replace"))
    small(archive, sink, ".data/serialization_id", f"{names:020d}{crcs:020d}".encode())
    sink.write(archive.finish())


def small(archive: ZipLayout, sink: Sink, label: str, data: bytes) -> None:
    """A record that is at hand."""
    sink.write(archive.begin(label, len(data)))
    sink.write(data)
    sink.write(archive.end(crc32(data)))


def root_name(path: str) -> str:
    """The folder inside the archive: the file's stem, as torch names it."""
    stem = os.path.splitext(os.path.basename(path))[0]
    return stem.encode("utf-8", "replace").decode() or "archive"
