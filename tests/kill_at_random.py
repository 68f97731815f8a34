"""Run with a source, an output and options: kill conversions at random moments, and look.

    python kill_at_random.py KILLS SOURCE OUT [OPTION…]

Each conversion is a fork of this process, which imports no torch, so that a hundred are soon done.
Prints, as JSON, how often the output was absent, how often it was there, how often something
hidden was left beside it, and what was wrong.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from modtool.cli import run
from modtool.write.leftovers import HIDDEN


def digest(path: Path) -> str:
    """What a file or folder holds; hidden files left out."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    found = hashlib.sha256()
    for file in files:
        if not file.name.startswith("."):
            found.update(file.name.encode() if path.is_dir() else b"")
            found.update(file.read_bytes())
    return found.hexdigest()


def clear(folder: Path) -> list[str]:
    """Remove everything in a folder; the names that were there."""
    names = sorted(os.listdir(folder))
    for name in names:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return names


def start(arguments: list[str]) -> int:
    """Convert in a fork; its process id."""
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(run(["convert", *arguments]))
    return child


def main(kills: int, source: Path, output: Path, options: list[str]) -> dict[str, object]:
    """Kill that many conversions."""
    arguments = [str(source), "-o", str(output), *options]
    began = time.monotonic()
    _, status = os.waitpid(start(arguments), 0)
    took = time.monotonic() - began
    complete, before = digest(output), digest(source)
    clear(output.parent)
    absent = present = hidden = 0
    wrong: list[str] = [] if status == 0 else [f"status {status}"]
    for _ in range(kills):
        child = start(arguments)
        time.sleep(random.uniform(0, 1.2 * took))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if output.exists():
            present += 1
            if digest(output) != complete:
                wrong.append("an incomplete output")
        else:
            absent += 1
        names = set(clear(output.parent)) - {output.name}
        hidden += bool(names)
        if not all(HIDDEN.match(name) for name in names):
            wrong.append(f"strange files: {names}")
    if digest(source) != before:
        wrong.append("the source has changed")
    return {"absent": absent, "present": present, "hidden": hidden, "wrong": wrong}


if __name__ == "__main__":
    count, given, wanted, *rest = sys.argv[1:]
    print(json.dumps(main(int(count), Path(given), Path(wanted), rest)))
