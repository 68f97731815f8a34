"""One file of a set of files, in whichever format it is."""

import os
from typing import Protocol

from modtool.errors import DamagedFileError, UnknownFormatError
from modtool.formats import safetensors, torch_legacy, torch_zip
from modtool.formats.files import Reader, open_reader
from modtool.formats.foreign import what_it_is
from modtool.formats.members import errors_name
from modtool.formats.truncated import LEFTOVERS
from modtool.records import Checkpoint

__all__ = ["read_part"]

HEAD = 4096


class PartFormat(Protocol):
    """What reads a file of a set; see `modtool.formats.Format`."""

    @property
    def NAME(self) -> str:  # noqa: N802
        """What `--json` calls it."""

    def sniff(self, head: bytes) -> bool:
        """Whether a file that begins so is of this format."""

    def read(self, reader: Reader) -> Checkpoint:
        """What the file holds."""


PART_FORMATS: tuple[PartFormat, ...] = (safetensors, torch_zip, torch_legacy)


def read_part(path: str, *, truncated: bool = False) -> Checkpoint:
    """Read one file of a set, in whichever format it is; it may end early where `truncated`.

    Raises:
        UnknownFormatError: It is something else; the message says what.
        DamagedFileError: It ends too early.
    """
    with open_reader(path) as reader:
        head = reader.head(HEAD)
        for known in PART_FORMATS:
            if known.sniff(head):
                with errors_name(path):
                    try:
                        return known.read(reader)
                    except DamagedFileError:
                        if not truncated:
                            raise
                        return LEFTOVERS[known.NAME](reader)
        what, hint = what_it_is(head, reader.size)
        link = f" (a symbolic link to {os.path.realpath(path)})" if os.path.islink(path) else ""
        raise UnknownFormatError(f"{path}{link}: {what}", hint)
