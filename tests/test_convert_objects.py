"""Objects in a checkpoint become what `weights_only=True` accepts, and nothing changes silently."""

import json
from collections.abc import Callable

import pytest
import torch
from torch import nn

from modtool.pickles.optimizers import saved_optimizer
from modtool.pickles.symbols import Call, Global
from tests.conftest import Ran

Modtool = Callable[..., Ran]
NO_GROUP = "it has state of parameters that are in none of its groups, for which there is no number"
BY_NUMBER = "itself; its state_dict() takes its place, with its parameters by number"


def converted(modtool: Modtool, saved: object) -> tuple[dict[str, object], list[tuple[str, str]]]:
    """What a checkpoint loads as after a conversion that is read back, and what was left out."""
    torch.save(saved, "in.pth")
    options = ("--to", "checkpoint", "-o", "out.pth", "--verify", "--force", "--json")
    ran = modtool("convert", "in.pth", *options)
    assert (ran.code, ran.err) == (0, "")
    dropped = [(item["name"], item["why"]) for item in json.loads(ran.out)["dropped"]]
    return torch.load("out.pth", weights_only=True), dropped


# -- optimizers ----------------------------------------------------------------------------------


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


def groups(model: nn.Sequential) -> list[dict[str, object]]:
    """The last layer first, so that the order is not the model's."""
    rest = [*model[0].parameters(), *model[1].parameters()]
    return [{"params": model[2].parameters(), "lr": 0.5}, {"params": rest}]


def stepped(optimizer: torch.optim.Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    def loss() -> float:
        optimizer.zero_grad()
        found = model(torch.arange(20.0).view(5, 4)).square().mean()
        found.backward()
        return float(found.item())

    optimizer.step(loss)
    return optimizer


OPTIMIZERS: dict[str, Callable[[nn.Sequential], torch.optim.Optimizer]] = {
    "AdamW, two groups": lambda model: torch.optim.AdamW(groups(model), lr=1e-3),
    "SGD by name": lambda model: torch.optim.SGD(model.named_parameters(), lr=0.1, momentum=0.9),
    "SGD without state": lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    "LBFGS": lambda model: torch.optim.LBFGS(model.parameters()),
    "Adafactor": lambda model: torch.optim.Adafactor(model.parameters()),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("whole", [False, True])
def test_an_optimizer_becomes_its_state_dict(modtool: Modtool, name: str, whole: bool) -> None:
    model = net()
    optimizer = stepped(OPTIMIZERS[name](model), model)
    part = model if whole else model.state_dict()
    found, dropped = converted(modtool, {"model": part, "optimizer": optimizer})
    assert repr(found["optimizer"]) == repr(optimizer.state_dict())
    kind = f"{type(optimizer).__module__}.{type(optimizer).__name__}"
    assert dropped[-1] == ("optimizer", f"an object of {kind} {BY_NUMBER}")
    fresh = OPTIMIZERS[name](net())
    fresh.load_state_dict(found["optimizer"])  # type: ignore[arg-type]


def test_an_optimizer_by_itself_and_twice(modtool: Modtool) -> None:
    model = net()
    optimizer = stepped(torch.optim.Adam(model.parameters()), model)
    found, dropped = converted(modtool, optimizer)
    assert repr(found) == repr(optimizer.state_dict())
    assert dropped == [("the whole object", f"an object of torch.optim.adam.Adam {BY_NUMBER}")]
    found, _ = converted(modtool, {"model": model.state_dict(), "a": optimizer, "b": [optimizer]})
    assert repr(found["b"]) == repr([optimizer.state_dict()])
    assert found["a"] is found["b"][0]  # type: ignore[index]


def test_an_optimizer_whose_parameter_is_in_no_group_is_left_out(modtool: Modtool) -> None:
    model = net()
    optimizer = stepped(torch.optim.Adam(model.parameters()), model)
    optimizer.param_groups[0]["params"].pop()
    found, dropped = converted(modtool, {"model": model.state_dict(), "optimizer": optimizer})
    assert list(found) == ["model"]
    reason = (
        "it has state of parameters that are in none of its groups, for which there is no number"
    )
    assert dropped == [("optimizer", f"an object of torch.optim.adam.Adam: {reason}")]


def test_what_only_looks_like_an_optimizer_is_not_taken_for_one() -> None:
    tensor = Call(Global("torch._utils", "_rebuild_parameter"), ())
    group: dict[object, object] = {"params": [tensor], "lr": 0.1}

    def optimizer(state: object) -> Call:
        return Call(Global("torch.optim", "SGD"), (), how="new", state=state)

    found = saved_optimizer(optimizer({"state": {}, "param_groups": [group]}))
    assert found is not None
    assert (found.groups, found.numbers) == ([{"lr": 0.1}], {id(tensor): 0})
    others: list[dict[str, object]] = [
        {"state": {}, "param_groups": [group, group]},  # one list for two groups
        {"state": {}, "param_groups": [{"params": [1]}]},
        {"state": {}, "param_groups": [{"lr": 0.1}]},
        {"state": {}, "param_groups": []},
        {"state": {}, "param_groups": [group], "more": 1},
        {"param_groups": [group]},
    ]
    for state in others:
        assert saved_optimizer(optimizer(state)) is None
