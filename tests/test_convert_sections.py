"""What is said of a section that is taken, and the bits that a cast gives."""

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
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
