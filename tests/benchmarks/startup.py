"""What a look at a file costs beside `import torch`: `python -m tests.benchmarks.startup`.

Ratios of two commands run in turn, medians of five.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

RUNS = 5
EXAMPLE = Path(__file__).parents[2] / "examples" / "mlp.py"


def seconds(*command: str) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def ratio(target: str) -> float:
    """The time of `modtool summary TARGET` as a share of `import torch`."""
    pairs = [
        (
            seconds(sys.executable, "-m", "modtool", "summary", target),
            seconds(sys.executable, "-c", "import torch"),
        )
        for _ in range(RUNS)
    ]
    return statistics.median(ours / theirs for ours, theirs in pairs)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "big.pth")
        torch.save({f"l{index}.w": torch.empty(1 << 26) for index in range(16)}, path)
        print(f"summary of a 4 GiB .pth : import torch  {ratio(path):.3f}  (limit 0.15)")
    print(f"summary of a model.py : import torch  {ratio(str(EXAMPLE)):.2f}  (limit 1.3)")


if __name__ == "__main__":
    main()
