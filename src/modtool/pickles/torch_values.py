"""What torch's persistent ids and small values say: storages, shapes, dtypes, devices."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from modtool.errors import CorruptFileError
from modtool.pickles.plain import device
from modtool.pickles.symbols import Call, Global, PersistentId
from modtool.records import DTYPES, Storage

__all__ = [
    "BITS",
    "Sound",
    "StorageId",
    "TensorFacts",
    "device_named",
    "dtype_named",
    "number",
    "numbers",
    "storage_id",
    "storage_ids_in",
    "unwrap_storage",
]

STORAGE_CLASSES: Mapping[str, str] = MappingProxyType(
    {dtype.storage: dtype.name for dtype in DTYPES.values() if dtype.storage}
)
UNTYPED = "uint8"
UNTYPED_STORAGES = frozenset({"torch.UntypedStorage", "torch.storage.UntypedStorage"})
MAX_DIMENSIONS = 64
MAX_NUMBER = 2**63
MAX_TEXT = 200
MAX_KNOWN = 4096
INTEGERS = frozenset({int})
BITS: Mapping[str, int] = {dtype.name: dtype.bits for dtype in DTYPES.values()}


class StorageId(NamedTuple):
    """What a persistent id says of a storage.

    Attributes:
        key: Which storage of the file.
        dtype: Of its elements; `uint8` for an untyped storage.
        location: The device it was saved from.
        numel: Elements of `dtype`.
        view: In legacy files: the key of this part, and where it begins (elements); else None.
    """

    key: str
    dtype: str
    location: str
    numel: int
    view: tuple[str, int, int] | None = None

    @property
    def nbytes(self) -> int:
        """Size of the storage."""
        return self.numel * BITS[self.dtype] // 8


def storage_id(symbol: object) -> StorageId | None:
    """What a persistent id says of a storage; None when it is about something else."""
    value = symbol.value if type(symbol) is PersistentId else None
    if isinstance(value, str):
        return written_out(value)
    if type(value) is not tuple or len(value) not in (5, 6):
        return None
    if bytes in map(type, value):
        value = tuple(map(ascii_text, value))
    kind, cls, key, location, numel = value[:5]
    if kind != "storage":
        return None
    dtype = storage_dtype(cls)
    # torch.package numbers its storages; torch.save writes text.
    if not dtype or type(key) not in (str, int) or type(location) is not str:
        name = cls.qualified if isinstance(cls, Global) else type(cls).__name__
        raise CorruptFileError(f"a storage of an unknown kind: {name}")
    key = str(key)
    if len(key) > MAX_TEXT or len(location) > MAX_TEXT:
        raise CorruptFileError("a storage whose key or device is no name")
    if type(numel) is not int or not 0 <= numel < MAX_NUMBER:
        raise CorruptFileError(f"storage {key}: an impossible number of elements")
    view = legacy_view(value[5]) if len(value) == 6 else None
    return StorageId(key, dtype, location, numel, view)


def storage_ids_in(symbols: Iterable[object], most: int | None = None) -> Iterator[StorageId]:
    """What every persistent id of a storage says that symbols lead to; each symbol is met once.

    Args:
        symbols: Where to begin.
        most: How many values to look at; None means all.
    """
    seen: set[int] = set()
    pending = list(symbols)
    while pending and (most is None or len(seen) < most):
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, PersistentId):
            identifier = storage_id(value)
            if identifier is not None:
                yield identifier
        elif isinstance(value, Call):
            pending += (*value.arguments, value.state, value.items, value.appended)
        elif isinstance(value, Mapping):
            pending += value.values()
        elif isinstance(value, list | tuple):
            pending += value


def written_out(text: str) -> StorageId | None:
    """A persistent id of protocol 0, which writes `str()` of it (and torch cannot load it)."""
    found = PROTOCOL_0.fullmatch(text)
    dtype = storage_dtype(Global("torch", found[1])) if found else ""
    return StorageId(found[2], dtype, found[3], int(found[4])) if found and dtype else None


PROTOCOL_0 = re.compile(
    r"\('storage', <class 'torch\.(?:storage\.)?(\w+)'>, '(\w+)', '([\w:]+)', "
    r"([0-9]{1,18})(?:, None)?\)"
)


def ascii_text(value: object) -> object:
    """Text that Python 2 wrote as bytes, as `torch.load` takes it; anything else as it is."""
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value


def storage_dtype(cls: object) -> str:
    """The dtype of a storage class, `uint8` of the untyped one, "" of all else.

    `torch.load` goes by the name of a typed class alone, whatever its module.
    """
    if not isinstance(cls, Global):
        return ""
    return STORAGE_CLASSES.get(cls.name) or (UNTYPED if cls.qualified in UNTYPED_STORAGES else "")


def legacy_view(value: object) -> tuple[str, int, int] | None:
    """The sixth item of a legacy persistent id: (key, offset, size), or None."""
    match value:
        case None:
            return None
        case (key, int(offset), int(size)) if offset >= 0 and size >= 0:
            return str(key), offset, size
    raise CorruptFileError("a storage view that is none")


class TensorFacts(NamedTuple):
    """What a rebuild call says of a tensor; the fields mean what they do in `TensorInfo`."""

    dtype: str
    shape: tuple[int, ...]
    storage: Storage | None = None
    offset: int = 0
    stride: tuple[int, ...] | None = None
    requires_grad: bool | None = None
    layout: str = "strided"
    device: str | None = None
    stored_bytes: int | None = None
    parts: tuple[object, ...] = ()


def unwrap_storage(value: object) -> object:
    """The persistent id inside `TypedStorage(wrap_storage=…)`, or the value itself."""
    if isinstance(value, Call) and value.callee == "torch.storage.TypedStorage":
        state = value.state
        return state.get("_untyped_storage") if isinstance(state, dict) else None
    return value


def number(value: object, what: str) -> int:
    """A non-negative integer."""
    if type(value) is not int or not 0 <= value < MAX_NUMBER:
        raise CorruptFileError(f"a tensor with an impossible {what}")
    return value


def numbers(value: object, what: str) -> tuple[int, ...]:
    """A tuple of non-negative integers; `torch.Size(…)` is one too."""
    if type(value) is Call and value.callee == "torch.Size" and len(value.arguments) == 1:
        value = value.arguments[0]
    if (
        type(value) is not tuple
        or len(value) > MAX_DIMENSIONS
        or not INTEGERS.issuperset(map(type, value))
        or (value and (min(value) < 0 or max(value) >= MAX_NUMBER))
    ):
        raise CorruptFileError(f"a tensor with an impossible {what}")
    if what == "shape" and math.prod(value) >= MAX_NUMBER:
        raise CorruptFileError("a tensor of more elements than can be counted")
    return value


class Sound:
    """Remembers what `numbers` found sound: the layers of a model share their tuples."""

    __slots__ = ("known", "what")

    def __init__(self, what: str) -> None:
        self.what = what
        self.known: dict[int, tuple[int, ...]] = {}

    def numbers(self, value: object) -> tuple[int, ...]:
        """As `numbers`."""
        found = self.known.get(id(value))
        if found is value and found is not None:  # the very same, which was kept alive
            return found
        found = numbers(value, self.what)
        if len(self.known) < MAX_KNOWN:
            self.known[id(value)] = found
        return found


def dtype_named(value: object) -> str:
    """The dtype that `torch.float32` names."""
    name = value.name if isinstance(value, Global) and value.module == "torch" else ""
    if name not in DTYPES:
        raise CorruptFileError(f"a tensor of an unknown dtype: {name or type(value).__name__}")
    return name


def device_named(value: object) -> str:
    """`cuda:0` from `torch.device('cuda', 0)` or from the text itself."""
    named = device(value) if isinstance(value, Call) and value.callee == "torch.device" else value
    return named if isinstance(named, str) and len(named) <= MAX_TEXT else "unknown"
