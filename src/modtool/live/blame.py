"""Whose fault an exception is: the user's own file and line, out of a traceback."""

import functools
import linecache
import os
import sysconfig
import traceback
from pathlib import Path

from modtool.errors import ModelError

__all__ = ["is_library", "is_of_torch", "model_error", "shown_path", "user_line"]

LIBRARIES = tuple(
    str(Path(sysconfig.get_path(name)).resolve()) + os.sep
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
OURS = str(Path(__file__).resolve().parents[1]) + os.sep


def model_error(error: BaseException, doing: str) -> ModelError:
    """An exception of the user's code as a ModelError: file, line, type and message.

    Args:
        error: What was raised.
        doing: What was going on, as in `importing model.py`.
    """
    place = f"{user_line(error)}: " if user_line(error) else ""
    return ModelError(f"{place}{described(error)} (while {doing})", remedy(error))


def described(error: BaseException) -> str:
    """`ValueError: hidden must be even`, on one line."""
    if isinstance(error, SystemExit):
        return f"the file ended the program with exit({error.code!r})"
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {' '.join(text.split())}" if text else type(error).__name__


def remedy(error: BaseException) -> str:
    """What to do about it, where that can be told; else the line of code that raised."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"is {error.name.partition('.')[0]} installed in this environment?"
    if isinstance(error, SystemExit):
        return "guard what the file runs with: if __name__ == '__main__':"
    if isinstance(error, SyntaxError):
        return (error.text or "").strip()
    frame = user_frame(error)
    return linecache.getline(frame.filename, frame.lineno or 0).strip() if frame else ""


def user_line(error: BaseException) -> str:
    """`model.py:12`, the innermost line of the user's own; "" where none took part."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{shown_path(error.filename)}:{error.lineno}"
    frame = user_frame(error)
    return f"{shown_path(frame.filename)}:{frame.lineno}" if frame else ""


def user_frame(error: BaseException) -> traceback.FrameSummary | None:
    """The innermost frame outside Python, the installed packages and modtool."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame for frame in reversed(frames) if not is_library(frame.filename)), None)


@functools.cache
def is_library(filename: str) -> bool:
    """True for code that the user did not write: Python's, installed packages', modtool's."""
    if filename.startswith(("<", *LIBRARIES, OURS)):
        return True
    path = str(Path(filename).resolve())
    return path.startswith((*LIBRARIES, OURS)) or "site-packages" in path


def is_of_torch(function: object) -> bool:
    """True for a function that torch defines."""
    return str(getattr(function, "__module__", "")).partition(".")[0] == "torch"


def shown_path(filename: str) -> str:
    """A path as the user would type it: relative where it lies below the working folder."""
    path = Path(filename).resolve()
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
