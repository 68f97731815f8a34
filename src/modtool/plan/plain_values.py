"""What a single symbol is as plain data, and what a user calls it where it is none."""

from collections.abc import Mapping
from types import MappingProxyType

from modtool.errors import a_kind
from modtool.pickles.numpy_values import (
    NUMPY_ARRAYS,
    NUMPY_SCALARS,
    SavedArray,
)
from modtool.pickles.plain import (
    BUILTINS,
    FROZENSET,
    SET,
    TUPLE,
    Unknown,
    bare,
    base_of,
    builtin,
    fields_of,
    plain,
)
from modtool.pickles.symbols import ABSENT, Call, PersistentId, class_named
from modtool.plan.tree import DROPPED

__all__ = [
    "RANGES",
    "SCALAR",
    "SCALARS",
    "called",
    "describe",
    "described_array",
    "kind_of",
    "numbers_of",
    "plain_key",
    "value_of",
]

SCALARS = (type(None), bool, int, float, str, bytes, bytearray, complex)
BUILT_IN = builtin("bytes", "bytearray", "complex", "dict", "list", "set", "tuple")
RANGES = frozenset({*builtin("range"), "__builtin__.xrange"})
SETS = SET | FROZENSET
MAX_NUMBERS = 10_000
# The first letter of NumPy's types that are no numbers.
ELEMENTS: Mapping[str, str] = MappingProxyType(
    {"O": "Python objects", "U": "text", "S": "bytes", "V": "records", "M": "dates", "m": "times"}
)
SCALAR = "NumPy scalar"
# What a user calls what is pickled under another name.
CALLED: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(NUMPY_ARRAYS, "NumPy array") | dict.fromkeys(NUMPY_SCALARS, SCALAR)
)
DESCRIBED: Mapping[str, str] = MappingProxyType(
    {f"{module}.slice": "a slice" for module in BUILTINS}
    | dict.fromkeys(RANGES, f"a range of more than {MAX_NUMBERS:,} numbers")
    | dict.fromkeys(NUMPY_SCALARS, "a NumPy scalar of a type that torch has not")
    | {f"{module}.{name}": name for module in BUILTINS for name in ("Ellipsis", "NotImplemented")}
    | {"numpy.dtype": "a NumPy dtype", "numpy.ma.core._mareconstruct": "a NumPy masked array"}
)


def kind_of(value: object) -> type[list[object]] | type[tuple[object, ...]] | type[set[object]]:
    """What a sequence becomes: weights_only knows no frozenset, and a set is equal to one."""
    if isinstance(value, tuple):
        return tuple
    if isinstance(value, set | frozenset):
        return set
    if not isinstance(value, Call):
        return list
    if value.callee in SETS:
        return set
    return tuple if value.callee in TUPLE or fields_of(value) is not None else list


def called(value: object) -> str | None:
    """What a user calls the type of a value; None for what is not changed."""
    if isinstance(value, frozenset):
        return "frozenset"
    if not isinstance(value, Call) or value.callee in BUILT_IN or value.callee == "_codecs.encode":
        return None
    return CALLED.get(value.callee, bare(value.made))


def value_of(value: object) -> object:
    """The number or text that an object is made of, or DROPPED.

    So are members of an Enum, a Decimal, and instances of subclasses of int and str.
    """
    if not isinstance(value, Call) or value.state is not ABSENT or value.keywords:
        return DROPPED
    base = base_of(value)
    given = value.arguments if base is None else (base[1],)
    is_class = value.made.rpartition(".")[2][:1].isupper()
    alone = len(given) == 1 and isinstance(given[0], bool | int | float | str | bytes)
    return given[0] if is_class and alone else DROPPED


def numbers_of(value: Call) -> object:
    """The numbers of a range, where they are not too many."""
    match value.arguments:
        case (int(start), int(stop), int(step)) if step:
            numbers = range(start, stop, step)
            return list(numbers) if len(numbers) <= MAX_NUMBERS else Unknown("range")
    return Unknown("range")


def plain_key(key: object) -> object:
    """A dictionary key that weights_only accepts, or DROPPED."""
    if isinstance(key, SCALARS):
        return key
    if isinstance(key, tuple):
        parts = tuple(plain_key(part) for part in key)
        return DROPPED if DROPPED in parts else parts
    found = plain(key) if isinstance(key, Call) else DROPPED
    return found if isinstance(found, SCALARS) else DROPPED


def described_array(value: Call, found: SavedArray | None) -> str:
    """What an array without an equivalent is: of a class of its own, or of what is no number."""
    if found is not None:
        return f"a NumPy array of {ELEMENTS.get(found.kind[:1], found.kind)}"
    return f"an object of {class_named(value.arguments[0] if value.arguments else None) or 'NumPy'}"


def describe(value: object) -> str:
    """What a value without an equivalent is, as its user calls it."""
    if isinstance(value, PersistentId):
        return "a reference to something outside"
    named = class_named(value)
    if named:
        return DESCRIBED.get(named) or f"the class or function {bare(named)}"
    if not isinstance(value, Call):
        return a_kind(value)
    if value.callee.startswith("torch._utils._rebuild_"):
        return "a tensor"
    return DESCRIBED.get(value.callee) or f"an object of {value.made or 'an unknown class'}"
