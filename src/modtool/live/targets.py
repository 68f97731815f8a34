"""What names a model: `model.py`, `model.py:Net`, `model.py:build()`, `pkg.module:Net`.

Needs no torch: to know what a target is costs nothing.
"""

from dataclasses import dataclass
from pathlib import Path

from modtool.errors import TargetError, UsageError

__all__ = ["ModelTarget", "is_model_target", "parse_target"]


@dataclass(frozen=True, slots=True)
class ModelTarget:
    """A model target, taken apart.

    Attributes:
        text: As the user wrote it.
        place: The part before the name, as the user wrote it: the command to type next needs it.
        file: The Python file; None where a module is named.
        name: Dotted name inside the file or module; "" where none is given.
    """

    text: str
    place: str
    file: Path | None
    name: str


def is_model_target(text: str) -> bool:
    """True when `text` names Python code, so that looking at it runs that code."""
    place, name = split_target(text)
    if place.endswith(".py"):
        return True
    return bool(name) and is_dotted(place) and not Path(text).exists()


def parse_target(text: str) -> ModelTarget:
    """Take a model target apart.

    Raises:
        TargetError: The file does not exist, or is a folder.
        UsageError: The name after the colon is no name.
    """
    place, name = split_target(text)
    name = name.removesuffix("()")
    if name and not is_dotted(name):
        raise UsageError(
            f"{text}: {name!r} is no name",
            "write FILE.py:NAME or FILE.py:NAME(), and give arguments with --arg NAME=VALUE",
        )
    if name and is_dotted(place) and not place.endswith(".py"):
        return ModelTarget(text, place, None, name)
    return ModelTarget(text, place, existing_file(place), name)


def split_target(text: str) -> tuple[str, str]:
    """The place and the name; the name is "" where none is given."""
    if text.endswith(".py"):
        return text, ""
    place, colon, name = text.rpartition(":")
    return (place, name) if colon and place else (text, "")


def is_dotted(text: str) -> bool:
    """True for `a`, `a.b.c`."""
    return all(part.isidentifier() for part in text.split("."))


def existing_file(place: str) -> Path:
    """The path of a Python file that exists."""
    path = Path(place)
    if path.is_dir():
        raise TargetError(f"{place} is a folder, not a Python file")
    if not path.is_file():
        raise TargetError(
            f"{place}: no such file", "a model is FILE.py, FILE.py:NAME or pkg.module:NAME"
        )
    return path
