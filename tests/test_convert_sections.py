"""What is said of a section that is taken, and the bits that a cast gives."""

import json
from collections.abc import Callable

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
