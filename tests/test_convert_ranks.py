"""Several processes share the work of a set without talking."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

SETTINGS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "source.pth"
    path.parent.mkdir()
    torch.manual_seed(0)
    torch.save({f"{index}.weight": torch.randn(256, 400) for index in range(20)}, path)
    return path


def plain_environment() -> dict[str, str]:
    return {name: text for name, text in os.environ.items() if name not in SETTINGS}


def start(rank: int, world: int, *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "modtool", "convert", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**plain_environment(), "RANK": str(rank), "WORLD_SIZE": str(world)},
    )


def alone(*arguments: object) -> None:
    command = [sys.executable, "-m", "modtool", "convert", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, env=plain_environment())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("to", ["safetensors", "state_dict"])
@pytest.mark.parametrize("made", [False, True])
def test_the_same_bytes_as_one_process(source: Path, tmp_path: Path, to: str, made: bool) -> None:
    options = ("--to", to, "--max-shard-size", "1MB", "--dtype-for", "*.weight=fp32")
    alone(source, "-o", tmp_path / "one", *options)
    if made:
        (tmp_path / "many").mkdir()
    running = [start(rank, 3, source, "-o", tmp_path / "many", *options) for rank in range(3)]
    for rank, process in enumerate(running):
        out, err = process.communicate()
        assert (process.returncode, err) == (0, "")
        assert bool(out) is (rank == 0)
    assert contents(tmp_path / "many") == contents(tmp_path / "one")
    assert sorted(os.listdir(tmp_path)) == ["in", "many", "one"]


def test_under_torchrun(source: Path, tmp_path: Path) -> None:
    options = ["--max-shard-size", "1MB"]
    alone(source, "-o", tmp_path / "one", *options)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command = [*launcher, "--standalone", "-m", "modtool", "convert", str(source)]
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "many"), *options],
        capture_output=True,
        text=True,
        check=False,
        env=plain_environment(),
    )
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


def test_a_process_that_has_nothing_to_do(source: Path, tmp_path: Path) -> None:
    options = (source, "-o", tmp_path / "many", "--max-shard-size", "1GB")
    for rank in (1, 0, 1):
        running = start(rank, 2, *options)
        out, err = running.communicate()
        assert (running.returncode, err, bool(out)) == (0, "", rank == 0)
    assert os.listdir(tmp_path / "many") == ["model.safetensors"]


def test_one_file_is_the_first_ones_work(source: Path, tmp_path: Path) -> None:
    running = [start(rank, 2, source, "-o", tmp_path / "x.safetensors") for rank in range(2)]
    for process in running:
        process.communicate()
        assert process.returncode == 0
    assert sorted(os.listdir(tmp_path)) == ["in", "x.safetensors"]


def test_each_process_tells_what_its_casts_lost(tmp_path: Path) -> None:
    saved = {"a": torch.full((300,), 1e5), "b": torch.full((200,), 1e6)}
    torch.save(saved, tmp_path / "in.pth")
    options = ("--to", "safetensors", "--max-shard-size", "600", "--dtype", "fp16")
    running = [
        start(rank, 2, tmp_path / "in.pth", "-o", tmp_path / "out", *options) for rank in range(2)
    ]
    lost = "warning: cast-overflow: {}: finite values beyond the range of float16 are lost: {}"
    assert [process.communicate()[1].splitlines()[0] for process in running] == [
        lost.format("a", "a (300 of 300)"),
        lost.format("b", "b (200 of 200)"),
    ]


@pytest.mark.parametrize("made", [False, True])
def test_a_process_that_is_killed_leaves_no_index(source: Path, tmp_path: Path, made: bool) -> None:
    target = tmp_path / "many"
    if made:
        target.mkdir()
    options = (source, "-o", target, "--max-shard-size", "1MB")
    first, second = start(0, 2, *options), start(1, 2, *options)
    second.send_signal(signal.SIGKILL)
    second.communicate()
    parent = target if made else tmp_path
    waiting = time.monotonic() + 60
    while time.monotonic() < waiting:  # until the first one has done its share
        hidden = [path for path in parent.iterdir() if path.name.startswith(".modtool-")]
        if hidden and len([*hidden[0].glob("model-*")]) == 5:
            break
        time.sleep(0.01)
    assert first.poll() is None
    first.send_signal(signal.SIGTERM)
    first.communicate()
    assert first.returncode == 143
    assert sorted(os.listdir(tmp_path)) == (["in", "many"] if made else ["in"])
    assert not made or os.listdir(target) == []


def hidden_in(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith(".modtool-")]


@pytest.mark.parametrize("made", [False, True])
def test_what_some_of_the_processes_left_is_gone_after_the_next_run(
    source: Path, tmp_path: Path, made: bool
) -> None:
    target = tmp_path / "many"
    if made:
        target.mkdir()
    parent = target if made else tmp_path
    options = (source, "-o", target, "--max-shard-size", "1MB")
    second = start(1, 2, *options)  # and the first one never comes
    assert second.communicate() == ("", "")
    (left,) = hidden_in(parent)
    long_ago = time.time() - 60
    os.utime(parent / left, (long_ago, long_ago))
    alone(source, "-o", parent / "other.safetensors")
    assert hidden_in(parent) == [left]  # another machine may be writing the rest of that set
    again = start(1, 2, *options)
    assert again.communicate() == ("", "")
    assert hidden_in(parent) == [left]  # nor does a run remove what it shares with others
    os.utime(parent / left, (long_ago, long_ago))
    alone(*options)
    assert hidden_in(parent) == []
    assert len([*target.glob("model-*")]) == 10


def test_ranks_that_do_not_fit(source: Path, tmp_path: Path) -> None:
    out, err = start(2, 2, source, "-o", tmp_path / "x.pth").communicate()
    said = "error: RANK=2 and WORLD_SIZE=2 do not fit together\n  unset them\n"
    assert (out, err) == ("", said)
