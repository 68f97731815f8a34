"""Pickle bytes to symbols. Nothing is imported, nothing is called, everything is bounded.

Containers are built as plain lists, tuples, dicts and sets; what the file would look up or call
becomes a symbol (`modtool.pickles.symbols`). Reading is a loop over a stack, protocols 0 to 5:
depth costs nothing, and time and memory are linear in the size of the pickle.
"""

import struct
from collections.abc import Callable, Iterator
from itertools import chain
from mmap import mmap

from modtool.errors import CorruptFileError, UnsafeFileError
from modtool.pickles.machine import ENDS_TOO_EARLY, TOO_DENSE, Machine, Pickle
from modtool.pickles.opcodes import OPCODES
from modtool.pickles.phrases import read_tensor

__all__ = ["Pickle", "read_pickle"]

ROUND = 200_000
# What is written out in `run` reads as fast as its bytes come. Each of the others takes as long as
# two of those, and as a byte or two more.
FREE_OPCODES = 2_000_000
# Each level of a nested object has one mark open, and pickle writes a few thousand levels at most.
MAX_MARKS = 50_000

unpack_count = struct.Struct("<I").unpack_from
unpack_short = struct.Struct("<H").unpack_from
unpack_integer = struct.Struct("<i").unpack_from
unpack_float = struct.Struct(">d").unpack_from


def read_pickle(
    data: bytes | mmap,
    start: int = 0,
    *,
    where: str = "pickle",
    resolve: Callable[[object], object] | None = None,
    marks_flags: bool = False,
) -> Pickle:
    """Read the pickle that begins at `start`.

    Args:
        data: The bytes; an `mmap` will do.
        start: Where the pickle begins.
        where: What to call it in an error.
        resolve: What stands for a persistent id, where that is not enough by itself.
        marks_flags: Put a `Flag`, which knows its place, where a boolean is.

    Raises:
        CorruptFileError: It is no well-formed pickle.
        UnsafeFileError: It asks for more than a pickle of its size may.
    """
    machine = Machine(data, start, resolve, marks_flags=marks_flags)
    try:
        return run(machine)
    except MemoryError:
        raise UnsafeFileError(f"{where}: it asks for more memory than there is") from None
    except CorruptFileError as error:
        message = f"{where}: {error.message} ({place(machine)})"
        raise type(error)(message, error.hint) from None
    except MALFORMED as error:
        raise CorruptFileError(f"{where}: {describe(machine, error)} ({place(machine)})") from None


MALFORMED = (
    LookupError,
    ValueError,
    TypeError,
    ArithmeticError,
    AttributeError,
    RecursionError,
    struct.error,
)


# What bytes and an mmap say of an index that is not theirs; lists say something else.
BEYOND_THE_DATA = ("index out of range", "mmap index out of range")


def place(machine: Machine) -> str:
    """Where the opcode at fault lies, from the beginning of the pickle."""
    return f"byte {machine.position - machine.start:,}"


def describe(machine: Machine, error: Exception) -> str:
    """What the exception of a step means for the pickle."""
    if isinstance(error, struct.error) or str(error) in BEYOND_THE_DATA:
        return ENDS_TOO_EARLY
    reasons: dict[type[Exception], str] = {
        IndexError: "stack underflow",
        KeyError: "a memo entry that was never stored",
    }
    return f"not a well-formed pickle: {reasons.get(type(error), str(error)[:80])}"


def rounds(machine: Machine) -> Iterator[range]:
    """So many opcodes at a time, and a look at what they have made after each round."""
    for opcodes in range(0, len(machine.data) + 1, ROUND):
        machine.check_objects()
        size = machine.position - machine.start
        if opcodes + machine.slow > FREE_OPCODES + size:
            raise UnsafeFileError(f"{opcodes:,} opcodes in {size:,} bytes", TOO_DENSE)
        yield range(ROUND)


def run(machine: Machine) -> Pickle:
    """Step through the opcodes until STOP.

    The opcodes that make up nine tenths of every checkpoint, and those of long lists of numbers,
    are written out here, in order of frequency, because a call for each would double the time;
    the others are in `OPCODES`. Where two marks follow each other, a tensor mostly begins.
    """
    data, position, stack = machine.data, machine.position, machine.stack
    memo, far = machine.memo, machine.far
    metastack, marks_flags = machine.metastack, machine.marks_flags
    memoizes = False
    takes_phrases = machine.resolve is None and not marks_flags
    for _ in chain.from_iterable(rounds(machine)):
        machine.position = position
        opcode = data[position]
        position += 1
        if opcode == 0x72:  # LONG_BINPUT
            index = unpack_count(data, position)[0]
            if index == len(memo) and not far:
                memo.append(stack[-1])
            else:
                machine.store(index, stack[-1])
            position += 4
        elif opcode == 0x4B:  # BININT1
            stack.append(data[position])
            position += 1
        elif opcode == 0x68:  # BINGET
            index = data[position]
            stack.append(memo[index] if index < len(memo) else far[index])
            position += 1
        elif opcode == 0x71:  # BINPUT
            machine.store(data[position], stack[-1])
            position += 1
        elif opcode == 0x58:  # BINUNICODE
            start = position + 4
            position = start + unpack_count(data, position)[0]
            text = data[start:position]
            if len(text) != position - start:
                raise CorruptFileError(ENDS_TOO_EARLY)
            stack.append(text.decode("utf-8", "surrogatepass"))
        elif opcode == 0x28:  # MARK
            if takes_phrases and data[position : position + 1] == b"(":
                end = read_tensor(machine, position - 1)
                if end:
                    position = end
                    continue
            if len(metastack) == MAX_MARKS:
                raise UnsafeFileError("its object is nested too deeply")
            metastack.append(stack)
            machine.stack = stack = []
        elif opcode == 0x74:  # TUPLE
            machine.built += 1
            items = tuple(stack)
            machine.stack = stack = metastack.pop()
            stack.append(items)
        elif opcode == 0x52:  # REDUCE
            arguments = stack.pop()
            stack[-1] = machine.call(stack[-1], arguments)
        elif opcode == 0x86:  # TUPLE2
            machine.built += 1
            last = stack.pop()
            stack[-1] = (stack[-1], last)
        elif opcode == 0x51:  # BINPERSID
            stack[-1] = machine.persistent_id(stack[-1])
        elif opcode == 0x89:  # NEWFALSE
            stack.append(machine.boolean(False, position - 1) if marks_flags else False)
        elif opcode == 0x88:  # NEWTRUE
            stack.append(machine.boolean(True, position - 1) if marks_flags else True)
        elif opcode == 0x29:  # EMPTY_TUPLE
            stack.append(())
        elif opcode == 0x94:  # MEMOIZE
            if far:
                machine.store(len(memo) + len(far), stack[-1])
            else:
                memo.append(stack[-1])
            memoizes = True
        elif opcode == 0x6A:  # LONG_BINGET
            index = unpack_count(data, position)[0]
            stack.append(memo[index] if index < len(memo) else far[index])
            position += 4
        elif opcode == 0x85:  # TUPLE1
            machine.built += 1
            stack[-1] = (stack[-1],)
        elif opcode == 0x87:  # TUPLE3
            machine.built += 1
            stack[-3:] = [(stack[-3], stack[-2], stack[-1])]
        elif opcode == 0x4D:  # BININT2
            stack.append(unpack_short(data, position)[0])
            position += 2
        elif opcode == 0x4A:  # BININT
            stack.append(unpack_integer(data, position)[0])
            position += 4
        elif opcode == 0x47:  # BINFLOAT
            stack.append(unpack_float(data, position)[0])
            position += 8
        elif opcode == 0x4E:  # NONE
            stack.append(None)
        elif opcode == 0x2E:  # STOP
            if memoizes:
                machine.unusual.add(0x94)
            return machine.finish(position)
        else:
            machine.position = position
            machine.slow += 1
            machine.unusual.add(opcode)
            OPCODES[opcode](machine)
            position, stack = machine.position, machine.stack
    raise CorruptFileError(ENDS_TOO_EARLY)
