"""The files that make up one checkpoint: which names are allowed, where links may lead.

An index file or a `.metadata` comes from the same stranger as the weights, so a name in it must
stay inside the folder: no absolute path, no `..`. Symbolic links are another matter: whoever laid
out the folder made them, and a Hugging Face cache is made of nothing else (`snapshots/REVISION/…`
leads to `blobs/HASH` of the same repository). They are followed, as `torch.load` follows them; one
that leaves both the folder and such a cache is followed with a note that says where it leads.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from modtool.errors import CorruptFileError, UnsafeFileError
from modtool.notes import note
from modtool.records import Note

__all__ = [
    "errors_name",
    "is_missing",
    "link_notes",
    "path_inside",
]

MAX_NAME = 1024


def path_inside(folder: str, name: object, source: str) -> str:
    """The path of a file that `source` names.

    Raises:
        UnsafeFileError: The name leads out of the folder, or is none.
    """
    if not isinstance(name, str):
        raise UnsafeFileError(
            f"{source}: it names a file by something that is no text: {str(name)[:80]}",
            "nothing was opened; the name of a file in the same folder should stand there",
        )
    parts = name.split("/")
    if (
        not 0 < len(name) <= MAX_NAME
        or any(part in ("", "..") for part in parts)
        or "\\" in name
        or "\0" in name
        or os.path.splitdrive(name)[0]
    ):
        raise UnsafeFileError(
            f"{source}: it names a file outside its folder: {str(name)[:80]!r}",
            "nothing was opened; correct the name if you trust the rest",
        )
    return os.path.join(folder, *parts)


def is_missing(path: str) -> bool:
    """True when nothing is there, or a link that leads to nothing; a loop of links is there."""
    try:
        os.stat(path)
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False
    return False


def link_notes(folder: str, path: str) -> list[Note]:
    """A note when a path inside the folder leads out of it."""
    root = os.path.realpath(folder)
    real = os.path.realpath(path)
    homes = [root]
    repository, snapshots, _ = root.rpartition(f"{os.sep}snapshots{os.sep}")
    if snapshots:
        homes.append(os.path.join(repository, "blobs"))
    if any(real.startswith(home.rstrip(os.sep) + os.sep) for home in homes):
        return []
    name = os.path.relpath(path, folder)
    return [note("link-outside", name, f"{name} is a link that leads out of its folder: {real}")]


@contextmanager
def errors_name(path: str) -> Iterator[None]:
    """What is wrong with a file, said with its name."""
    try:
        yield
    except CorruptFileError as error:
        if error.message.startswith(path):
            raise
        raise type(error)(f"{path}: {error.message}", error.hint) from None
