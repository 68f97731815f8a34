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
from tests.formats.compare import raw
from tests.pickles.nn_modules import built, quantized

Modtool = Callable[..., Ran]
layers: Any = torch.ao.nn.quantized

pytestmark = [
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning"),
]


def net(stem: str = "0", middle: str = "1", head: str = "2") -> nn.Sequential:
    parts = (layers.Conv2d(1, 2, 3, bias=False), nn.Flatten(), layers.Linear(2, 3))
    return nn.Sequential(OrderedDict(zip((stem, middle, head), parts, strict=True)))


def output(model: nn.Module) -> torch.Tensor:
    made: Any = model(torch.quantize_per_tensor(torch.ones(1, 1, 3, 3), 0.1, 0, torch.quint8))
    result: torch.Tensor = made.int_repr()
    return result


def same(a: object, b: object) -> bool:
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
        return a == b
    if a.is_quantized and (a.qscheme() != b.qscheme() or not torch.equal(*scales(a, b))):
        return False
    return (a.dtype, a.shape, raw(a)) == (b.dtype, b.shape, raw(b))


def scales(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tuple(
        torch.tensor(tensor.q_scale())
        if tensor.qscheme() is torch.per_tensor_affine
        else tensor.q_per_channel_scales()
        for tensor in tensors
    )


@pytest.mark.parametrize("inside", [False, True])
def test_a_quantized_model_becomes_what_load_state_dict_takes(
    modtool: Modtool, inside: bool
) -> None:
    model, other = (
        nn.ModuleList(each for each in built(quantized) if not is_recurrent(each)) for _ in range(2)
    )
    torch.save({"model": model, "epoch": 1} if inside else model, "in.pth")
    to = "checkpoint" if inside else "state_dict"
    assert modtool("convert", "in.pth", "--to", to, "--verify", "-o", "out.pth").code == 0
    made = torch.load("out.pth", weights_only=True)
    made = made["model"] if inside else made
    state = model.state_dict()
    assert list(made) == list(state)
    assert [name for name in state if not same(made[name], state[name])] == []
    assert made._metadata == state._metadata  # type: ignore[attr-defined]
    other.load_state_dict(made)


def test_two_quantized_models_in_one_part_of_a_checkpoint(modtool: Modtool) -> None:
    nets = {"a": net(), "b": net()}
    nets["b"].get_submodule("0").scale = 0.5  # type: ignore[assignment]
    torch.save({"net": nets, "epoch": 1}, "in.pth")
    to = ("--to", "checkpoint", "--verify")
    assert modtool("convert", "in.pth", *to, "-o", "out.pth").code == 0
    made = torch.load("out.pth", weights_only=True)
    for name, model in nets.items():
        state = model.state_dict()
        assert list(made["net"][name]) == list(state)
        assert all(same(made["net"][name][key], state[key]) for key in state)


def is_recurrent(layer: nn.Module) -> bool:
    return "dynamic" in type(layer).__module__ and type(layer).__name__.startswith(RECURRENT)


RECURRENT = ("RNN", "LSTM", "GRU")


@pytest.mark.parametrize("whole", [False, True])
def test_what_weights_only_refuses_is_told_and_its_tensors_stay(
    modtool: Modtool, whole: bool
) -> None:
    model = nn.Sequential(layers.dynamic.RNNCell(3, 4))
    torch.save(model if whole else model.state_dict(), "in.pth")
    ran = modtool("convert", "in.pth", "-o", "out.pth", "--json")
    assert ran.code == 0
    why = (
        "an object of torch's C++ side, which weights_only=True refuses; its tensors stay, "
        "numbered, and load_state_dict() does not take those: it needs what "
        "torch.save(model.state_dict()) writes"
    )
    names = ("0._packed_weight_ih", "0._packed_weight_hh")
    dropped = [item for item in json.loads(ran.out)["dropped"] if item["name"] != "modules"]
    assert dropped == [{"name": name, "why": why} for name in names]
    made = torch.load("out.pth", weights_only=True)
    assert list(made) == [f"{name}.{index}" for name in names for index in (0, 1)]
    for name in names:
        (weight, bias), _ = model.state_dict()[name].__getstate__()
        assert same((made[f"{name}.0"], made[f"{name}.1"]), (weight, bias))


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
