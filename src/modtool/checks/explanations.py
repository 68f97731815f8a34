"""Why each code is there, with an example, and what to do: `explanations.md`, taken apart."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from modtool.notes import CODES
from modtool.records import Level, Note

__all__ = ["Explanation", "explained", "remedy_of"]

SECTION = r"(?s)## \S+\n\n(?P<why>.+?)\n\n```\w+\n(?P<example>.+?)\n```\n\nRemedy: (?P<remedy>.+)\Z"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What `--explain CODE` tells.

    Attributes:
        code: The code.
        level: How bad it is.
        meaning: What is found, in a line.
        why: Why it matters.
        example: Lines of Python, shell or JSON that bring it about.
        remedy: What to do about it, in a line.
    """

    code: str
    level: Level
    meaning: str
    why: str
    example: str
    remedy: str


def explained(code: str) -> Explanation:
    """The explanation of a code of `modtool.notes.CODES`."""
    level, meaning = CODES[code]
    found = re.match(SECTION, sections()[code])
    assert found is not None, code
    why = re.sub(r"(?<!\n)\n(?!\n)", " ", found["why"])  # lines are broken for the editor alone
    return Explanation(code, level, meaning, why, found["example"], found["remedy"].strip())


@cache
def sections() -> dict[str, str]:
    """Code -> its section of the text."""
    text = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")
    parts = re.split(r"(?m)^(?=## )", text)[1:]
    return {part.split(maxsplit=2)[1]: part.strip() for part in parts}


def remedy_of(note: Note) -> str:
    """What to do about a note: its own remedy, else that of its code."""
    return note.remedy or explained(note.code).remedy
