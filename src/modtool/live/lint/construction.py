"""Modules whose `nn.Module.__init__` did not run, or too late."""

import linecache
import re
from collections.abc import Iterator
from types import FrameType

from torch import nn

from modtool.errors import ModelError
from modtool.live.blame import is_library, shown_path
from modtool.live.lint.source import calls_init, constructor_of
from modtool.live.lint.subject import joined
from modtool.live.walk import BOOKKEEPING
from modtool.notes import note
from modtool.records import Note

__all__ = ["construction_note", "unfinished"]

# What nn.Module raises: its __setattr__ and register_*, and methods that miss its bookkeeping.
TOO_EARLY = re.compile(r"cannot assign \w+ before Module.__init__\(\) call")
MISSING = re.compile(r"object has no attribute '(\w+)'")


def construction_note(error: ModelError) -> Note | None:
    """What an exception of a constructor says, where it came before `super().__init__()`.

    None where it has another reason: then it is the user's own error.
    """
    cause = error.__cause__
    text = str(cause)
    missing = MISSING.search(text)
    early = TOO_EARLY.search(text) or (missing and missing[1] in BOOKKEEPING - {"training"})
    frame = constructing(cause) if isinstance(cause, AttributeError) and early else None
    if frame is None:
        return None
    kind = type(next(iter(frame.f_locals.values()), None))
    code = frame.f_code
    line = linecache.getline(code.co_filename, frame.f_lineno).strip()
    message = f"`{line}` runs before Module.__init__(), without which nothing can be registered"
    place = f"{shown_path(code.co_filename)}:{frame.f_lineno}"
    return note("before-module-init", place, message, remedy(kind))


def constructing(error: BaseException) -> FrameType | None:
    """The innermost `__init__` of the user's own that an exception passed through."""
    found = None
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        if code.co_name == "__init__" and not is_library(code.co_filename):
            found = step.tb_frame
        step = step.tb_next
    return found


def remedy(kind: type) -> str:
    """What to do, by whether the class calls it at all."""
    constructor = constructor_of(kind)
    calls = constructor is not None and any(map(calls_init, constructor.body))
    how = "move super().__init__() to the top of" if calls else "begin with super().__init__() in"
    return f"{how} {kind.__name__}.__init__"


def unfinished(model: nn.Module, path: str = "") -> Iterator[Note]:
    """Modules that were built without `nn.Module.__init__()`; outermost ones."""
    todo, seen = [(path, model)], set()
    while todo:
        path, module = todo.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        children = vars(module).get("_modules")
        if children is None:
            message = (
                f"{type(module).__name__} was built without Module.__init__(): it has no "
                f"parameters, and every use of it fails"
            )
            yield note("before-module-init", path, message, remedy(type(module)))
            continue
        todo.extend((joined(path, name), each) for name, each in children.items() if each)
