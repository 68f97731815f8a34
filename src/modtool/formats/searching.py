"""Every checkpoint below a folder: files, sets of files, and folders that are one checkpoint.

Hidden folders are passed over, links to folders are not followed. A set behind an index is one
checkpoint, and so are numbered files without one. A suffix that other programs use as well
(`.bin`, `.pkl`, …) counts only where the file's first bytes do.
"""

import os
from collections.abc import Iterator, Mapping

from modtool.errors import ModtoolError, TargetError
from modtool.formats import FORMATS, dcp, dcp_shards, deepspeed, sharded
from modtool.formats.files import open_reader
from modtool.formats.folders import NUMBERED, Listing, list_folder
from modtool.formats.foreign import what_folder_it_is

__all__ = ["find_checkpoints", "nothing_below"]

CERTAIN = (".safetensors", ".pth", ".pt", ".ckpt", ".pth.tar", ".gguf", ".npz", ".npy", ".ptl")
INDEX = ".index.json"
# What an index is named after: one that cannot be read is a checkpoint that is broken.
SHARDED = (".safetensors", ".bin", ".pt", ".pth")
PERHAPS = (".bin", ".pkl", ".model")
# What is broken, and not just something else.
BROKEN = (b"version https://git-lfs", b"")
HEAD = 4096


def find_checkpoints(folder: str) -> Iterator[str]:
    """Paths to open, one for each checkpoint, in the order of their names.

    Raises:
        TargetError: A folder may not be read, or has too many entries.
    """
    listing = list_folder(folder)
    whole = is_whole(listing)
    if whole:
        yield folder
    files = [] if whole else checkpoints_in(listing)
    for name in sorted((*listing.folders, *files)):
        path = os.path.normpath(os.path.join(folder, name))
        if name not in listing.folders:
            yield path
        elif not name.startswith(".") and not os.path.islink(path):
            yield from find_checkpoints(path)


def nothing_below(folder: str) -> TargetError:
    """The error of a folder in which nothing was found: what it is, where that is known."""
    listing = list_folder(folder)
    what, step = what_folder_it_is(listing.files, listing.folders)
    what = what or "no checkpoint in this folder or below it"
    return TargetError(f"{folder}: {what}", step or "name the file itself")


def is_whole(listing: Listing) -> bool:
    """True for a folder whose files are one checkpoint."""
    if dcp.METADATA in listing.files or any(map(deepspeed.MODEL_FILE.match, listing.files)):
        return True
    if any(map(dcp_shards.FILE_NAME.match, listing.files)):
        return True
    has_index = any(name.endswith(INDEX) for name in listing.files)
    return not has_index and len(numbered_sets(listing)) == 1 == len(kinds_in(listing))


def numbered_sets(listing: Listing) -> set[tuple[str, ...]]:
    """The sets of numbered files."""
    found = (NUMBERED.match(name) for name in listing.files)
    return {match.group(1, 3, 4) for match in found if match}


def kinds_in(listing: Listing) -> set[object]:
    """The checkpoints of a folder, numbered files as one."""
    names = (name for name in listing.files if is_candidate(listing.path, name))
    matches = ((name, NUMBERED.match(name)) for name in names)
    return {match.group(1, 3, 4) if match else name for name, match in matches}


def checkpoints_in(listing: Listing) -> list[str]:
    """The files of a folder to open: each index, and each file that belongs to none."""
    names = [name for name in listing.files if is_candidate(listing.path, name)]
    members = {
        member
        for name in names
        if name.endswith(INDEX)
        for member in weight_map(os.path.join(listing.path, name)).values()
    }
    return [name for name in names if name not in members]


def is_candidate(folder: str, name: str) -> bool:
    """Whether a file is a checkpoint, or would be one if it were not broken."""
    if name.startswith("."):
        return False
    path = os.path.join(folder, name)
    if name.endswith(CERTAIN):
        return True
    if name.endswith(INDEX):
        return name.removesuffix(INDEX).endswith(SHARDED) or bool(weight_map(path))
    return name.endswith(PERHAPS) and looks_like_one(path)


def weight_map(path: str) -> Mapping[str, str]:
    """Which file an index says has which tensor; nothing for what is no index."""
    try:
        with open_reader(path) as reader:
            return sharded.parse_index(reader)[0]
    except ModtoolError:
        return {}


def looks_like_one(path: str) -> bool:
    """Whether the first bytes are those of a checkpoint, or of the lack of one."""
    try:
        with open_reader(path) as reader:
            head = reader.head(HEAD)
    except ModtoolError:
        return False
    lost = any(head.startswith(beginning) if beginning else not head for beginning in BROKEN)
    return lost or any(known.sniff(head) for known in FORMATS)
