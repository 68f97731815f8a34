"""The state of one reading of a pickle, and what opcodes do to it.

Whatever is built here costs no more than the bytes that ask for it: counts are checked before
bytes are taken, keys before they are hashed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from mmap import mmap

from modtool.errors import CorruptFileError, UnsafeFileError
from modtool.pickles.symbols import ABSENT, Call, Flag, Global, PersistentId

__all__ = ["ENDS_TOO_EARLY", "TOO_DENSE", "Machine", "Pickle"]

# A tuple's hash is not cached: without a bound, a key of tuples doubled forty times never ends.
MAX_KEY_PARTS = 1000
FREE_PARTS = 100_000
# Equal texts are compared byte by byte each time one of them is looked up.
LONG_KEY = 256
# Numbers of more than 60 bits in all in a tuple, and of more than 64 alone, can be chosen so that
# the hashes of any many collide, which makes a dict of them quadratic. The hashes of texts cannot:
# they are salted. Identifiers of 64 bits are ordinary keys.
MAX_COLLIDING_KEYS = 4000
FREE_BITS = 60
FREE_BITS_ALONE = 64
# A list, a tuple, a dict, a set, a call or a state takes microseconds and up to hundreds of bytes
# of memory, and can be had for a byte or two of the file. What pickle writes takes 4 bytes at
# least on a long average (a `torch.Size` of protocol 4), and mostly 10 to 25.
FREE_OBJECTS = 200_000
BYTES_OF_AN_OBJECT = 4
TOO_DENSE = (
    "modtool reads no pickle that is packed so: save it with pickle_protocol=2 if it is yours"
)
MAX_GLOBAL = 500
# A model has a class for each kind of its modules; each of these is looked up and listed.
MAX_GLOBALS = 10_000
# A real unpickler makes an array with a place for every index up to the highest.
FREE_INDEX = 1_000_000

ENDS_TOO_EARLY = "its pickle ends too early"

# NEWFALSE and NEWTRUE.
OPCODES_OF_FLAGS = b"\x89\x88"

TEXTS = frozenset({str, bytes})
MUTABLE = frozenset({list, dict, set, bytearray})
FEW = 32
CALLABLE = frozenset({Global, Call, PersistentId})


@dataclass(frozen=True, slots=True)
class Pickle:
    """One pickle, read.

    Attributes:
        root: The object that it holds, as values and symbols.
        globals: Every name that a real load would import, each once, in order.
        calls: Every call that a real load would make, in order, those whose result it throws
            away included.
        persistent_ids: Every reference to something outside, in order.
        protocol: As declared; 0 where nothing declares one.
        end: Where the next byte after it lies.
        unusual: The opcodes in it, but for those that fill every checkpoint of protocol 2.
        latin: True where text of Python 2 is not UTF-8, and was taken for Latin-1.
    """

    root: object
    globals: tuple[Global, ...]
    calls: tuple[Call, ...]
    persistent_ids: tuple[PersistentId, ...]
    protocol: int
    end: int
    unusual: frozenset[int] = frozenset()
    latin: bool = False


class Machine:
    """The state of one reading: the stack, the stacks below each open mark, and the memo."""

    __slots__ = (
        "built",
        "calls",
        "colliding_keys",
        "data",
        "far",
        "given",
        "globals",
        "key_parts",
        "latin",
        "marks_flags",
        "memo",
        "metastack",
        "persistent_ids",
        "position",
        "protocol",
        "resolve",
        "slow",
        "stack",
        "start",
        "unusual",
    )

    def __init__(
        self,
        data: bytes | mmap,
        start: int,
        resolve: Callable[[object], object] | None = None,
        *,
        marks_flags: bool = False,
    ) -> None:
        self.resolve = resolve
        self.marks_flags = marks_flags
        self.data = data
        self.start = start
        self.position = start
        self.stack: list[object] = []
        self.metastack: list[list[object]] = []
        # Writers number what they store 0, 1, 2, …; a list of those takes a quarter of the memory
        # of a dict. What is numbered otherwise, and all that is stored after it, lies in `far`.
        self.memo: list[object] = []
        self.far: dict[int, object] = {}
        self.globals: dict[tuple[str, str], Global] = {}
        self.calls: list[Call] = []
        self.persistent_ids: list[PersistentId] = []
        self.protocol = 0
        # What may not change any more, by identity; the calls keep all of it alive.
        self.given: set[int] = set()
        self.key_parts = 0
        self.colliding_keys = 0
        self.built = 0
        self.unusual: set[int] = set()
        self.latin = False
        # Opcodes that `modtool.pickles.opcodes` has, and not the loop itself.
        self.slow = 0

    def finish(self, end: int) -> Pickle:
        """What was read, once STOP is reached."""
        if self.metastack:
            raise CorruptFileError("it stops inside an open mark")
        self.check_objects()
        highest = max(self.far, default=0)
        if highest > FREE_INDEX + end - self.start:
            raise UnsafeFileError(f"a memo index of {highest:,}, and fewer objects than that")
        return Pickle(
            root=self.stack.pop(),
            globals=tuple(self.globals.values()),
            calls=tuple(self.calls),
            persistent_ids=tuple(self.persistent_ids),
            protocol=self.protocol,
            end=end,
            unusual=frozenset(self.unusual),
            latin=self.latin,
        )

    def check_objects(self) -> None:
        """Refuse a pickle of more objects than its bytes so far are worth."""
        made = self.built + len(self.calls)
        size = self.position - self.start
        if made > FREE_OBJECTS + size // BYTES_OF_AN_OBJECT:
            raise UnsafeFileError(f"{made:,} objects in {size:,} bytes", TOO_DENSE)

    # -- bytes ---------------------------------------------------------------------------------

    def take(self, start: int, count: int) -> bytes:
        """`count` bytes from `start`; it is an error when the data ends before."""
        part = self.data[start : start + count]
        if len(part) != count:
            raise CorruptFileError(ENDS_TOO_EARLY)
        return part

    def next(self, count: int) -> bytes:
        """The next `count` bytes."""
        part = self.take(self.position, count)
        self.position += count
        return part

    def number(self, width: int) -> int:
        """The next unsigned little-endian number of `width` bytes."""
        return int.from_bytes(self.next(width), "little")

    def counted(self, width: int) -> bytes:
        """Bytes whose count, of `width` bytes, precedes them."""
        return self.next(self.number(width))

    def line(self) -> bytes:
        """The bytes up to the next newline, which is passed over."""
        end = self.data.find(b"\n", self.position)
        if end < 0:
            raise CorruptFileError(ENDS_TOO_EARLY)
        part = self.take(self.position, end - self.position)
        self.position = end + 1
        return part

    # -- memo ----------------------------------------------------------------------------------

    def store(self, index: int, value: object) -> None:
        """Put a value into the memo."""
        if index < len(self.memo):
            self.memo[index] = value
        elif index == len(self.memo) and not self.far:
            self.memo.append(value)
        else:
            self.far[index] = value

    def stored(self, index: int) -> object:
        """A value of the memo."""
        return self.memo[index] if index < len(self.memo) else self.far[index]

    # -- stack ---------------------------------------------------------------------------------

    def pop_mark(self) -> list[object]:
        """What lies above the last mark; the mark is gone afterwards."""
        items = self.stack
        self.stack = self.metastack.pop()
        return items

    def push(self, value: object) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    # -- objects -------------------------------------------------------------------------------

    def global_named(self, module: str, name: str) -> Global:
        """The symbol of a name: the same one each time."""
        found = self.globals.get((module, name))
        if found is None:
            if len(module) + len(name) > MAX_GLOBAL:
                raise UnsafeFileError("a name to import of hundreds of characters")
            if len(self.globals) == MAX_GLOBALS:
                raise UnsafeFileError(f"more than {MAX_GLOBALS:,} names to import")
            found = self.globals[module, name] = Global(module, name)
        return found

    def call(self, function: object, arguments: object) -> Call:
        """The symbol of a call that a real load would make."""
        if type(arguments) is not tuple:
            raise CorruptFileError("call arguments that are no tuple")
        if type(function) not in CALLABLE:
            raise CorruptFileError("a call of something uncallable")
        if arguments and (len(arguments) > FEW or not MUTABLE.isdisjoint(map(type, arguments))):
            self.give(arguments)
        made = Call(function, arguments)
        self.calls.append(made)
        return made

    def give(self, values: tuple[object, ...]) -> None:
        """Remember what a call or an object got: a change afterwards is refused.

        The call may have copied it, or may have kept it: nobody could tell what it has. Lists of
        pairs are looked into, because `OrderedDict` copies each pair. What many calls are given,
        is looked into once.
        """
        if len(values) > FEW:
            if id(values) in self.given:
                return
            self.given.add(id(values))
        for value in values:
            if type(value) in MUTABLE and id(value) not in self.given:
                self.given.add(id(value))
                if type(value) is list:
                    self.given.update(id(item) for item in value if type(item) is list)

    def check_mutable(self, target: object) -> None:
        """Refuse to change what a call has got already."""
        if id(target) in self.given:
            raise UnsafeFileError(
                f"a {type(target).__name__} changes after a call has got it, so that what the "
                "call saw cannot be told"
            )

    def persistent_id(self, value: object) -> object:
        """The symbol of a reference to something outside."""
        made = PersistentId(value) if self.resolve is None else self.resolve(value)
        if isinstance(made, PersistentId):
            self.persistent_ids.append(made)
        return made

    def boolean(self, value: bool, place: int, spelling: bytes = OPCODES_OF_FLAGS) -> object:
        """What stands for a boolean: itself, unless the places of all of them are asked for."""
        return Flag(value, place, spelling) if self.marks_flags else value

    def instantiate(self, cls: object, arguments: object) -> Call:
        """Like `call`, for NEWOBJ."""
        made = self.call(cls, arguments)
        made.how = "new"
        return made

    def set_items(self, target: object, items: list[object]) -> None:
        """Put keys and values into a dict, or into a call whose result is one."""
        if len(items) % 2:
            raise CorruptFileError("a key without its value")
        keys = items[::2]
        self.check_keys(keys)
        pairs = zip(keys, items[1::2], strict=True)
        if type(target) is dict:
            self.check_mutable(target)
            target.update(pairs)
        elif isinstance(target, Call):
            if target.items is None:
                target.items = {}
            target.items.update(pairs)
        else:
            raise CorruptFileError("items for something that has none")

    def set_item(self, target: object, key: object, value: object) -> None:
        """The same for one key, as protocol 0 has it for every key."""
        if type(target) is not dict:
            self.set_items(target, [key, value])
            return
        if key is not None and (type(key) is not str or len(key) >= LONG_KEY):
            self.check_key(key)
        if id(target) in self.given:
            self.check_mutable(target)
        target[key] = value

    def append(self, target: object, items: list[object]) -> None:
        """Append to a list, or to a call whose result is one."""
        if type(target) is list:
            self.check_mutable(target)
            target.extend(items)
        elif isinstance(target, Call):
            if target.appended is None:
                target.appended = []
            target.appended.extend(items)
        else:
            raise CorruptFileError("an append to something that is no list")

    def build(self) -> None:
        """BUILD: give a call its state."""
        self.built += 1
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, Call):
            raise CorruptFileError("state for something that has none")
        if target.state is not ABSENT:
            raise CorruptFileError("state given to one object twice")
        self.give(state if type(state) is tuple else (state,))
        target.state = state

    def check_keys(self, keys: Sequence[object]) -> None:
        """Refuse keys that cannot be hashed, or not in bounded time."""
        if TEXTS.issuperset(map(type, keys)) and max(map(len, keys), default=0) < LONG_KEY:  # type: ignore[arg-type]
            return
        for key in keys:
            if key is not None:
                self.check_key(key)

    def check_key(self, key: object) -> None:
        """Refuse one key that cannot be hashed, or compared, in bounded time."""
        pending = [key]
        parts = bits = 0
        while pending:
            part = pending.pop()
            parts += 1
            if parts > MAX_KEY_PARTS:
                raise UnsafeFileError("a dictionary key of too many parts")
            if isinstance(part, str | bytes):
                self.key_parts += len(part) // LONG_KEY
                continue
            bits += part.bit_length() if isinstance(part, int) else 2
            if isinstance(part, tuple | frozenset):
                pending.extend(part)
            elif type(part) in MUTABLE:
                raise CorruptFileError(f"a {type(part).__name__} as dictionary key")
        self.key_parts += parts
        if self.key_parts > FREE_PARTS + 2 * (self.position - self.start):
            raise UnsafeFileError("dictionary keys of too many parts")
        self.colliding_keys += bits > (FREE_BITS if parts > 1 else FREE_BITS_ALONE)
        if self.colliding_keys > MAX_COLLIDING_KEYS:
            raise UnsafeFileError("too many large numbers as dictionary keys")
