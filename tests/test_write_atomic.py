"""The output is complete or absent, the source untouched, and nothing is overwritten unasked."""

import os
import resource
import stat
import threading
import time
from pathlib import Path

import pytest
import torch

from modtool.errors import CorruptFileError, OutputError
from modtool.formats import open_checkpoint
from modtool.plan import Plan, PlannedTensor, cast, plan_conversion
from modtool.write import atomic, write
from modtool.write.leftovers import HIDDEN, hidden_name, hold


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "source.pth"
    path.parent.mkdir()
    (tmp_path / "out").mkdir()
    torch.save({"a": torch.arange(100_000.0), "b": torch.ones(3)}, path)
    return path


@pytest.fixture(params=["unnamed", "named"])
def kind_of_file(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where files without a name are to be had, and where they are not."""
    if request.param == "named":
        monkeypatch.setattr(atomic, "UNNAMED", 0)
    return str(request.param)


def plan_of(source: Path) -> Plan:
    return plan_conversion(open_checkpoint(str(source)), to="safetensors")


def test_an_existing_file_is_kept_without_force(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "x.safetensors"
    target.write_text("precious")
    with pytest.raises(OutputError, match=r"exists already\n--force replaces it"):
        write(plan_of(source), str(target))
    assert target.read_text() == "precious"
    write(plan_of(source), str(target), force=True)
    assert target.stat().st_size > 400_000
    assert os.listdir(target.parent) == ["x.safetensors"]


@pytest.mark.parametrize("kind", ["same", "symbolic", "hard", "dotted"])
def test_the_source_is_no_output(source: Path, kind: str) -> None:
    before = source.read_bytes()
    target = source
    if kind == "symbolic":
        target = source.parent / "link"
        target.symlink_to(source)
    if kind == "hard":
        target = source.parent / "link"
        os.link(source, target)
    if kind == "dotted":
        target = source.parent / ".." / "in" / "source.pth"
    for force in (False, True):
        with pytest.raises(OutputError, match="is the source itself"):
            write(plan_of(source), str(target), force=force)
    assert source.read_bytes() == before


def test_in_place(source: Path) -> None:
    before = torch.load(source)
    plan = plan_conversion(open_checkpoint(str(source)), to="checkpoint")
    write(plan, str(source), in_place=True)
    after = torch.load(source)
    assert torch.equal(after["model_state_dict"]["a"], before["a"])
    assert os.listdir(source.parent) == ["source.pth"]


def test_a_link_is_followed(source: Path, tmp_path: Path) -> None:
    real = tmp_path / "in" / "real.safetensors"
    link = tmp_path / "out" / "link.safetensors"
    link.symlink_to(real)
    write(plan_of(source), str(link))
    assert link.is_symlink()
    assert real.stat().st_size > 400_000
    with pytest.raises(OutputError, match="exists already"):
        write(plan_of(source), str(link))
    write(plan_of(source), str(link), force=True)
    assert link.is_symlink()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("out", "is a folder"),
        ("nowhere/x.pth", "there is no folder"),
        ("in/source.pth/x.pth", "a part of the path is no folder"),
        ("out/" + "x" * 300, "the name is too long"),
    ],
)
def test_places_that_take_no_file(source: Path, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(OutputError, match=message):
        write(plan_of(source), str(tmp_path / name))
    assert os.listdir(tmp_path / "out") == []


def test_a_device_is_no_file(source: Path) -> None:
    with pytest.raises(OutputError, match="no regular file"):
        write(plan_of(source), "/dev/null", force=True)


def test_a_relative_path(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path / "out")
    assert write(plan_of(source), "x.safetensors") == ("x.safetensors",)
    assert os.listdir(tmp_path / "out") == ["x.safetensors"]


def test_permissions_are_those_of_open(source: Path, tmp_path: Path, kind_of_file: str) -> None:
    before = os.umask(0o027)
    try:
        target = tmp_path / "out" / "x.safetensors"
        write(plan_of(source), str(target))
        assert stat.S_IMODE(target.stat().st_mode) == 0o640
        target.chmod(0o664)
        write(plan_of(source), str(target), force=True)
        assert stat.S_IMODE(target.stat().st_mode) == 0o664
    finally:
        os.umask(before)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_remains_after_an_interruption(
    source: Path, tmp_path: Path, error: type[BaseException], kind_of_file: str
) -> None:
    target = tmp_path / "out" / "x.safetensors"
    seen: list[str] = []

    def stop(done: int, total: int, name: str) -> None:
        seen.extend(os.listdir(target.parent))
        raise error

    with pytest.raises(error):
        write(plan_of(source), str(target), progress=stop)
    assert [bool(HIDDEN.match(name)) for name in seen] == [True] * (kind_of_file == "named")
    assert os.listdir(target.parent) == []


def test_nothing_remains_after_a_full_disk(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "x.safetensors"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    plan = plan_of(source)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        with pytest.raises(OutputError, match="was not written: the file would be larger"):
            write(plan, str(target))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(target.parent) == []


def test_a_file_that_appears_meanwhile_is_kept(
    source: Path, tmp_path: Path, kind_of_file: str
) -> None:
    target = tmp_path / "out" / "x.safetensors"

    def appear(done: int, total: int, name: str) -> None:
        target.write_text("someone else's")

    with pytest.raises(OutputError, match="exists already"):
        write(plan_of(source), str(target), progress=appear)
    assert target.read_text() == "someone else's"
    assert os.listdir(target.parent) == ["x.safetensors"]


def test_of_two_runs_one_wins_whole(source: Path, tmp_path: Path, kind_of_file: str) -> None:
    target = tmp_path / "out" / "x.safetensors"
    both = threading.Barrier(2)
    results: list[object] = []

    def wait(done: int, total: int, name: str) -> None:
        if done == total:
            both.wait()

    def run() -> None:
        try:
            results.append(write(plan_of(source), str(target), progress=wait))
        except OutputError as error:
            results.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result for result in results if isinstance(result, tuple)] == [(str(target),)]
    assert len(results) == 2
    assert os.listdir(target.parent) == ["x.safetensors"]
    assert open_checkpoint(str(target)).tensors[0].numel == 100_000


def test_progress_tells_bytes(source: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int, str]] = []
    write(
        plan_of(source),
        str(tmp_path / "out" / "x.safetensors"),
        progress=lambda done, total, name: steps.append((done, total, name)),
    )
    assert steps[-1] == (400_012, 400_012, "b")
    assert [done for done, _, _ in steps] == sorted(done for done, _, _ in steps)


def test_a_source_that_shrinks_is_an_error(source: Path, tmp_path: Path) -> None:
    plan = plan_of(source)
    os.truncate(source, 10_000)
    target = tmp_path / "out" / "x.safetensors"
    with pytest.raises(CorruptFileError, match="ends too early"):
        write(plan, str(target))
    assert os.listdir(target.parent) == []


def test_what_needs_computing_says_so(source: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="needs torch"):
        write(cast(plan_of(source), "bf16"), str(tmp_path / "out" / "x.safetensors"))
    assert os.listdir(tmp_path / "out") == []


def test_verification_sees_what_is_wrong(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "x.safetensors"
    plan = cast(plan_of(source), "float64")
    times: list[str] = []

    def changing(tensor: PlannedTensor) -> list[bytes]:
        times.append(tensor.name)
        last = bytes([times.count(tensor.name)])
        return [bytes(20), bytes(tensor.nbytes - 21), last]

    target.write_text("old")
    with pytest.raises(OutputError) as caught:
        write(plan, str(target), compute=changing, verified=True, force=True)
    assert caught.value.message == (
        "a: read back after writing, it differs from its source, "
        "first at element 99,999 of 100,000; the new file was removed"
    )
    assert [path.read_text() for path in target.parent.iterdir()] == ["old"]


# -- what runs that were killed have left ---------------------------------------------------------


def test_what_nobody_holds_is_removed_by_the_next_run(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    long_ago = time.time() - 60
    held = out / hidden_name()
    descriptor = os.open(held, os.O_WRONLY | os.O_CREAT)
    hold(descriptor)
    for name in ("file", "folder", "of another machine", "young"):
        path = {
            "of another machine": out / hidden_name("0123456789abcdef"),
        }.get(name, out / hidden_name())
        if name == "folder":
            path.mkdir()
            (path / "model-00001-of-00002.safetensors").write_text("half of it")
        else:
            path.write_text(name)
        if name != "young":
            os.utime(path, (long_ago, long_ago))
    os.utime(held, (long_ago, long_ago))
    mine = out / ".modtool-notes.tmp"
    mine.write_text("not of this kind")
    os.utime(mine, (long_ago, long_ago))
    write(plan_of(source), str(out / "x.safetensors"))
    os.close(descriptor)
    left = {path.read_text() for path in out.iterdir() if path.name != "x.safetensors"}
    assert left == {"", "not of this kind", "of another machine", "young"}
    a_day_ago = time.time() - 25 * 3600
    for path in out.iterdir():
        os.utime(path, (a_day_ago, a_day_ago))
    write(plan_of(source), str(out / "y.safetensors"))
    assert sorted(os.listdir(out)) == [".modtool-notes.tmp", "x.safetensors", "y.safetensors"]
