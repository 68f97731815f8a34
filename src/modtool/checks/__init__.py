"""What is wrong with a checkpoint, or unsafe in it, from its headers alone.

A check is a function that yields notes; `CHECKS` lists them, and `modtool.notes.CODES` says what
each code means. Nothing of the file is executed to find out.
"""

from collections.abc import Callable, Iterator, Sequence

from modtool.checks.safety import dangerous, unknown
from modtool.checks.storages import recorded_devices
from modtool.checks.structure import optimizer_without_model, wrapped_names
from modtool.records import Checkpoint, Level, Note

__all__ = ["CHECKS", "LEVELS", "at_or_above", "check_checkpoint"]

Check = Callable[[Checkpoint], Iterator[Note]]

CHECKS: tuple[Check, ...] = (
    dangerous,
    unknown,
    recorded_devices,
    wrapped_names,
    optimizer_without_model,
)
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


def check_checkpoint(checkpoint: Checkpoint) -> tuple[Note, ...]:
    """Everything that the checks find, with what reading the file noted; the worst first."""
    found = [*checkpoint.notes, *(note for check in CHECKS for note in check(checkpoint))]
    return tuple(sorted(found, key=lambda note: LEVELS.index(note.level)))


def at_or_above(notes: Sequence[Note], level: Level) -> tuple[Note, ...]:
    """Those of the notes that are at least as bad as `level`."""
    return tuple(note for note in notes if LEVELS.index(note.level) <= LEVELS.index(level))
