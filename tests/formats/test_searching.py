"""Which checkpoints a folder holds, and which of its files are none."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.distributed.checkpoint.state_dict_saver import save

from modtool.formats.searching import find_checkpoints

STATE = {"w": torch.zeros(2, 3)}


def found(folder: Path) -> list[str]:
    return [os.path.relpath(path, folder) for path in find_checkpoints(str(folder))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def shards(folder: Path, count: int, *, indexed: bool) -> None:
    names = [f"model-{number + 1:05d}-of-{count:05d}.safetensors" for number in range(count)]
    for number, name in enumerate(names):
        save_file({f"w{number}": torch.zeros(2)}, folder / name)
    if indexed:
        weight_map = {f"w{number}": name for number, name in enumerate(names)}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_files_are_found_in_the_order_of_their_names(folder: Path) -> None:
    for name in ("b/x.pth", "a.pt", "c.ckpt", "b.safetensors"):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        torch.save(STATE, path) if path.suffix != ".safetensors" else save_file(STATE, path)
    assert found(folder) == ["a.pt", "b/x.pth", "b.safetensors", "c.ckpt"]


def test_hidden_files_and_folders_and_links_to_folders_are_passed_over(folder: Path) -> None:
    (folder / ".git").mkdir()
    torch.save(STATE, folder / ".git" / "x.pth")
    torch.save(STATE, folder / ".x.pth")
    (folder / "real").mkdir()
    torch.save(STATE, folder / "real" / "x.pth")
    (folder / "link").symlink_to(folder / "real")
    (folder / "loop").symlink_to(folder)
    (folder / "linked.pth").symlink_to(folder / "real" / "x.pth")
    assert found(folder) == ["linked.pth", "real/x.pth"]


def test_a_suffix_of_others_counts_where_the_bytes_do(folder: Path) -> None:
    torch.save(STATE, folder / "pytorch_model.bin")
    (folder / "firmware.bin").write_bytes(b"\x01\x02\x03\x04" * 10)
    (folder / "pointer.bin").write_text("version https://git-lfs.github.com/spec/v1\n")
    (folder / "empty.bin").write_bytes(b"")
    (folder / "spiece.model").write_bytes(b"\x0a\x0e\x0a\x05<unk>")
    (folder / "notes.txt").write_text("x")
    assert found(folder) == ["empty.bin", "pointer.bin", "pytorch_model.bin"]


def test_a_set_behind_an_index_is_one(folder: Path) -> None:
    shards(folder, 2, indexed=True)
    save_file(STATE, folder / "other.safetensors")
    (folder / "broken.index.json").write_text("{")
    (folder / "config.json").write_text("{}")
    assert found(folder) == ["model.safetensors.index.json", "other.safetensors"]


def test_numbered_files_without_an_index_are_one(folder: Path) -> None:
    (folder / "model").mkdir()
    shards(folder / "model", 2, indexed=False)
    (folder / "model" / "older").mkdir()
    torch.save(STATE, folder / "model" / "older" / "x.pth")
    assert found(folder) == ["model", "model/older/x.pth"]


def test_numbered_files_beside_another_checkpoint_are_each_for_itself(folder: Path) -> None:
    shards(folder, 2, indexed=False)
    torch.save(STATE, folder / "x.pth")
    assert found(folder) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "x.pth",
    ]


def test_a_distributed_checkpoint_is_one(folder: Path) -> None:
    with pytest.warns(UserWarning, match="single process"):
        save(STATE, checkpoint_id=str(folder / "step_1"), no_dist=True)
    torch.save(STATE, folder / "x.pth")
    assert found(folder) == ["step_1", "x.pth"]


def test_a_folder_without_any(folder: Path) -> None:
    (folder / "deeper").mkdir()
    assert found(folder) == []
