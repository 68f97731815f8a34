"""What a look at a checkpoint costs: `python -m tests.benchmarks.reading [--most N] [--runs 3]`.

Beside `torch.load(mmap=True, weights_only=True)` in a process of its own, for a zip of many
tensors; how the time grows with their number; and, for every format, a file of 4 GB beside one of
4 MB with as many tensors. Times are CPU time, of processes that take turns, `import` included; the
growth is that of the command alone. Medians. Needs GNU `time`.
"""

import argparse
import json
import math
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple, Self

import numpy
import torch
from torch.distributed.checkpoint.state_dict_saver import save as save_distributed

from tests.formats.gguf_files import Writer

LARGE, SMALL = 4 << 30, 4 << 20
TENSORS = 64
SUMMARY = """
import sys, time
from modtool.cli import main
began = time.process_time()
try:
    main()
finally:
    print(time.process_time() - began, file=sys.stderr)
"""
LOAD = """
import sys, time
began = time.process_time()
import torch
torch.load(sys.argv[1], mmap=True, weights_only=True)
print(time.process_time() - began, file=sys.stderr)
"""


class Cost(NamedTuple):
    """CPU seconds of a whole process, of the part that counts, and its peak memory (MB)."""

    whole: float
    part: float
    memory: float


def measured(program: str, *arguments: str) -> Cost:
    """What one run of a program costs."""
    done = subprocess.run(
        ["/usr/bin/time", "-f", "%U %S %M", sys.executable, "-c", program, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    part, user, system, kibibytes = map(float, done.stderr.split()[-4:])
    return Cost(user + system, part, kibibytes * 1024 / 1e6)


def summary(path: Path) -> Cost:
    """What `modtool summary --json` of a file costs."""
    return measured(SUMMARY, "summary", "--json", str(path))


# -- many tensors ----------------------------------------------------------------------------------


def save_many(path: Path, count: int) -> None:
    """A zip of `count` tensors of 16 elements, each a storage of its own."""
    names = (f"layers.{index // 4}.part{index % 4}.weight" for index in range(count))
    torch.save({name: torch.zeros(4, 4) for name in names}, path)


def exponent(points: list[tuple[int, float]]) -> float:
    """The slope of log(time) over log(count), by least squares."""
    logs = [(math.log(count), math.log(seconds)) for count, seconds in points]
    means = [fmean(column) for column in zip(*logs, strict=True)]
    above = sum((x - means[0]) * (y - means[1]) for x, y in logs)
    return above / sum((x - means[0]) ** 2 for x, _ in logs)


def print_many(folder: Path, most: int, runs: int) -> None:
    """Many tensors beside torch.load, and how the time grows."""
    print("| tensors | seconds | torch.load | MB |\n|---|---|---|---|")
    points = []
    path = folder / "many.pth"
    for count in (1_000, 3_000, 10_000, 30_000, 100_000, 300_000):
        if count > most:
            break
        save_many(path, count)
        pairs = [(summary(path), measured(LOAD, str(path))) for _ in range(runs)]
        whole = median(ours.whole for ours, _ in pairs)
        ratio = median(ours.whole / theirs.whole for ours, theirs in pairs)
        memory = max(ours.memory for ours, _ in pairs)
        limits = (" (≤ 0.35)", " (≤ 600)") if count == 100_000 else ("", "")
        print(f"| {count:,} | {whole:.2f} | {ratio:.2f}{limits[0]} | {memory:.0f}{limits[1]} |")
        points.append((count, median(ours.part for ours, _ in pairs)))
    print(f"\nexponent without start-up: {exponent(points):.2f} (linear is 1)")


# -- large tensors ---------------------------------------------------------------------------------


class Sparse:
    """A file in which large parts that are zero are holes."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb")

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if size < 1 << 13:
            self.file.write(data)
        else:
            self.file.seek(size, os.SEEK_CUR)
        return size

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ignored: object) -> None:
        self.file.close()


def zeros(size: int) -> dict[str, torch.Tensor]:
    """`TENSORS` tensors of `size` bytes in all, which take no memory."""
    return {f"layers.{index}.weight": torch.zeros(size // TENSORS // 4) for index in range(TENSORS)}


def save_zip(folder: Path, size: int) -> Path:
    with Sparse(folder / "a.pth") as file:
        torch.save(zeros(size), file)
    return folder / "a.pth"


def save_legacy(folder: Path, size: int) -> Path:
    with Sparse(folder / "a.pth") as file:
        torch.save(zeros(size), file, _use_new_zipfile_serialization=False)
    return folder / "a.pth"


def save_npz(folder: Path, size: int) -> Path:
    with Sparse(folder / "a.npz") as file:
        arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in zeros(size).items()}
        numpy.savez(file, **arrays)
    return folder / "a.npz"


def save_torchscript(folder: Path, size: int) -> Path:
    model = torch.nn.ParameterDict(
        {name.replace(".", "_"): tensor for name, tensor in zeros(size).items()}
    )
    torch.jit.save(torch.jit.script(torch.nn.Sequential(Holder(model))), folder / "a.pt")
    return folder / "a.pt"


class Holder(torch.nn.Module):
    """Some parameters, and nothing to do with them."""

    def __init__(self, parameters: torch.nn.ParameterDict) -> None:
        super().__init__()
        for name, parameter in parameters.items():
            self.register_parameter(name, parameter)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def save_dcp(folder: Path, size: int) -> Path:
    save_distributed(zeros(size), checkpoint_id=folder / "a", no_dist=True)
    return folder / "a"


def header_of(names: Iterable[str], size: int) -> bytes:
    """The header of a safetensors file of equal parts."""
    entries = {
        name: {
            "dtype": "F32",
            "shape": [size // 4],
            "data_offsets": [index * size, (index + 1) * size],
        }
        for index, name in enumerate(names)
    }
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


def write_hole(path: Path, head: bytes, size: int) -> None:
    """A file that begins with `head` and goes on with `size` zeros."""
    path.write_bytes(head)
    os.truncate(path, len(head) + size)


def save_safetensors(folder: Path, size: int) -> Path:
    path = folder / "a.safetensors"
    write_hole(path, header_of(zeros(size), size // TENSORS), size)
    return path


def save_sharded(folder: Path, size: int) -> Path:
    names = list(zeros(size))
    places = {name: f"part-{index % 2}.safetensors" for index, name in enumerate(names)}
    for part in (0, 1):
        head = header_of(names[part::2], size // TENSORS)
        write_hole(folder / f"part-{part}.safetensors", head, size // 2)
    path = folder / "a.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": places}))
    return path


def save_gguf(folder: Path, size: int) -> Path:
    part = size // TENSORS
    tensors = [(name, (part // 4,), 0, index * part) for index, name in enumerate(zeros(size))]
    path = folder / "a.gguf"
    write_hole(path, Writer().file({}, tensors), size)
    return path


FORMATS: tuple[Callable[[Path, int], Path], ...] = (
    save_zip,
    save_legacy,
    save_torchscript,
    save_safetensors,
    save_sharded,
    save_dcp,
    save_npz,
    save_gguf,
)


def print_large(folder: Path, runs: int) -> None:
    """A file of 4 GB beside one of 4 MB, for each format."""
    print("\n| format | 4 GB : 4 MB | MB |\n|---|---|---|")
    for save in FORMATS:
        with (
            tempfile.TemporaryDirectory(dir=folder) as large,
            tempfile.TemporaryDirectory(dir=folder) as small,
        ):
            paths = save(Path(large), LARGE), save(Path(small), SMALL)
            pairs = [(summary(paths[0]), summary(paths[1])) for _ in range(runs)]
        ratio = median(more.whole / less.whole for more, less in pairs)
        memory = max(more.memory for more, _ in pairs)
        print(f"| {save.__name__.removeprefix('save_')} | {ratio:.2f} | {memory:.0f} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=300_000, help="tensors in the largest zip")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", help="where the files are made; default: a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        print_many(Path(name), options.most, options.runs)
        print_large(Path(name), options.runs)


if __name__ == "__main__":
    main()
