"""Writing distributed checkpoints: what torch loads is what was converted."""

import os
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save, torch_save_to_dcp
from torch.distributed.checkpoint.state_dict_loader import load

from modtool.api.converting import convert
from modtool.api.writing import Writing
from modtool.errors import OutputError, UsageError
from modtool.formats import open_checkpoint
from modtool.live import distributed
from tests.conftest import Ran

Modtool = Callable[..., Ran]


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """Torch says at each call that there is one process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def loaded(folder: str) -> object:
    dcp_to_torch_save(folder, "back.pth")
    return torch.load("back.pth", weights_only=True)


def same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    plain = expected.resolve_conj().resolve_neg().contiguous()
    return (found.dtype, found.shape) == (plain.dtype, plain.shape) and bytes(
        found.contiguous().view(-1).view(torch.uint8).tolist()
    ) == bytes(plain.view(-1).view(torch.uint8).tolist())


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    whole = torch.randn(5, 7)
    number = torch.randn(3, dtype=torch.complex64)
    return {
        "whole": whole,
        "tied": whole,
        "turned": whole.t(),
        "part": whole[1:3, 2:4],
        "broadcast": torch.ones(1).expand(4, 3),
        "scalar": torch.tensor(7),
        "empty": torch.empty(0, 3),
        "flags": torch.tensor([True, False]),
        "small": torch.randn(4).to(torch.float8_e4m3fn),
        "unsigned": torch.tensor([1, 65535], dtype=torch.uint16),
        "complex": number,
        "conjugate": number.conj(),
        "half": torch.randn(9).bfloat16(),
    }


@pytest.mark.parametrize("block", [1, 24, 1 << 20])
def test_every_tensor_as_torch_loads_it(
    modtool: Modtool, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(distributed, "BLOCK", block)
    torch.save(tensors(), "in.pth")
    ran = modtool("convert", "in.pth", "--to", "dcp", "-o", "out/", "--verify")
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "out")
    assert "tied-stored-apart: stored once for each name: whole, tied" in ran.err
    assert sorted(os.listdir("out")) == [".metadata", "__0_0.distcp"]
    state = {
        name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in tensors().items()
    }
    load(state, checkpoint_id="out")
    for name, tensor in tensors().items():
        assert same(state[name], tensor), name
    assert modtool("convert", "out", "-o", "again.pth").code == 0
    again = torch.load("again.pth", weights_only=True)
    assert all(same(again[name], tensor) for name, tensor in tensors().items())


def test_blocks_are_as_small_as_told(modtool: Modtool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "BLOCK", 400)
    torch.save({"a": torch.arange(1000.0).reshape(10, 100)}, "in.pth")
    modtool("convert", "in.pth", "--to", "dcp")
    (tensor,) = open_checkpoint("in_dcp").tensors
    assert [chunk.sizes for chunk in tensor.chunks] == [(1, 100)] * 10


def training() -> dict[str, object]:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    adam = torch.optim.Adam(net.parameters())
    net(torch.ones(2, 3)).sum().backward()
    adam.step()
    return {
        "epoch": 3,
        "model": net.state_dict(),
        "optimizer": adam.state_dict(),
        "history": [1.5, None, "best"],
        "betas": (0.9, 0.999),
        "size": torch.Size([2, 3]),
        "device": torch.device("cuda:1"),
        "dtype": torch.bfloat16,
        "names": {"a", "b"},
        "raw": b"\x00\xff",
        "pair": (1, torch.ones(2)),
        "hooks": {},
    }


def test_a_training_checkpoint(modtool: Modtool) -> None:
    saved = training()
    torch.save(saved, "in.pth")
    ran = modtool("convert", "in.pth", "--to", "dcp")
    assert (ran.code, ran.out.splitlines()) == (
        0,
        [
            "left out hooks: an empty dict, which the format does not hold",
            "",
            "tensors 20   size 352 B",
            "",
            "in_dcp",
        ],
    )
    assert ran.err.splitlines() == [
        "note: keys-become-text: keys that are no text: optimizer.state.0, optimizer.state.1, "
        "optimizer.state.2, …",
    ]
    found = loaded("in_dcp")
    assert isinstance(found, dict)
    model, optimizer, pair = found.pop("model"), found.pop("optimizer"), found.pop("pair")
    assert found == {
        name: saved[name] for name in saved if name not in ("model", "optimizer", "pair", "hooks")
    }
    expected = saved["model"]
    assert isinstance(expected, OrderedDict)
    assert model.keys() == expected.keys()
    assert all(torch.equal(model[name], expected[name]) for name in model)
    state = saved["optimizer"]
    assert isinstance(state, dict)
    assert optimizer["param_groups"] == state["param_groups"]
    assert torch.equal(optimizer["state"]["3"]["exp_avg"], state["state"][3]["exp_avg"])
    assert repr(pair) == repr(saved["pair"])


def tuples() -> dict[str, object]:
    """What torch saves as one value each, in lists and beside tensors that it saves alone."""
    torch.manual_seed(0)
    whole = torch.arange(6.0)
    inside: list[object] = [{}, []]
    return {
        "model": {"w": torch.ones(2)},
        "betas": (torch.tensor(0.5), torch.tensor(0.75)),
        "pair": ({"x": whole.bfloat16(), 1: whole[1:3]}, 3),
        "listed": [(torch.empty(0, 3), 2)],
        "mixed": [whole, (whole, 1), {"z": (whole.view(2, 3).t(),)}],
        "kept": (OrderedDict(a=whole), inside, inside, Counter("aab")),
        "values": (torch.device("cpu"), torch.Size([2]), torch.float16, {"a"}, b"x"),
    }


def test_tuples_are_saved_as_torch_saves_them(modtool: Modtool) -> None:
    torch.save(tuples(), "in.pth")
    torch_save_to_dcp("in.pth", "theirs")
    ran = modtool("convert", "in.pth", "--to", "dcp", "-o", "ours", "--verify")
    assert (ran.code, ran.out.splitlines()[0]) == (
        0,
        "read back and compared: all 10 tensors are as they should be",
    )
    ours, theirs = (FileSystemReader(name).read_metadata() for name in ("ours", "theirs"))
    assert ours.planner_data == theirs.planner_data
    assert ours.state_dict_metadata.keys() == theirs.state_dict_metadata.keys()
    dcp_to_torch_save("ours", "back.pth")
    found = torch.load("back.pth", weights_only=False)
    assert repr(found) == repr(tuples())
    assert found["kept"][1] is found["kept"][2]
    state = {"betas": (torch.zeros(()), torch.zeros(()))}
    load(state, checkpoint_id="ours")
    assert state == {"betas": tuples()["betas"]}


def test_edits(modtool: Modtool) -> None:
    torch.save(training(), "in.pth")
    options = ("--drop-optimizer", "--rename", "0=first", "--dtype", "fp16", "--set", "epoch=4")
    assert modtool("convert", "in.pth", "--to", "dcp", "-o", "out", *options).code == 0
    found = loaded("out")
    assert isinstance(found, dict)
    assert "optimizer" not in found
    assert found["epoch"] == 4
    assert found["model"]["first.weight"].dtype == torch.float16


def test_from_safetensors_and_full_models(modtool: Modtool) -> None:
    net = nn.Linear(3, 2)
    torch.save(net, "net.pth")
    modtool("convert", "net.pth", "--to", "safetensors")
    for source in ("net.pth", "net.safetensors"):
        assert modtool("convert", source, "--to", "dcp", "-o", "out", "--force").code == 0
        found = loaded("out")
        assert isinstance(found, dict)
        assert torch.equal(found["weight"], net.weight)
        assert list(found) == ["weight", "bias"] or sorted(found) == ["bias", "weight"]


def test_an_older_one_is_replaced_as_a_whole(modtool: Modtool) -> None:
    torch.save({"a": torch.ones(2)}, "in.pth")
    os.mkdir("out")
    for name in (".metadata", "__0_0.distcp", "__3_0.distcp", "config.json"):
        Path("out", name).write_text("old")
    ran = modtool("convert", "in.pth", "--to", "dcp", "-o", "out")
    assert (ran.code, ran.err) == (
        2,
        "error: out/__0_0.distcp exists already\n  --force replaces it\n",
    )
    assert modtool("convert", "in.pth", "--to", "dcp", "-o", "out", "--force").code == 0
    assert sorted(os.listdir("out")) == [".metadata", "__0_0.distcp", "config.json"]
    assert torch.equal(loaded("out")["a"], torch.ones(2))  # type: ignore[index]


@pytest.mark.parametrize(
    ("saved", "options", "said"),
    [
        ({"a": torch.ones(2).to_sparse()}, (), "a: dcp has no sparse_coo tensors"),
        ({"a": torch.ones(2)}, ("--max-shard-size", "1GB"), "is a folder of its own"),
        ({"a": torch.ones(2)}, ("--in-place",), "is a folder of its own"),
        ({"a": torch.ones(2)}, ("-o", "in.pth"), "in.pth is no folder"),
        ({"a": torch.ones(2)}, ("-o", "no/where"), "there is no folder no"),
        (
            {"epoch": 1, "model": {"a.b": torch.ones(2), "a": {"b": 1}}},
            (),
            "model.a.b: two things of the output have this name",
        ),
        ({"m": {1: torch.ones(2), "1": torch.ones(1)}}, (), "two keys of one dict are the same"),
    ],
)
def test_what_cannot_be(
    modtool: Modtool, saved: object, options: tuple[str, ...], said: str
) -> None:
    torch.save(saved, "in.pth")
    ran = modtool("convert", "in.pth", "--to", "dcp", *options)
    assert ran.code == 2
    assert said in ran.err
    assert os.listdir() == ["in.pth"]


def test_a_circle(tmp_path: Path) -> None:
    circle: dict[str, object] = {"epoch": 1, "model": {"w": torch.ones(2)}}
    circle["self"] = circle
    torch.save(circle, tmp_path / "in.pth")
    with pytest.raises(UsageError, match="an object that contains itself"):
        convert(tmp_path / "in.pth", str(tmp_path / "out"), to="dcp")


def test_a_list_in_a_circle(modtool: Modtool) -> None:
    circle: list[object] = []
    circle.append(circle)
    torch.save({"model": {"w": torch.ones(2)}, "list": circle}, "in.pth")
    ran = modtool("convert", "in.pth", "--to", "dcp", "-o", "out")
    said = "error: list.0: an object that contains itself\n  a distributed checkpoint holds none\n"
    assert (ran.code, ran.err) == (2, said)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, OutputError])
def test_nothing_remains_of_one_that_was_stopped(
    tmp_path: Path, error: type[BaseException]
) -> None:
    torch.save({"a": torch.ones(100)}, tmp_path / "in.pth")

    def stop(done: int, total: int, name: str) -> None:
        raise error("stopped")

    with pytest.raises(OutputError if error is RuntimeError else error):
        convert(
            tmp_path / "in.pth", str(tmp_path / "out"), to="dcp", writing=Writing(progress=stop)
        )
    assert os.listdir(tmp_path) == ["in.pth"]


def test_a_counter_becomes_a_dict(modtool: Modtool) -> None:
    saved = {"model": {"w": torch.ones(2)}, "seen": Counter("aab"), "list": [Counter("b")]}
    torch.save(saved, "in.pth")
    ran = modtool("convert", "in.pth", "--to", "dcp", "-o", "out")
    said = "note: becomes-plain: collections.Counter becomes dict: seen, list.0\n"
    assert (ran.code, ran.err) == (0, said)
    found = loaded("out")
    assert isinstance(found, dict)
    assert found["seen"] == {"a": 2, "b": 1}
    assert found["list"] == [{"b": 1}]


def test_what_torch_cannot_save_is_said(modtool: Modtool) -> None:
    torch.save({"w": torch.zeros(4, dtype=torch.uint8).view(torch.bits8)}, "in.pth")
    ran = modtool("convert", "in.pth", "--to", "dcp", "-o", "out")
    said = (
        "error: w: torch.distributed saves no bits8 tensors\n"
        "  leave it out with --drop 'w', or choose another form\n"
    )
    assert (ran.code, ran.err) == (2, said)
