"""The line of the user's own code that a finding is about."""

import inspect
import re
from collections.abc import Iterable, Mapping
from types import FunctionType

from torch import nn

from modtool.live.blame import is_library, shown_path
from modtool.live.lint.source import assigned, blocks, constructor_of
from modtool.records import Note

__all__ = ["places_of"]

Place = tuple[str, int]
"""A file as the user would type it, and a line."""
TOLD = re.compile(r"(?:^|[ (])(?P<file>[^\s:()]+\.py):(?P<line>\d+)\b")


def places_of(modules: Mapping[str, nn.Module], notes: Iterable[Note]) -> Mapping[Note, Place]:
    """A note -> where to look, for the notes of which that is known.

    That is the line that a note names; else the one that sets what it speaks of, in the constructor
    of the class around it; else the first line of that class's code.

    Args:
        modules: Path -> module; none of a model that could not be built.
        notes: What was found.
    """
    found = {each: told_place(each) or place_in(modules, each.where) for each in notes}
    return {each: place for each, place in found.items() if place is not None}


def told_place(told: Note) -> Place | None:
    """The first line of code that a note names."""
    found = TOLD.search(told.where) or TOLD.search(told.message)
    return (found["file"], int(found["line"])) if found else None


def place_in(modules: Mapping[str, nn.Module], where: str) -> Place | None:
    """Where the innermost class of the user's own sets what has a dotted name."""
    parts = where.split(".") if where else []
    for end in [*range(len(parts) - 1, -1, -1), len(parts)]:  # the thing itself is asked last
        module = modules.get(".".join(parts[:end]))
        name = parts[end] if end < len(parts) else ""
        for kind in type(module).__mro__ if module is not None else ():
            place = line_of(kind, name)
            if place is not None:
                return place
    return None


def line_of(kind: type, name: str) -> Place | None:
    """The line in which a constructor sets a name, or the first of the class's own code."""
    constructor = constructor_of(kind)
    if constructor is not None and name:
        for statement in (each for block in blocks(constructor.body) for each in block):
            if name in assigned(statement, constructor.receiver):
                return constructor.file, statement.lineno
    for each in map(inspect.unwrap, filter(callable, vars(kind).values())):
        if isinstance(each, FunctionType) and not is_library(each.__code__.co_filename):
            return shown_path(each.__code__.co_filename), each.__code__.co_firstlineno
    return None
