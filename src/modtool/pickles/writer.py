"""Symbols to pickle bytes, so that an edited pickle can be written back.

The bytes are protocol 2, torch's own, and for plain data only what
`torch.load(..., weights_only=True)` accepts. One memo keyed by identity keeps what is shared
shared: containers enter it before what they contain, calls after their arguments; then come
appended items, dict items and last the state, as `pickle` itself orders them. Writing is a loop
over a stack of generators: depth costs nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from struct import pack
from types import MappingProxyType
from typing import TypeVar

from modtool.errors import OutputError
from modtool.pickles.symbols import ABSENT, Call, Global, PersistentId

__all__ = ["write_pickle"]

Item = TypeVar("Item")

BATCH = 1000
MAX_TEXT = 2**32 - 1


def write_pickle(
    root: object,
    *,
    persistent_id: Callable[[PersistentId], object] | None = None,
    replace: Mapping[int, object] | None = None,
) -> bytes:
    """The pickle, protocol 2, of plain values and symbols.

    Args:
        root: None, booleans, numbers, text, bytes, bytearrays, lists, tuples, dicts, sets,
            frozensets and symbols, nested in any way, cycles included. Nothing else.
        persistent_id: What to write in place of a reference to something outside; None from it
            leaves the reference as it is.
        replace: Objects to write in place of others, by the `id` of those others, which must stay
            alive meanwhile.

    Raises:
        OutputError: A value that a pickle of this kind cannot say.
    """
    return Writer(persistent_id, replace or {}).write(root)


class Writer:
    """The state of one writing: the bytes so far and the memo."""

    __slots__ = ("kept", "memo", "opened", "out", "persistent_id", "places", "replace", "texts")

    def __init__(
        self, persistent_id: Callable[[PersistentId], object] | None, replace: Mapping[int, object]
    ) -> None:
        self.persistent_id = persistent_id
        self.replace = replace
        self.out = bytearray(b"\x80\x02")
        self.memo: dict[int, int] = {}
        self.kept: list[object] = []
        self.texts: dict[str | tuple[str, str], int] = {}
        self.places = 0
        self.opened: dict[int, int] = {}

    def write(self, root: object) -> bytes:
        """Everything that can be reached from the root."""
        stack = [iter((root,))]
        while stack:
            for child in stack[-1]:
                steps = self.begin(child)
                if steps is not None:
                    stack.append(steps)
                    break
            else:
                stack.pop()
        self.out += b"."
        return bytes(self.out)

    def begin(self, value: object) -> Iterator[object] | None:
        """Write a value without parts at once; for one with parts, the steps that write it."""
        value = self.replace.get(id(value), value)
        kind = type(value)
        if kind is str:
            self.text(value)  # type: ignore[arg-type]
            return None
        encode = ATOMS.get(kind)
        if encode is not None:
            self.out += encode(value)
            return None
        place = self.memo.get(id(value))
        if place is not None:
            self.out += get(place)
            return None
        steps = STEPS.get(kind)
        if steps is None:
            raise OutputError(f"a value of type {kind.__name__} cannot be written to a checkpoint")
        return steps(self, value)

    # -- the memo ------------------------------------------------------------------------------

    def put(self) -> int:
        """Store what was written last under the next number, which is returned."""
        place = self.places
        self.places += 1
        self.out += b"q%c" % place if place < 256 else b"r" + pack("<I", place)
        return place

    def remember(self, value: object) -> None:
        """Store what was written last as this object, which is kept alive: its id stays its own."""
        self.kept.append(value)
        self.memo[id(value)] = self.put()

    def open(self, value: object) -> None:
        """Enter an object that is stored only after its parts.

        Entering it again is sound if something was stored since: that is how `pickle` writes a
        tuple that contains itself through a list. If nothing was, it would go on for ever.
        """
        if self.opened.get(id(value)) == len(self.memo):
            raise OutputError("an object that is needed to make itself cannot be written")
        self.opened[id(value)] = len(self.memo)

    def close(self, value: object, discard: bytes) -> bool:
        """Store an object after its parts; False if a part did so already, and its copy is used."""
        self.opened.pop(id(value), None)
        place = self.memo.get(id(value))
        if place is None:
            self.remember(value)
            return True
        self.out += discard + get(place)
        return False

    # -- text and names ------------------------------------------------------------------------

    def text(self, value: str) -> None:
        """A string; the second time, a reference to the first."""
        place = self.texts.get(value)
        if place is not None:
            self.out += get(place)
            return
        self.out += unicode_text(value)
        self.texts[value] = self.put()

    def name(self, module: str, name: str) -> None:
        """A global. Protocol 2 has no dotted names, so an inner class is fetched by `getattr`."""
        place = self.texts.get((module, name))
        if place is not None:
            self.out += get(place)
            return
        outer, _, inner = name.rpartition(".")
        if outer:
            self.name("__builtin__", "getattr")
            self.name(module, outer)
            self.text(inner)
            self.call_with_two()
        elif not name or not module or "\n" in module + name:
            raise OutputError(f"{module!r} {name!r} is no name that a pickle can hold")
        else:
            self.out += f"c{module}\n{name}\n".encode()
        self.texts[module, name] = self.put()

    def call_with_two(self) -> None:
        """Call what lies below the two values written last with those."""
        self.out += b"\x86"
        self.put()
        self.out += b"R"

    # -- containers ----------------------------------------------------------------------------

    def appends(self, items: Iterable[object]) -> Iterator[object]:
        """Append items to the list or object written last."""
        for batch in batches(items):
            if len(batch) == 1:
                yield batch[0]
                self.out += b"a"
            else:
                self.out += b"("
                yield from batch
                self.out += b"e"

    def set_items(self, items: Mapping[object, object]) -> Iterator[object]:
        """Put keys and values into the dict or object written last."""
        for batch in batches(items.items()):
            if len(batch) > 1:
                self.out += b"("
            for key, value in batch:
                yield key
                yield value
            self.out += b"u" if len(batch) > 1 else b"s"

    def tuple_of(self, items: tuple[object, ...]) -> Iterator[object]:
        """A tuple, not stored yet."""
        if len(items) > 3:
            self.out += b"("
        yield from items
        self.out += TUPLES[len(items)] if len(items) <= 3 else b"t"

    def steps_of_list(self, value: list[object]) -> Iterator[object]:
        self.out += b"]"
        self.remember(value)
        yield from self.appends(value)

    def steps_of_dict(self, value: dict[object, object]) -> Iterator[object]:
        self.out += b"}"
        self.remember(value)
        yield from self.set_items(value)

    def steps_of_tuple(self, value: tuple[object, ...]) -> Iterator[object]:
        if not value:
            self.out += b")"
            return
        self.open(value)
        yield from self.tuple_of(value)
        # The tuple just made is dropped again where a part of it has stored the whole.
        self.close(value, discard=b"0")

    def steps_of_set(self, value: set[object] | frozenset[object]) -> Iterator[object]:
        self.open(value)
        self.name("__builtin__", type(value).__name__)
        self.out += b"]"
        self.put()
        yield from self.appends(in_order(value))
        self.out += b"\x85"
        self.put()
        self.out += b"R"
        self.close(value, discard=b"0")

    def steps_of_bytes(self, value: bytes | bytearray) -> Iterator[object]:
        if isinstance(value, bytearray):
            self.name("__builtin__", "bytearray")
        else:
            self.name("_codecs", "encode")
        self.text(value.decode("latin-1"))
        self.text("latin1")
        self.call_with_two()
        self.remember(value)
        return iter(())

    def steps_of_complex(self, value: complex) -> Iterator[object]:
        self.name("__builtin__", "complex")
        self.out += binary_float(value.real) + binary_float(value.imag)
        self.call_with_two()
        self.remember(value)
        return iter(())

    # -- symbols -------------------------------------------------------------------------------

    def steps_of_global(self, value: Global) -> Iterator[object]:
        self.name(value.module, value.name)
        return iter(())

    def steps_of_persistent_id(self, value: PersistentId) -> Iterator[object]:
        written = self.persistent_id(value) if self.persistent_id is not None else None
        if written is None:
            written = value
        if not isinstance(written, PersistentId):
            yield written
            return
        if isinstance(written.value, tuple):
            yield from self.tuple_of(written.value)
            self.put()
        else:
            yield written.value
        self.out += b"Q"

    def steps_of_call(self, value: Call) -> Iterator[object]:
        self.open(value)
        yield from self.make(value)
        if not self.close(value, discard=b"0"):
            return
        if value.appended is not None:
            yield from self.appends(value.appended)
        if value.items is not None:
            yield from self.set_items(value.items)
        if value.state is not ABSENT:
            yield value.state
            self.out += b"b"

    def make(self, value: Call) -> Iterator[object]:
        """The call itself, without what is put into its result afterwards."""
        if value.keywords is not None:
            self.name("copyreg", "__newobj_ex__")
            self.out += b"("
            yield value.function
            yield value.arguments
            yield value.keywords
            self.out += b"tR"
        elif value.how == "instance":
            self.out += b"("
            yield value.function
            yield from value.arguments
            self.out += b"o"
        else:
            yield value.function
            yield value.arguments
            self.out += b"R" if value.how == "reduce" else b"\x81"


def batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    """The items in lists of at most `BATCH`, so that a reader's stack stays small."""
    rest = iter(items)
    while batch := list(islice(rest, BATCH)):
        yield batch


def in_order(items: Iterable[object]) -> list[object]:
    """Members of a set, sorted where they can be: text hashes differ from run to run."""
    members = list(items)
    if all(type(member) in SORTABLE for member in members):
        members.sort(key=lambda member: (type(member).__name__, repr(member)))
    return members


def get(place: int) -> bytes:
    """A reference to something stored."""
    return b"h%c" % place if place < 256 else b"j" + pack("<I", place)


def unicode_text(value: str) -> bytes:
    """BINUNICODE."""
    data = value.encode("utf-8", "surrogatepass")
    if len(data) > MAX_TEXT:
        raise OutputError("a text of 4 GiB and more cannot be written to a checkpoint")
    return b"X" + pack("<I", len(data)) + data


def integer(value: int) -> bytes:
    """The shortest opcode that holds the number."""
    if 0 <= value < 2**8:
        return b"K%c" % value
    if 0 <= value < 2**16:
        return b"M" + pack("<H", value)
    if -(2**31) <= value < 2**31:
        return b"J" + pack("<i", value)
    count = value.bit_length() // 8 + 1
    data = value.to_bytes(count, "little", signed=True)
    return (b"\x8a%c" % count if count < 256 else b"\x8b" + pack("<i", count)) + data


def binary_float(value: float) -> bytes:
    """BINFLOAT."""
    return b"G" + pack(">d", value)


TUPLES = (b")", b"\x85", b"\x86", b"\x87")

SORTABLE = frozenset({str, int, float, bool, bytes, type(None)})

ATOMS: Mapping[type, Callable[..., bytes]] = MappingProxyType(
    {
        type(None): lambda value: b"N",
        bool: lambda value: b"\x88" if value else b"\x89",
        int: integer,
        float: binary_float,
    }
)

STEPS: Mapping[type, Callable[..., Iterator[object]]] = MappingProxyType(
    {
        list: Writer.steps_of_list,
        dict: Writer.steps_of_dict,
        tuple: Writer.steps_of_tuple,
        set: Writer.steps_of_set,
        frozenset: Writer.steps_of_set,
        bytes: Writer.steps_of_bytes,
        bytearray: Writer.steps_of_bytes,
        complex: Writer.steps_of_complex,
        Global: Writer.steps_of_global,
        Call: Writer.steps_of_call,
        PersistentId: Writer.steps_of_persistent_id,
    }
)
