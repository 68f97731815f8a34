"""What is wrong with a checkpoint, or unsafe in it, from its headers alone.

A check is a function that yields notes; `CHECKS` lists them, and `modtool.notes.CODES` says what
each code means. Nothing of the file is executed to find out.
"""

from collections.abc import Callable, Iterator, Sequence

from modtool.checks.optimizer import optimizer_mismatch
from modtool.checks.safety import dangerous, unknown
from modtool.checks.shards import unlisted_shards, wrong_total_size
from modtool.checks.storages import recorded_devices
from modtool.checks.structure import (
    missing_metadata,
    saved_hooks,
    saved_in_train_mode,
    wrapped_names,
)
from modtool.records import Checkpoint, Level, Note

__all__ = ["CHECKS", "LEVELS", "at_or_above", "check_checkpoint", "worst_first"]

Check = Callable[[Checkpoint], Iterator[Note]]

CHECKS: tuple[Check, ...] = (
    dangerous,
    unknown,
    recorded_devices,
    wrapped_names,
    missing_metadata,
    saved_in_train_mode,
    saved_hooks,
    unlisted_shards,
    wrong_total_size,
    optimizer_mismatch,
)
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


def check_checkpoint(checkpoint: Checkpoint) -> tuple[Note, ...]:
    """Everything that the checks find, after what reading the file noted."""
    return (*checkpoint.notes, *(note for check in CHECKS for note in check(checkpoint)))


def worst_first(notes: Sequence[Note]) -> tuple[Note, ...]:
    """Each note once, errors before warnings."""
    return tuple(sorted(dict.fromkeys(notes), key=lambda note: LEVELS.index(note.level)))


def at_or_above(notes: Sequence[Note], level: Level) -> tuple[Note, ...]:
    """Those of the notes that are at least as bad as `level`."""
    return tuple(note for note in notes if LEVELS.index(note.level) <= LEVELS.index(level))
