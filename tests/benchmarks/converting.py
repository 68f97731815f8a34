"""How long conversions take against `cp` of the same file, and torch's own way beside each.

    python -m tests.benchmarks.converting [--gib 4] [--runs 5] [--folder DIR] [--only TEXT]

Prints a Markdown table: medians of runs that take turns, so that what else the machine does falls
on all alike. The source is in the page cache before every run, and nothing waits to be written.
`cp` leaves its copy in the cache, as `modtool --no-sync` does; `cp, sync` waits for the disk, as
`modtool` does. A ratio stands behind each time: to `cp`, and of `modtool` to `cp, sync` too.
torch's own way is slow and held to nothing: it runs once.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import monotonic

# The one of GNU knows -v; others are built into shells, or know less.
GNU_TIME = next(
    (
        path
        for path in (shutil.which("gtime"), shutil.which("time"))
        if path
        and not subprocess.run([path, "-v", "true"], capture_output=True, check=False).returncode
    ),
    None,
)
RANKS = """
import sys, warnings, torch, torch.distributed as dist
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.multiprocessing.spawn import start_processes

def run(rank, folder, rows):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}.run", rank=rank, world_size=8)
    mesh = init_device_mesh("cpu", (4, 2))
    whole = {}
    for index in range(64):
        torch.manual_seed(8 * index + rank)
        local = torch.randn(rows // 4, 2048)
        place = (Shard(0), Shard(1))
        whole[f"layers.{index}.weight"] = DTensor.from_local(local, mesh, place, run_check=False)
    save(whole, checkpoint_id=folder)
    dist.destroy_process_group()

start_processes(run, (sys.argv[1], int(sys.argv[2])), 8, start_method="fork")
"""
SOURCES = """
import sys, torch
from safetensors.torch import save_file

folder, rows = sys.argv[1], int(sys.argv[2])
state = {f"layers.{index}.weight": torch.randn(rows, 4096) for index in range(64)}
torch.save(state, f"{folder}/state.pth")
save_file(state, f"{folder}/state.safetensors")
layers = torch.nn.ModuleList(torch.nn.Linear(1, 1, bias=False) for _ in state)
for layer, weight in zip(layers, state.values()):
    layer.weight = torch.nn.Parameter(weight)
torch.save(layers, f"{folder}/full.pth")
"""
LOAD = (
    "import sys, torch\nfrom safetensors.torch import load_file, save_file\na, b = sys.argv[1:]\n"
)


@dataclass(frozen=True, slots=True)
class Row:
    """One conversion.

    Attributes:
        what: For the table.
        source: In the folder of sources.
        output: What it makes.
        options: Of `modtool convert`.
        own: torch's own way, as Python; `a` is the source, `b` the output.
    """

    what: str
    source: str
    output: str
    options: Sequence[str]
    own: str


ROWS = (
    Row(
        "`.pth` state_dict → safetensors",
        "state.pth",
        "out.safetensors",
        (),
        "save_file(torch.load(a, weights_only=True), b)",
    ),
    Row(
        "safetensors → `.pth` state_dict",
        "state.safetensors",
        "out.pth",
        (),
        "torch.save(load_file(a), b)",
    ),
    Row(
        "full model `.pth` → state_dict",
        "full.pth",
        "out.pth",
        (),
        "torch.save(torch.load(a, weights_only=False).state_dict(), b)",
    ),
    Row(
        "safetensors → 4 shards",
        "state.safetensors",
        "out/",
        ("--max-shard-size", "SHARD"),
        "import os; os.mkdir(b); s = list(load_file(a).items());"
        "[save_file(dict(s[i::4]), f'{b}/{i}.safetensors') for i in range(4)]",
    ),
    Row(
        "4 shards → safetensors",
        "shards",
        "out.safetensors",
        (),
        "import glob; save_file({k: v for f in glob.glob(f'{a}/*.safetensors')"
        " for k, v in load_file(f).items()}, b)",
    ),
    Row(
        "`.pth` fp32 → safetensors bf16",
        "state.pth",
        "out.safetensors",
        ("--dtype", "bf16"),
        "save_file({k: v.bfloat16() for k, v in torch.load(a, weights_only=True).items()}, b)",
    ),
    Row(
        "DCP (8 ranks, 2-D split) → safetensors",
        "dcp",
        "out.safetensors",
        (),
        "from torch.distributed.checkpoint.format_utils import dcp_to_torch_save;"
        "dcp_to_torch_save(a, b)",
    ),
    Row(
        "safetensors → DCP (no limit is set)",
        "state.safetensors",
        "out",
        ("--to", "dcp"),
        "from torch.distributed.checkpoint.state_dict_saver import save;"
        "save(load_file(a), checkpoint_id=b)",
    ),
)


def main() -> None:
    """Make the sources, run everything, print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gib", type=float, default=4)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder")
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=given.folder))
    try:
        shard = make_sources(folder, int(given.gib * 2**30) // (64 * 4096 * 4))
        print(
            "| conversion | `cp` | `cp`, sync | modtool | : `cp` | : `cp`, sync | --no-sync "
            "| : `cp` | peak | torch | : `cp` | peak |"
        )
        print("|---" * 12 + "|")
        for row in ROWS:
            if given.only in row.what:
                print(line(row, folder, shard, given.runs), flush=True)
        by = "GNU time -v" if GNU_TIME else "getrusage: there is no GNU time here"
        print(f"\nmedians of {given.runs}; peak memory by {by}")
    finally:
        shutil.rmtree(folder)


def make_sources(folder: Path, rows: int) -> int:
    """Write what is to be converted; the size of a fourth of it."""
    script = folder / "ranks.py"
    script.write_text(RANKS)
    subprocess.run([sys.executable, "-c", SOURCES, folder, str(rows)], check=True)
    subprocess.run([sys.executable, script, folder / "dcp", str(rows)], check=True)
    shard = 16 * rows * 4096 * 4
    command = [*modtool(folder / "state.safetensors", folder / "shards/"), "--max-shard-size"]
    subprocess.run([*command, str(shard)], check=True, stdout=subprocess.DEVNULL)
    return shard


def modtool(source: Path, output: object) -> list[str]:
    """The command line of a conversion."""
    text = f"{output}/" if str(output).endswith("shards") else str(output)
    return [sys.executable, "-m", "modtool", "convert", str(source), "-o", text]


def line(row: Row, folder: Path, shard: int, runs: int) -> str:
    """The line of the table for one conversion."""
    source, output = folder / row.source, folder / "out" / row.output.rstrip("/")
    options = [option.replace("SHARD", str(shard)) for option in row.options]
    own = textwrap.dedent(LOAD) + row.own
    commands = {
        "cp": ["cp", "-r", str(source), str(output)],
        "cp, sync": ["sh", "-c", f"cp -r '{source}' '{output}' && sync -f '{output}'"],
        "--no-sync": [*modtool(source, output), *options, "--no-sync"],
        "modtool": [*modtool(source, output), *options],
        "torch": [sys.executable, "-W", "ignore", "-c", own, str(source), str(output)],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    peaks: dict[str, list[int]] = {name: [] for name in commands}
    for run in range(runs):
        for name, command in commands.items():
            if name == "torch" and run:
                continue
            prepare(folder, source)
            seconds, peak = timed(command)
            times[name].append(seconds)
            peaks[name].append(peak)
    middle = {name: median(found) for name, found in times.items()}
    ratio = {name: middle[name] / middle["cp"] for name in commands}
    synced = middle["modtool"] / middle["cp, sync"]
    memory = {name: max(found) / 1e6 for name, found in peaks.items()}
    most = max(memory["modtool"], memory["--no-sync"])
    return (
        f"| {row.what} | {middle['cp']:.2f} s | {middle['cp, sync']:.2f} s "
        f"| {middle['modtool']:.2f} s | {ratio['modtool']:.2f} | {synced:.2f} "
        f"| {middle['--no-sync']:.2f} s | {ratio['--no-sync']:.2f} | {most:,.0f} MB "
        f"| {middle['torch']:.2f} s | {ratio['torch']:.2f} | {memory['torch']:,.0f} MB |"
    )


def prepare(folder: Path, source: Path) -> None:
    """No output, nothing that waits to be written, the source in the page cache."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    (folder / "out").mkdir()
    os.sync()
    for file in [source] if source.is_file() else source.iterdir():
        with open(file, "rb", buffering=0) as data:
            while data.read(1 << 20):
                pass


def timed(command: Sequence[str]) -> tuple[float, int]:
    """Seconds, and bytes of the largest resident set.

    The latter as GNU time says it; where there is none, as the system tells the parent.
    """
    with tempfile.NamedTemporaryFile("r") as told:
        gnu = [GNU_TIME, "-v", "-o", told.name] if GNU_TIME else []
        began = monotonic()
        running = subprocess.Popen([*gnu, *command], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(running.pid, 0)
        seconds = monotonic() - began
        running.returncode = os.waitstatus_to_exitcode(status)
        if running.returncode:
            raise SystemExit(f"failed: {' '.join(command)}")
        kilobytes = re.search(r"Maximum resident set size \(kbytes\): (\d+)", told.read())
    return seconds, 1024 * (int(kilobytes[1]) if kilobytes else usage.ru_maxrss)


if __name__ == "__main__":
    main()
