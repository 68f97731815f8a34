"""The TorchScript archives of torch 1.0 to 1.3: a `model.json` that lists tensors and modules.

The JSON is a protobuf message; numbers of 64 bits are text in it, and what is 0 or false may be
missing. torch 2.13 does not read these files any more. Source: torch 1.13,
`torch/csrc/jit/serialization/import_legacy.cpp`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from modtool.errors import CorruptFileError
from modtool.formats.archive_storages import archive_root, stray_bytes
from modtool.formats.files import Reader
from modtool.formats.json_text import parse_json
from modtool.formats.torchscript_code import read_code
from modtool.formats.zip_directory import Directory, member_range, read_member
from modtool.pickles.reader import read_pickle
from modtool.pickles.torch_values import numbers
from modtool.records import DTYPES, Checkpoint, ModuleNode, Storage, TensorInfo

__all__ = ["read_archive"]

MAX_JSON = 64 << 20
MAX_PICKLE = 1 << 30
MAX_DEPTH = 200
# Source: `caffe2.TensorProto.DataType`.
TYPES: Mapping[str, str] = {
    "FLOAT": "float32",
    "INT32": "int32",
    "BYTE": "uint8",
    "BOOL": "bool",
    "UINT8": "uint8",
    "INT8": "int8",
    "UINT16": "uint16",
    "INT16": "int16",
    "INT64": "int64",
    "FLOAT16": "float16",
    "DOUBLE": "float64",
    "BFLOAT16": "bfloat16",
}
QUANTIZED: Mapping[str, str] = {"uint8": "quint8", "int8": "qint8", "int32": "qint32"}

Message = Mapping[str, object]


def read_archive(reader: Reader, directory: Directory) -> Checkpoint:
    """Read an archive from its `model.json`.

    Raises:
        CorruptFileError: It contradicts itself.
    """
    root = archive_root(directory)
    data = read_member(reader, directory.members[f"{root}/model.json"], MAX_JSON)
    model = message(parse_json(data, reader.path, "its model.json"))
    tensors = Table(reader, directory, root)
    table = [tensors.read(message(entry)) for entry in listed(model, "tensors")]
    walk = Modules(table)
    found = tuple(walk.walk(message(model.get("mainModule", {})), ""))
    code = read_code(reader, directory, f"{root}/code")
    member = directory.members.get(f"{root}/attributes.pkl")
    pickles = {}
    if member is not None:
        attributes = read_member(reader, member, MAX_PICKLE)
        pickles["attributes.pkl"] = read_pickle(attributes, where=f"{reader.path}: attributes.pkl")
    producer = f"{model.get('producerName', '')} {model.get('producerVersion', '')}".strip()
    return Checkpoint(
        target=reader.path,
        format="torchscript",
        kind="full_model",
        tensors=found,
        modules=tuple(walk.nodes),
        metadata={"producer": producer} if producer else {},
        notes=tuple(stray_bytes(directory)),
        storages=tensors.found,
        sources=code.sources,
        pickles=pickles,
        callables=tuple(code.callables("code")),
    )


def message(value: object) -> Message:
    """A JSON object."""
    if not isinstance(value, dict):
        raise CorruptFileError("its model.json is not as torch writes it")
    return value


def listed(value: Message, name: str) -> list[object]:
    """A list of a message; an empty one may be missing."""
    found = value.get(name, [])
    if not isinstance(found, list):
        raise CorruptFileError("its model.json is not as torch writes it")
    return found


def whole(value: object) -> int:
    """A number of 64 bits, which JSON of protobuf writes as text."""
    if isinstance(value, str) and len(value) < 20 and value.isascii() and value.isdigit():
        return int(value)
    if type(value) is int and 0 <= value < 2**63:
        return value
    raise CorruptFileError("its model.json has an impossible number")


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of the table."""

    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    storage: Storage
    requires_grad: bool
    layout: str


@dataclass(slots=True)
class Table:
    """The tensors of an archive, each proved against its record."""

    reader: Reader
    directory: Directory
    root: str
    found: dict[str, Storage] = field(default_factory=dict)

    def read(self, entry: Message) -> Entry:
        """One tensor."""
        dtype = TYPES.get(str(entry.get("dataType", "")))
        if dtype is None:
            raise CorruptFileError(f"{self.reader.path}: a tensor of an unknown type")
        quantized = entry.get("isQuantized") is True
        dtype = QUANTIZED.get(dtype, dtype) if quantized else dtype
        shape = numbers(tuple(map(whole, listed(entry, "dims"))), "shape")
        stride = numbers(tuple(map(whole, listed(entry, "strides"))), "stride")
        offset = whole(entry.get("offset", 0))
        storage = self.storage(message(entry.get("data")), str(entry.get("device", "cpu")))
        capacity = storage.nbytes * 8 // DTYPES[dtype].bits
        if len(shape) != len(stride):
            raise CorruptFileError(f"{self.reader.path}: a tensor whose stride is none")
        last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
        if 0 not in shape and last >= capacity:
            raise CorruptFileError(
                f"{self.reader.path}: a tensor of shape {list(shape)} claims more than its record "
                "holds"
            )
        layout = "quantized" if quantized else "strided"
        grad = entry.get("requiresGrad") is True
        return Entry(dtype, shape, stride, offset, storage, grad, layout)

    def storage(self, data: Message, device: str) -> Storage:
        """The record of a tensor, which several may share."""
        key = str(data.get("key", ""))
        if key not in self.found:
            member = self.directory.members.get(f"{self.root}/{key}")
            if member is None:
                raise CorruptFileError(f"{self.reader.path}: storage {key[:80]!r} has no record")
            place = member_range(self.reader, member)
            self.found[key] = Storage(key, place.length, device, place)
        return self.found[key]


@dataclass(slots=True)
class Modules:
    """One walk over the modules; torch registers children first, then what is a module's own."""

    table: list[Entry]
    nodes: list[ModuleNode] = field(default_factory=list)

    def walk(self, module: Message, path: str, depth: int = 0) -> Iterator[TensorInfo]:
        """The tensors of a module and everything below it, in state_dict order."""
        if depth > MAX_DEPTH:
            raise CorruptFileError("a module tree too deep to be one")
        self.nodes.append(ModuleNode(path, None if path else str(module.get("name", "")) or None))
        prefix = f"{path}." if path else ""
        members = [message(entry) for entry in listed(module, "parameters")]
        for buffers in (False, True):
            for member in members:
                if (member.get("isBuffer") is True) is buffers:
                    yield self.tensor(member, prefix, buffers)
        for child in listed(module, "submodules"):
            below = message(child)
            yield from self.walk(below, prefix + str(below.get("name", "")), depth + 1)

    def tensor(self, member: Message, prefix: str, is_buffer: bool) -> TensorInfo:
        """One parameter or buffer."""
        index = whole(member.get("tensorId", 0))
        if index >= len(self.table):
            raise CorruptFileError("a parameter whose tensor is not there")
        entry = self.table[index]
        return TensorInfo(
            prefix + str(member.get("name", "")),
            entry.dtype,
            entry.shape,
            entry.storage,
            entry.offset,
            entry.stride,
            role="buffer" if is_buffer else "parameter",
            requires_grad=None if is_buffer else entry.requires_grad,
            layout=entry.layout,
        )
