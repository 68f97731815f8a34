"""Random pickle programs, and what the real unpickler makes of them.

Every global in them is a harmless container, so that `pickle.loads` may run them for real.
"""

import codecs
import pickle
import struct
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from modtool.pickles.plain import Unknown, items_of, mapping_of, plain
from modtool.pickles.symbols import ABSENT, Call, Global

CLASSES: dict[str, type] = {
    "builtins.dict": dict,
    "builtins.list": list,
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "builtins.tuple": tuple,
    "builtins.bytes": bytes,
    "builtins.bytearray": bytearray,
    "builtins.complex": complex,
    "collections.OrderedDict": OrderedDict,
    "collections.Counter": Counter,
    "collections.defaultdict": defaultdict,
    "collections.deque": deque,
}

REAL: dict[str, object] = {
    **CLASSES,
    **{name.replace("builtins", "__builtin__"): cls for name, cls in CLASSES.items()},
    "_codecs.encode": codecs.encode,
}

LINES = (
    *(b"0", b"1", b"-1", b"00", b"01", b"010", b"0x10", b"7", b" 8", b"9 ", b"1_0", b"2L", b"03L"),
    *(b"1.5", b"1e400", b"nan", b"inf", b"-0", b"", b"'a'", b'"a"', b"'\\x41\\n'", b"'\\u0041'"),
    *(b"'\\101'", b"'a", b"'\\q'", b"'\\'", b"\\u0041", b"\xe9", b"caf\xc3\xa9", b"'\xe9'"),
)
lines = st.sampled_from(LINES)
texts = st.sampled_from(["", "a", "b", "é", "\ud800", "latin1"]).map(
    lambda text: text.encode("utf-8", "surrogatepass")
)
data = st.sampled_from([b"", b"a", b"\xff", b"abc"])
names = st.sampled_from([tuple(name.rsplit(".", 1)) for name in CLASSES])


def counted(opcode: bytes, width: int, content: st.SearchStrategy[bytes]) -> st.SearchStrategy:
    return content.map(lambda text: opcode + len(text).to_bytes(width, "little") + text)


def packed(opcode: bytes, layout: str, numbers: st.SearchStrategy) -> st.SearchStrategy[bytes]:
    return numbers.map(lambda number: opcode + struct.pack(layout, number))


def bare(opcodes: bytes) -> st.SearchStrategy[bytes]:
    return st.sampled_from([bytes([code]) for code in opcodes])


values = st.one_of(
    bare(b"N\x88\x89]})\x8f"),
    packed(b"K", "B", st.integers(0, 3)),
    packed(b"M", "<H", st.integers(0, 400)),
    packed(b"J", "<i", st.integers(-2, 2)),
    packed(b"G", ">d", st.sampled_from([0.0, -0.0, 1.5, float("inf")])),
    counted(b"\x8a", 1, data),
    counted(b"\x8b", 4, data),
    counted(b"X", 4, texts),
    counted(b"\x8c", 1, texts),
    counted(b"\x8d", 8, texts),
    counted(b"U", 1, data),
    counted(b"T", 4, data),
    counted(b"C", 1, data),
    counted(b"B", 4, data),
    counted(b"\x8e", 8, data),
    counted(b"\x96", 8, data),
    st.tuples(bare(b"ILSVF"), lines).map(lambda pair: pair[0] + pair[1] + b"\n"),
)
memo = st.one_of(
    packed(b"q", "B", st.integers(0, 3)),
    packed(b"h", "B", st.integers(0, 3)),
    packed(b"r", "<I", st.integers(0, 3)),
    packed(b"j", "<I", st.integers(0, 3)),
    st.tuples(bare(b"pg"), st.sampled_from([b"0", b"1", b"2", b"-1", b"01", b"x"])).map(
        lambda pair: pair[0] + pair[1] + b"\n"
    ),
    bare(b"\x94\x94"),
)
globals_ = st.one_of(
    names.map(lambda name: f"c{name[0]}\n{name[1]}\n".encode()),
    names.map(
        lambda name: (
            b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in name) + b"\x93"
        )
    ),
)
containers = bare(b"((ttlldd\x85\x86\x87aesu\x90\x91")
calls = st.one_of(bare(b"RRR\x81\x81\x92obb"), names.map(lambda n: f"i{n[0]}\n{n[1]}\n".encode()))
moves = bare(b"0212")
headers = st.one_of(
    packed(b"\x80", "B", st.integers(0, 6)), packed(b"\x95", "<Q", st.integers(0, 3))
)
steps = st.one_of(values, values, values, containers, containers, memo, globals_, calls, moves)
programs = st.lists(st.one_of(steps, steps, steps, headers), max_size=25).map(
    lambda parts: b"".join(parts) + b"."
)


def assembled(draw: st.DrawFn) -> bytes:
    """A program that always has what its next opcode takes, so that it gets far."""
    parts: list[bytes] = [b"\x80\x04"]
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["call", "list", "dict", "pairs", "share"]))
        parts.append(ASSEMBLIES[kind](draw))
    return b"".join(parts) + draw(st.sampled_from([b"\x86", b"\x87", b"", b"2\x86"])) + b"."


def simple(draw: st.DrawFn) -> bytes:
    return draw(
        st.sampled_from([b"K\x01", b"K\x02", b"X\x01\0\0\0a", b"X\x01\0\0\0b", b"N", b"]", b"}"])
    )


def some(draw: st.DrawFn, most: int = 3) -> bytes:
    return b"".join(simple(draw) for _ in range(draw(st.integers(0, most))))


def pairs(draw: st.DrawFn) -> bytes:
    made = b"".join(simple(draw) + simple(draw) + b"\x86" for _ in range(draw(st.integers(0, 3))))
    return b"](" + made + b"e"


def argument(draw: st.DrawFn) -> bytes:
    kinds = [
        lambda: b"(" + some(draw) + b"t",
        lambda: b"](" + some(draw) + b"e",
        lambda: b"(K\x02K\x01" + draw(st.sampled_from([b"", b"K\x03", b"N\x85"])) + b"\x91",
        lambda: pairs(draw),
        lambda: b"}(K\x01" + simple(draw) + b"X\x01\0\0\0a" + simple(draw) + b"u",
        lambda: simple(draw),
    ]
    return draw(st.sampled_from(kinds))() + b"\x94"


def call(draw: st.DrawFn) -> bytes:
    name = draw(names)
    made = f"c{name[0]}\n{name[1]}\n".encode()
    arguments = draw(st.sampled_from([b")", b"1", b"1", b"2"]))
    if arguments == b"1":
        arguments = argument(draw) + b"\x85"
    elif arguments == b"2":
        arguments = simple(draw) + argument(draw) + b"\x86"
    made += arguments + draw(st.sampled_from([b"R", b"R", b"\x81"]))
    return made + b"\x94" + draw(st.just(b"") | st.sampled_from(FILLINGS))


CHANGES = (b"K\x09a", b"K\x09K\x09s", b"(K\x09\x90", b"(NN\x86e")
FILLINGS = [
    b"(K\x01K\x02u",
    b"K\x01N" + b"s",
    b"(K\x01K\x02K\x03e",
    b"K\x01a",
    b"(K\x05\x90",
    b"}X\x01\0\0\0aK\x01sb",
    *(bytes([0x68, index]) + change + b"0" for index in range(4) for change in CHANGES),
]

ASSEMBLIES: dict[str, Callable[[st.DrawFn], bytes]] = {
    "call": call,
    "list": lambda draw: b"](" + some(draw) + b"e\x94",
    "dict": lambda draw: b"}(" + simple(draw) + b"K\x07u\x94",
    "pairs": pairs,
    "share": lambda draw: b"](" + b"h\x00h\x01"[: draw(st.sampled_from([0, 2, 4]))] + b"e",
}


# -- comparing -----------------------------------------------------------------------------------


def reality(program: bytes) -> object:
    """What `pickle.loads` makes of a program; it may raise whatever it likes."""
    return pickle.loads(program, encoding="utf-8")


def realised(root: object) -> object:
    """The object that symbols stand for, made by really calling the harmless classes."""
    done: dict[int, object] = {}

    def make(value: object) -> object:
        if id(value) in done:
            return done[id(value)]
        found = done[id(value)] = build(value)
        return found

    def build(value: object) -> object:
        if isinstance(value, Global):
            return REAL[value.qualified]
        if isinstance(value, Call):
            return called(value)
        if type(value) in (list, dict, set):
            made = done[id(value)] = type(value)()
            return filled(value, made)
        if isinstance(value, tuple | frozenset):
            return type(value)(map(make, value))
        return value

    def filled(value: object, made: object) -> object:
        if isinstance(value, list):
            made.extend(map(make, value))  # type: ignore[attr-defined]
        elif isinstance(value, dict):
            for key, item in value.items():
                made[make(key)] = make(item)  # type: ignore[index]
        elif isinstance(value, set):
            made.update(map(make, value))  # type: ignore[attr-defined]
        return made

    def called(value: Call) -> object:
        cls: Any = make(value.function)
        arguments = tuple(map(make, value.arguments))
        new = value.how == "new" or (value.how == "instance" and not arguments)
        if isinstance(cls, type) and new:
            made: Any = cls.__new__(cls, *arguments, **(value.keywords or {}))
        else:
            made = cls(*arguments)
        done[id(value)] = made
        if value.appended:
            made.extend(map(make, value.appended))
        for key, item in (value.items or {}).items():
            made[make(key)] = make(item)
        if value.state is not ABSENT:
            state = make(value.state)
            if isinstance(state, tuple) and len(state) == 2:
                state = {**(state[0] or {}), **(state[1] or {})}
            if state:
                made.__dict__.update(state)
        return made

    return make(root)


def canonical(value: object) -> object:
    """A value as nested tuples that tell types, order, and which mutable parts are the same."""
    numbers: dict[int, int] = {}

    def tell(value: object) -> object:
        if isinstance(value, type):
            return value.__name__
        if isinstance(value, str | bytes | int | float | complex | None):
            return type(value).__name__, repr(value)
        if id(value) in numbers:
            return "again", numbers[id(value)]
        if not isinstance(value, tuple | frozenset):
            numbers[id(value)] = len(numbers)
        attributes = tell(vars(value)) if getattr(value, "__dict__", None) else ()
        if isinstance(value, dict):
            parts: object = tuple((tell(key), tell(item)) for key, item in value.items())
        elif isinstance(value, bytearray):
            parts = bytes(value)
        elif isinstance(value, set | frozenset):
            parts = tuple(sorted(repr(tell(item)) for item in value))
        else:
            parts = tuple(tell(item) for item in value)  # type: ignore[attr-defined]
        return type(value).__name__, parts, attributes

    return tell(value)


def shown(value: object) -> object:
    """What the symbols' own meaning is, as far as `plain`, `mapping_of` and `items_of` tell it.

    The same for a real object; sets are sorted, all sequences are lists.
    """
    open_: list[object] = []

    def tell(value: object) -> object:
        if any(other is value for other in open_):
            return "…"
        mapping = mapping_of(value)
        items = items_of(value)
        if isinstance(value, deque):
            items = list(value)
        found = plain(value) if isinstance(value, Call) else value
        open_.append(value)
        try:
            if mapping is not None:
                return [[tell(key), tell(item)] for key, item in mapping.items()]
            if items is not None:
                told = [tell(item) for item in items]
                return once(told) if is_set(value) else told
            if isinstance(value, Global):
                return value.name
            if isinstance(value, type):
                return value.__name__
            return UNKNOWN if isinstance(found, Unknown) else repr(found)
        finally:
            open_.pop()

    return tell(value)


def once(told: list[object]) -> list[object]:
    return list({repr(item): item for item in sorted(told, key=repr)}.values())


UNKNOWN = "what is said to be unknown may be anything"


def agree(shown: object, real: object) -> bool:
    """True when everything that is said of a value holds for the real one."""
    if isinstance(shown, list) and isinstance(real, list):
        return len(shown) == len(real) and all(map(agree, shown, real))
    return shown in (UNKNOWN, real)


def is_set(value: object) -> bool:
    if isinstance(value, Call):
        return value.callee.partition(".")[2] in ("set", "frozenset")
    return isinstance(value, set | frozenset)
