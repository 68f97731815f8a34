"""State of frozen parameters taken out of optimizers: the rest is what load_state_dict wants."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.conftest import Ran

Modtool = Callable[..., Ran]
Parameters = list[nn.Parameter]


class Net(nn.Module):
    """Two layers of one shape in the backbone; no shape of the head is one of the backbone's."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.backbone(x))
        return out


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda groups: torch.optim.SGD(groups, lr=0.1),
    "SGD, momentum": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9),
    "Adam": lambda groups: torch.optim.Adam(groups, lr=0.1),
    "Adam, amsgrad": lambda groups: torch.optim.Adam(groups, lr=0.1, amsgrad=True),
    "AdamW": lambda groups: torch.optim.AdamW(groups, lr=0.1),
    "Adafactor": lambda groups: torch.optim.Adafactor(groups, lr=0.1),
}
Grouping = Callable[[nn.Module], list[Parameters]]
GROUPINGS: dict[str, Grouping] = {
    "all": lambda model: [list(model.parameters())],
    "head first": lambda model: [
        list(model.get_submodule("head").parameters()),
        list(model.get_submodule("backbone").parameters()),
    ],
    "by dimensions": lambda model: [
        [each for each in model.parameters() if each.dim() > 1],
        [each for each in model.parameters() if each.dim() < 2],
    ],
}


def grouped(groups: Iterable[Parameters]) -> list[dict[str, Any]]:
    """What optimizers take, each group with a rate of its own."""
    made = [{"params": group, "lr": 0.1 / (1 + index)} for index, group in enumerate(groups)]
    return [group for group in made if group["params"]]


def trained(optimizer: str, groups: Grouping) -> tuple[Net, torch.optim.Optimizer]:
    """A model and its optimizer after two steps, saved as `ckpt.pth`."""
    torch.manual_seed(0)
    model = Net()
    made = OPTIMIZERS[optimizer](grouped(groups(model)))
    for _ in range(2):
        made.zero_grad()
        torch.autograd.backward(model(torch.randn(5, 4)).square().sum())
        made.step()
    torch.save({"model": model.state_dict(), "optimizer": made.state_dict()}, "ckpt.pth")
    return model, made


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(torch.as_tensor(one[key]), torch.as_tensor(other[key]))
        for key in one
        if one[key] is not None
    )


@pytest.mark.parametrize("groups", GROUPINGS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_rest_loads_into_an_optimizer_of_all(
    modtool: Modtool, optimizer: str, groups: str
) -> None:
    model, old = trained(optimizer, GROUPINGS[groups])
    ran = modtool("freeze", "ckpt.pth", "backbone", "--prune-optimizer", "-o", "out.pth")
    assert (ran.code, ran.err) == (0, "")
    fresh = Net()
    new = OPTIMIZERS[optimizer](grouped(GROUPINGS[groups](fresh)))
    new.load_state_dict(torch.load("out.pth", weights_only=True)["optimizer"])
    assert [group["lr"] for group in new.param_groups] == [
        group["lr"] for group in old.param_groups
    ]
    for (name, before), after in zip(model.named_parameters(), fresh.parameters(), strict=True):
        if name.startswith("backbone"):
            assert not any(torch.is_tensor(item) for item in new.state[after].values())
        else:
            assert same(new.state[after], old.state[before])


@pytest.mark.parametrize("groups", GROUPINGS)
@pytest.mark.parametrize("optimizer", [name for name in OPTIMIZERS if name != "SGD"])
def test_pruned_groups_load_into_an_optimizer_of_the_rest(
    modtool: Modtool, optimizer: str, groups: str
) -> None:
    model, old = trained(optimizer, GROUPINGS[groups])
    ran = modtool("freeze", "ckpt.pth", "backbone", "--prune-groups", "-o", "out.pth")
    assert (ran.code, ran.err) == (0, "")
    fresh = Net()
    fresh.backbone.requires_grad_(False)
    left = [[each for each in group if each.requires_grad] for group in GROUPINGS[groups](fresh)]
    new = OPTIMIZERS[optimizer](grouped(left))
    new.load_state_dict(torch.load("out.pth", weights_only=True)["optimizer"])
    for before, after in zip(model.head.parameters(), fresh.head.parameters(), strict=True):
        assert same(new.state[after], old.state[before])


@pytest.mark.parametrize("how", ["module", "map"])
def test_a_checkpoint_that_records_flags_is_pruned_too(modtool: Modtool, how: str) -> None:
    model, old = trained("Adam", GROUPINGS["all"])
    checkpoint: dict[str, Any] = {"model": model, "optimizer": old.state_dict(), "epoch": 3}
    if how == "map":
        checkpoint["model"] = model.state_dict()
        checkpoint["requires_grad"] = {name: True for name, _ in model.named_parameters()}
    torch.save(checkpoint, "whole.pth")
    ran = modtool("freeze", "whole.pth", "backbone", "--prune-optimizer", "-o", "out.pth")
    assert (ran.code, ran.err) == (0, "")
    loaded = torch.load("out.pth", weights_only=False)
    if how == "module":
        flags = {name: each.requires_grad for name, each in loaded["model"].named_parameters()}
    else:
        flags = loaded["requires_grad"]
    assert flags == {name: "head" in name for name in flags}
    assert (list(loaded["optimizer"]["state"]), loaded["epoch"]) == ([4, 5], 3)
    assert same(loaded["optimizer"]["state"][4], old.state[model.head.weight])


def test_one_group_has_the_order_of_the_model(modtool: Modtool) -> None:
    trained("Adam", GROUPINGS["all"])
    ran = modtool("freeze", "ckpt.pth", "backbone.2", "--prune-optimizer", "-o", "out.pth")
    assert ran.code == 0
    assert list(torch.load("out.pth", weights_only=True)["optimizer"]["state"]) == [0, 1, 4, 5]


def test_a_group_with_all_of_a_shape_has_its_order(modtool: Modtool) -> None:
    trained("Adam", GROUPINGS["by dimensions"])
    ran = modtool("freeze", "ckpt.pth", "backbone.2", "--prune-optimizer", "-o", "out.pth")
    assert ran.code == 0
    # 0–2 are the weights, 3–5 the biases.
    assert list(torch.load("out.pth", weights_only=True)["optimizer"]["state"]) == [0, 2, 3, 5]


def test_what_is_known_by_its_shape_is_named(modtool: Modtool) -> None:
    trained("Adam", GROUPINGS["head first"])
    ran = modtool("freeze", "ckpt.pth", "backbone", "--prune-optimizer", "-o", "out.pth", "--json")
    assert json.loads(ran.out)["dropped"] == [
        {
            "name": "optimizer",
            "why": "the optimizer's state of frozen backbone.0.weight, backbone.0.bias, "
            "backbone.2.weight, backbone.2.bias, as asked",
        }
    ]


def split(model: nn.Module) -> list[Parameters]:
    """Two layers of one shape in two groups, in no order that a file would tell."""
    return [list(model.get_submodule(path).parameters()) for path in ("backbone.2", "backbone.0")]


def test_several_groups_with_parameters_of_one_shape_cannot_be_told_apart(
    modtool: Modtool,
) -> None:
    trained("Adam", split)
    ran = modtool("freeze", "ckpt.pth", "backbone.0", "-o", "out.pth")
    assert ran.err == (
        "note: optimizer-holds-frozen: optimizer: it does not record which of its parameters are "
        "which, so which are frozen\n"
    )
    ran = modtool("freeze", "ckpt.pth", "backbone.0", "--prune-optimizer", "-o", "b.pth")
    assert (ran.code, ran.err) == (
        2,
        "error: optimizer: it does not record which of its parameters are which: "
        "0 may be backbone.0.weight or backbone.2.weight\n"
        "  one parameter group in the model's order, or groups with param_names, would "
        "(torch.optim takes model.named_parameters())\n",
    )
    assert not Path("b.pth").exists()
    # All that each may be is frozen: then it is known that it is.
    ran = modtool("freeze", "ckpt.pth", "backbone", "--prune-optimizer", "-o", "c.pth")
    assert ran.code == 0
    assert torch.load("c.pth", weights_only=True)["optimizer"]["state"] == {}


def test_groups_that_were_never_stepped_cannot_be_numbered_anew(modtool: Modtool) -> None:
    model = Net()
    optimizer = torch.optim.Adam(grouped(GROUPINGS["head first"](model)))
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, "ckpt.pth")
    ran = modtool("freeze", "ckpt.pth", "backbone", "--prune-groups", "-o", "a.pth")
    assert ran.code == 2
    assert "0 may be backbone.0.weight or head.weight" in ran.err
    assert modtool("freeze", "ckpt.pth", "backbone", "--prune-optimizer", "-o", "b.pth").code == 0
    loaded = torch.load("b.pth", weights_only=True)["optimizer"]
    assert loaded == optimizer.state_dict()


def test_an_optimizer_of_another_model_is_left_alone(modtool: Modtool) -> None:
    model, other = Net(), nn.Sequential(*(nn.Linear(4, 2) for _ in range(3)))
    optimizer = torch.optim.Adam(grouped([list(each.parameters()) for each in other]))
    torch.autograd.backward(other[0](torch.randn(5, 4)).sum() + other[1](torch.randn(5, 4)).sum())
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, "ckpt.pth")
    ran = modtool("freeze", "ckpt.pth", "head", "--prune-optimizer", "-o", "out.pth")
    assert ran.code == 2
    assert "0 may be none of the model's" in ran.err


def backwards(*, names: bool = False) -> torch.optim.Optimizer:
    """Three layers, and AdamW of their parameters from the last to the first; `rev.pth`."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    given: list[Any] = list(model.named_parameters() if names else model.parameters())[::-1]
    optimizer = torch.optim.AdamW(given)
    torch.autograd.backward(model(torch.randn(5, 4)).square().sum())
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, "rev.pth")
    return optimizer


@pytest.mark.parametrize("option", ["--prune-optimizer", "--prune-groups"])
def test_a_group_that_contradicts_the_models_order_is_not_guessed(
    modtool: Modtool, option: str
) -> None:
    backwards()
    ran = modtool("freeze", "rev.pth", "0", option, "-o", "out.pth")
    assert (ran.code, ran.err) == (
        2,
        "error: optimizer: it does not record which of its parameters are which: "
        "2 may be 0.bias or 1.bias\n"
        "  one parameter group in the model's order, or groups with param_names, would "
        "(torch.optim takes model.named_parameters())\n",
    )
    assert not Path("out.pth").exists()


def test_shapes_alone_may_decide_in_a_group_of_another_order(modtool: Modtool) -> None:
    optimizer = backwards()
    for pattern, kept in (("2", [2, 3, 4, 5]), ("[01]", [0, 1])):
        ran = modtool("freeze", "rev.pth", pattern, "--prune-optimizer", "-o", "o.pth", "--force")
        assert (ran.code, ran.err) == (0, "")
        state = torch.load("o.pth", weights_only=True)["optimizer"]["state"]
        assert list(state) == kept
        assert all(same(state[key], optimizer.state_dict()["state"][key]) for key in kept)


def test_names_tell_a_group_of_another_order(modtool: Modtool) -> None:
    backwards(names=True)
    ran = modtool("freeze", "rev.pth", "0", "--prune-optimizer", "-o", "out.pth")
    assert (ran.code, ran.err) == (0, "")
    assert list(torch.load("out.pth", weights_only=True)["optimizer"]["state"]) == [0, 1, 2, 3]


def test_a_note_says_that_the_models_order_was_assumed(modtool: Modtool) -> None:
    trained("Adam", GROUPINGS["all"])
    ran = modtool("freeze", "ckpt.pth", "backbone.2", "--prune-optimizer", "-o", "out.pth")
    assert (ran.code, ran.err) == (
        0,
        "note: optimizer-order-assumed: optimizer: its parameters were taken to be in the model's "
        "order: shapes alone do not tell backbone.2.weight from backbone.0.weight\n",
    )
