"""The containers, in order of detection. A format is a module with the same few names.

NAME        what `--json` calls it
SUFFIXES    what its files are usually called; only a hint
sniff       (first bytes) -> whether this format should read it
read        (Reader) -> Checkpoint, from headers alone
"""

import os
from typing import Protocol

from modtool.errors import TargetError, UnknownFormatError
from modtool.formats import safetensors, torch_zip
from modtool.formats.files import Reader, open_reader
from modtool.formats.foreign import what_it_is
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


FORMATS: tuple[Format, ...] = (torch_zip, safetensors)


def open_checkpoint(path: str) -> Checkpoint:
    """What a checkpoint file holds, from its headers; nothing of it is executed.

    Raises:
        TargetError: There is no such file.
        UnknownFormatError: It is something else; the message says what.
        CorruptFileError: It contradicts itself.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        raise TargetError(f"{path}: a folder without a checkpoint in it", "name the file itself")
    with open_reader(path) as reader:
        head = reader.head(HEAD)
        for known in FORMATS:
            if known.sniff(head):
                return known.read(reader)
        message, hint = what_it_is(head, reader.size)
        raise UnknownFormatError(f"{path}: {message}", hint)
