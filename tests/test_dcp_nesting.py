"""Lists, numbers and plain values of a distributed checkpoint, as torch itself has them."""

import json
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.state_dict_saver import save

from modtool.errors import CorruptFileError
from modtool.formats.dcp import nested
from tests.conftest import Ran

Modtool = Callable[..., Ran]
LISTS = {
    "l": [torch.ones(2), torch.zeros(2)],
    "pg": [{"lr": 0.1, "betas": (0.9, 0.99)}],
    "deep": {"x": [{"t": torch.ones(1)}, 3]},
    "plain": [1, [2, 3]],
    "seven": {"7": 7},
}


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """Torch says at each call that there is one process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def load(path: str) -> Any:
    return torch.load(path, weights_only=True)


def test_lists_are_those_of_torch(modtool: Modtool) -> None:
    save(LISTS, checkpoint_id="folder")
    dcp_to_torch_save("folder", "theirs.pth")
    assert modtool("convert", "folder", "--to", "checkpoint", "-o", "ours.pth").code == 0
    assert repr(load("ours.pth")) == repr(load("theirs.pth")) == repr(LISTS)


def tuples() -> dict[str, object]:
    """Tensors in tuples, which torch saves as one value each."""
    torch.manual_seed(0)
    whole = torch.arange(6.0)
    return {
        "model": {"w": torch.ones(2)},
        "ema": (torch.ones(3), 0.99),
        "large": (torch.randn(10_000), "and a word"),
        "shared": (whole, whole[2:4], whole.view(2, 3).t()),
        "sparse": (torch.eye(3).to_sparse(), torch.tensor(3)),
        "inside": [({1: whole.half()}, OrderedDict(a=whole.bfloat16()), [])],
    }


def test_tensors_inside_tuples_are_those_of_torch(modtool: Modtool) -> None:
    save(tuples(), checkpoint_id="folder")
    dcp_to_torch_save("folder", "theirs.pth")
    ran = modtool("convert", "folder", "--to", "checkpoint", "-o", "ours.pth", "--verify")
    assert (ran.code, ran.out.splitlines()) == (
        0,
        [
            "read back and compared: all 10 tensors are as they should be",
            "",
            "tensors 10   size 39.2 KiB",
            "",
            "ours.pth",
        ],
    )
    ours, theirs = load("ours.pth"), load("theirs.pth")
    assert repr(ours) == repr(theirs) == repr(tuples())
    assert torch.equal(ours["large"][0], theirs["large"][0])
    assert len({tensor.untyped_storage().data_ptr() for tensor in ours["shared"]}) == 1


def test_an_optimizer_whose_settings_are_tensors(modtool: Modtool) -> None:
    model = nn.Linear(3, 2)
    betas = (torch.tensor(0.5), torch.tensor(0.75))
    adam = torch.optim.AdamW(model.parameters(), torch.tensor(0.25), betas, foreach=False)
    model(torch.ones(4, 3)).sum().backward()
    adam.step()
    save({"model": model.state_dict(), "optim": adam.state_dict()}, checkpoint_id="folder")
    ran = modtool("convert", "folder", "--to", "checkpoint", "-o", "out.pth")
    assert (ran.code, ran.err, "left out" in ran.out) == (0, "", False)
    assert repr(load("out.pth")["optim"]) == repr(adam.state_dict())


def test_what_is_in_a_tuple_is_a_part_of_its_own(modtool: Modtool) -> None:
    save(tuples(), checkpoint_id="folder")
    ran = modtool("convert", "folder", "--section", "large", "-o", "large.safetensors")
    assert ran.code == 0
    assert "left out large.1: a value, not a tensor" in ran.out.splitlines()
    large, _ = cast("tuple[torch.Tensor, str]", tuples()["large"])
    assert torch.equal(load_file("large.safetensors")["0"], large)
    shown = json.loads(modtool("summary", "folder", "--json").out)
    inside = [each for each in shown["tensors"] if each["section"] in ("ema", "large")]
    assert [(each["name"], each["shape"]) for each in inside] == [("0", [3]), ("0", [10_000])]
    assert shown["values"]["ema.1"] == 0.99


def trained() -> tuple[nn.Linear, torch.optim.Adam]:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.25)
    model(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


@pytest.fixture
def folder(modtool: Modtool) -> str:
    """A training checkpoint as a folder."""
    model, optimizer = trained()
    whole = {"epoch": 3, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(whole, "ck.pth")
    assert modtool("convert", "ck.pth", "--to", "dcp", "-o", "ck").code == 0
    return "ck"


def test_the_way_there_and_back(modtool: Modtool, folder: str) -> None:
    assert modtool("convert", folder, "--to", "checkpoint", "-o", "back.pth").code == 0
    back = load("back.pth")
    assert repr(back["optimizer"]) == repr(load("ck.pth")["optimizer"])
    model, _ = trained()
    fresh = torch.optim.Adam(model.parameters())
    fresh.load_state_dict(back["optimizer"])
    assert fresh.param_groups[0]["lr"] == 0.25
    assert fresh.state[model.weight]["step"] == 1


def test_text_that_looks_like_a_number_stays_text_elsewhere(modtool: Modtool) -> None:
    save({"state": {"0": torch.ones(1)}, "param_groups": [{"params": ["0"]}]}, checkpoint_id="f")
    assert modtool("convert", "f", "--to", "checkpoint", "-o", "out.pth").code == 0
    assert list(load("out.pth")["state"]) == ["0"]


@pytest.mark.parametrize(
    "command", [("freeze", "{}", "weight"), ("reinit", "{}", "--scheme", "ones")]
)
def test_other_verbs_keep_plain_values(
    modtool: Modtool, folder: str, command: tuple[str, ...]
) -> None:
    ran = modtool(*(word.format(folder) for word in command), "-o", "out.pth")
    assert ran.code == 0
    assert "left out" not in ran.out + ran.err
    found = load("out.pth")
    assert found["epoch"] == 3
    assert repr(found["optimizer"]) == repr(load("ck.pth")["optimizer"])


def test_reinit_gives_blocks_the_bits_that_a_file_gets(modtool: Modtool, folder: str) -> None:
    options = ("--scheme", "kaiming_normal", "--pattern", "weight")
    ours = modtool("reinit", folder, *options, "-o", "one.pth")
    theirs = modtool("reinit", "ck.pth", *options, "-o", "two.pth")
    assert ours.code == 0
    assert ours.out.replace("one.pth", "two.pth") == theirs.out
    one, two = load("one.pth")["model"], load("two.pth")["model"]
    assert torch.equal(one["weight"], two["weight"])
    assert torch.equal(one["bias"], two["bias"])
    assert not torch.equal(one["weight"], load("ck.pth")["model"]["weight"])


@pytest.mark.parametrize(
    "path", [("l", -1), ("l", 10**9), ("l", 1 << 80)], ids=["negative", "far", "huge"]
)
def test_an_item_that_no_list_has_room_for(path: tuple[str, int]) -> None:
    with pytest.raises(CorruptFileError, match=r"^l: its items are not where a list"):
        nested(iter([("a", 1)]), {"a": path})


def test_names_and_numbers_in_one_place() -> None:
    with pytest.raises(CorruptFileError, match=r"^l: its items are not where a list"):
        nested(iter([("a", 1), ("b", 2)]), {"a": ("l", 0), "b": ("l", "k")})


def test_a_place_that_nothing_took() -> None:
    assert nested(iter([("l.1.a", 5)]), {"l.1.a": ("l", 1, "a")}) == {"l": [None, {"a": 5}]}
