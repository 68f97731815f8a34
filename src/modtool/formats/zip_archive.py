"""Zip archives: a dozen formats use them, and only the directory tells which one a file is.

To add one: a module with `NAME`, `SUFFIXES`, `claims` and `read_archive`, and its place in
`ARCHIVES`; the first that claims an archive reads it.
"""

from typing import Protocol

from modtool.errors import UnknownFormatError
from modtool.formats import npz, torch_package, torch_zip, torchscript
from modtool.formats.files import Reader
from modtool.formats.foreign import what_archive_it_is
from modtool.formats.zip_directory import Directory, read_directory
from modtool.records import Checkpoint

__all__ = ["ARCHIVES", "NAME", "SUFFIXES", "kind_of", "read", "sniff"]

NAME = "zip"
SUFFIXES = (".zip",)


class Archive(Protocol):
    """What every module in `ARCHIVES` has."""

    @property
    def NAME(self) -> str:  # noqa: N802
        """What `--json` calls it."""

    @property
    def SUFFIXES(self) -> tuple[str, ...]:  # noqa: N802
        """What its files are usually called."""

    def claims(self, directory: Directory) -> bool:
        """Whether an archive with these members is of this format."""

    def read_archive(self, reader: Reader, directory: Directory) -> Checkpoint:
        """What the archive holds, from its headers."""


ARCHIVES: tuple[Archive, ...] = (torchscript, torch_zip, torch_package, npz)


def sniff(head: bytes) -> bool:
    """True for a zip archive of any kind."""
    return head.startswith(b"PK\x03\x04")


def read(reader: Reader) -> Checkpoint:
    """Read an archive as what its directory says that it is.

    Raises:
        UnknownFormatError: It is none of `ARCHIVES`.
        CorruptFileError: It contradicts itself.
    """
    directory = read_directory(reader)
    archive = kind_of(directory)
    if archive is not None:
        return archive.read_archive(reader, directory)
    what, hint = what_archive_it_is(directory.members)
    raise UnknownFormatError(f"{reader.path}: {what}", hint)


def kind_of(directory: Directory) -> Archive | None:
    """The first of `ARCHIVES` that claims an archive with these members."""
    return next((archive for archive in ARCHIVES if archive.claims(directory)), None)
