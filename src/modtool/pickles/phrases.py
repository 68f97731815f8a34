"""A tensor as `torch.save` writes it, read in one step.

Most of a checkpoint's pickle is one phrase, said again for each tensor with another key and other
numbers. It means what its opcodes mean one by one: `reader` takes those wherever anything about a
phrase is unlike the pattern below, or would end in an error.
"""

import re
import struct
from functools import lru_cache

from modtool.pickles.machine import CALLABLE, Machine
from modtool.pickles.symbols import Call, PersistentId

__all__ = ["read_tensor"]

NUMBER = rb"(?: K. | M.. | J.{4} )"
WORDS = {
    b"put": rb"r(.{4})",
    b"get": rb"(?: h. | j.{4} )",
    b"number": NUMBER,
    b"numbers": rb"(?: %b{1}\x85 | %b{2}\x86 | %b{3}\x87 | \(%b{4,64}t )" % ((NUMBER,) * 4),
}
TENSOR = re.compile(
    rb"""
    \( \( (%(get)b %(get)b)                        # "storage" and its class
    X (.)\0{3} ([0-9]{1,20}) %(put)b               # key
    (%(get)b %(number)b) (N?) t %(put)b Q          # location and size, in legacy files no view
    (%(number)b) (%(numbers)b) %(put)b             # offset and shape
    (%(numbers)b) %(put)b                          # stride
    ([\x88\x89]) (%(get)b) \) R %(put)b            # requires_grad and OrderedDict(), the hooks
    t %(put)b R %(put)b
    """
    % WORDS,
    re.DOTALL | re.VERBOSE,
)
ARGUMENT = re.compile(rb"[Kh](.) | M(..) | [Jj](.{4})", re.DOTALL | re.VERBOSE)
INDICES = struct.Struct("<7I")
TUPLES = 4  # the storage, the shape, the stride, and the arguments


def read_tensor(machine: Machine, start: int) -> int:
    """Put a call of what is on top with `(storage, offset, shape, stride, requires_grad, hooks)`.

    Returns:
        Where the phrase ends; 0 where there is none at `start`, and nothing was done.
    """
    found = TENSOR.match(machine.data, start)
    if found is None:
        return 0
    kind, length, key, put1, place, view, put2, offset, shape, put3, *rest = found.groups()
    stride, put4, flag, hooks, put5, put6, put7 = rest
    memo, stack = machine.memo, machine.stack
    end = len(memo)
    puts = put1 + put2 + put3 + put4 + put5 + put6 + put7
    indices = INDICES.pack(end, end + 1, end + 2, end + 3, end + 4, end + 5, end + 6)
    if puts != indices or length[0] != len(key):
        return 0
    (named, typed), (location, numel) = numbers(kind), numbers(place)
    (begin,), (empty,) = numbers(offset), numbers(hooks)
    if max(named, typed, location, empty) >= end or machine.far or not stack:
        return 0
    factory, function = memo[empty], stack[-1]
    if type(factory) not in CALLABLE or type(function) not in CALLABLE:
        return 0
    text = key.decode()
    storage: tuple[object, ...] = (memo[named], memo[typed], text, memo[location], numel)
    if view:
        storage = (*storage, None)
    sizes, steps = numbers(shape), numbers(stride)
    # As `Machine.persistent_id` and `Machine.call` make them of what may not change.
    symbol, none = PersistentId(storage), Call(factory, ())
    arguments = (symbol, begin, sizes, steps, flag == b"\x88", none)
    made = stack[-1] = Call(function, arguments)
    machine.persistent_ids.append(symbol)
    machine.calls += (none, made)
    memo += (text, storage, sizes, steps, none, arguments, made)
    machine.built += TUPLES
    return found.end()


@lru_cache(maxsize=4096)
def numbers(opcodes: bytes) -> tuple[int, ...]:
    """The arguments of BININT, BININT1, BININT2, BINGET and LONG_BINGET."""
    return tuple(
        int.from_bytes(found[0][1:], "little", signed=found[0][:1] == b"J")
        for found in ARGUMENT.finditer(opcodes)
    )
