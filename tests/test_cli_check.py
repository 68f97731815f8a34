"""`modtool check`: what a real load would run is named, and never run."""

import argparse
import itertools
import json
import os
import pickle
import re
import shlex
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.conftest import Ran
from tests.formats.test_dcp import save as save_distributed

Modtool = Callable[..., Ran]
jit: Any = torch.jit  # untyped


class Calls:
    """An object that is a call when it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def codes(ran: Ran) -> list[str]:
    return [finding["code"] for finding in json.loads(ran.out)["findings"]]


def test_a_command_is_found_and_not_run(modtool: Modtool) -> None:
    torch.save({"w": torch.zeros(2), "x": Calls(os.system, "touch pwned")}, "evil.pth")
    ran = modtool("check", "evil.pth", "--json")
    document = json.loads(ran.out)
    assert (ran.code, codes(ran)) == (1, ["executes-code"])
    assert document["findings"][0]["level"] == "error"
    assert document["findings"][0]["message"] == (
        "loading it for real calls posix.system('touch pwned')"
    )
    assert document["weights_only"] is False
    assert not Path("pwned").exists()


def test_values_of_a_distributed_checkpoint_are_judged(modtool: Modtool) -> None:
    state = {"m": nn.Linear(4, 3).state_dict(), "evil": Calls(os.system, "touch pwned")}
    save_distributed(state, Path("folder"))
    ran = modtool("check", "folder", "--json")
    assert (ran.code, codes(ran)) == (1, ["executes-code"])
    found = json.loads(ran.out)["findings"][0]
    assert found["message"] == "loading it for real calls posix.system('touch pwned')"
    assert re.fullmatch(r"__0_0\.distcp@\d+/data\.pkl", found["where"])
    assert not Path("pwned").exists()


def test_ordinary_values_of_a_distributed_checkpoint(modtool: Modtool) -> None:
    save_distributed({"m": nn.Linear(4, 3).state_dict(), "epoch": 3}, Path("folder"))
    ran = modtool("check", "folder", "--json")
    assert (ran.code, codes(ran)) == (0, [])


def test_the_version_of_torch_is_ordinary(modtool: Modtool) -> None:
    torch.save({"w": torch.zeros(2), "torch": torch.__version__, "rest": ...}, "ckpt.pth")
    ran = modtool("check", "ckpt.pth", "--json")
    assert (ran.code, codes(ran)) == (0, [])
    assert json.loads(ran.out)["weights_only"] is False  # torch does not take its own class


def test_a_legacy_value_of_a_distributed_checkpoint_is_judged(modtool: Modtool) -> None:
    save_distributed({"evil": "x" * 1000}, Path("folder"))
    item = Path("folder/__0_0.distcp")
    size = item.stat().st_size
    evil = [Calls(os.system, "touch pwned"), "x" * size]
    evil[1] = "x" * (2 * size - len(pickle.dumps(evil)))
    text = pickle.dumps(evil)
    assert len(text) == size
    item.write_bytes(text)
    ran = modtool("check", "folder", "--json")
    assert (ran.code, codes(ran)) == (1, ["executes-code"])


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("name", ["archive/extra.pkl", "other/data.pkl"])
@pytest.mark.parametrize("script", [False, True])
def test_pickles_beside_the_first_are_judged(modtool: Modtool, name: str, script: bool) -> None:
    if script:
        with open("m.pth", "wb") as file:
            jit.save(jit.script(nn.Linear(2, 2)), file)
    else:
        torch.save({"w": torch.zeros(2)}, "m.pth")
    assert modtool("check", "m.pth", "--select", "executes-code").code == 0
    with zipfile.ZipFile("m.pth", "a") as archive:
        archive.writestr(name, pickle.dumps(Calls(os.system, "touch pwned")))
    ran = modtool("check", "m.pth", "--json", "--select", "executes-code")
    assert (ran.code, codes(ran)) == (1, ["executes-code"])
    assert name.endswith(json.loads(ran.out)["findings"][0]["where"])


def test_an_unknown_callable_is_a_finding(modtool: Modtool) -> None:
    torch.save({"w": torch.zeros(2), "x": Calls(Calls, print)}, "odd.pth")
    ran = modtool("check", "odd.pth", "--json")
    assert (ran.code, codes(ran)) == (1, ["unknown-callable", "unknown-callable"])


def test_an_ordinary_checkpoint_has_no_finding(modtool: Modtool) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    optimizer = torch.optim.Adam(model.parameters())
    torch.autograd.backward(model(torch.randn(4, 4)).sum())
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, "c.pth")
    ran = modtool("check", "c.pth", "--json")
    assert (ran.code, codes(ran)) == (0, [])
    assert json.loads(ran.out)["weights_only"] is True


def test_the_line_for_safe_globals_is_the_one_that_torch_needs(modtool: Modtool) -> None:
    torch.save(nn.Sequential(nn.Linear(4, 3)), "full.pth")
    document = json.loads(modtool("check", "full.pth", "--json").out)
    assert document["safe_globals"] == (
        "torch.serialization.add_safe_globals([torch.nn.modules.container.Sequential, "
        "torch.nn.modules.linear.Linear])"
    )
    with torch.serialization.safe_globals([nn.Sequential, nn.Linear]):
        assert isinstance(torch.load("full.pth", weights_only=True), nn.Sequential)


def test_the_line_for_safe_globals_imports_what_it_names(modtool: Modtool) -> None:
    torch.save(argparse.Namespace(lr=0.5), "arguments.pth")
    line = "import argparse; torch.serialization.add_safe_globals([argparse.Namespace])"
    assert json.loads(modtool("check", "arguments.pth", "--json").out)["safe_globals"] == line
    assert f"\nwhere you trust it: {line}\n" in modtool("check", "arguments.pth").out


def test_a_line_that_may_not_be_enough_says_so(modtool: Modtool) -> None:
    torch.save(itertools.chain([1, 2]), "chain.pth")
    assert (
        "\nwhere you trust it: import itertools; "
        "torch.serialization.add_safe_globals([itertools.chain, iter])\n"
        "that may not be enough: builtins.iter makes an object that gets a state: "
        "allow the class of it, too\n"
    ) in modtool("check", "chain.pth").out
    classes: list[Any] = [itertools.chain, iter, type(iter(()))]
    with torch.serialization.safe_globals(classes):
        assert list(torch.load("chain.pth", weights_only=True)) == [1, 2]


class AttributeDict(dict[str, object]):
    """As Lightning's, which hyper-parameters are saved in."""


def test_a_refusal_that_nothing_changes_is_told_before_those_that_a_line_would(
    modtool: Modtool,
) -> None:
    torch.save({"hyper_parameters": AttributeDict(lr=0.5)}, "last.ckpt")
    name = f"{__name__}.AttributeDict"
    assert (
        f"\ntorch.load(…, weights_only=True) refuses it: items are set in a {name}, not in a dict "
        "(and 1 more); no add_safe_globals changes that\n\n"
    ) in modtool("check", "last.ckpt").out
    with torch.serialization.safe_globals([AttributeDict]), pytest.raises(pickle.UnpicklingError):
        torch.load("last.ckpt", weights_only=True)


def test_oversized_storages_say_what_they_waste(modtool: Modtool) -> None:
    torch.save({"w": torch.zeros(100, 1000)[:2]}, "big.pth")
    ran = modtool("check", "big.pth", "--json")
    assert (ran.code, codes(ran)) == (1, ["oversized-storage"])
    assert "392,000 are wasted" in json.loads(ran.out)["findings"][0]["message"]


@pytest.mark.parametrize(
    ("view", "used"),
    [
        (torch.ones(1000, 1000)[:, :10], "40,000 of the 4,000,000"),
        (torch.ones(1000, 1000)[:1, :1].expand(1000, 1000), "4 of the 4,000,000"),
        (torch.ones(1000, 10)[:, 3], "4,000 of the 40,000"),
        (torch.ones(100, 100).diagonal(), "400 of the 40,000"),
        (torch.ones(10_000).as_strided((100, 100), (1, 1)), "796 of the 40,000"),
        (torch.ones(10_000)[5:9:2], "8 of the 40,000"),
    ],
    ids=["columns", "expanded", "a column", "a diagonal", "overlapping", "steps"],
)
def test_what_a_view_uses_of_its_storage_are_the_elements_that_it_reaches(
    modtool: Modtool, view: torch.Tensor, used: str
) -> None:
    torch.save({"w": view}, "view.pth")
    (finding,) = json.loads(modtool("check", "view.pth", "--json").out)["findings"]
    assert finding["code"] == "oversized-storage"
    assert finding["message"].startswith(f"uses {used} bytes saved with it")


WHOLE = torch.ones(100, 100)


@pytest.mark.parametrize(
    "saved",
    [
        {"whole": WHOLE, "row": WHOLE[0]},
        {"turned": torch.ones(100, 100).T},
        {"image": torch.ones(8, 8, 16, 16).to(memory_format=torch.channels_last)},
        {"windows": torch.ones(10_000).unfold(0, 100, 50)},
        {"half": torch.ones(100, 100)[:51]},
    ],
    ids=lambda saved: next(iter(saved)),
)
def test_views_of_most_of_a_storage_waste_nothing(
    modtool: Modtool, saved: dict[str, torch.Tensor]
) -> None:
    torch.save(saved, "views.pth")
    assert modtool("check", "views.pth").code == 0


def test_views_side_by_side_waste_nothing(modtool: Modtool) -> None:
    whole = torch.zeros(100, 1000)
    torch.save({"a": whole[:50], "b": whole[50:]}, "halves.pth")
    assert modtool("check", "halves.pth").code == 0


@pytest.mark.parametrize(
    ("options", "code", "left"),
    [
        (["--ignore", "oversized-storage"], 0, []),
        (["--ignore", "over"], 0, []),
        (["--select", "executes-code"], 0, []),
        (["--fail-on", "error"], 0, ["oversized-storage"]),
        (["--fail-on", "note"], 1, ["oversized-storage"]),
    ],
)
def test_select_ignore_and_fail_on(
    modtool: Modtool, options: list[str], code: int, left: list[str]
) -> None:
    torch.save({"w": torch.zeros(100, 1000)[:2]}, "big.pth")
    ran = modtool("check", "big.pth", "--json", *options)
    assert (ran.code, codes(ran)) == (code, left)


def test_a_code_that_is_none(modtool: Modtool) -> None:
    ran = modtool("check", "any.pth", "--ignore", "nonsense")
    assert ran.code == 2
    assert ran.err.startswith("error: there is no code 'nonsense'\n")


def test_wrapped_names_are_noted_with_the_remedy(modtool: Modtool) -> None:
    torch.save({"module.w": torch.zeros(2), "module.b": torch.zeros(2)}, "ddp.pth")
    ran = modtool("check", "ddp.pth", "--json")
    assert (ran.code, codes(ran)) == (0, ["wrapped-names"])
    assert json.loads(ran.out)["findings"][0]["remedy"] == (
        "modtool convert --strip-prefix module. takes it away"
    )


def test_optimizer_state_that_fits_no_model(modtool: Modtool) -> None:
    model = nn.Linear(2, 2)
    state = {index: {"exp_avg": torch.zeros(2)} for index in range(5)}
    optimizer = {"state": state, "param_groups": [{"lr": 0.1, "params": list(range(5))}]}
    torch.save({"model": model.state_dict(), "optimizer": optimizer}, "c.pth")
    ran = modtool("check", "c.pth", "--json")
    assert (ran.code, codes(ran)) == (1, ["optimizer-mismatch"])


def test_the_table_says_that_nothing_was_run(modtool: Modtool) -> None:
    torch.save({"x": Calls(os.system, "ls \x1b[31m")}, "evil.pth")
    out = modtool("check", "evil.pth").out
    assert "no code was run" in out
    assert "\x1b" not in out
    assert out.splitlines()[-1] == "findings 1   errors 1"


@pytest.mark.parametrize(
    ("prefix", "command"),
    [
        ("module._orig_mod.", "--strip-prefix module. --strip-prefix _orig_mod."),
        ("net.module._orig_mod.", r"--rename 're:\b(module|_orig_mod)\.='"),
        ("net.module.", r"--rename 're:\bmodule\.='"),
    ],
)
def test_the_command_that_is_told_takes_every_prefix_away(
    modtool: Modtool, prefix: str, command: str
) -> None:
    plain = nn.Sequential(nn.Linear(2, 2)).state_dict()
    torch.save({f"{prefix}{name}": value for name, value in plain.items()}, "x.pth")
    found = json.loads(modtool("check", "x.pth", "--json").out)["findings"]
    (told,) = {each["remedy"].partition(" takes ")[0] for each in found}
    assert told == f"modtool convert {command}"
    assert modtool(*shlex.split(told)[1:], "x.pth", "-o", "plain.pth").code == 0
    names = [name.removeprefix("net.") for name in torch.load("plain.pth")]
    assert names == list(plain)
