"""What is hidden until it is whole: its name, the sign that somebody works on it, its removal.

A process that is killed cannot clean up. So whoever writes holds a lock on its hidden file or
folder, which the system lets go of with the process, and the next run in the same place removes
what nobody holds.
"""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import time
from hashlib import sha256

__all__ = ["digits_of", "hidden_name", "hold", "sweep"]

# Which running system it is from, for which place it is if several processes share it, which it is.
HIDDEN = re.compile(r"\.modtool-([0-9a-f]{8})-([0-9a-f]{8})?[0-9a-f]{16}\.tmp\Z")
BOOT_ID = "/proc/sys/kernel/random/boot_id"
SHARED = "0" * 8
# Between the birth of a hidden folder and its lock nobody holds it.
YOUNG = 5.0
# Locks need not reach from machine to machine: what another one left has to be old. Unless it is
# for the very place that is written to now, where of two runs one wins.
OLD = 24 * 3600.0


def hidden_name(text: str | None = None) -> str:
    """A name that says which running system it is from; of `text` alone, the same on all of them.

    Args:
        text: Sixteen hexadecimal digits, after the eight of `digits_of` its place; None for random
            ones.
    """
    return f".modtool-{SHARED if text else this_boot()}-{text or secrets.token_hex(8)}.tmp"


def digits_of(place: str) -> str:
    """Eight digits that tell what is for one place from what is for others."""
    return sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def this_boot() -> str:
    """What tells one start of one machine from all others."""
    try:
        with open(BOOT_ID, encoding="ascii") as file:
            return file.read(8)
    except (OSError, ValueError):
        return SHARED


def hold(descriptor: int) -> None:
    """Show that somebody works on a file or folder, as long as the descriptor is open."""
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)


def sweep(folder: str, place: str | None = None, own: str | None = None) -> None:
    """Remove what runs that were killed have left in a folder; what cannot be removed stays.

    Args:
        folder: Where they wrote.
        place: Digits of the place that a set is to be written to.
        own: The name of what this run shares with others, which may have written to it already.
    """
    with contextlib.suppress(OSError), os.scandir(folder or ".") as entries:
        for path in [entry.path for entry in entries if HIDDEN.match(entry.name)]:
            if os.path.basename(path) != own and is_abandoned(path, place):
                remove(path)


def is_abandoned(path: str, place: str | None) -> bool:
    """True for what no process holds any more."""
    found = HIDDEN.match(os.path.basename(path))
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        age = time.time() - os.fstat(descriptor).st_mtime
    except OSError:
        return False
    finally:
        os.close(descriptor)
    here = found is not None and found[1] == this_boot() != SHARED
    same_place = found is not None and found[2] is not None and found[2] == place
    return age > (YOUNG if here or same_place else OLD)


def remove(path: str) -> None:
    """Remove a file, or a folder with everything in it."""
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        os.unlink(path)
