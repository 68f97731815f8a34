"""A file appears under its final name complete or not at all."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from modtool.errors import OutputError
from modtool.write.leftovers import hidden_name, hold

__all__ = [
    "Sync",
    "Temporary",
    "already_there",
    "atomic_file",
    "check_space",
    "link_new",
    "output_error",
    "output_path",
    "same_file",
    "sync_file",
    "sync_folder",
    "write_all",
]

Sync = Literal["now", "later", "never"]
"""When what was written is made lasting: before it gets its name, by the caller, or by the system
when it sees fit (a loss of power may then take the new file, as it may take one that `cp` made)."""

# A file without a name, of which nothing is left when its process is killed.
UNNAMED = getattr(os, "O_TMPFILE", 0)
WRITABLE = os.O_WRONLY | os.O_CLOEXEC

NO_HARD_LINKS = frozenset(
    {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
)


def output_path(path: str, sources: Iterable[str], *, force: bool, in_place: bool) -> str:
    """Where the output really goes, links followed, once it is allowed to go there.

    Args:
        path: As the user named it.
        sources: The files that are read for it.
        force: An existing file may be replaced.
        in_place: The output may be one of the sources.

    Raises:
        OutputError: It may not, or that is no place for a file.
    """
    real = os.path.realpath(path) if os.path.islink(path) else path
    folder = os.path.dirname(real) or "."
    try:
        found = os.stat(real)
    except FileNotFoundError:
        if not os.path.isdir(folder):
            raise OutputError(f"{path}: there is no folder {folder}", "create it first") from None
        return real
    except OSError as error:
        raise output_error(path, error) from None
    if stat.S_ISDIR(found.st_mode):
        raise OutputError(f"{path} is a folder", "name a file inside it")
    if not stat.S_ISREG(found.st_mode):
        raise OutputError(f"{path} is no regular file", "name a file to write")
    if any(same_file(found, source) for source in sources):
        if not in_place:
            raise OutputError(
                f"{path} is the source itself",
                "name another file; only convert replaces its source, with --in-place",
            )
    elif not force:
        raise already_there(path)
    return real


def same_file(found: os.stat_result, source: str) -> bool:
    """True when a source is this very file, under whatever name."""
    try:
        return os.path.samestat(found, os.stat(source))
    except OSError:
        return False


class Temporary(NamedTuple):
    """A file that is being written: what reads it until it gets its name, and that name if any."""

    descriptor: int
    path: str
    is_named: bool


@contextlib.contextmanager
def atomic_file(
    path: str, *, replace: bool, named: bool = False, sync: Sync = "now"
) -> Iterator[Temporary]:
    """A new file that takes its name when the block ends well, once it is safe on the disk.

    It has no name until then, where the file system can do that; else, or with `named`, it is a
    hidden sibling, and is removed on any exception, `KeyboardInterrupt` included. Without
    `replace` a file that has appeared at `path` meanwhile is left alone, so of two runs at once
    one wins whole.

    Raises:
        OutputError: The system would not let it be written.
    """
    folder = os.path.dirname(path)
    try:
        temporary = named_file(folder) if named else unnamed_file(folder) or named_file(folder)
        try:
            hold(temporary.descriptor)
            yield temporary
            if replace:
                keep_mode(temporary.descriptor, path)
            if sync == "now":
                os.fsync(temporary.descriptor)
            publish(temporary, path, replace=replace)
            if sync == "now":
                sync_folder(folder)
        except BaseException:
            if temporary.is_named:
                with contextlib.suppress(OSError):
                    os.unlink(temporary.path)
            raise
        finally:
            os.close(temporary.descriptor)
    except OSError as error:
        raise output_error(path, error) from error


def unnamed_file(folder: str) -> Temporary | None:
    """A new file that has no name; None where the file system has no such files."""
    if not UNNAMED:
        return None
    try:
        descriptor = os.open(folder or ".", WRITABLE | UNNAMED, 0o666)
    except OSError:
        return None  # whatever it is, a named file meets it too and tells
    path = f"/proc/self/fd/{descriptor}"
    if os.path.exists(path):
        return Temporary(descriptor, path, is_named=False)
    os.close(descriptor)
    return None


def named_file(folder: str) -> Temporary:
    """A new hidden file."""
    path = os.path.join(folder, hidden_name())
    descriptor = os.open(path, WRITABLE | os.O_CREAT | os.O_EXCL, 0o666)
    return Temporary(descriptor, path, is_named=True)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of some bytes: a call may take only a part of them."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def keep_mode(descriptor: int, path: str) -> None:
    """Give the new file the permissions of the one that it takes the place of."""
    with contextlib.suppress(OSError):
        os.fchmod(descriptor, stat.S_IMODE(os.stat(path).st_mode))


def publish(temporary: Temporary, path: str, *, replace: bool) -> None:
    """Give the finished file its name."""
    folder, name = os.path.split(path)
    if temporary.is_named:
        if replace:
            os.replace(temporary.path, path)
        else:
            link_new(temporary.path, path)
    elif replace:
        hidden = hidden_name()  # a link replaces nothing, a second name can
        name_file(temporary, folder, hidden)
        try:
            os.replace(os.path.join(folder, hidden), path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, hidden))
            raise
    else:
        try:
            name_file(temporary, folder, name)
        except FileExistsError:
            raise already_there(path) from None


def name_file(temporary: Temporary, folder: str, name: str) -> None:
    """Give a file that has no name its first one."""
    place = os.open(folder or ".", os.O_PATH | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        os.link(temporary.path, name, dst_dir_fd=place, follow_symlinks=True)
    finally:
        os.close(place)


def sync_file(path: str) -> None:
    """Make what a file or folder holds lasting."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: str) -> None:
    """Make the names in a folder lasting, where the system can do that.

    Some network file systems cannot, and some folders may not be read; the files are safe anyway.
    """
    with contextlib.suppress(OSError):
        sync_file(path or ".")


def link_new(temporary: str, path: str) -> None:
    """Give the file its name only if nothing has that name: a link never replaces anything."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise already_there(path) from None
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        if os.path.lexists(path):
            raise already_there(path) from None
        os.rename(temporary, path)
    else:
        os.unlink(temporary)


def check_space(path: str, needed: int) -> None:
    """See that a file system has room, rather than find out after an hour.

    Raises:
        OutputError: It has not.
    """
    try:
        found = os.statvfs(os.path.dirname(path) or ".")
    except OSError as error:
        raise output_error(path, error) from None
    free = found.f_bavail * found.f_frsize
    if found.f_blocks and needed > free:  # some file systems say nothing of their size
        reason, hint = REASONS[errno.ENOSPC]
        raise OutputError(
            f"{path} was not written: {reason}: {needed:,} bytes needed, {free:,} free", hint
        )


def already_there(path: str) -> OutputError:
    """What to say of a file that would be overwritten."""
    return OutputError(f"{path} exists already", "--force replaces it")


REASONS = {
    errno.ENOSPC: ("the disk is full", "free some space, or write elsewhere"),
    errno.EDQUOT: ("the disk quota is used up", "free some space, or write elsewhere"),
    errno.EFBIG: ("the file would be larger than the file system allows", "write elsewhere"),
    errno.EROFS: ("the file system is read-only", "write elsewhere"),
    errno.EACCES: ("no permission to write there", "write elsewhere"),
    errno.EPERM: ("no permission to write there", "write elsewhere"),
    errno.ENOENT: ("there is no such folder", "create it first"),
    errno.ENOTDIR: ("a part of the path is no folder", "name another file"),
    errno.ELOOP: ("it is a link that leads back to itself", "name another file"),
    errno.ENAMETOOLONG: ("the name is too long", "name another file"),
}


def output_error(path: str, error: OSError) -> OutputError:
    """What a failure of the system means, and what to do."""
    reason, hint = REASONS.get(error.errno or 0, (error.strerror or str(error), ""))
    if error.errno == errno.ENOENT and os.path.isdir(os.path.dirname(path) or "."):  # /proc, say
        reason, hint = "nothing can be put there", "write elsewhere"
    return OutputError(f"{path} was not written: {reason}", hint)
