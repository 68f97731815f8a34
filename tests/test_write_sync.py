"""What is written is on the disk before it gets its name, unless the user says otherwise."""

import os
from pathlib import Path

import pytest
import torch

import modtool
from modtool.api.writing import Writing
from modtool.plan import Form

FORMS: tuple[tuple[str, Form, int | None], ...] = (
    ("out.pth", "state_dict", None),
    ("out.safetensors", "safetensors", None),
    ("set/", "safetensors", 4000),
    ("dcp", "dcp", None),
)


def contents(path: Path) -> dict[str, bytes]:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    # Distributed checkpoints carry a time in .metadata.
    return {each.name: each.read_bytes() for each in files if each.name != ".metadata"}


@pytest.mark.parametrize(("name", "form", "largest"), FORMS)
def test_when_the_disk_has_it(
    name: str, form: Form, largest: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({f"w{index}": torch.randn(20, 40) for index in range(4)}, tmp_path / "in.pth")
    asked: list[int] = []
    monkeypatch.setattr(os, "fsync", asked.append)
    for sync in ("now", "never"):
        (tmp_path / sync).mkdir()
        asked.clear()
        modtool.convert(
            str(tmp_path / "in.pth"),
            str(tmp_path / sync / name) + ("/" if name.endswith("/") else ""),
            to=form,
            max_shard_size=largest,
            writing=Writing(sync=sync),
        )
        assert bool(asked) == (sync == "now")
    assert contents(tmp_path / "now" / name) == contents(tmp_path / "never" / name)
