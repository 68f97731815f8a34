"""Symbols as the plain values that they stand for, for people, JSON and `weights_only` files.

A `Namespace` is its attributes, a path its text, a numpy scalar its number. What has no plain
equivalent is an `Unknown`, which names its class.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType

from modtool.pickles.symbols import ABSENT, Call, Global, PersistentId

__all__ = ["Unknown", "attributes_of", "display", "items_of", "mapping_of", "plain"]

MAX_DEPTH = 40
MAX_TEXT = 10_000
MAX_ITEMS = 100_000


@dataclass(frozen=True, slots=True)
class Unknown:
    """An object that has no plain equivalent."""

    class_name: str

    def __str__(self) -> str:
        return f"<{self.class_name}>"


# -- containers --------------------------------------------------------------------------------


def mapping_of(value: object) -> Mapping[object, object] | None:
    """The keys and values of a dict, or of a call that makes one (OrderedDict, a subclass)."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, Call):
        return None
    pairs = pairs_of(value.arguments[0]) if value.callee in PAIRED and value.arguments else None
    if pairs is None and value.items is None and value.callee not in MAPPINGS:
        return None
    return {**(pairs or {}), **(value.items or {})}


MAPPINGS = frozenset(
    {"collections.OrderedDict", "collections.defaultdict", "collections.Counter", "builtins.dict"}
)
PAIRED = frozenset({"collections.OrderedDict", "collections.Counter", "builtins.dict"})


def pairs_of(value: object) -> Mapping[object, object] | None:
    """The first argument of `OrderedDict(…)`: a dict, or a list of pairs (protocols 0 and 1)."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, list | tuple):
        return None
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in value):
        return None
    keys = [pair[0] for pair in value]
    if not all(isinstance(key, str | int | float | bytes | None) for key in keys):
        return None
    return dict(zip(keys, (pair[1] for pair in value), strict=True))


def items_of(value: object) -> list[object] | None:
    """The items of a list, tuple or set, or of a call that makes one."""
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    if not isinstance(value, Call):
        return None
    if value.appended is not None:
        return value.appended
    if value.callee in SEQUENCES and len(value.arguments) == 1:
        inner = value.arguments[0]
        return list(inner) if isinstance(inner, list | tuple | set | frozenset) else None
    return None


SEQUENCES = frozenset(
    f"{module}.{name}"
    for module in ("builtins", "__builtin__")
    for name in ("set", "frozenset", "list", "tuple")
) | {"torch.Size", "collections.deque"}


def attributes_of(value: object) -> Mapping[str, object] | None:
    """The attributes that a call's state would give its object; None where it has none."""
    if not isinstance(value, Call):
        return None
    state = value.state
    if isinstance(state, tuple) and len(state) == 2:  # (__dict__, __slots__)
        parts = [part for part in state if isinstance(part, dict)]
        state = {key: item for part in parts for key, item in part.items()} if parts else ABSENT
    if not isinstance(state, dict):
        return None
    return state if all(isinstance(key, str) for key in state) else None


# -- values ------------------------------------------------------------------------------------


def plain(value: object) -> object:
    """The exact plain equivalent of one symbol, or an `Unknown`. Containers are not entered."""
    if isinstance(value, Global):
        return value.qualified
    if isinstance(value, PersistentId):
        return Unknown("persistent id")
    if not isinstance(value, Call):
        return value
    convert = EQUIVALENTS.get(value.callee)
    try:
        found = convert(value) if convert else None
    except (LookupError, TypeError, ValueError, AttributeError, struct.error):
        found = None
    return Unknown(value.callee or "the result of a call") if found is None else found


def joined(separator: str, prefix: str = "") -> Callable[[Call], object]:
    """An object whose text is its arguments, joined."""
    return lambda call: prefix + separator.join(str(text(part)) for part in call.arguments)


def text(value: object) -> str | int:
    """A text or a number, as a part of something that is written out."""
    if isinstance(value, str | int):
        return value
    raise TypeError


def latin1(call: Call) -> object:
    """`_codecs.encode(text, 'latin1')`: how protocol 2 writes bytes."""
    source, encoding = call.arguments
    return str(text(source)).encode("latin-1") if encoding in ("latin1", "latin-1") else None


def moment(call: Call) -> object:
    """A `datetime` or `date` from its packed bytes (`datetime.__reduce__`)."""
    packed = bytes_of(call.arguments[0])
    year = packed[0] * 256 + packed[1]
    day = f"{year:04d}-{packed[2] & 0x7F:02d}-{packed[3]:02d}"
    if len(packed) == 4:
        return day
    clock = f"{packed[4]:02d}:{packed[5]:02d}:{packed[6]:02d}"
    micro = int.from_bytes(packed[7:10], "big")
    return f"{day}T{clock}" + (f".{micro:06d}" if micro else "")


def bytes_of(value: object) -> bytes:
    """Bytes, however the protocol wrote them."""
    found = latin1(value) if isinstance(value, Call) else value
    if isinstance(found, str):
        found = found.encode("latin-1")
    if not isinstance(found, bytes):
        raise TypeError
    return found


def numpy_dtype(value: object) -> tuple[str, str]:
    """(`f8`, byte order) of a pickled `numpy.dtype`."""
    if isinstance(value, Call) and value.callee == "numpy.dtype":
        kind = value.arguments[0]
        order = value.state[1] if isinstance(value.state, tuple) else "<"
        if isinstance(kind, str):
            return kind, ">" if order == ">" else "<"
    raise TypeError


NUMPY_CODES: Mapping[str, str] = MappingProxyType(
    {"f2": "e", "f4": "f", "f8": "d", "b1": "?"}
    | {f"i{size}": code for size, code in ((1, "b"), (2, "h"), (4, "i"), (8, "q"))}
    | {f"u{size}": code for size, code in ((1, "B"), (2, "H"), (4, "I"), (8, "Q"))}
)


def numpy_scalar(call: Call) -> object:
    """The number in `numpy.core.multiarray.scalar(dtype, bytes)`."""
    kind, order = numpy_dtype(call.arguments[0])
    return struct.unpack(order + NUMPY_CODES[kind], bytes_of(call.arguments[1]))[0]


def namespace(call: Call) -> object:
    """The attributes of an object that is nothing but its attributes."""
    found = attributes_of(call)
    return None if found is None else dict(found)


def number_of(kind: Callable[..., object]) -> Callable[[Call], object]:
    """A number built from plain arguments."""
    return lambda call: kind(*(text(part) for part in call.arguments))


EQUIVALENTS: Mapping[str, Callable[[Call], object]] = MappingProxyType(
    {
        "_codecs.encode": latin1,
        "torch.device": joined(":"),
        "argparse.Namespace": namespace,
        "types.SimpleNamespace": namespace,
        "datetime.datetime": moment,
        "datetime.date": moment,
    }
    | {
        f"pathlib{local}.{name}": joined("/")
        for local in ("", "._local")
        for name in ("Path", "PosixPath", "PurePosixPath", "PurePath", "WindowsPath")
    }
    | {f"numpy.{core}.multiarray.scalar": numpy_scalar for core in ("core", "_core")}
)


# -- for people --------------------------------------------------------------------------------


def display(value: object) -> object:
    """A value that JSON can hold: containers entered, unknown objects named, long text cut.

    What lies too deep, or is too much (a list that holds itself, doubled lists), becomes `…`.
    """
    return Display().show(value, 0)


class Display:
    """One showing of a value, which counts what it has shown."""

    def __init__(self) -> None:
        self.left = MAX_ITEMS

    def show(self, value: object, depth: int) -> object:
        """One value at one depth."""
        self.left -= 1
        if depth > MAX_DEPTH or self.left < 0:
            return "…"
        mapping = mapping_of(value)
        found = plain(value) if mapping is None else mapping
        if isinstance(found, Mapping):
            return {
                key_text(key): self.show(item, depth + 1)
                for key, item in islice(found.items(), self.left + 1)
            }
        items = items_of(value)
        if items is not None:
            return [self.show(item, depth + 1) for item in islice(items, self.left + 1)]
        return leaf(found)


def leaf(value: object) -> object:
    """A value that is no container, as JSON can hold it."""
    if isinstance(value, bytes | bytearray):
        return f"<{len(value):,} bytes>"
    if isinstance(value, str) and len(value) > MAX_TEXT:
        return value[:MAX_TEXT] + "…"
    return str(value) if isinstance(value, Unknown | complex) else value


def key_text(key: object) -> str:
    """A dictionary key as text; the parts of a tuple are joined with dots."""
    if isinstance(key, str):
        return key
    if isinstance(key, tuple) and all(isinstance(part, str | int) for part in key):
        return ".".join(map(str, key))
    return str(leaf(plain(key))) if not isinstance(key, tuple | frozenset) else "…"
