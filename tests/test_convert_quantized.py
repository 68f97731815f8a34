"""State_dicts of quantized models: a None, a dtype and tuples of tensors lie beside tensors."""

import json
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.ao.nn.quantized
from torch import nn

from tests.conftest import Ran

Modtool = Callable[..., Ran]
layers: Any = torch.ao.nn.quantized

pytestmark = [
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning"),
]


def net(stem: str = "0", middle: str = "1", head: str = "2") -> nn.Module:
    parts = (layers.Conv2d(1, 2, 3, bias=False), nn.Flatten(), layers.Linear(2, 3))
    return nn.Sequential(OrderedDict(zip((stem, middle, head), parts, strict=True)))


def output(model: nn.Module) -> torch.Tensor:
    made: Any = model(torch.quantize_per_tensor(torch.ones(1, 1, 3, 3), 0.1, 0, torch.quint8))
    result: torch.Tensor = made.int_repr()
    return result


@pytest.mark.parametrize("section", [None, "model"])
def test_they_go_where_their_modules_go(modtool: Modtool, section: str | None) -> None:
    model = net()
    saved = nn.DataParallel(model).state_dict()
    torch.save({section: saved, "epoch": 3} if section else saved, "in.pth")
    to = ("--to", "checkpoint" if section else "state_dict")
    options = ("--strip-prefix", "auto", "--rename", "2=head", "--rename", "0=stem")
    assert modtool("convert", "in.pth", *to, *options, "-o", "out.pth").code == 0
    made = torch.load("out.pth", weights_only=True)
    made = made[section] if section else made
    other = net("stem", "1", "head")
    assert list(made) == list(other.state_dict())
    other.load_state_dict(made)
    assert torch.equal(output(other), output(model))


@pytest.mark.parametrize("options", [("--keep", "0"), ("--drop", "2"), ("--drop", "2.*")])
def test_they_are_left_out_with_their_modules(modtool: Modtool, options: tuple[str, str]) -> None:
    state = net().state_dict()
    torch.save(state, "in.pth")
    ran = modtool("convert", "in.pth", *options, "-o", "out.pth", "--json")
    assert ran.code == 0
    assert [item["name"] for item in json.loads(ran.out)["dropped"]] == [
        *("2.scale", "2.zero_point"),
        *("2._packed_params._packed_params.0", "2._packed_params._packed_params.1"),
        *("2._packed_params.dtype", "2._packed_params._packed_params"),
    ]
    made = torch.load("out.pth", weights_only=True)
    assert list(made) == [name for name in state if name.startswith("0.")]
    assert made["0.bias"] is None
