"""Files of hundreds of thousands of small objects beside a few tensors, as scripts log them.

openff-nagl-models 2025.9.0, `openff-gnn-am1bcc-1.0.0.pt`, taught it: 22 tensors and a lookup table
of 349,000 objects in 5.9 MB. What is refused is a pickle of an object for every byte or two
(`test_hostile_carriers`), which pickle does not write.
"""

import pickle
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    TensorProperties,
    TensorStorageMetadata,
)

from modtool.errors import UnsafeFileError
from modtool.formats import open_checkpoint
from modtool.pickles.reader import read_pickle

START = datetime(2026, 1, 1)
LOGS: dict[str, tuple[Callable[[], list[object]], int]] = {
    "dicts": (lambda: [{"step": step, "loss": 0.5} for step in range(310_000)], 2),
    "times": (lambda: [START + timedelta(seconds=step) for step in range(155_000)], 2),
    "sets": (lambda: [{step} for step in range(201_000)], 4),
    "sizes": (lambda: [torch.Size([1, 2]) for _ in range(105_000)], 4),
    "flags": (lambda: [True, False] * 2_500_000, 2),
}


@pytest.mark.parametrize("name", LOGS)
def test_a_long_log_beside_a_model(tmp_path: Path, name: str) -> None:
    make, protocol = LOGS[name]
    log = make()
    made = {"model": nn.Linear(2, 2).state_dict(), "log": log}
    torch.save(made, tmp_path / "log.pt", pickle_protocol=protocol)
    found = open_checkpoint(str(tmp_path / "log.pt"))
    assert [(tensor.section, tensor.name) for tensor in found.tensors] == [
        ("model", "weight"),
        ("model", "bias"),
    ]
    assert isinstance(found.root, dict)
    assert len(found.root["log"]) == len(log)


def test_the_metadata_of_many_tensors(tmp_path: Path) -> None:
    size = torch.Size([2, 2])
    tensors = {
        f"layers.{index}.weight": TensorStorageMetadata(
            TensorProperties(), size, [ChunkStorageMetadata(torch.Size([0, 0]), size)]
        )
        for index in range(20_000)
    }
    metadata = Metadata(state_dict_metadata=dict(tensors), storage_data={})
    (tmp_path / ".metadata").write_bytes(pickle.dumps(metadata))
    found = open_checkpoint(str(tmp_path))
    assert [tensor.name for tensor in found.tensors] == list(tensors)


def test_what_is_packed_too_densely_is_called_so() -> None:
    with pytest.raises(UnsafeFileError) as caught:
        read_pickle(pickle.dumps([[] for _ in range(800_000)], 4), where="x.pt")
    assert caught.value.message == "x.pt: 499,492 objects in 1,000,128 bytes (byte 1,000,128)"
    assert caught.value.hint == (
        "modtool reads no pickle that is packed so: save it with pickle_protocol=2 if it is yours"
    )
    found = read_pickle(pickle.dumps([[] for _ in range(800_000)], 2))
    assert found.root == [[]] * 800_000
