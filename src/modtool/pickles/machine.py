"""The state of one reading of a pickle, and what opcodes do to it.

Whatever is built here costs no more than the bytes that ask for it: counts are checked before
bytes are taken, keys before they are hashed.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from modtool.errors import CorruptFileError, UnsafeFileError
from modtool.pickles.symbols import ABSENT, Call, Global, PersistentId

__all__ = ["Machine", "Pickle"]

MAX_LINE = 4096
# A tuple's hash is not cached: without a bound, a key of tuples doubled forty times never ends.
MAX_KEY_PARTS = 1000
# Integers of 61 bits and more can be chosen to collide, which makes a dict of them quadratic.
MAX_LARGE_KEYS = 20_000
LARGE_KEY = 2**60

SIMPLE_KEYS = frozenset({str, bytes, bool, type(None), Global, Call, PersistentId})


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
    """

    root: object
    globals: tuple[Global, ...]
    calls: tuple[Call, ...]
    persistent_ids: tuple[PersistentId, ...]
    protocol: int
    end: int


class Machine:
    """The state of one reading: the stack, the stacks below each open mark, and the memo."""

    __slots__ = (
        "calls",
        "data",
        "globals",
        "large_keys",
        "memo",
        "metastack",
        "persistent_ids",
        "position",
        "protocol",
        "stack",
        "start",
    )

    def __init__(self, data: bytes, start: int) -> None:
        self.data = data
        self.start = start
        self.position = start
        self.stack: list[object] = []
        self.metastack: list[list[object]] = []
        self.memo: dict[int, object] = {}
        self.globals: dict[tuple[str, str], Global] = {}
        self.calls: list[Call] = []
        self.persistent_ids: list[PersistentId] = []
        self.protocol = 0
        self.large_keys = 0

    def finish(self, end: int) -> Pickle:
        """What was read, once STOP is reached."""
        if self.metastack:
            raise CorruptFileError("it stops inside an open mark")
        return Pickle(
            root=self.stack.pop(),
            globals=tuple(self.globals.values()),
            calls=tuple(self.calls),
            persistent_ids=tuple(self.persistent_ids),
            protocol=self.protocol,
            end=end,
        )

    # -- bytes ---------------------------------------------------------------------------------

    def take(self, start: int, count: int) -> bytes:
        """`count` bytes from `start`; it is an error when the data ends before."""
        part = self.data[start : start + count]
        if len(part) != count:
            raise CorruptFileError("it ends too early")
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
        end = self.data.find(b"\n", self.position, self.position + MAX_LINE)
        if end < 0:
            raise CorruptFileError("a line without an end")
        part = self.take(self.position, end - self.position)
        self.position = end + 1
        return part

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
            found = self.globals[module, name] = Global(module, name)
        return found

    def call(self, function: object, arguments: object) -> Call:
        """The symbol of a call that a real load would make."""
        if type(arguments) is not tuple:
            raise CorruptFileError("call arguments that are no tuple")
        if not isinstance(function, Global | Call | PersistentId):
            raise CorruptFileError("a call of something uncallable")
        made = Call(function, arguments)
        self.calls.append(made)
        return made

    def persistent_id(self, value: object) -> PersistentId:
        """The symbol of a reference to something outside."""
        made = PersistentId(value)
        self.persistent_ids.append(made)
        return made

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
            target.update(pairs)
        elif isinstance(target, Call):
            if target.items is None:
                target.items = {}
            target.items.update(pairs)
        else:
            raise CorruptFileError("items for something that has none")

    def append(self, target: object, items: list[object]) -> None:
        """Append to a list, or to a call whose result is one."""
        if type(target) is list:
            target.extend(items)
        elif isinstance(target, Call):
            if target.appended is None:
                target.appended = []
            target.appended.extend(items)
        else:
            raise CorruptFileError("an append to something that is no list")

    def build(self) -> None:
        """BUILD: give a call its state."""
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, Call):
            raise CorruptFileError("state for something that has none")
        if target.state is not ABSENT:
            raise CorruptFileError("state given to one object twice")
        target.state = state

    def check_keys(self, keys: Iterable[object]) -> None:
        """Refuse keys that cannot be hashed, or not in bounded time."""
        if set(map(type, keys)) <= SIMPLE_KEYS:
            return
        for key in keys:
            self.check_key(key)

    def check_key(self, key: object) -> None:
        """Refuse one key that cannot be hashed in bounded time."""
        pending = [key]
        parts = 0
        while pending:
            part = pending.pop()
            parts += 1
            if parts > MAX_KEY_PARTS:
                raise UnsafeFileError("a dictionary key of too many parts")
            if isinstance(part, tuple | frozenset):
                pending.extend(part)
            elif isinstance(part, int | float) and abs(part) >= LARGE_KEY:
                self.large_keys += 1
                if self.large_keys > MAX_LARGE_KEYS:
                    raise UnsafeFileError("too many very large numbers as dictionary keys")
            elif isinstance(part, list | dict | set | bytearray):
                raise CorruptFileError(f"a {type(part).__name__} as dictionary key")
