"""How long a trace and a summary take, against what a user would do without modtool.

    python -m tests.benchmarks.tracing [--runs 3] [--only TEXT]

Prints a Markdown table: medians of runs that take turns, so that what else the machine does falls
on all alike. Rows whose library is not installed (transformers, torchinfo) say so.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import monotonic

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128_256,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131_072,
}
SHAPES = {
    "70B": {
        "hidden_size": 8192,
        "intermediate_size": 28_672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
    },
    "405B": {
        "hidden_size": 16_384,
        "intermediate_size": 53_248,
        "num_hidden_layers": 126,
        "num_attention_heads": 128,
    },
}
RESIDUAL = """
import torch
from torch import nn

class Bottleneck(nn.Module):
    def __init__(self, width_in, width, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width_in, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(True),
            nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(True),
            nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width),
        )
        self.short = nn.Identity()
        if stride != 1 or width_in != 4 * width:
            self.short = nn.Sequential(
                nn.Conv2d(width_in, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )
        self.act = nn.ReLU(True)

    def forward(self, x):
        return self.act(self.body(x) + self.short(x))

def build_model():
    layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(True)]
    layers.append(nn.MaxPool2d(3, 2, 1))
    width_in = 64
    for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for index in range(count):
            layers.append(Bottleneck(width_in, width, stride if index == 0 else 1))
            width_in = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))

if __name__ == "__main__":
    model = build_model().eval()
    with torch.no_grad():
        model(torch.randn(8, 3, 224, 224))
"""
MANY = """
import sys
from time import perf_counter
from torch import nn
block = lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.LayerNorm(8), nn.Dropout(0.1))
model = nn.Sequential(*(block() for _ in range(1000)))

def ours():
    import modtool
    from modtool.render import RENDERERS
    return "".join(RENDERERS["table"](modtool.summary(model)))

def theirs():
    import torchinfo
    return str(torchinfo.summary(model, depth=9, verbose=0))

run = {"ours": ours, "theirs": theirs}[sys.argv[1]]
run()
start = perf_counter()
assert run().count("\\n") > 5000
print(perf_counter() - start)
"""
MODTOOL = (sys.executable, "-m", "modtool")


@dataclass(frozen=True, slots=True)
class Row:
    """A comparison.

    Attributes:
        what: For the table.
        ours: Measures modtool.
        theirs: Measures what it is compared with.
        limit: What the ratio is to stay below.
        needs: A library, "" where none.
    """

    what: str
    ours: Callable[[Path], tuple[float, float]]
    theirs: Callable[[Path], tuple[float, float]]
    limit: float
    needs: str = ""


def process(*command: str) -> Callable[[Path], tuple[float, float]]:
    """Measures a whole process: seconds, and the most megabytes it held."""

    def measure(folder: Path) -> tuple[float, float]:
        script = (
            "import resource, subprocess, sys; "
            "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL); "
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); "
            "sys.exit(done.returncode)"
        )
        start = monotonic()
        done = subprocess.run(
            [sys.executable, "-c", script, *command],
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
        )
        return monotonic() - start, int(done.stdout) * 1024 / 1e6

    return measure


def inside(*command: str) -> Callable[[Path], tuple[float, float]]:
    """Measures what a process says of itself: seconds on its last line."""

    def measure(folder: Path) -> tuple[float, float]:
        done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
        return float(done.stdout.split()[-1]), 0.0

    return measure


IMPORTS = process(sys.executable, "-c", "import torch, transformers")


def llama(name: str) -> Callable[[Path], tuple[float, float]]:
    return process(*MODTOOL, "trace", f"{name}/config.json", "--input-shape", "1,4096", "--json")


ROWS = (
    Row("Llama-3-70B, 4,096 tokens : imports", llama("70B"), IMPORTS, 3.0, "transformers"),
    Row("Llama-3.1-405B : 70B", llama("405B"), llama("70B"), 2.0, "transformers"),
    Row(
        "summary of 5,000 modules : torchinfo",
        inside(sys.executable, "many.py", "ours"),
        inside(sys.executable, "many.py", "theirs"),
        1.0,
        "torchinfo",
    ),
    Row(
        "real trace of a ResNet-50, batch 8 : forward",
        process(
            *MODTOOL, "trace", "residual.py", "--input-shape", "8,3,224,224", "--real", "--json"
        ),
        process(sys.executable, "residual.py"),
        1.3,
    ),
)


def prepare(folder: Path) -> None:
    """Write the models."""
    for name, shape in SHAPES.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps({**LLAMA, **shape}))
    (folder / "residual.py").write_text(RESIDUAL)
    (folder / "many.py").write_text(MANY)


def line(row: Row, folder: Path, runs: int) -> str:
    """One line of the table."""
    if row.needs and find_spec(row.needs) is None:
        return f"| {row.what} | {row.needs} is not installed | | | | {row.limit} |"
    ours, theirs = [], []
    for _ in range(runs):
        theirs.append(row.theirs(folder))
        ours.append(row.ours(folder))
    mine, other = (median(seconds for seconds, _ in each) for each in (ours, theirs))
    peak = max(size for _, size in ours)
    return (
        f"| {row.what} | {mine:.2f} s | {other:.2f} s | {peak:.0f} MB "
        f"| {mine / other:.2f} | {row.limit} |"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default="")
    asked = parser.parse_args(arguments)
    print("| | modtool | other | peak of modtool | ratio | limit |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        prepare(Path(place))
        for row in ROWS:
            if asked.only in row.what:
                print(line(row, Path(place), asked.runs), flush=True)


if __name__ == "__main__":
    main()
