"""Symbols as the plain values that they stand for, for people, JSON and `weights_only` files.

A `Namespace` is its attributes, a path its text, a numpy scalar its number. What has no plain
equivalent is an `Unknown`, which names its class.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from modtool.pickles.numpy_values import NUMPY_ARRAYS, NUMPY_SCALARS, numpy_scalar, saved_array
from modtool.pickles.packed import encoded, from_codec
from modtool.pickles.symbols import ABSENT, Call, Global, PersistentId, class_named

__all__ = ["BUILTINS", "CONTAINERS", "FROZENSET", "SET", "TUPLE", "Unknown", "attributes_of"]
__all__ += ["bare", "base_of", "breadth", "builtin", "fields_of", "is_set", "items_of"]
__all__ += ["mapping_of", "plain"]

# Longer texts and larger numbers as keys of a list of pairs can make a dict of it quadratic.
MAX_KEY_TEXT = 1000
MAX_KEY_NUMBER = 2**60
MAX_PARTS = 1000
# Arguments of an unknown object that are shown with its class.
MAX_SHOWN, MAX_SHOWN_TEXT, MAX_SHOWN_BITS = 4, 60, 128


@dataclass(frozen=True, slots=True)
class Unknown:
    """An object that has no plain equivalent; `what` is its class, perhaps with arguments."""

    what: str

    def __str__(self) -> str:
        return f"<{self.what}>"


BUILTINS = ("builtins", "__builtin__")


def builtin(*names: str) -> frozenset[str]:
    """`builtins.set` and `__builtin__.set`, as protocols 0 to 2 say it."""
    return frozenset(f"{module}.{name}" for module in BUILTINS for name in names)


DICT, SET, LIST = builtin("dict"), builtin("set"), builtin("list")
TUPLE, FROZENSET = builtin("tuple"), builtin("frozenset")
# `copyreg._reconstructor(class, base, state)` is how protocols 0 and 1 make any object.
RECONSTRUCTORS = frozenset({"copyreg._reconstructor", "copy_reg._reconstructor"})


def arguments_of(call: Call) -> tuple[object, ...]:
    """What the constructor of a mutable container gets: `__new__` alone ignores its arguments."""
    return () if call.how == "new" else call.arguments


def base_of(call: Call) -> tuple[str, object] | None:
    """The base class and its value, of an object that protocols 0 and 1 make."""
    if call.callee in RECONSTRUCTORS and len(call.arguments) == 3:
        _, base, value = call.arguments
        if isinstance(base, Global):
            return base.qualified, value
    return None


# -- dicts -------------------------------------------------------------------------------------


def mapping_of(value: object) -> Mapping[object, object] | None:
    """The keys and values of a dict, or of a call that makes one (OrderedDict, a subclass).

    None also for a dict whose constructor gets something that is not understood.
    """
    if isinstance(value, dict):
        return value
    if not isinstance(value, Call):
        return None
    make = MAPPINGS.get(value.callee)
    if make is None:
        return reconstructed_entries(value)
    first = make(arguments_of(value))
    if first is None or not value.items:
        return first
    return {**first, **value.items} if first else value.items


def reconstructed_entries(call: Call) -> Mapping[object, object] | None:
    """The entries of an instance of some subclass of dict; None where it has none."""
    match base_of(call):
        case (str(base), dict(state)) if base in DICT:
            return {**state, **(call.items or {})}
    return None if call.callee in EQUIVALENTS or call.callee in SEQUENCES else call.items


def from_pairs(arguments: tuple[object, ...]) -> Mapping[object, object] | None:
    """The entries of `OrderedDict(…)` and `dict(…)`."""
    match arguments:
        case ():
            return {}
        case (dict(entries),):
            return entries
        case (list(pairs),) | (tuple(pairs),):
            return pairs_of(pairs)
    return None


def from_counts(arguments: tuple[object, ...]) -> Mapping[object, object] | None:
    """The entries of `Counter(…)`, which would count the items of a list."""
    return from_pairs(arguments) if not arguments or isinstance(arguments[0], dict) else None


def from_factory(arguments: tuple[object, ...]) -> Mapping[object, object] | None:
    """The entries of `defaultdict(factory, …)`."""
    return from_pairs(arguments[1:])


MAPPINGS: Mapping[str, Callable[[tuple[object, ...]], Mapping[object, object] | None]] = (
    MappingProxyType(
        {
            "collections.OrderedDict": from_pairs,
            "collections.Counter": from_counts,
            "collections.defaultdict": from_factory,
        }
        | dict.fromkeys(DICT, from_pairs)
    )
)


def pairs_of(value: list[object] | tuple[object, ...]) -> Mapping[object, object] | None:
    """A list of keys and values (protocols 0 and 1) as the dict that it makes."""
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in value):
        return None
    pairs: list[tuple[object, object]] = [(pair[0], pair[1]) for pair in value]  # type: ignore[index]
    return dict(pairs) if all(is_simple(key) for key, _ in pairs) else None


def is_simple(key: object) -> bool:
    """True for a key that is hashed and compared in bounded time."""
    if isinstance(key, str | bytes):
        return len(key) <= MAX_KEY_TEXT
    if isinstance(key, int):
        return abs(key) < MAX_KEY_NUMBER
    return key is None or isinstance(key, float)


# -- lists, tuples and sets --------------------------------------------------------------------


def items_of(value: object) -> list[object] | None:
    """The items of a list, tuple or set, or of a call that makes one. Not to be changed."""
    if isinstance(value, list):
        return value
    if isinstance(value, tuple | set | frozenset):
        return list(value)
    if not isinstance(value, Call):
        return None
    make = SEQUENCES.get(value.callee)
    if make is None:
        return reconstructed_items(value)
    first = make(value) if not value.items else None
    if first is None or not value.appended:
        return first
    return keep_last(value, first + value.appended)


def reconstructed_items(call: Call) -> list[object] | None:
    """The items of an instance of some subclass of a container; None where it has none."""
    match base_of(call):
        case (str(base), list(state) | tuple(state)) if base in LIST | TUPLE:
            return [*state, *(call.appended or ())]
    return None if call.callee in EQUIVALENTS else call.appended or fields_of(call)


def fields_of(call: Call) -> list[object] | None:
    """The fields of what is pickled as a namedtuple is: by `__new__` and all fields, two or more.

    With one field it could be anything that holds a value, such as a subclass of int.
    """
    named = call.how == "new" and call.state is ABSENT and not call.keywords
    if not named or call.callee in MAPPINGS or len(call.arguments) < 2:
        return None
    return list(call.arguments)


def is_set(value: object) -> bool:
    """True for a set or frozenset, which has no order of its own."""
    if isinstance(value, Call):
        return value.callee in SET | FROZENSET
    return isinstance(value, set | frozenset)


def mutable_items(call: Call) -> list[object] | None:
    """The items of `list(…)` and `set(…)`, as they are given."""
    return first_items(arguments_of(call))


def frozen_items(call: Call) -> list[object] | None:
    """The items of `tuple(…)` and `frozenset(…)`, as they are given."""
    return first_items(call.arguments)


def deque_items(call: Call) -> list[object] | None:
    """The items of `deque(…, maxlen)`."""
    arguments = arguments_of(call)
    found = first_items(arguments[:1]) if len(arguments) <= 2 else None
    return None if found is None else keep_last(call, found)


def keep_last(call: Call, items: list[object]) -> list[object]:
    """What a deque keeps of its items."""
    arguments = arguments_of(call) if call.callee == "collections.deque" else ()
    most = arguments[1] if len(arguments) == 2 else None
    return items[max(len(items) - most, 0) :] if isinstance(most, int) and most >= 0 else items


def first_items(arguments: tuple[object, ...]) -> list[object] | None:
    """The items of a container that is the only argument; none without arguments."""
    match arguments:
        case ():
            return []
        case (list(items),):
            return items
        case (tuple() | set() | frozenset() as items,):
            return list(items)
    return None


SEQUENCES: Mapping[str, Callable[[Call], list[object] | None]] = MappingProxyType(
    {"torch.Size": frozen_items, "collections.deque": deque_items}
    | dict.fromkeys(LIST | SET, mutable_items)
    | dict.fromkeys(TUPLE | FROZENSET, frozen_items)
)


def breadth(value: object) -> int:
    """How many parts have to be looked at to see what a value holds.

    Many calls may share one huge argument: whoever looks at them all must count.
    """
    if isinstance(value, CONTAINERS):
        return len(value)
    if not isinstance(value, Call):
        return 1
    given = [value.state, value.items, value.appended, *value.arguments[:MAX_PARTS]]
    if isinstance(value.state, tuple):
        given.extend(value.state[:2])
    return len(value.arguments) + sum(len(part) for part in given if isinstance(part, CONTAINERS))


CONTAINERS = (list, tuple, dict, set, frozenset)


# -- attributes --------------------------------------------------------------------------------


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
        return bare(value.qualified)
    if isinstance(value, PersistentId):
        return Unknown("persistent id")
    if not isinstance(value, Call):
        return value
    convert = EQUIVALENTS.get(value.made) if not (value.items or value.appended) else None
    try:
        found = convert(value) if convert else None
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, struct.error):
        found = None
    return Unknown(described(value)) if found is None else found


def described(call: Call) -> str:
    """`ekit.Color(1)`: what would be made, with the arguments where they are few and simple."""
    made = bare(call.made) or "the result of a call"
    if call.callee.endswith(".getattr"):
        return class_named(call) or made
    arguments = call.arguments
    base = base_of(call)
    if base is not None:
        arguments = () if base[1] is None else (base[1],)
    if not arguments or len(arguments) > MAX_SHOWN or call.state is not ABSENT:
        return made
    if not all(map(is_short, arguments)):
        return made
    return f"{made}({', '.join(map(repr, arguments))})"


def bare(name: str) -> str:
    """`range` for `builtins.range` and `__builtin__.xrange`; any other name as it is."""
    name = "builtins.range" if name == "__builtin__.xrange" else name
    return name.removeprefix("__builtin__.").removeprefix("builtins.")


def is_short(value: object) -> bool:
    """True for a number or a text that can be written in a few characters."""
    if isinstance(value, int):
        return value.bit_length() <= MAX_SHOWN_BITS
    return isinstance(value, float | None) or (
        isinstance(value, str) and len(value) <= MAX_SHOWN_TEXT
    )


def texts(call: Call) -> list[str]:
    """Arguments that are nothing but text."""
    if len(call.arguments) > MAX_PARTS or not all(isinstance(part, str) for part in call.arguments):
        raise TypeError
    return [part for part in call.arguments if isinstance(part, str)]


def posix_path(call: Call) -> object:
    """`a/b` from `PosixPath('a', 'b')`; a part that begins with a slash starts anew."""
    import posixpath

    return posixpath.join(*texts(call)) if call.arguments else "."


def windows_path(call: Call) -> object:
    """`a/b` of a path that Windows wrote."""
    import ntpath

    return ntpath.join(*texts(call)) if call.arguments else "."


def version(call: Call) -> object:
    """The text that `torch.__version__` is."""
    text = call.arguments[-1]
    return text if isinstance(text, str) else None


def device(call: Call) -> object:
    """`cuda:0` from `torch.device('cuda', 0)`."""
    match call.arguments:
        case (str(kind),):
            return kind
        case (str(kind), int(index)):
            return f"{kind}:{index}"
    return None


def byte_array(call: Call) -> bytearray | None:
    """`bytearray(…)`: what `__new__` alone makes is empty."""
    found = encoded(arguments_of(call))
    return None if found is None else bytearray(found)


def complex_number(call: Call) -> object:
    """`complex(re, im)`."""
    real, imaginary = call.arguments
    if isinstance(real, int | float) and isinstance(imaginary, int | float):
        return complex(real, imaginary)
    return None


def layout(call: Call) -> object:
    """`torch.strided` from torch's function that looks a layout up."""
    match call.arguments:
        case (str(name),):
            return name
    return None


TIMES = frozenset(f"datetime.{name}" for name in ("datetime", "date", "time"))


def moment(call: Call) -> object:
    """A point in time; what reads it is imported where one occurs."""
    from modtool.pickles.times import READERS

    return READERS[call.callee](call)


def numpy_array(call: Call) -> object:
    """What a pickled array is: its element type and shape, as an `Unknown`."""
    found = saved_array(call)
    return found and Unknown(f"numpy.ndarray {found.kind} {list(found.shape)}"[:200])


def namespace(call: Call) -> object:
    """The attributes of an object that is nothing but its attributes."""
    found = attributes_of(call)
    return None if found is None else dict(found)


EQUIVALENTS: Mapping[str, Callable[[Call], object]] = MappingProxyType(
    {
        "_codecs.encode": from_codec,
        "torch.device": device,
        "torch.torch_version.TorchVersion": version,
        "argparse.Namespace": namespace,
        "types.SimpleNamespace": namespace,
        "torch.serialization._get_layout": layout,
    }
    | dict.fromkeys(TIMES, moment)
    | dict.fromkeys(builtin("bytes"), lambda call: encoded(call.arguments))
    | dict.fromkeys(builtin("bytearray"), byte_array)
    | dict.fromkeys(builtin("complex"), complex_number)
    | {
        f"pathlib{local}.{name}": posix_path
        for local in ("", "._local")
        for name in ("Path", "PosixPath", "PurePosixPath", "PurePath")
    }
    | {
        f"pathlib{local}.{name}": windows_path
        for local in ("", "._local")
        for name in ("WindowsPath", "PureWindowsPath")
    }
    | dict.fromkeys(NUMPY_SCALARS, numpy_scalar)
    | dict.fromkeys(NUMPY_ARRAYS, numpy_array)
)
