"""How long `modtool diff` takes beside `cmp`, and in how much memory.

    python -m tests.benchmarks.diffing [--gigabytes 4] [--folder DIR] [--runs 5] [--dtype float32]

Two identical files, then two in which every tensor differs. Both stay in the page cache; the runs
of a row take turns; times are medians of the ratio to the run of `cmp` just before. `cmp` stops at
the first byte that differs, so that of identical files is what both rows are set beside.
Needs GNU `time`.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

TENSORS = 64


def measured(command: list[str], expected: int) -> tuple[float, int]:
    """Seconds and peak memory (bytes, mapped pages included) of one run."""
    done = subprocess.run(
        ["/usr/bin/time", "-f", "%e %M", *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == expected, done.stderr
    seconds, kibibytes = done.stderr.split()[-2:]
    return float(seconds), int(kibibytes) * 1024


def make(folder: Path, gigabytes: float, dtype: torch.dtype) -> tuple[Path, Path, Path]:
    """A file, the same file again, and one in which every tensor differs."""
    numel = int(gigabytes * 1e9) // TENSORS // dtype.itemsize
    generator = torch.Generator().manual_seed(0)
    state = {
        f"layers.{index}.weight": torch.randn(numel, generator=generator).mul_(0.02).to(dtype)
        for index in range(TENSORS)
    }
    paths = folder / "a.safetensors", folder / "same.safetensors", folder / "changed.safetensors"
    save_file(state, paths[0])
    save_file(state, paths[1])
    for value in state.values():
        value.add_(torch.randn(numel, generator=generator).mul_(1e-3).to(dtype))
    save_file(state, paths[2])
    return paths


def main() -> None:
    """Print the two ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=4)
    parser.add_argument("--folder", help="where the files are made; default: a temporary folder")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        paths = make(Path(name), options.gigabytes, getattr(torch, options.dtype))
        a, same, changed = map(str, paths)
        modtool = [sys.executable, "-m", "modtool", "diff"]
        for path in (a, same, changed):
            subprocess.run(["cat", path], stdout=subprocess.DEVNULL, check=True)
        print(f"{options.gigabytes:g} GB of {options.dtype} on each side, {options.runs} runs")
        print("| | seconds | against cmp | peak memory |\n|---|---|---|---|")
        for label, other, code, limit in (("identical", same, 0, 1.5), ("changed", changed, 1, 4)):
            rows = []
            for _ in range(options.runs):
                base, _ = measured(["cmp", a, same], 0)
                seconds, memory = measured([*modtool, a, other], code)
                rows.append((seconds, seconds / base, memory))
            seconds, ratio, _ = map(statistics.median, zip(*rows, strict=True))
            peak = max(row[2] for row in rows) / 1e6
            print(f"| {label} | {seconds:.2f} | {ratio:.2f} (≤ {limit}) | {peak:.0f} MB (≤ 300) |")


if __name__ == "__main__":
    main()
