"""What a look at a file costs beside `import torch`: `python -m tests.benchmarks.startup`.

Two commands run in turn, five times; the medians of the ratios, in wall time and in processor time
(which a busy machine disturbs less), and the most memory that modtool took.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

RUNS = 5
EXAMPLE = Path(__file__).parents[2] / "examples" / "mlp.py"
# In a process of its own: a child's peak of memory begins with what its parent holds.
MAKE = """
import sys, torch
from safetensors.torch import save_file
state = {f"l{index}.w": torch.zeros(1 << 26) for index in range(16)}
torch.save(state, sys.argv[1] + "/big.pth")
save_file(state, sys.argv[1] + "/big.safetensors")
"""
IMPORT = (sys.executable, "-c", "import torch")


@dataclass(frozen=True, slots=True)
class Cost:
    """One run: seconds on the clock, seconds of processor time, mebibytes at its peak."""

    wall: float
    processor: float
    memory: float


def cost(*command: str) -> Cost:
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    wall = time.perf_counter() - began
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def line(target: str, limit: float) -> str:
    """`modtool summary TARGET` beside `import torch`."""
    summary = (sys.executable, "-m", "modtool", "summary", target)
    pairs = [(cost(*summary), cost(*IMPORT)) for _ in range(RUNS)]
    wall = statistics.median(ours.wall / theirs.wall for ours, theirs in pairs)
    processor = statistics.median(ours.processor / theirs.processor for ours, theirs in pairs)
    memory = max(ours.memory for ours, _ in pairs)
    return f"{wall:6.3f} {processor:10.3f} {limit:6.2f} {memory:9.0f} MiB"


def main() -> None:
    print(f"{'summary of':<22}{'wall':>6} {'processor':>10} {'limit':>6} {'memory':>13}")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run((sys.executable, "-c", MAKE, folder), check=True)
        for name in ("big.pth", "big.safetensors"):
            size = os.path.getsize(os.path.join(folder, name)) >> 30
            print(f"{f'{size} GiB {name}':<22}{line(os.path.join(folder, name), 0.15)}")
    print(f"{EXAMPLE.name:<22}{line(str(EXAMPLE), 1.3)}")


if __name__ == "__main__":
    main()
