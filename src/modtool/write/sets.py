"""A plan as a set of files with an index: it appears whole or not at all.

Every file is first written to a hidden folder beside its place. A new folder then gets its name in
one step. In a folder that was there already the files are moved one by one and the index last: a
set is there when its index is.

Several processes can share the work without talking: each writes the files whose turn it is to the
same hidden folder, whose name follows from the plan, and the first one waits until it sees all of
them, then publishes the set.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256

from modtool.errors import OutputError
from modtool.plan import Plan, check, weight_map
from modtool.write.atomic import (
    Sync,
    already_there,
    atomic_file,
    check_space,
    link_new,
    output_error,
    same_file,
    sync_file,
    sync_folder,
    write_all,
)
from modtool.write.files import put_file, source_files
from modtool.write.leftovers import digits_of, hidden_name, hold, sweep
from modtool.write.payload import Compute
from modtool.write.streams import Progress, Sources

__all__ = ["ALONE", "Names", "Ranks", "names_of", "write_set"]

DCP_INDEX = ".metadata"
DCP_FILE = re.compile(r"__\d+_\d+\.distcp")
# How long the first process waits while nothing at all is written by the others.
PATIENCE = 600.0


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which of several processes this one is, as `torchrun` tells in RANK and WORLD_SIZE."""

    rank: int = 0
    world: int = 1


ALONE = Ranks()


@dataclass(frozen=True, slots=True)
class Names:
    """Where a set goes.

    Attributes:
        folder: That the files lie in.
        files: Their names, in order.
        index: The name of the index; "" where there is but one file.
    """

    folder: str
    files: tuple[str, ...]
    index: str

    @property
    def all(self) -> tuple[str, ...]:
        """Every name, the index last."""
        return (*self.files, self.index) if self.index else self.files

    @property
    def other_index(self) -> str:
        """Its index, or the one that another set of the same name has beside a single file."""
        return self.index or f"{self.files[0]}.index.json"


def names_of(base: str, count: int) -> Names:
    """The names of a set, as transformers gives them.

    `out/model.safetensors` in two files is `out/model-00001-of-00002.safetensors`, a second one,
    and `out/model.safetensors.index.json`; in one file it is just that.
    """
    folder, name = os.path.split(base)
    if count == 1:
        return Names(folder, (name,), "")
    stem, suffix = os.path.splitext(name)
    files = [f"{stem}-{index:05d}-of-{count:05d}{suffix}" for index in range(1, count + 1)]
    return Names(folder, tuple(files), f"{name}.index.json")


def write_set(
    shards: Sequence[Plan],
    base: str,
    *,
    force: bool = False,
    verified: bool = False,
    sync: Sync = "now",
    compute: Compute | None = None,
    progress: Progress | None = None,
    ranks: Ranks = ALONE,
) -> tuple[str, ...]:
    """Write the parts of a plan, one file each, and their index.

    Args:
        shards: What `modtool.plan.shards_of` made.
        base: The name that a single file would have; its folder is made where there is none.
        force: Existing files may be replaced, and what is left of an older set of this name goes.
        verified: Read every file back and compare it with its source.
        sync: When they are made lasting.
        compute: What gathers, casts and fills elements.
        progress: Called with bytes done, bytes in all and the name of the tensor at hand.
        ranks: Which of several processes this is; each writes its share.

    Returns:
        The paths that were written, the index last; nothing where another process publishes them.

    Raises:
        OutputError: Something could not be written, or would be overwritten.
        CorruptFileError: A source ended too early.
    """
    for shard in shards:
        check(shard)
    if ranks.rank >= len(shards):
        return ()  # nothing is left for it to do, and the others may be done already
    names = names_of(base, len(shards))
    refuse_overwriting(shards, names, force=force)
    mine = range(ranks.rank, len(shards), ranks.world)
    total = sum(shard.nbytes for shard in shards)
    check_space(names.folder, sum(shards[index].nbytes for index in mine))
    with staged(names, shards, ranks) as folder, Sources() as sources:
        watched = Watched(progress, total)
        for index in mine:
            put_file(
                shards[index],
                os.path.join(folder, names.files[index]),
                sources,
                replace=True,
                verified=verified,
                compute=compute,
                progress=watched.part if progress is not None else None,
                named=True,  # so that the first process sees that the others get on
                sync="later" if sync == "now" and ranks.world == 1 else sync,
            )
            watched.before += shards[index].nbytes
        if ranks.rank:
            return ()
        wait_for(folder, names.files)
        if sync == "now":
            for name in names.files:  # together, which takes little longer than one
                sync_file(os.path.join(folder, name))
            sync_folder(folder)
        write_index(folder, shards, names, sync)
        publish_set(folder, names, force=force, sync=sync)
    return tuple(os.path.join(names.folder, name) for name in names.all)


@dataclass(slots=True)
class Watched:
    """Progress of one file after the other, told as progress of the whole."""

    progress: Progress | None
    total: int
    before: int = 0

    def part(self, done: int, total: int, name: str) -> None:
        """Tell how far the whole is."""
        if self.progress is not None:
            self.progress(min(self.before + done, self.total), self.total, name)


# -- before --------------------------------------------------------------------------------------


def refuse_overwriting(shards: Sequence[Plan], names: Names, *, force: bool) -> None:
    """See that nothing is overwritten that may not be.

    Raises:
        OutputError: Something would be.
    """
    parent = os.path.dirname(names.folder) or "."
    if names.folder and not os.path.isdir(names.folder):
        for path in (names.folder, parent):
            if os.path.lexists(path) and not os.path.isdir(path):
                raise OutputError(f"{path} is no folder", "name a folder, or another file")
        if not os.path.isdir(parent):
            raise OutputError(f"{names.folder}: there is no folder {parent}", "create it first")
        return
    sources = set().union(*(source_files(shard) for shard in shards))
    for name in taken_by(names):
        path = os.path.join(names.folder, name)
        found = os.stat(path)
        if any(same_file(found, source) for source in sources):
            raise OutputError(f"{path} is a part of the source itself", "write to another folder")
        if not force:
            raise already_there(path)


def taken_by(names: Names) -> list[str]:
    """What exists and would be replaced or removed: files of these names, and an older set."""
    single = names.other_index.removesuffix(".index.json")
    return [
        name
        for name in (*names.all, single, names.other_index, *older_files(names))
        if os.path.exists(os.path.join(names.folder, name))
    ]


# -- meanwhile -----------------------------------------------------------------------------------


@contextmanager
def staged(names: Names, shards: Sequence[Plan], ranks: Ranks) -> Iterator[str]:
    """The hidden folder that the files are written to; the first process removes it.

    Raises:
        OutputError: The system would not let it be made.
    """
    inside = os.path.isdir(names.folder) if names.folder else True
    parent = names.folder if inside else os.path.dirname(names.folder)
    place = digits_of(os.path.join(os.path.abspath(names.folder), names.other_index))
    shared = place + fingerprint(names, shards, ranks) if ranks.world > 1 else None
    hidden = hidden_name(shared)
    sweep(parent, place, hidden)
    folder = os.path.join(parent, hidden)
    descriptor = None
    try:
        os.makedirs(folder, exist_ok=ranks.world > 1)
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        hold(descriptor)
        yield folder
    except OutputError as error:
        message = error.message.replace(folder, names.folder or ".")  # which is what users know
        raise OutputError(message, error.hint) from error
    except OSError as error:
        raise output_error(names.folder or ".", error) from error
    finally:
        if descriptor is not None:
            os.close(descriptor)
        if not ranks.rank:
            shutil.rmtree(folder, ignore_errors=True)


def fingerprint(names: Names, shards: Sequence[Plan], ranks: Ranks) -> str:
    """The same text in all processes that write the same bytes together, and in no others."""
    text = [os.path.abspath(names.folder), *names.all, str(ranks.world)]
    for path in sorted(set().union(*(source_files(shard) for shard in shards))):
        found = os.stat(path)
        text.append(f"{path} {found.st_size} {found.st_mtime_ns}")
    for shard in shards:
        text.append(repr((shard.form, shard.tied, shard.shrink, sorted(shard.metadata.items()))))
        text += [repr((each.name, each.dtype, each.fill, each.location)) for each in shard.tensors]
    return sha256("\n".join(text).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def wait_for(folder: str, files: Sequence[str]) -> None:
    """Wait until all files are there; a file gets its name only when it is complete.

    Raises:
        OutputError: Nothing was written for a long time.
    """
    seen, since, pause = "", time.monotonic(), 0.01
    while missing := [name for name in files if not os.path.exists(os.path.join(folder, name))]:
        state = repr(sorted((entry.name, entry.stat().st_blocks) for entry in os.scandir(folder)))
        if state != seen:
            seen, since = state, time.monotonic()
        elif time.monotonic() - since > PATIENCE:
            raise OutputError(
                f"{', '.join(missing[:3])} was not written by its process",
                "did one of them fail? nothing was put in place",
            )
        time.sleep(pause)
        pause = min(2 * pause, 0.5)


def write_index(folder: str, shards: Sequence[Plan], names: Names, sync: Sync) -> None:
    """The index, as transformers writes it."""
    if not names.index:
        return
    index = {
        "metadata": {"total_size": sum(shard.nbytes for shard in shards)},
        "weight_map": weight_map(shards, names.files),
    }
    text = json.dumps(index, indent=2, sort_keys=True) + "\n"
    path = os.path.join(folder, names.index)
    with atomic_file(path, replace=True, named=True, sync=sync) as temporary:
        write_all(temporary.descriptor, text.encode("utf-8"))


# -- afterwards ----------------------------------------------------------------------------------


def publish_set(folder: str, names: Names, *, force: bool, sync: Sync = "now") -> None:
    """Put a complete set in its place."""
    if names.folder and not os.path.isdir(names.folder):
        try:
            os.rename(folder, names.folder)
        except OSError:
            if os.path.lexists(names.folder):
                raise already_there(names.folder) from None
            raise
        if sync == "now":
            sync_folder(os.path.dirname(names.folder))
        return
    old = older_files(names) if force else []
    if force:
        remove(names, names.other_index)  # from here on there is no set, until the new one is whole
    done: list[str] = []
    try:
        for name in names.all:
            move(os.path.join(folder, name), os.path.join(names.folder, name), force=force)
            done.append(name)
    except BaseException:
        if not force:
            for name in done:
                remove(names, name)
        raise
    if force:
        for name in {*old, names.other_index.removesuffix(".index.json")} - set(names.all):
            remove(names, name)
    if sync == "now":
        sync_folder(names.folder)


def move(path: str, target: str, *, force: bool) -> None:
    """Give a finished file its name."""
    if force:
        os.replace(path, target)
    else:
        link_new(path, target)


def remove(names: Names, name: str) -> None:
    """Remove a file of a set, if it is there."""
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(names.folder, name))


def older_files(names: Names) -> list[str]:
    """The files of an older set, or an older distributed checkpoint, in the same place."""
    if names.index != DCP_INDEX:
        return files_of_index(names)
    return [name for name in os.listdir(names.folder) if DCP_FILE.fullmatch(name)]


def files_of_index(names: Names) -> list[str]:
    """The files of an older set of the same name, which its index names."""
    stem, suffix = os.path.splitext(names.other_index.removesuffix(".index.json"))
    try:
        with open(os.path.join(names.folder, names.other_index), encoding="utf-8") as file:
            found = set(json.load(file)["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return []
    return [
        name
        for name in found
        if isinstance(name, str)
        and os.path.basename(name) == name
        and name.startswith(f"{stem}-")
        and name.endswith(suffix)
    ]
