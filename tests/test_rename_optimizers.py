"""New names of a model's parameters, in the optimizers beside it that go by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_saver import save

from tests.conftest import Ran

Modtool = Callable[..., Ran]
FORM = ("--to", "checkpoint", "--verify", "-o", "out.pth")


def stepped(model: nn.Module, by_name: bool = False) -> torch.optim.Optimizer:
    given: Any = model.named_parameters() if by_name else model.parameters()
    optimizer = torch.optim.AdamW(given, lr=torch.tensor(0.5), foreach=False)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return optimizer


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))


def wrapped() -> nn.ModuleDict:
    return nn.ModuleDict({"net": net()})


def saved(*, flat: bool) -> dict[str, Any]:
    model = net()
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    state, optimizer = get_state_dict(model, stepped(model), options=options)
    return {"model": state, "optim": optimizer, "epoch": 3}


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("source", ["in.pth", "in"])
def test_torch_gives_the_renamed_state_to_the_renamed_model(
    modtool: Modtool, flat: bool, source: str
) -> None:
    whole = saved(flat=flat)
    if source == "in":
        save(whole, checkpoint_id=source, no_dist=True)
    else:
        torch.save(whole, source)
    assert modtool("convert", source, "--add-prefix", "net.", *FORM).code == 0
    found = torch.load("out.pth", weights_only=True)

    model = wrapped()
    model.load_state_dict(found["model"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, foreach=False)
    set_optimizer_state_dict(
        model,
        optimizer,
        found["optim"],
        options=StateDictOptions(flatten_optimizer_state_dict=flat),
    )
    assert repr(optimizer.state_dict()) == repr(stepped(net()).state_dict())


def test_all_names_in_an_optimizer_follow(modtool: Modtool) -> None:
    torch.save(saved(flat=False), "in.pth")
    options = ("--strip-prefix", "0", "--rename", "1=head", "--rename", "head.bias=shift")
    assert modtool("convert", "in.pth", *options, *FORM).code == 0
    found = torch.load("out.pth", weights_only=True)
    names = ["weight", "bias", "head.weight", "shift"]
    assert list(found["model"]) == names
    assert list(found["optim"]["state"]) == names
    assert found["optim"]["param_groups"][0]["params"] == names
    shown = modtool("convert", "in.pth", *options, *FORM, "--force", "--dry-run").out
    assert "optim.state.shift.exp_avg" in shown
    assert "optim.state.1.bias.exp_avg" not in shown


def test_an_optimizer_by_number_keeps_its_numbers(modtool: Modtool) -> None:
    model = nn.ParameterList([torch.ones(2), torch.zeros(3)])  # names that look like numbers
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1, momentum=0.9)
    sum(each.sum() for each in model).backward()
    optimizer.step()
    torch.save({"model": model.state_dict(), "optim": optimizer.state_dict()}, "in.pth")
    assert modtool("convert", "in.pth", "--add-prefix", "net.", *FORM).code == 0
    found = torch.load("out.pth", weights_only=True)["optim"]
    assert found["param_groups"][0].pop("param_names") == ["net.0", "net.1"]
    expected = optimizer.state_dict()
    del expected["param_groups"][0]["param_names"]
    assert repr(found) == repr(expected)


def test_every_optimizer_follows_whether_it_has_tensors_or_not(modtool: Modtool) -> None:
    whole = saved(flat=False)
    sgd = {"state": {}, "param_groups": [{"lr": 0.1, "params": ["0.weight", "aside"]}]}
    again = {"opts": [whole["optim"], {"inner": sgd}], "twice": whole["optim"]}
    best = {"model": whole["model"], "optim": whole["optim"]}
    torch.save({**whole, **again, "best": best}, "in.pth")
    assert modtool("convert", "in.pth", "--add-prefix", "net.", *FORM).code == 0
    found = torch.load("out.pth", weights_only=True)
    names = ["net.0.weight", "net.0.bias", "net.1.weight", "net.1.bias"]
    for optimizer in (found["optim"], found["opts"][0], found["twice"]):
        assert list(optimizer["state"]) == optimizer["param_groups"][0]["params"] == names
    assert (
        list(found["best"]["optim"]["state"]) == list(found["best"]["model"]) == list(best["model"])
    )
    inner = found["opts"][1]["inner"]
    assert inner["param_groups"] == [{"lr": 0.1, "params": ["net.0.weight", "aside"]}]


def test_names_follow_into_a_distributed_checkpoint(modtool: Modtool) -> None:
    torch.save(saved(flat=False), "in.pth")
    options = ("--add-prefix", "net.", "--to", "dcp", "--verify", "-o", "out")
    assert modtool("convert", "in.pth", *options).code == 0
    assert Path("out/.metadata").exists()
    assert modtool("convert", "out", *FORM).code == 0
    found = torch.load("out.pth", weights_only=True)["optim"]
    assert list(found["state"]) == [f"net.{name}" for name in net().state_dict()]


def test_two_names_in_an_optimizer_do_not_become_one(modtool: Modtool) -> None:
    whole = saved(flat=False)
    whole["optim"]["state"]["net.0.weight"] = {"step": torch.ones(())}
    torch.save(whole, "in.pth")
    ran = modtool("convert", "in.pth", "--add-prefix", "net.", *FORM)
    assert ran.code == 2
    assert ran.err.startswith("error: 0.weight and net.0.weight would both be named net.0.weight\n")


# -- what is left out ----------------------------------------------------------------------------


def notes_of(modtool: Modtool, saved: object, *options: str) -> list[tuple[str, str]]:
    torch.save(saved, "in.pth")
    ran = modtool("convert", "in.pth", *options, "-o", "out.pth", "--force", "--json")
    assert ran.code == 0
    notes = json.loads(ran.out)["notes"]
    return [(each["where"], each["message"]) for each in notes if "holds" in each["code"]]


@pytest.mark.parametrize("to", ["checkpoint", "dcp"])
@pytest.mark.parametrize("kind", ["by number", "by name", "with names"])
def test_an_optimizer_that_holds_what_is_left_out_is_told_of(
    modtool: Modtool, kind: str, to: str
) -> None:
    model = net()
    optimizer = stepped(model, by_name=kind == "with names")
    whole = {"model": model.state_dict(), "optim": optimizer.state_dict(), "epoch": 3}
    if kind == "by name":
        whole = saved(flat=False)
    form = ("--to", to)
    said = [("optim", "it still has a place for 1.weight, 1.bias, left out of the model")]
    assert notes_of(modtool, whole, *form, "--drop", "1") == said
    assert notes_of(modtool, whole, *form, "--keep", "0", "--rename", "0=first") == said
    assert notes_of(modtool, whole, *form, "--drop", "1", "--drop-optimizer") == []
    assert notes_of(modtool, whole, *form, "--add-prefix", "net.") == []
    assert notes_of(modtool, whole, "--to", "state_dict", "--drop", "1") == []


def test_an_optimizer_that_does_not_tell_is_not_guessed_at(modtool: Modtool) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    groups = [{"params": model[1].parameters()}, {"params": model[0].parameters()}]
    optimizer = torch.optim.Adam(groups)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    whole = {"model": model.state_dict(), "optim": optimizer.state_dict()}
    message = "it does not record which of its parameters are which, so which are left out"
    form = ("--to", "checkpoint")
    assert notes_of(modtool, whole, *form, "--drop", "1") == [("optim", message)]

    other = nn.Conv1d(3, 5, 2)
    sgd = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    other(torch.ones(1, 3, 4)).sum().backward()
    sgd.step()
    whole = {"model": model.state_dict(), "optim of another": sgd.state_dict()}
    assert notes_of(modtool, whole, *form, "--drop", "1") == []


def test_an_optimizer_without_state_is_told_of_too(modtool: Modtool) -> None:
    model = net()
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    whole = {"model": model.state_dict(), "sgd": sgd.state_dict()}
    said = [("sgd", "it still has a place for 0.weight, left out of the model")]
    assert notes_of(modtool, whole, "--to", "checkpoint", "--drop", "0.weight") == said
