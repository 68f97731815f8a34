"""Indices and metadata that point at files which are no shards, through every command.

Each runs in a process of its own, whose time and memory are measured (`tests/examiner.py`).
"""

import json
from pathlib import Path

import pytest

from tests.examiner import NASTY, Examiner, examiner
from tests.formats.samples import Sample, sample, whole

__all__ = ["examiner", "whole"]


OUTSIDE = "it names a file outside its folder"
INDICES = {
    "a folder above": ({"w": "../x.safetensors"}, OUTSIDE),
    "an absolute path": ({"w": "/etc/passwd"}, OUTSIDE),
    "a NUL": ({"w": "a\0b"}, OUTSIDE),
    "a path of escapes": ({"w": f"../{NASTY}"}, OUTSIDE),
    "a name of a megabyte": ({"w": "a" * 1_000_000}, OUTSIDE),
    "no name": ({"w": 7}, "by something that is no text: 7"),
    "itself": ({"w": "x.index.json"}, "a JSON text"),
    "the folder": ({"w": "."}, "not a regular file"),
    "many files": ({str(index): f"{index}" for index in range(30_000)}, "more than 20,000 files"),
    "a loop of links": ({"w": "loop"}, "loop: too many levels of symbolic links"),
    "nothing that is there": ({"w": NASTY.replace("\0", "")}, "none is there"),
}


@pytest.mark.parametrize("name", INDICES)
def test_index_files_that_lie(examiner: Examiner, whole: Path, tmp_path: Path, name: str) -> None:
    homes, reason = INDICES[name]
    path = tmp_path / "x.index.json"
    (tmp_path / "loop").symlink_to("pool")
    (tmp_path / "pool").symlink_to("loop")
    path.write_text(json.dumps({"weight_map": homes}))
    examiner.refuse(path, whole, reason)


def test_loops_of_links(examiner: Examiner, whole: Path, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    examiner.refuse(tmp_path / "loop", whole, "too many levels of symbolic links")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / ".metadata").symlink_to(".metadata")
    examiner.refuse(folder, whole, "")
    (folder / ".metadata").unlink()
    (folder / "inside").symlink_to(folder)
    examiner.refuse(folder, whole, "checkpoint in")


@pytest.mark.parametrize("file", ["../x", "/etc/passwd", f"a/../../{NASTY}"])
def test_distributed_metadata_that_points_outside(
    examiner: Examiner, whole: Path, tmp_path: Path, file: str
) -> None:
    made = sample("dcp")
    name = b"__0_0.distcp"
    data = made.files[".metadata"].replace(
        b"\x8c" + bytes([len(name)]) + name, b"\x8c" + bytes([len(file.encode())]) + file.encode()
    )
    path = Sample({**made.files, ".metadata": data}).lay_out(tmp_path)
    examiner.refuse(path, whole, OUTSIDE)


SECRET = "PRIVATE KEY: correct horse battery staple"


def every_text(examiner: Examiner, path: Path, whole: Path) -> str:
    """All that the commands print of a checkpoint."""
    outcomes = [*examiner.every_command(path, whole).values()]
    outcomes += [examiner.run("check", "--values", str(path))]
    return "".join(outcome.out + outcome.err for outcome in outcomes)


@pytest.mark.parametrize("secret", [SECRET, f'{{"{SECRET}": 1}}', f"<{SECRET}>", SECRET * 1_000])
def test_a_shard_that_leads_to_a_file_of_secrets(
    examiner: Examiner, whole: Path, tmp_path: Path, secret: str
) -> None:
    (tmp_path / "secret").write_text(secret)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "x.safetensors").symlink_to("../secret")
    path = folder / "x.index.json"
    path.write_text(json.dumps({"weight_map": {"w": "x.safetensors"}}))
    examiner.refuse(path, whole, "x.safetensors")
    assert "PRIVATE" not in every_text(examiner, path, whole)
    assert "PRIVATE" not in every_text(examiner, folder / "x.safetensors", whole)


@pytest.mark.parametrize("times", [1, 10_000])
def test_an_item_that_leads_to_a_file_of_secrets(
    examiner: Examiner, whole: Path, tmp_path: Path, times: int
) -> None:
    (tmp_path / "secret").write_text(SECRET * times)
    folder = sample("dcp").lay_out(tmp_path / "folder")
    (folder / "__0_0.distcp").unlink()
    (folder / "__0_0.distcp").symlink_to("../secret")
    found = examiner.every_command(folder, whole)
    assert (found["summary"].code, found["convert"].code) == (0, 2)
    notes = [note["code"] for note in json.loads(found["summary"].out)["notes"]]
    assert notes == ["link-outside", "missing-shard"][: 1 + (times == 1)]
    assert "PRIVATE" not in every_text(examiner, folder, whole)
