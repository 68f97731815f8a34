"""What is said of a section that is taken, and the bits that a cast gives."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.conftest import Ran

Modtool = Callable[..., Ran]


def test_only_what_is_dropped_is_named(modtool: Modtool) -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    whole = {"epoch": 3, "model": model.state_dict(), "opt": optimizer.state_dict()}
    torch.save(whole, "ck.pth")
    ran = modtool("convert", "ck.pth", "--section", "opt", "-o", "out.pth", "--json")
    assert json.loads(ran.out)["dropped"] == [
        {"name": "model", "why": "another section (model)"},
        {"name": "epoch", "why": "a value, not a tensor"},
    ]
    found = torch.load("out.pth", weights_only=True)
    assert repr(found) == repr(optimizer.state_dict())


def trained() -> tuple[nn.Module, dict[str, object]]:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.rand(4, 3)).sum().backward()
    optimizer.step()
    return model, optimizer.state_dict()


def test_weights_at_the_root_beside_an_optimizer_are_the_model(modtool: Modtool) -> None:
    model, optimizer = trained()
    state = model.state_dict()
    torch.save({**state, "optimizer": optimizer, "epoch": 3}, "ck.pth")

    document = json.loads(modtool("summary", "ck.pth", "--json").out)
    assert document["sections"] == [
        {"name": "", "role": "model", "tensors": 7, "bytes": 72},
        {"name": "optimizer", "role": "optimizer", "tensors": 12, "bytes": 112},
    ]
    assert [(each["section"], each["name"]) for each in document["tensors"][:7]] == [
        ("", name) for name in state
    ]
    assert document["values"]["epoch"] == 3
    assert modtool("count", "ck.pth", "--total").out == "12\n"
    assert modtool("summary", "ck.pth", "--section", "").out.endswith("size 72 B\n")

    dropped = [
        {"name": "optimizer", "why": "not part of the model (optimizer)"},
        {"name": "epoch", "why": "a value, not a tensor"},
    ]
    for suffix in ("pth", "safetensors"):
        ran = modtool("convert", "ck.pth", "--to", FORMS[suffix], "-o", f"out.{suffix}", "--json")
        assert json.loads(ran.out)["dropped"] == dropped
    assert repr(torch.load("out.pth", weights_only=True)) == repr(dict(state))
    found = load_file("out.safetensors")
    assert {name: found[name].tolist() for name in state} == {
        name: tensor.tolist() for name, tensor in state.items()
    }


def test_weights_at_the_root_are_compared_without_what_lies_beside(modtool: Modtool) -> None:
    model, optimizer = trained()
    torch.save({**model.state_dict(), "optimizer": optimizer, "epoch": 3}, "ck.pth")
    Path("model.py").write_text(
        "from torch import nn\nmodel = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))\n"
    )
    ran = modtool("diff", "model.py", "ck.pth")  # torch would refuse the keys beside the weights
    assert "what fits: modtool convert ck.pth -o ck_fixed.pth" in ran.out.splitlines()
    assert ran.out.endswith("in both 7   missing 0   unexpected 2   mismatched 0\n")
    assert modtool("convert", "ck.pth", "-o", "ck_fixed.pth").code == 0
    for target in (("ck.pth", "--section", ""), ("ck_fixed.pth",)):
        ran = modtool("diff", "model.py", *target)
        assert "load_state_dict would take it" in ran.out.splitlines()
        assert ran.out.endswith("in both 7   missing 0   unexpected 0   mismatched 0\n")
    torch.save({"model": model.state_dict()}, "other.pth")
    assert modtool("diff", "ck.pth", "other.pth", "--section", "").code == 2
    assert modtool("diff", "ck.pth", "other.pth", "--only", "[01]").code == 0


FORMS = {"pth": "state_dict", "safetensors": "safetensors"}


def test_a_checkpoint_with_weights_at_its_root_keeps_its_form(modtool: Modtool) -> None:
    model, optimizer = trained()
    whole = model.state_dict()
    whole.update(optimizer=optimizer, epoch=3)
    torch.save(whole, "ck.pth")
    form = ("convert", "ck.pth", "--to", "checkpoint")
    assert modtool(*form, "-o", "same.pth").code == 0
    assert repr(torch.load("same.pth", weights_only=True)) == repr(whole)

    assert modtool(*form, "--drop-optimizer", "-o", "small.pth").code == 0
    small = torch.load("small.pth", weights_only=True)
    assert list(small) == [*model.state_dict(), "epoch"]

    assert modtool(*form, "--rename", "1=norm", "--drop", "0.bias", "-o", "new.pth").code == 0
    new = torch.load("new.pth", weights_only=True)
    assert [*new][:3] == ["0.weight", "norm.weight", "norm.bias"]
    assert list(new._metadata) == ["", "0", "norm"]

    assert modtool("freeze", "ck.pth", "0", "-o", "frozen.pth").code == 0
    assert modtool("count", "frozen.pth", "--frozen").out == "8\n"
    ran = modtool("convert", "ck.pth", "--section", "model", "-o", "x.pth")
    assert ran.err.endswith("""  sections: "", optimizer\n""")
    ran = modtool(*form, "--set", "0.bias=1", "-o", "x.pth")
    assert ran.err.startswith("error: '0.bias' holds tensors")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_nan_is_cast_alike_whatever_the_strides(modtool: Modtool, suffix: str) -> None:
    whole = torch.randn(64, 64)
    whole[3, 5:40] = float("nan")
    torch.save({"t": whole.t()}, "nan.pth")
    options = ("--dtype", "bf16", "--verify", "-o", f"out.{suffix}")
    assert modtool("convert", "nan.pth", *options).code == 0
    if suffix == "pth":
        found = torch.load("out.pth", weights_only=True)["t"]
        expected = whole.t().to(torch.bfloat16)
        assert torch.equal(found.view(torch.int16), expected.view(torch.int16))


def test_what_lies_deep_in_a_state_dict_stays_in_the_first_file(modtool: Modtool) -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    torch.save({"model": model.state_dict(), "opt": optimizer.state_dict()}, "ck.pth")
    options = ("--section", "opt", "--to", "state_dict", "--max-shard-size", "20", "--verify")
    assert modtool("convert", "ck.pth", *options, "-o", "opt/").code == 0
    found = torch.load("opt/pytorch_model.bin", weights_only=True)
    assert repr(found) == repr(optimizer.state_dict())

    extra = {"deep": np.arange(9.0)}
    torch.save({"w": torch.ones(20), "extra": extra, "v": torch.zeros(20)}, "mixed.pth")
    options = ("--to", "state_dict", "--max-shard-size", "100", "--verify", "-o", "mixed/")
    assert modtool("convert", "mixed.pth", *options).code == 0
    files = [f"mixed/pytorch_model-{index:05d}-of-00003.bin" for index in (1, 2, 3)]
    deep = {"deep": torch.arange(9.0, dtype=torch.float64)}
    parts = [torch.load(file, weights_only=True) for file in files]
    assert repr(parts) == repr([{"extra": deep}, {"w": torch.ones(20)}, {"v": torch.zeros(20)}])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--dtype", "fp16"), {"a": torch.float16, "b": torch.float16}),
        (("--rename", "a=z"), {"z": torch.float32, "b": torch.float32}),
        (("--drop", "b"), {"a": torch.float32}),
    ],
)
def test_edits_of_the_model_leave_a_dict_alone_that_was_saved_twice(
    modtool: Modtool, options: tuple[str, str], expected: dict[str, torch.dtype]
) -> None:
    state = {"a": torch.arange(4.0), "b": torch.ones(2)}
    torch.save({"model": state, "ema": state, "best": {"model": state}, "epoch": 1}, "in.pth")
    common = ("--to", "checkpoint", "--verify", "-o", "out.pth")
    assert modtool("convert", "in.pth", *options, *common).code == 0
    found = torch.load("out.pth", weights_only=True)
    assert {name: tensor.dtype for name, tensor in found["model"].items()} == expected
    assert found["ema"].keys() == found["best"]["model"].keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(found["ema"][name], tensor)
        assert found["ema"][name].dtype == tensor.dtype
    assert found["ema"] is found["best"]["model"]


def test_a_tensor_taken_out_of_a_list_leaves_the_others_in_their_places(modtool: Modtool) -> None:
    layers = [torch.ones(1), torch.zeros(2)]
    torch.save({"model": {"layers": layers, "w": torch.ones(3)}, "epoch": 1}, "in.pth")
    options = ("--to", "checkpoint", "--drop", "layers.0", "--verify", "-o", "out.pth")
    assert modtool("convert", "in.pth", *options).code == 0
    found = torch.load("out.pth", weights_only=True)["model"]["layers"]
    assert found[0] is None
    assert torch.equal(found[1], layers[1])


@pytest.mark.parametrize(("renaming", "new"), [("layers.0=first", "first"), ("layers=x", "x.0")])
def test_a_tensor_in_a_list_is_not_said_to_be_renamed(
    modtool: Modtool, renaming: str, new: str
) -> None:
    torch.save({"model": {"layers": [torch.ones(1)], "w": torch.ones(3)}, "epoch": 1}, "in.pth")
    options = ("--rename", renaming, "--to", "checkpoint", "-o", "out.pth")
    said = f"error: layers.0 lies in a list and cannot become {new}\n"
    remedy = "leave it out of what is renamed, or write safetensors, whose names are flat"
    assert modtool("convert", "in.pth", *options) == Ran(2, "", f"{said}  {remedy}\n")
    assert not Path("out.pth").exists()
    assert modtool("convert", "in.pth", "--rename", renaming, "-o", "x.safetensors").code == 0
    assert sorted(load_file("x.safetensors")) == sorted([new, "w"])


@pytest.mark.parametrize("options", [(), ("--to", "dcp"), ("--dry-run",)])
def test_a_tensor_does_not_take_the_name_of_a_value(
    modtool: Modtool, options: tuple[str, ...]
) -> None:
    torch.save({"a": torch.ones(1), "step": 5, "inner": {"lr": 0.1}}, "in.pth")
    refused = modtool("convert", "in.pth", "--rename", "a=step", *options, "-o", "out")
    said = "error: a cannot become step, which is there already and no tensor\n"
    assert refused == Ran(2, "", f"{said}  give it another name\n")


def test_a_section_is_taken_alone_in_a_checkpoint_too(modtool: Modtool) -> None:
    model, optimizer = trained()
    average = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    whole = {"model": model.state_dict(), "ema": average, "optimizer": optimizer, "epoch": 3}
    torch.save(whole, "ck.pth")
    options = ("--section", "ema", "--to", "checkpoint", "--set", "epoch=4", "--verify", "--json")
    ran = modtool("convert", "ck.pth", *options, "-o", "out.pth")
    assert json.loads(ran.out)["dropped"] == [
        {"name": "model", "why": "another section (model)"},
        {"name": "optimizer", "why": "another section (optimizer)"},
        {"name": "epoch", "why": "a value, not a tensor"},
    ]
    found = torch.load("out.pth", weights_only=True)
    assert repr(found) == repr({"model_state_dict": average, "epoch": 4})
