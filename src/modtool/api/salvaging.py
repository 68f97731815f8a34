"""`convert --salvage`: what of a damaged file is whole."""

from dataclasses import replace

from modtool.formats.truncated import WHAT_TO_DO, is_lost
from modtool.records import Checkpoint, FileRange, Storage
from modtool.write.streams import Sources

__all__ = ["damage", "without_advice"]


def without_advice(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with notes that do not advise what is being done."""
    notes = (
        replace(note, message=note.message.removesuffix(WHAT_TO_DO)) for note in checkpoint.notes
    )
    return replace(checkpoint, notes=tuple(notes))


def damage(storage: Storage) -> str:
    """What is wrong with the bytes of a storage; "" where nothing is that a file could tell.

    Zip archives have checksums, unless torch was told to leave them out; other files have none.
    """
    if is_lost(storage):
        return "lost: its bytes are not in the file"
    with Sources() as sources:
        if isinstance(storage.data, FileRange) and not sources.is_whole(storage.data):
            return "damaged: its bytes do not give the checksum that was saved with them"
    return ""
