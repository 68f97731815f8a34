"""The opcodes that `reader` does not step through itself, each a function of the machine.

Names, arguments and stack effects are those of Python's `pickletools`.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from modtool.errors import CorruptFileError, UnsafeFileError
from modtool.pickles.machine import Machine

__all__ = ["OPCODES"]

MAX_INTEGER_BYTES = 1024
MAX_INDEX_DIGITS = 18
DECIMAL = re.compile(rb"0|-?[1-9][0-9]*")
ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|.?)", re.DOTALL)
SIMPLE_ESCAPES = frozenset(b"\\'\"abfnrtv")


def op_int(machine: Machine) -> None:
    text = machine.line()
    if text in (b"00", b"01"):
        machine.push(machine.boolean(text == b"01", machine.position - 2, b"01"))
    else:
        machine.push(decimal(text))


def op_long(machine: Machine) -> None:
    machine.push(decimal(machine.line().removesuffix(b"L")))


def decimal(text: bytes) -> int:
    """A number as pickle writes it. Readers disagree on others: `010` is 8, 10 or an error."""
    if len(text) > 2 * MAX_INTEGER_BYTES:
        raise UnsafeFileError("an integer of thousands of digits")
    if not DECIMAL.fullmatch(text):
        raise CorruptFileError("a number that is no plain decimal")
    return int(text)


def long_of_width(width: int) -> Callable[[Machine], None]:
    """LONG1 and LONG4: a two's complement number of counted bytes."""

    def op_long_counted(machine: Machine) -> None:
        count = machine.number(width)
        if count > MAX_INTEGER_BYTES:
            raise UnsafeFileError(f"an integer of {count:,} bytes")
        machine.push(int.from_bytes(machine.next(count), "little", signed=True))

    return op_long_counted


def op_string(machine: Machine) -> None:
    """STRING: a quoted, escaped Python 2 string."""
    quoted = machine.line()
    if len(quoted) < 2 or quoted[:1] not in (b"'", b'"') or quoted[-1:] != quoted[:1]:
        raise CorruptFileError("a string without quotes")
    inner = quoted[1:-1]
    if b"\\" not in inner:
        push_python2_text(machine, inner)
        return
    if not all(is_escape(found[1]) for found in ESCAPE.finditer(inner)):
        raise CorruptFileError("a string with an escape that Python 2 does not write")
    push_python2_text(machine, inner.decode("unicode_escape").encode("latin-1"))


def is_escape(text: bytes) -> bool:
    """True for what may follow a backslash. Readers disagree on all others."""
    return len(text) == 3 or (len(text) == 1 and text[0] in SIMPLE_ESCAPES)


def push_python2_text(machine: Machine, text: bytes) -> None:
    """Python 2's `str`: UTF-8 is torch's own default, Latin-1 what it takes on demand."""
    try:
        machine.push(text.decode("utf-8"))
    except UnicodeDecodeError:
        machine.latin = True
        machine.push(text.decode("latin-1"))


def python2_text_of_width(width: int) -> Callable[[Machine], None]:
    """SHORT_BINSTRING and BINSTRING: a Python 2 string of counted bytes."""
    return lambda machine: push_python2_text(machine, machine.counted(width))


def op_float(machine: Machine) -> None:
    machine.push(float(machine.line()))


def op_unicode(machine: Machine) -> None:
    machine.push(machine.line().decode("raw_unicode_escape"))


def counted_by(width: int, convert: Callable[[bytes], object]) -> Callable[[Machine], None]:
    """An opcode whose argument is counted bytes."""

    def op_counted(machine: Machine) -> None:
        machine.push(convert(machine.counted(width)))

    return op_counted


def unicode_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def constant(value: object) -> Callable[[Machine], None]:
    """An opcode that pushes an immutable value."""
    return lambda machine: machine.push(value)


def fresh(kind: Callable[[], object]) -> Callable[[Machine], None]:
    """An opcode that pushes a new, empty container."""

    def op_fresh(machine: Machine) -> None:
        machine.built += 1
        machine.stack.append(kind())

    return op_fresh


def op_list(machine: Machine) -> None:
    items = machine.pop_mark()
    machine.built += 1
    machine.push(items)


def op_dict(machine: Machine) -> None:
    items = machine.pop_mark()
    made: dict[object, object] = {}
    machine.built += 1
    machine.set_items(made, items)
    machine.push(made)


def op_append(machine: Machine) -> None:
    item = machine.stack.pop()
    machine.append(machine.stack[-1], [item])


def op_appends(machine: Machine) -> None:
    items = machine.pop_mark()
    machine.append(machine.stack[-1], items)


def op_setitem(machine: Machine) -> None:
    value = machine.stack.pop()
    key = machine.stack.pop()
    machine.set_item(machine.stack[-1], key, value)


def op_setitems(machine: Machine) -> None:
    items = machine.pop_mark()
    machine.set_items(machine.stack[-1], items)


def op_additems(machine: Machine) -> None:
    items = machine.pop_mark()
    target = machine.stack[-1]
    if type(target) is not set:
        raise CorruptFileError("members for something that is no set")
    machine.check_mutable(target)
    machine.check_keys(items)
    target.update(items)


def op_frozenset(machine: Machine) -> None:
    items = machine.pop_mark()
    machine.check_keys(items)
    machine.built += 1
    machine.push(frozenset(items))


def op_pop(machine: Machine) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.pop_mark()


def op_pop_mark(machine: Machine) -> None:
    machine.pop_mark()


def op_dup(machine: Machine) -> None:
    machine.push(machine.stack[-1])


def op_get(machine: Machine) -> None:
    machine.push(machine.stored(memo_index(machine)))


def op_put(machine: Machine) -> None:
    machine.store(memo_index(machine), machine.stack[-1])


def memo_index(machine: Machine) -> int:
    """The next line, a number that is not negative."""
    text = machine.line()
    if not text.isdigit() or len(text) > MAX_INDEX_DIGITS:
        raise CorruptFileError("a memo index that is no number")
    return int(text)


def op_global(machine: Machine) -> None:
    module = machine.line().decode("utf-8")
    machine.push(machine.global_named(module, machine.line().decode("utf-8")))


def op_stack_global(machine: Machine) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    if type(name) is not str or type(module) is not str:
        raise CorruptFileError("a global whose name is no text")
    machine.push(machine.global_named(module, name))


def op_extension(machine: Machine) -> None:
    raise CorruptFileError(
        "it uses the copyreg extension registry, whose meaning is not in the file",
        "save it where its extensions are registered, without them or as a state_dict",
    )


def op_newobj(machine: Machine) -> None:
    arguments = machine.stack.pop()
    machine.push(machine.instantiate(machine.stack.pop(), arguments))


def op_newobj_ex(machine: Machine) -> None:
    keywords, arguments = machine.stack.pop(), machine.stack.pop()
    made = machine.instantiate(machine.stack.pop(), arguments)
    if type(keywords) is not dict or not all(type(name) is str for name in keywords):
        raise CorruptFileError("keyword arguments that are no dict")
    machine.give((keywords,))
    made.keywords = keywords
    machine.push(made)


def op_inst(machine: Machine) -> None:
    module = machine.line().decode("utf-8")
    name = machine.line().decode("utf-8")
    push_instance(machine, machine.global_named(module, name), machine.pop_mark())


def op_obj(machine: Machine) -> None:
    cls, *arguments = machine.pop_mark()
    push_instance(machine, cls, arguments)


def push_instance(machine: Machine, cls: object, arguments: list[object]) -> None:
    made = machine.call(cls, tuple(arguments))
    made.how = "instance"
    machine.push(made)


def op_build(machine: Machine) -> None:
    machine.build()


def op_persid(machine: Machine) -> None:
    machine.push(machine.persistent_id(machine.line().decode("utf-8")))


def op_proto(machine: Machine) -> None:
    machine.protocol = machine.number(1)
    if machine.protocol > 5:
        raise CorruptFileError(
            f"pickle protocol {machine.protocol} is not known",
            "the file is damaged, or newer than this modtool",
        )


def op_frame(machine: Machine) -> None:
    machine.number(8)  # a hint for readers of streams; the bytes follow in any case


def op_buffer(machine: Machine) -> None:
    raise CorruptFileError(
        "it refers to out-of-band buffers, which a file cannot hold", "save it with torch.save"
    )


def op_unknown(machine: Machine) -> None:
    raise CorruptFileError("unknown opcode")


NAMED: Mapping[bytes, Callable[[Machine], None]] = MappingProxyType(
    {
        b"I": op_int,
        b"L": op_long,
        b"\x8a": long_of_width(1),
        b"\x8b": long_of_width(4),
        b"S": op_string,
        b"T": python2_text_of_width(4),
        b"U": python2_text_of_width(1),
        b"B": counted_by(4, bytes),
        b"C": counted_by(1, bytes),
        b"\x8e": counted_by(8, bytes),
        b"\x96": counted_by(8, bytearray),
        b"\x97": op_buffer,
        b"\x98": op_buffer,
        b"V": op_unicode,
        b"\x8c": counted_by(1, unicode_text),
        b"\x8d": counted_by(8, unicode_text),
        b"F": op_float,
        b"]": fresh(list),
        b"a": op_append,
        b"e": op_appends,
        b"l": op_list,
        b")": constant(()),
        b"}": fresh(dict),
        b"d": op_dict,
        b"s": op_setitem,
        b"u": op_setitems,
        b"\x8f": fresh(set),
        b"\x90": op_additems,
        b"\x91": op_frozenset,
        b"0": op_pop,
        b"2": op_dup,
        b"1": op_pop_mark,
        b"g": op_get,
        b"p": op_put,
        b"\x82": op_extension,
        b"\x83": op_extension,
        b"\x84": op_extension,
        b"c": op_global,
        b"\x93": op_stack_global,
        b"b": op_build,
        b"i": op_inst,
        b"o": op_obj,
        b"\x81": op_newobj,
        b"\x92": op_newobj_ex,
        b"\x80": op_proto,
        b"\x95": op_frame,
        b"P": op_persid,
    }
)

OPCODES: tuple[Callable[[Machine], None], ...] = tuple(
    NAMED.get(bytes([code]), op_unknown) for code in range(256)
)
