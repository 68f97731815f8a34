"""What Python adds to tensors: views that are yet to be computed, classes, attributes, flags."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch.distributed.checkpoint.state_dict_saver import save

from modtool.errors import TargetError
from modtool.formats import open_checkpoint
from modtool.live.compute import compute
from modtool.plan import Form, Plan, drop, plan_conversion
from modtool.write import write


class Own(torch.Tensor):
    """A class of a user's own."""


def planned(saved: object, folder: Path, to: Form) -> Plan:
    """The plan for some tensors that torch saved."""
    torch.save(saved, folder / "source.pth")
    return plan_conversion(open_checkpoint(str(folder / "source.pth")), to=to)


def written(plan: Plan, path: Path) -> Path:
    """What the plan makes."""
    write(plan, str(path), verified=True, compute=compute)
    return path


def test_a_conjugate_with_an_attribute_is_written_with_its_own_values(tmp_path: Path) -> None:
    whole = torch.tensor([1 + 2j, 3 + 4j])
    conjugate, negated = whole.conj(), torch.tensor([5 + 6j]).conj().imag
    conjugate.layer, negated.layer = 1, 2  # type: ignore[attr-defined]
    assert conjugate.is_conj()
    assert negated.is_neg()
    plan = planned({"conjugate": conjugate, "negated": negated}, tmp_path, "safetensors")
    found = safetensors.torch.load_file(written(plan, tmp_path / "out.safetensors"))
    assert found["conjugate"].tolist() == [1 - 2j, 3 - 4j]
    assert found["negated"].tolist() == [-6.0]
    plan = planned({"conjugate": conjugate, "negated": negated}, tmp_path, "state_dict")
    found = torch.load(written(plan, tmp_path / "out.pth"), weights_only=True)
    assert found["conjugate"].tolist() == [1 - 2j, 3 - 4j]
    assert found["negated"].tolist() == [-6.0]


@pytest.mark.parametrize("to", ["state_dict", "checkpoint", "safetensors", "dcp"])
def test_classes_and_attributes_of_tensors_are_told_of(tmp_path: Path, to: Form) -> None:
    tensor, parameter = torch.ones(2), torch.nn.Parameter(torch.ones(2))
    tensor.scale = 5.0  # type: ignore[attr-defined]
    parameter.tensor_parallel = True  # type: ignore[attr-defined]
    model = {"t": tensor, "p": parameter, "own": torch.ones(1).as_subclass(Own)}
    plan = planned({"model": model, "epoch": 1}, tmp_path, to)
    named = [item.name for item in plan.dropped if "attribute" in item.why]
    assert named == ["model.t.scale", "model.p.tensor_parallel"]
    told = [note.message for note in plan.notes if note.code == "becomes-plain"]
    assert told == ["tests.test_bare_tensors.Own becomes Tensor: model.own"]


def test_a_full_model_is_told_of_as_a_whole(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    model.weight.tensor_parallel = True  # type: ignore[attr-defined]
    plan = planned(model, tmp_path, "state_dict")
    assert [item.name for item in plan.dropped] == ["modules"]


def test_a_frozen_parameter_of_a_state_dict_stays_frozen_and_is_not_said_to_be_lost(
    tmp_path: Path,
) -> None:
    model = torch.nn.Linear(2, 2)
    model.weight.requires_grad = False
    plan = planned(model.state_dict(keep_vars=True), tmp_path, "state_dict")
    assert plan.dropped == ()
    found = torch.load(written(plan, tmp_path / "out.pth"), weights_only=True)
    assert {name: tensor.requires_grad for name, tensor in found.items()} == {
        "weight": False,
        "bias": True,
    }
    plan = planned(model.state_dict(keep_vars=True), tmp_path, "dcp")
    assert [item.why for item in plan.dropped] == [
        "a dcp has no place for what is frozen (1 parameter)"
    ]


@pytest.mark.parametrize("to", ["state_dict", "safetensors"])
def test_a_conjugate_in_a_set_of_files(tmp_path: Path, to: Form) -> None:
    names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    conjugate, marked = torch.tensor([1 + 2j]).conj(), torch.ones(1)
    marked.scale = 2.0  # type: ignore[attr-defined]
    torch.save({"c": conjugate}, tmp_path / names[0])
    torch.save({"m": marked}, tmp_path / names[1])
    index = {"metadata": {}, "weight_map": {"c": names[0], "m": names[1]}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    plan = plan_conversion(open_checkpoint(str(tmp_path)), to=to)
    assert [item.name for item in plan.dropped] == ["m.scale"]
    path = written(plan, tmp_path / "out")
    found = torch.load(path) if to == "state_dict" else safetensors.torch.load_file(path)
    assert found["c"].tolist() == [1 - 2j]


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_a_conjugate_in_a_distributed_checkpoint_is_refused(tmp_path: Path) -> None:
    folder = str(tmp_path / "dcp")
    saved = {"c": torch.tensor([1 + 2j, 3 + 4j]).conj(), "w": torch.ones(2)}
    save(saved, checkpoint_id=folder, no_dist=True)
    plan = plan_conversion(open_checkpoint(folder), to="safetensors")
    with pytest.raises(TargetError, match=r"^c: a conjugated or negated view"):
        written(plan, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()
    without = drop(plan, ["c"])
    found = safetensors.torch.load_file(written(without, tmp_path / "out.safetensors"))
    assert found["w"].tolist() == [1.0, 1.0]
