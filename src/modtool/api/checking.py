"""`check`: what is wrong with a checkpoint, or unsafe in it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from modtool.api.targets import is_file
from modtool.checks import check_checkpoint
from modtool.errors import UsageError
from modtool.formats import open_checkpoint
from modtool.notes import CODES
from modtool.records import Checkpoint, Note

__all__ = ["Checked", "check"]


@dataclass(frozen=True, slots=True)
class Checked:
    """What was checked, and what was found, the worst first."""

    checkpoint: Checkpoint
    findings: tuple[Note, ...]


def check(
    target: "str | os.PathLike[str]",
    *,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
) -> Checked:
    """Find what is wrong with a checkpoint, or what loading it for real would run.

    Args:
        target: A checkpoint; nothing of it is executed.
        select: Codes to look for; none means all. A beginning of a code stands for all such.
        ignore: Codes to leave out, likewise.
    """
    for code in (*select, *ignore):
        if not any(known.startswith(code) for known in CODES):
            raise UsageError(f"there is no code {code!r}", f"codes: {', '.join(CODES)}")
    if not is_file(target):
        raise UsageError(f"{target} is a model definition; check takes checkpoints")
    checkpoint = open_checkpoint(os.fspath(target))
    found = tuple(
        note
        for note in check_checkpoint(checkpoint)
        if (not select or note.code.startswith(tuple(select)))
        and not (ignore and note.code.startswith(tuple(ignore)))
    )
    return Checked(checkpoint, found)
