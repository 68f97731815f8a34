"""The nouns: what a checkpoint and a model are made of, as plain immutable values.

A file and a live model become the same `Checkpoint`. Shapes, strides and offsets count elements;
sizes called `nbytes` or `length` count bytes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Literal, NamedTuple

__all__ = [
    "DTYPES",
    "FLOAT4_PAIR",
    "ROOT",
    "CallableUse",
    "Checkpoint",
    "DType",
    "FileRange",
    "Kind",
    "ModuleNode",
    "Note",
    "Role",
    "Section",
    "Storage",
    "TensorInfo",
    "contiguous_stride",
    "section_label",
]

FLOAT4_PAIR = "float4_e2m1fn_x2"
"""Two numbers of four bits, which torch takes for one element and safetensors counts as two."""

ROOT = ""
"""The section of tensors that lie at the root of a checkpoint, beside other sections."""

Level = Literal["error", "warning", "note"]
Kind = Literal["state_dict", "checkpoint", "full_model", "model", "tensors", "values"]
Role = Literal["parameter", "buffer", "state", "tensor", "value"]
Severity = Literal["executes-code", "unknown-callable", "ordinary"]


@dataclass(frozen=True, slots=True)
class DType:
    """An element type: torch's name, its size, and what the containers call it.

    Attributes:
        name: As in `torch.<name>`.
        bits: Size of one element.
        safetensors: The name in a safetensors header, or "" where that format has none.
        storage: torch's legacy storage class, or "" where a tensor of it is saved untyped.
    """

    name: str
    bits: int
    safetensors: str = ""
    storage: str = ""


# Sources: torch 2.13 `torch/storage.py` (storage classes) and `torch.dtype.itemsize`;
# safetensors 0.8 `Dtype` (header names).
DTYPES: Mapping[str, DType] = MappingProxyType(
    {
        dtype.name: dtype
        for dtype in (
            DType("float64", 64, "F64", "DoubleStorage"),
            DType("float32", 32, "F32", "FloatStorage"),
            DType("float16", 16, "F16", "HalfStorage"),
            DType("bfloat16", 16, "BF16", "BFloat16Storage"),
            DType("float8_e4m3fn", 8, "F8_E4M3"),
            DType("float8_e4m3fnuz", 8, "F8_E4M3FNUZ"),
            DType("float8_e5m2", 8, "F8_E5M2"),
            DType("float8_e5m2fnuz", 8, "F8_E5M2FNUZ"),
            DType("float8_e8m0fnu", 8, "F8_E8M0"),
            DType(FLOAT4_PAIR, 8, "F4"),
            DType("complex128", 128, "", "ComplexDoubleStorage"),
            DType("complex64", 64, "C64", "ComplexFloatStorage"),
            DType("complex32", 32),
            DType("int64", 64, "I64", "LongStorage"),
            DType("int32", 32, "I32", "IntStorage"),
            DType("int16", 16, "I16", "ShortStorage"),
            DType("int8", 8, "I8", "CharStorage"),
            DType("uint64", 64, "U64"),
            DType("uint32", 32, "U32"),
            DType("uint16", 16, "U16"),
            DType("uint8", 8, "U8", "ByteStorage"),
            DType("bool", 8, "BOOL", "BoolStorage"),
            DType("quint8", 8, "", "QUInt8Storage"),
            DType("qint8", 8, "", "QInt8Storage"),
            DType("qint32", 32, "", "QInt32Storage"),
            DType("quint4x2", 8, "", "QUInt4x2Storage"),
            DType("quint2x4", 8, "", "QUInt2x4Storage"),
            *(DType(f"int{bits}", 8) for bits in range(1, 8)),
            *(DType(f"uint{bits}", 8) for bits in range(1, 8)),
            DType("bits8", 8),
            DType("bits16", 16),
            DType("bits1x8", 8),
            DType("bits2x4", 8),
            DType("bits4x2", 8),
        )
    }
)


RAGGED = frozenset({"nested", "jagged"})  # layouts whose components differ in shape


class FileRange(NamedTuple):  # one for every tensor: made in half the time of a dataclass
    """Bytes of a file: `length` of them from `offset`. `crc` is their CRC-32 where it is known."""

    path: str
    offset: int
    length: int
    crc: int | None = None


@dataclass(frozen=True, slots=True)
class Storage:
    """Bytes that tensors may share; two tensors share one storage when the keys are equal.

    Attributes:
        key: Unique within one checkpoint.
        nbytes: Size.
        location: The device it was saved from, as torch writes it: `cpu`, `cuda:0`.
        data: Where the bytes are; None where there are none (meta, fake tensors).
        byteorder: `little` or `big`.
    """

    key: str
    nbytes: int
    location: str = "cpu"
    data: FileRange | memoryview | None = field(default=None, compare=False)
    byteorder: str = "little"


@dataclass(frozen=True, slots=True)
class Chunk:
    """A block of a tensor that is stored in blocks.

    Attributes:
        offsets: Where the block begins in the tensor, elements along each dimension.
        sizes: Its own shape.
        storage: Its bytes; `data` is None as long as only `item` is known.
        item: The stored item that its bytes lie in, an archive of its own that was not opened yet
            (`modtool.formats.dcp_items.locate` opens it).
    """

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    storage: Storage
    item: FileRange | None = None


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a checkpoint, under one of its names.

    Attributes:
        name: Dotted name inside its section, as `state_dict()` has it.
        dtype: A key of `DTYPES`, or a container's own type (GGUF's `Q4_K`).
        shape: Elements along each dimension; of a ragged tensor, how many components it has.
        storage: The bytes that it is a view of; None where the file holds none for it.
        offset: Elements from the start of the storage.
        stride: Elements; None means contiguous.
        section: The part of a training checkpoint it belongs to; None where there is but one.
        role: `parameter`, `buffer`, `state` (of an optimizer), `tensor` (not known), or in a plan
            `value`: a NumPy array among the plain values.
        requires_grad: None where the file does not record it.
        layout: `strided`, or what else it is: `sparse_coo`, `quantized`, `meta`, `nested`, ….
        persistent: False for a buffer that `state_dict()` leaves out.
        device: Where it was saved from, when that is not its storage's location.
        stored_bytes: Size of its elements, when that does not follow from dtype and shape.
        origin: The symbol it was read from (torch files), so that an edit can find it again.
        chunks: The blocks that it is stored in (distributed checkpoints); `storage` is then None.
        parts: What it is made of where it has no storage of its own: where the local tensor of a
            DTensor lies, or the indices and values of a sparse one. Equal ones are the same.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    storage: Storage | None = None
    offset: int = 0
    stride: tuple[int, ...] | None = None
    section: str | None = None
    role: Role = "parameter"
    requires_grad: bool | None = None
    layout: str = "strided"
    persistent: bool = True
    device: str | None = None
    stored_bytes: int | None = None
    origin: object = field(default=None, compare=False, repr=False)
    chunks: tuple[Chunk, ...] = ()
    parts: tuple[object, ...] = field(default=(), compare=False, repr=False)

    @property
    def full_name(self) -> str:
        """Its name with that of its section; a lone tensor is called as its section is."""
        return ".".join(part for part in (self.section, self.name) if part)

    @property
    def numel(self) -> int:
        """How many elements the shape has; of a ragged tensor, how many are stored."""
        if self.stored_bytes is not None and self.layout in RAGGED:
            return self.stored_bytes * 8 // DTYPES[self.dtype].bits
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that its elements take, laid out without gaps."""
        if self.stored_bytes is not None:
            return self.stored_bytes
        return (self.numel * DTYPES[self.dtype].bits + 7) // 8

    @property
    def location(self) -> str:
        """The device it was saved from."""
        if self.device is not None:
            return self.device
        return self.storage.location if self.storage is not None else "meta"

    @property
    def is_contiguous(self) -> bool:
        """True when the elements lie in row-major order without gaps."""
        return self.stride is None or is_contiguous(self.shape, self.stride)


@lru_cache(maxsize=4096)  # the layers of a model have few shapes among them
def contiguous_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The row-major stride of a shape, in elements, as `torch.empty(shape).stride()` has it."""
    stride: list[int] = []
    step = 1
    for size in reversed(shape):
        stride.append(step)
        step *= max(size, 1)
    return tuple(reversed(stride))


@lru_cache(maxsize=4096)
def is_contiguous(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """True when a tensor of this shape and stride is row-major without gaps (torch's rule)."""
    expected = 1
    for size, step in zip(reversed(shape), reversed(stride), strict=True):
        if size == 0:
            return True
        if size != 1:
            if step != expected:
                return False
            expected *= size
    return True


@dataclass(frozen=True, slots=True)
class ModuleNode:
    """One module of the tree.

    Attributes:
        path: Dotted name; "" for the root.
        type: Class name (`Linear`); None where only names are known.
        settings: What the module says of itself in `print(model)` (`in_features=784, …`).
        training: Its train/eval flag; None where unknown.
        class_name: Qualified class name (`torch.nn.modules.linear.Linear`), "" where unknown.
        alias_of: The first path of the same module, when it is registered under several.
        mode_sensitive: True when it computes differently in train and in eval mode.
        hooks: (kind, what it calls) of each hook that was saved with it.
        section: The part of a training checkpoint it belongs to; None where there is but one.
        takes_extra_state: True when load_state_dict is to hand it an entry `_extra_state`.
        loads_itself: True when a user's code takes part in its load_state_dict.
    """

    path: str
    type: str | None = None
    settings: str = ""
    training: bool | None = None
    class_name: str = ""
    alias_of: str | None = None
    mode_sensitive: bool = False
    hooks: tuple[tuple[str, str], ...] = ()
    section: str | None = None
    takes_extra_state: bool = False
    loads_itself: bool = False

    @property
    def depth(self) -> int:
        """How deep below the root: 0 for the root itself."""
        return self.path.count(".") + 1 if self.path else 0


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a checkpoint; `role`: model, ema, optimizer, scheduler, scaler or other.

    `name` is `ROOT` for the root's own tensors, `{**model.state_dict(), "optimizer": …}`.
    """

    name: str
    role: str


def section_label(name: str) -> str:
    """The name of a section as a user types it after `--section`."""
    return name or '""'


@dataclass(frozen=True, slots=True)
class Note:
    """Something worth telling.

    Attributes:
        code: Stable, and documented in `modtool.notes.CODES`.
        level: How bad it is.
        where: The place: a name, a module's path, a part of the file; "" for the whole.
        message: What was found.
        remedy: What to do in this very case; "" where the code's general remedy says all there is.
    """

    code: str
    level: Level
    where: str
    message: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class CallableUse:
    """Something that loading a file for real would import, and perhaps call.

    Attributes:
        name: Qualified name; what only a call could tell is described (`a result of pkg.make`).
        calls: How many times it would be called; 0 for what is imported and no more.
        arguments: A summary of what the first call would be given.
        severity: `executes-code` runs commands or code, or reaches files or the network, when it
            is given the right arguments; `ordinary` is what torch, collections, numpy and builtin
            containers need in ordinary checkpoints; all else is an `unknown-callable`.
        where: The part of the file that asks for it: `data.pkl`.
    """

    name: str
    calls: int
    arguments: str
    severity: Severity
    where: str = ""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a file, a folder or a live model holds.

    Attributes:
        target: What the user named.
        format: `torch-zip`, `safetensors`, …; `python` for a live model.
        kind: What it is.
        tensors: Every tensor of every section, under each of its names, in file order.
        modules: The module tree of each section, root first; empty where nothing tells of any.
        sections: The parts of a training checkpoint; empty where there is but one.
        values: Plain values by dotted name (`epoch`, `optimizer.param_groups.0.lr`).
        metadata: The container's own text (`__metadata__` of safetensors).
        notes: What is odd, unsafe or missing.
        root: The file's object as symbols (torch files), for edits that keep the rest as it is.
        storages: Every storage that `root` refers to, by its key, with or without a tensor of it.
        sources: Program text that the file carries: class or file name to source.
        pickles: Every pickle that a real load would run, by its name in the file, as read.
        callables: What a real load would run beyond its pickles (TorchScript, packaged modules);
            `modtool.pickles.callables.callables_of` adds what the pickles ask for.
        lost: The tensors that an index promises and no file of the set has: name to why.
    """

    target: str
    format: str
    kind: Kind
    tensors: tuple[TensorInfo, ...] = ()
    modules: tuple[ModuleNode, ...] = ()
    sections: tuple[Section, ...] = ()
    values: Mapping[str, object] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    root: object = field(default=None, compare=False, repr=False)
    storages: Mapping[str, Storage] = field(default_factory=dict, compare=False, repr=False)
    sources: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    pickles: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)
    callables: tuple[CallableUse, ...] = ()
    lost: Mapping[str, str] = field(default_factory=dict)

    @property
    def model_tensors(self) -> tuple[TensorInfo, ...]:
        """The tensors of the model's part (all of them where there are no sections)."""
        if not self.sections:
            return self.tensors
        names = frozenset(self.model_sections)
        return tuple(tensor for tensor in self.tensors if tensor.section in names)

    @property
    def model_modules(self) -> tuple[ModuleNode, ...]:
        """The modules of the model's part (all of them where there are no sections)."""
        if not self.sections:
            return self.modules
        names = frozenset(self.model_sections)
        return tuple(node for node in self.modules if node.section in names)

    def sections_at(self, name: str) -> tuple[str, ...]:
        """The section of this name; else those that lie below it; none where there are none."""
        names = tuple(section.name for section in self.sections)
        return (name,) if name in names else tuple(n for n in names if n.startswith(f"{name}."))

    @property
    def model_sections(self) -> tuple[str, ...]:
        """The names of the sections that are the model; several for a GAN, say."""
        return tuple(section.name for section in self.sections if section.role == "model")
