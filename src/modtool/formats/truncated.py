"""Files that end too early: what is left of them, and what is lost."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from modtool.formats import safetensors, torch_legacy, torch_zip, truncated_zip, zip_archive
from modtool.formats.files import Reader
from modtool.notes import note
from modtool.records import Checkpoint, Storage

__all__ = ["LEFTOVERS", "is_lost"]


def is_lost(storage: Storage | None) -> bool:
    """True for a storage whose bytes should be in the file and are not."""
    return storage is not None and storage.data is None and storage.location != "meta"


def with_losses(checkpoint: Checkpoint) -> Checkpoint:
    """What is left of a file, with a note of how much is lost."""
    lost = [tensor.name for tensor in checkpoint.tensors if is_lost(tensor.storage)]
    whole = len(checkpoint.tensors) - len(lost)
    name = os.path.basename(checkpoint.target)
    message = (
        f"{name} ends too early: {whole:,} of {len(checkpoint.tensors):,} tensors are whole; "
        "download or save it again, or write those with: modtool convert --salvage"
    )
    found = note("truncated", lost[0] if lost else "", message)
    return replace(checkpoint, notes=(*checkpoint.notes, found))


def losing(read: Callable[[Reader], Checkpoint]) -> Callable[[Reader], Checkpoint]:
    """What reads the beginning of a file, and notes how much is lost."""
    return lambda reader: with_losses(read(reader))


# What reads the beginning of a file whose end is missing, by the name of its format.
LEFTOVERS: Mapping[str, Callable[[Reader], Checkpoint]] = MappingProxyType(
    {
        zip_archive.NAME: losing(truncated_zip.read),
        torch_zip.NAME: losing(truncated_zip.read),
        safetensors.NAME: losing(safetensors.read_truncated),
        torch_legacy.NAME: losing(torch_legacy.read_truncated),
    }
)
