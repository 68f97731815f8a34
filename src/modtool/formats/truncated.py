"""Files that end too early: what is left of them, and what is lost."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from modtool.formats import safetensors, torch_legacy, truncated_zip, zip_archive
from modtool.formats.files import Reader
from modtool.notes import note
from modtool.records import Checkpoint, Storage

__all__ = ["LEFTOVERS", "is_lost", "with_losses"]

# What reads the beginning of a file whose end is missing, by the name of its format.
LEFTOVERS: Mapping[str, Callable[[Reader], Checkpoint]] = MappingProxyType(
    {
        zip_archive.NAME: truncated_zip.read,
        safetensors.NAME: safetensors.read_truncated,
        torch_legacy.NAME: torch_legacy.read_truncated,
    }
)


def is_lost(storage: Storage | None) -> bool:
    """True for a storage whose bytes should be in the file and are not."""
    return storage is not None and storage.data is None and storage.location != "meta"


def with_losses(checkpoint: Checkpoint) -> Checkpoint:
    """What is left of a file, with a note of how much is lost."""
    lost = [tensor.name for tensor in checkpoint.tensors if is_lost(tensor.storage)]
    whole = len(checkpoint.tensors) - len(lost)
    message = (
        f"the file ends too early: {whole:,} of {len(checkpoint.tensors):,} tensors are whole; "
        "download or save it again, or write those with: modtool convert --salvage"
    )
    found = note("truncated", lost[0] if lost else "", message)
    return replace(checkpoint, notes=(*checkpoint.notes, found))
