"""How much memory this machine has left."""

import os
import sys
from pathlib import Path

__all__ = ["available_memory", "shown_bytes", "spare_memory"]


def available_memory() -> int | None:
    """Bytes that can be used without swapping; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        sizes = dict(line.split(":", 1) for line in lines if ":" in line)
        return int(sizes["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError, UnicodeDecodeError):
        return physical_memory()


def spare_memory() -> int:
    """Bytes that copies of what a model holds may take: a quarter of what is free."""
    free = available_memory()
    return sys.maxsize if free is None else free // 4


def physical_memory() -> int | None:
    """Bytes of main memory."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def shown_bytes(size: int) -> str:
    """`137.4 GB`."""
    for unit, scale in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"
