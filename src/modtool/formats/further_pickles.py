"""The pickles that `check` judges and nothing else opens: each would run when somebody loads it.

The values of a distributed checkpoint are files of `torch.save` in its items, which torch loads
with `weights_only=False` (torch 2.13, `default_planner.py`, `load_bytes`; the tensors it loads
with True). A torch zip may carry pickles beside `data.pkl`, which other programs may load.
"""

import os
from collections.abc import Iterator

from modtool.errors import UnsafeFileError
from modtool.formats import dcp, torch_package, torch_zip
from modtool.formats.archive_storages import archive_root
from modtool.formats.dcp_items import values_of
from modtool.formats.files import Reader, open_reader
from modtool.formats.members import is_missing
from modtool.formats.zip_directory import read_directory, read_member
from modtool.pickles.callables import callables_in
from modtool.pickles.reader import Pickle, read_pickle
from modtool.records import CallableUse, Checkpoint, FileRange

__all__ = ["further_callables"]

# The object of a legacy file is the fourth of its five pickles.
LEGACY_PICKLES = 5
MAX_PICKLE = 1 << 28
MAX_PICKLES_IN_ALL = 1 << 30


def further_callables(checkpoint: Checkpoint) -> tuple[CallableUse, ...]:
    """What the pickles that reading left closed would import or call, the same thing once.

    Raises:
        CorruptFileError: One of them is no well-formed pickle.
        UnsafeFileError: One of them, or all together, ask for too much.
    """
    pickles = in_items(checkpoint) if checkpoint.format == dcp.NAME else beside(checkpoint)
    found: dict[tuple[str, str], CallableUse] = {}
    for where, pickle in pickles:
        for use in callables_in(pickle, where):
            if use.severity != "ordinary":
                found.setdefault((use.name, use.arguments), use)
    return tuple(found.values())


# -- the values of a distributed checkpoint ------------------------------------------------------


def in_items(checkpoint: Checkpoint) -> Iterator[tuple[str, Pickle]]:
    """Every pickle of every value, with its place; what is cut off has a note already."""
    left: dict[str, int] = {}
    for item in values_of(checkpoint):
        if not item.length or is_missing(item.path):
            continue
        with open_reader(item.path) as reader:
            if item.offset + item.length > reader.size:
                continue
            # Items that lie over each other would make the work more than the file.
            left[item.path] = left.get(item.path, reader.size) - item.length
            if left[item.path] < 0:
                raise UnsafeFileError(f"{item.path}: its items lie over each other")
            place = f"{os.path.basename(item.path)}@{item.offset}"
            window = Reader(item.path, reader.descriptor, item.length, item.offset)
            yield from in_item(window, place, item)


def in_item(window: Reader, place: str, item: FileRange) -> Iterator[tuple[str, Pickle]]:
    """The pickles of one item, which is an archive or a legacy file."""
    if torch_zip.sniff(window.head(4)):
        yield from in_archive(window, place)
        return
    if item.length > MAX_PICKLE:
        raise UnsafeFileError(f"{window.path}: the item at byte {item.offset:,} is too large")
    data = window.head(item.length)
    start = 0
    for _ in range(LEGACY_PICKLES):
        if start >= len(data):
            return
        pickle = read_pickle(data, start, where=f"{window.path}: item at byte {item.offset:,}")
        yield place, pickle
        start = pickle.end


# -- beside the pickle of an archive -------------------------------------------------------------


def beside(checkpoint: Checkpoint) -> Iterator[tuple[str, Pickle]]:
    """Every pickle of the archives of a checkpoint that reading them left closed."""
    if checkpoint.format == torch_package.NAME:
        return  # all are read
    for path in files_of(checkpoint):
        with open_reader(path) as reader:
            if not torch_zip.sniff(reader.head(4)):
                continue
            alone = path == checkpoint.target
            known = set(checkpoint.pickles) if alone else {"data.pkl"}
            yield from in_archive(reader, "" if alone else os.path.basename(path), known)


def files_of(checkpoint: Checkpoint) -> Iterator[str]:
    """The files that hold its tensors, and the one that was named."""
    found = dict.fromkeys([checkpoint.target] if os.path.isfile(checkpoint.target) else [])
    for storage in checkpoint.storages.values():
        if isinstance(storage.data, FileRange) and storage.data.path:
            found[storage.data.path] = None
    for tensor in checkpoint.tensors:
        data = tensor.storage.data if tensor.storage else None
        if isinstance(data, FileRange) and data.path:
            found[data.path] = None
    return iter(found)


def in_archive(
    reader: Reader, place: str, known: set[str] | frozenset[str] = frozenset()
) -> Iterator[tuple[str, Pickle]]:
    """The pickles of an archive, by their names in its folder, but for those that are known."""
    directory = read_directory(reader)
    root = archive_root(directory)
    left = MAX_PICKLES_IN_ALL
    for name, member in directory.members.items():
        inner = name.removeprefix(f"{root}/")
        if not name.endswith(".pkl") or inner in known:
            continue
        left -= member.size
        if left < 0:
            raise UnsafeFileError(f"{reader.path}: more pickles than a checkpoint has")
        data = read_member(reader, member, MAX_PICKLE)
        pickle = read_pickle(data, where=f"{reader.path}: {inner}")
        yield (f"{place}/{inner}" if place else inner), pickle
