"""Files that end too early or have lost a part: what is left of them, and what is lost."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from modtool.errors import CorruptFileError, DamagedFileError, TruncatedFileError
from modtool.formats import safetensors, torch_legacy, torch_zip, truncated_zip, zip_archive
from modtool.formats.files import Reader
from modtool.formats.zip_directory import NOTHING_LEFT, read_directory
from modtool.notes import note
from modtool.records import Checkpoint, Storage

__all__ = ["LEFTOVERS", "WHAT_TO_DO", "is_lost"]

WHAT_TO_DO = "; download or save it again, or write those with: modtool convert --salvage"


def is_lost(storage: Storage | None) -> bool:
    """True for a storage whose bytes should be in the file and are not."""
    return storage is not None and storage.data is None and storage.location != "meta"


def with_losses(checkpoint: Checkpoint, how: str, whole: str) -> Checkpoint:
    """What is left of a file, with a note of how much is lost."""
    lost = [tensor.name for tensor in checkpoint.tensors if is_lost(tensor.storage)]
    left = len(checkpoint.tensors) - len(lost)
    name = os.path.basename(checkpoint.target)
    counts = f"{left:,} of {len(checkpoint.tensors):,} tensors {whole}"
    found = note("truncated", lost[0] if lost else "", f"{name} {how}: {counts}{WHAT_TO_DO}")
    return replace(checkpoint, notes=(*checkpoint.notes, found))


def losing(read: Callable[[Reader], Checkpoint]) -> Callable[[Reader], Checkpoint]:
    """What reads the beginning of a file, and notes how much is lost."""
    return lambda reader: with_losses(read(reader), "ends too early", "are whole")


def read_zip(reader: Reader) -> Checkpoint:
    """What is left of a zip: by its directory where that is there, else from its beginning.

    Raises:
        CorruptFileError: It is not of `torch.save`, or what says which tensors it has is lost.
    """
    try:
        directory = read_directory(reader)
    except TruncatedFileError:
        return losing(truncated_zip.read)(reader)
    if zip_archive.kind_of(directory) is not torch_zip:
        return zip_archive.read(reader)
    try:
        left = torch_zip.read_archive(reader, directory, lost=True)
    except DamagedFileError as error:
        raise CorruptFileError(error.message, NOTHING_LEFT) from None
    return with_losses(left, "is damaged", "can be found in it")


# What reads the rest of a file of which a part is missing, by the name of its format.
LEFTOVERS: Mapping[str, Callable[[Reader], Checkpoint]] = MappingProxyType(
    {
        zip_archive.NAME: read_zip,
        torch_zip.NAME: read_zip,
        safetensors.NAME: losing(safetensors.read_truncated),
        torch_legacy.NAME: losing(torch_legacy.read_truncated),
    }
)
