"""The containers, in order of detection. A format is a module with the same few names.

NAME        what `--json` calls it
SUFFIXES    what its files are usually called; only a hint
sniff       (first bytes) -> whether this format should read it
read        (Reader) -> Checkpoint, from headers alone
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Protocol

from modtool.errors import CorruptFileError, DamagedFileError, UnknownFormatError
from modtool.formats import gguf, npy, safetensors, sharded, torch_legacy, torch_tar, zip_archive
from modtool.formats.deepspeed import with_recorded_shapes
from modtool.formats.files import Reader, open_reader
from modtool.formats.folders import folder_of, read_folder
from modtool.formats.foreign import what_it_is
from modtool.formats.oversized import oversized_storages
from modtool.formats.truncated import LEFTOVERS
from modtool.formats.unshown import unshown_storages
from modtool.records import Checkpoint

__all__ = ["FORMATS", "Format", "open_checkpoint"]

HEAD = 4096


class Format(Protocol):
    """What every module in `FORMATS` has."""

    @property
    def NAME(self) -> str:  # noqa: N802
        """What `--json` calls it."""

    @property
    def SUFFIXES(self) -> tuple[str, ...]:  # noqa: N802
        """What its files are usually called."""

    def sniff(self, head: bytes) -> bool:
        """Whether a file that begins so is of this format."""

    def read(self, reader: Reader) -> Checkpoint:
        """What the file holds, from its headers."""


FORMATS: tuple[Format, ...] = (
    zip_archive,
    safetensors,
    torch_legacy,
    torch_tar,
    gguf,
    npy,
    sharded,
)


# As in `LEFTOVERS`: a set of files, of which some may end too early.
SETS: Mapping[str, Callable[[Reader], Checkpoint]] = {sharded.NAME: sharded.read_truncated}


def open_checkpoint(path: str, *, truncated: bool = False) -> Checkpoint:
    """What a checkpoint file holds, from its headers; nothing of it is executed.

    Args:
        path: The file, index or folder.
        truncated: Whether a file may end too early or have lost a part. Storages that are lost have
            no data then, and a note says so.

    Raises:
        TargetError: There is no such file.
        UnknownFormatError: It is something else; the message says what.
        DamagedFileError: A part of it is lost, as when it ends too early.
        CorruptFileError: It contradicts itself.
    """
    checkpoint = read_target(os.fspath(path), truncated=truncated)
    further = (*unshown_storages(checkpoint), *oversized_storages(checkpoint))
    return replace(checkpoint, notes=(*checkpoint.notes, *further))


def read_as(known: Format, reader: Reader, *, truncated: bool) -> Checkpoint:
    """Read a file as one format, or what is left of it where it may be `truncated`."""
    read_left = SETS.get(known.NAME) or LEFTOVERS.get(known.NAME)
    try:
        return known.read(reader)
    except DamagedFileError:
        if not truncated or read_left is None:
            raise
    return read_left(reader)


def read_named(known: Format, reader: Reader, *, truncated: bool) -> Checkpoint:
    """Read a file as one format; an error names the file, or that of a set which is at fault."""
    try:
        return read_as(known, reader, truncated=truncated)
    except CorruptFileError as error:
        if reader.path in error.message or known.NAME in SETS:
            raise
        raise type(error)(f"{reader.path}: {error.message}", error.hint) from None


def read_target(path: str, *, truncated: bool = False) -> Checkpoint:
    """What the first format that knows a file reads in it."""
    folder = folder_of(path)
    if folder is not None:
        return read_folder(folder, partial(read_target, truncated=truncated))
    with open_reader(path) as reader:
        head = reader.head(HEAD)
        for known in FORMATS:
            if known.sniff(head):
                return with_recorded_shapes(read_named(known, reader, truncated=truncated))
        message, hint = what_it_is(head, reader.size)
        raise UnknownFormatError(f"{path}: {message}", hint)
