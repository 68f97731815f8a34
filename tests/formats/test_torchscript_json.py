"""The `model.json` of torch 1.0 to 1.3, written by hand: torch 2.13 reads these files no more."""

import json
import zipfile
from pathlib import Path

import pytest
import torch

from modtool.errors import ModtoolError
from modtool.formats import open_checkpoint
from modtool.pickles.writer import write_pickle
from tests.formats.compare import assert_same


def old_model() -> dict[str, object]:
    def tensor(index: int, dims: list[int], strides: list[int], kind: str) -> dict[str, object]:
        return {
            "dims": [str(size) for size in dims],
            "strides": [str(step) for step in strides],
            "offset": str(index if index == 2 else 0),
            "requiresGrad": kind == "FLOAT",
            "dataType": kind,
            "data": {"key": f"tensors/{min(index, 1)}"},
            "device": "cpu",
        }

    inner = {
        "name": "fc",
        "optimize": True,
        "parameters": [
            {"isBuffer": False, "tensorId": "0", "name": "weight"},
            {"isBuffer": False, "name": "again"},
        ],
    }
    main = {
        "name": "Net",
        "torchscriptArena": {"key": "code/net.py"},
        "submodules": [inner],
        "parameters": [
            {"isBuffer": True, "tensorId": "1", "name": "steps"},
            {"isBuffer": False, "tensorId": "2", "name": "tail"},
        ],
    }
    tensors = [
        tensor(0, [2, 2], [2, 1], "FLOAT"),
        tensor(1, [3], [1], "INT64"),
        tensor(2, [1], [1], "FLOAT") | {"data": {"key": "tensors/0"}},
    ]
    return {
        "protoVersion": "2",
        "mainModule": main,
        "producerName": "pytorch",
        "producerVersion": "1.1.0",
        "tensors": tensors,
    }


def old_archive(path: Path, model: object) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("old/model.json", json.dumps(model))
        archive.writestr("old/tensors/0", torch.arange(4.0).numpy().tobytes())
        archive.writestr("old/tensors/1", torch.arange(3).numpy().tobytes())
        archive.writestr("old/code/net.py", "op_version_set = 0\n")
        archive.writestr("old/attributes.pkl", write_pickle([]))
    return path


def test_the_model_json_of_torch_1_0(tmp_path: Path) -> None:
    """torch 2.13 reads these no more; the layout is that of torch 1.13's `import_legacy.cpp`."""
    found = open_checkpoint(str(old_archive(tmp_path / "x.pt", old_model())))
    assert found.format == "torchscript"
    whole = torch.arange(4.0).reshape(2, 2)
    assert_same(
        found.tensors,
        {
            "tail": torch.tensor([2.0]),
            "steps": torch.arange(3),
            "fc.weight": whole,
            "fc.again": whole,
        },
    )
    assert [(tensor.role, tensor.requires_grad) for tensor in found.tensors] == [
        ("parameter", True),
        ("buffer", None),
        ("parameter", True),
        ("parameter", True),
    ]
    assert [(node.path, node.type) for node in found.modules] == [("", "Net"), ("fc", None)]
    assert found.metadata == {"producer": "pytorch 1.1.0"}
    assert list(found.pickles) == ["attributes.pkl"]


TENSOR = {"key": "tensors/0"}


@pytest.mark.parametrize(
    "change",
    [
        {"tensors": 1},
        {"tensors": [{}]},
        {"tensors": []},
        {"mainModule": []},
        {"mainModule": {"submodules": [1]}},
        {"tensors": [{"dims": ["5"], "strides": ["1"], "dataType": "FLOAT", "data": TENSOR}]},
        {"tensors": [{"dims": ["-1"], "strides": ["1"], "dataType": "FLOAT", "data": TENSOR}]},
        {"tensors": [{"dims": ["1"], "strides": [], "dataType": "FLOAT", "data": TENSOR}]},
        {"tensors": [{"dims": ["1"], "strides": ["1"], "dataType": "FLOAT", "data": {}}]},
    ],
)
def test_a_model_json_that_lies(tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(ModtoolError):
        open_checkpoint(str(old_archive(tmp_path / "x.pt", old_model() | change)))
