"""Killed, interrupted, out of space, two at once: the output is whole or absent."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modtool.errors import OutputError
from modtool.formats import open_checkpoint
from modtool.plan import Plan, plan_conversion
from modtool.write import write
from modtool.write.atomic import unnamed_file
from modtool.write.leftovers import HIDDEN

SCRIPT = Path(__file__).with_name("kill_at_random.py")
MEGABYTE = 1 << 20


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Large enough that it is written past the page cache, by threads."""
    path = tmp_path / "in" / "source.pth"
    path.parent.mkdir()
    (tmp_path / "out").mkdir()
    torch.manual_seed(0)
    torch.save({f"{index}.weight": torch.randn(256, 4100) for index in range(20)}, path)
    return path


def has_unnamed_files(folder: Path) -> bool:
    found = unnamed_file(str(folder))
    if found is not None:
        os.close(found.descriptor)
    return found is not None


def modtool(*arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "modtool", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("output", "options"),
    [
        ("x.safetensors", []),
        ("x.pth", ["--dtype-for", "1.weight=float32"]),
        ("new", ["--max-shard-size", "30MB"]),
    ],
)
def test_killed_at_random_moments(
    source: Path, tmp_path: Path, output: str, options: list[str]
) -> None:
    kills = 20 if options else 100
    paths = (str(source), str(tmp_path / "out" / output))
    command = [sys.executable, str(SCRIPT), str(kills), *paths, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert found["absent"] + found["present"] == kills
    assert found["absent"] > kills // 10
    if output != "new" and unnamed_file(str(tmp_path)) is not None:
        assert found["hidden"] == 0


def test_what_a_killed_set_left_is_gone_after_the_next(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    options = ("convert", source, "-o", folder / "set", "--max-shard-size", "30MB")
    running = modtool(*options)
    while not (left := os.listdir(folder)):
        time.sleep(0.001)
    running.kill()
    running.communicate()
    if left == ["set"]:  # it was done already
        return
    assert HIDDEN.match(left[0])
    long_ago = time.time() - 60
    os.utime(folder / left[0], (long_ago, long_ago))
    assert modtool(*options).communicate()[1] == ""
    assert os.listdir(folder) == ["set"]


def writes_into(process: int, folder: Path) -> bool:
    """True when a process has a file open there that has no name."""
    for descriptor in Path(f"/proc/{process}/fd").glob("*"):
        with contextlib.suppress(OSError):
            if os.readlink(descriptor).startswith(f"{folder}/#"):
                return True
    return False


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "error: interrupted\n"), (signal.SIGTERM, 143, "")],
)
@pytest.mark.parametrize("options", [[], ["--max-shard-size", "30MB"]])
def test_nothing_remains_after_ctrl_c(
    source: Path, tmp_path: Path, number: signal.Signals, code: int, said: str, options: list[str]
) -> None:
    folder = tmp_path / "out"
    output = folder / ("set" if options else "x.safetensors")
    running = modtool("convert", source, "-o", output, *options)
    while not (os.listdir(folder) or writes_into(running.pid, folder)) and running.poll() is None:
        time.sleep(0.001)
    running.send_signal(number)
    out, err = running.communicate()
    if running.returncode == 0:  # it was done already
        assert output.exists()
        return
    assert (running.returncode, out, err) == (code, "", said)
    assert os.listdir(folder) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of sixteen megabytes where one may be mounted, else a limit on file sizes."""
    folder = tmp_path / "small"
    folder.mkdir()
    size = f"size={16 * MEGABYTE}"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], capture_output=True, check=False
    )
    try:
        yield folder
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", str(folder)], check=True)


def is_small(folder: Path) -> bool:
    found = os.statvfs(folder)
    return found.f_blocks * found.f_frsize <= 16 * MEGABYTE


def plan_of(source: Path) -> Plan:
    return plan_conversion(open_checkpoint(str(source)), to="safetensors")


def test_a_disk_that_is_too_small_is_seen_at_once(source: Path, small_disk: Path) -> None:
    if not is_small(small_disk):
        limited = f"ulimit -f 16384; exec {sys.executable} -m modtool convert {source} -o "
        command = ["bash", "-c", limited + str(small_disk / "x.safetensors")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said = "was not written: the file would be larger than the file system allows\n"
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
    else:
        with pytest.raises(OutputError, match="the disk is full: 83,968,000 bytes needed") as info:
            write(plan_of(source), str(small_disk / "x.safetensors"))
        assert info.value.hint == "free some space, or write elsewhere"
    assert os.listdir(small_disk) == []


def test_a_disk_that_fills_up_meanwhile(source: Path, tmp_path: Path, small_disk: Path) -> None:
    part = tmp_path / "in" / "part.pth"
    torch.save({str(index): torch.ones(1 << 20) for index in range(3)}, part)
    output = str(small_disk / "x.safetensors")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def take(done: int, total: int, name: str) -> None:
        if is_small(small_disk):
            (small_disk / "taken").write_bytes(bytes(8 * MEGABYTE))
        else:  # no file system of its own: the system refuses a larger file instead
            resource.setrlimit(resource.RLIMIT_FSIZE, (MEGABYTE, hard))

    said = "the disk is full\nfree some" if is_small(small_disk) else "the file would be larger"
    try:
        with pytest.raises(OutputError, match=f"was not written: {said}"):
            write(plan_of(part), output, progress=take)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert set(os.listdir(small_disk)) <= {"taken"}


def test_a_file_of_a_set_that_is_too_large_is_called_by_its_own_name(
    source: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out" / "set"
    command = f"{sys.executable} -m modtool convert {source} -o {folder}/ --max-shard-size 30MB"
    limited = ["bash", "-c", f"ulimit -f 1024; exec {command}"]
    done = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: {folder}/model-00001-of-00003.safetensors was not written: "
        "the file would be larger than the file system allows\n  write elsewhere\n"
    )
    assert os.listdir(tmp_path / "out") == []


def test_of_two_processes_one_wins_whole(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "x.safetensors"
    running = [modtool("convert", source, "-o", output) for _ in range(2)]
    ended = [(*each.communicate(), each.returncode) for each in running]
    assert sorted(code for _, _, code in ended) == [0, 2]
    said = next(err for _, err, code in ended if code == 2)
    assert said == f"error: {output} exists already\n  --force replaces it\n"
    assert os.listdir(output.parent) == ["x.safetensors"]
    assert len(open_checkpoint(str(output)).tensors) == 20


def test_of_two_sets_one_wins_whole(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "set"
    options = ("-o", output, "--max-shard-size", "30MB")
    running = [modtool("convert", source, *options) for _ in range(2)]
    ended = [(*each.communicate(), each.returncode) for each in running]
    assert sorted(code for _, _, code in ended) == [0, 2]
    assert os.listdir(output.parent) == ["set"]
    assert len(os.listdir(output)) == 4
    assert len(open_checkpoint(str(output)).tensors) == 20


def test_a_set_is_replaced_as_a_whole(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "set"
    output.mkdir()
    (output / "config.json").write_text("{}")
    save_file({"old": torch.ones(1)}, output / "model.safetensors")
    many = modtool("convert", source, "-o", output, "--max-shard-size", "10MB")
    assert many.communicate()[1].endswith("exists already\n  --force replaces it\n")
    for size, files in (("10MB", 11), ("30MB", 4)):
        forced = modtool("convert", source, "-o", output, "--max-shard-size", size, "--force")
        assert forced.communicate()[1] == ""
        assert len(os.listdir(output)) == files + 1
        assert len(open_checkpoint(str(output)).tensors) == 20
    assert (output / "config.json").read_text() == "{}"
