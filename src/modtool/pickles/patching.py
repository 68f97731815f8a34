"""Booleans of a pickle changed where they stand: one byte each, every other byte as it was.

What is wanted is given as symbols, as `write_pickle` takes them. The pickle is read with the place
of every boolean, and both are walked side by side: where they differ in a boolean, its byte is
changed; where they differ in anything else, this way is closed. The changed bytes are read again
and must say what is wanted: a byte that several objects share would give one of them away.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from modtool.errors import CorruptFileError
from modtool.pickles.reader import read_pickle
from modtool.pickles.symbols import Call, Flag, Global, PersistentId

__all__ = ["patched"]

Pair = tuple[object, object]


class UnlikeError(Exception):
    """The two differ in more than booleans."""


def patched(data: bytes, root: object, replace: Mapping[int, object]) -> bytes | None:
    """The pickle with other booleans in it; None where more than these would have to change.

    Args:
        data: The pickle's bytes.
        root: What it holds, as it was read before.
        replace: Objects that take the place of others, by the `id` of those others.

    Raises:
        CorruptFileError: It is no well-formed pickle.
    """
    try:
        made = bytearray(data)
        for flag in differences(root, marked(data), replace):
            made[flag.place] = flag.spelling[not flag.value]
        left = differences(root, marked(bytes(made)), replace)
    except UnlikeError:
        return None
    return None if left else bytes(made)


def marked(data: bytes) -> object:
    """What a pickle holds, every boolean with its place."""
    pickle = read_pickle(data, marks_flags=True)
    if pickle.end != len(data):
        raise CorruptFileError("it changed while it was read", "try again when it is complete")
    return pickle.root


def differences(root: object, found: object, replace: Mapping[int, object]) -> list[Flag]:
    """The booleans that are not what they should be.

    Raises:
        UnlikeError: Something else is not.
    """
    flags: list[Flag] = []
    seen: set[tuple[int, int]] = set()
    pending: list[Pair] = [(root, found)]
    while pending:
        wanted, there = pending.pop()
        wanted = replace.get(id(wanted), wanted)
        if type(there) is Flag:
            if type(wanted) is not bool:
                raise UnlikeError
            if wanted is not there.value:
                flags.append(there)
        elif type(wanted) is not type(there):
            raise UnlikeError
        elif type(wanted) in PARTS:
            pair = id(wanted), id(there)
            if pair not in seen:
                seen.add(pair)
                pending.extend(PARTS[type(wanted)](wanted, there))
        elif wanted != there and not (wanted != wanted and there != there):  # NaN is like NaN
            raise UnlikeError
    return flags


def items(wanted: list[object] | tuple[object, ...], there: object) -> Iterator[Pair]:
    """The items of two sequences, in order."""
    assert isinstance(there, list | tuple)
    if len(wanted) != len(there):
        raise UnlikeError
    yield from zip(wanted, there, strict=True)


def entries(wanted: dict[object, object], there: object) -> Iterator[Pair]:
    """The keys and the values of two dicts, in order."""
    assert isinstance(there, dict)
    if len(wanted) != len(there):
        raise UnlikeError
    yield from zip(wanted, there, strict=True)
    yield from zip(wanted.values(), there.values(), strict=True)


def calls(wanted: Call, there: object) -> Iterator[Pair]:
    """Everything that two calls are made of."""
    assert isinstance(there, Call)
    if wanted.how != there.how:
        raise UnlikeError
    yield wanted.function, there.function
    yield wanted.arguments, there.arguments
    yield wanted.keywords, there.keywords
    yield wanted.appended, there.appended
    yield wanted.items, there.items
    yield wanted.state, there.state


def names(wanted: Global, there: object) -> Iterator[Pair]:
    """Module and name."""
    assert isinstance(there, Global)
    yield wanted.module, there.module
    yield wanted.name, there.name


def references(wanted: PersistentId, there: object) -> Iterator[Pair]:
    """What two references refer to."""
    assert isinstance(there, PersistentId)
    yield wanted.value, there.value


PARTS: Mapping[type, Callable[..., Iterator[Pair]]] = MappingProxyType(
    {
        list: items,
        tuple: items,
        dict: entries,
        Call: calls,
        Global: names,
        PersistentId: references,
    }
)
