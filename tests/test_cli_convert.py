"""`modtool convert`: options, outputs, what is dropped, wrong inputs."""

import argparse
import json
import math
import os
import pathlib
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.conftest import Ran

Modtool = Callable[..., Ran]
Saved = Mapping[str, torch.Tensor]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(6, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("mask", torch.ones(3), persistent=False)


def bits(tensor: torch.Tensor) -> bytes:
    flat = tensor.contiguous().view(-1)
    return bytes(flat.view(torch.uint8).tolist())


def same(found: Saved, expected: Saved) -> None:
    assert sorted(found) == sorted(expected)
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        assert bits(found[name]) == bits(tensor), name


def load(path: str) -> dict[str, torch.Tensor]:
    if path.endswith(".safetensors"):
        return safetensors.torch.load_file(path)
    found = torch.load(path, weights_only=True)
    assert isinstance(found, dict)
    return found


def document(ran: Ran) -> dict[str, object]:
    assert (ran.code, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert isinstance(found, dict)
    return found


def training() -> dict[str, object]:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    return {"epoch": 3, "model": net.state_dict(), "optimizer": optimizer.state_dict()}


# -- where it goes, and what is said -------------------------------------------------------------


def test_the_document_key_by_key(modtool: Modtool) -> None:
    torch.save(Net(), "net.pth")
    assert document(modtool("convert", "net.pth", "--json")) == {
        "schema": 1,
        "source": "net.pth",
        "written": ["net_state_dict.pth"],
        "to": "state_dict",
        "tensors": 7,
        "bytes": 168,
        "dropped": [
            {
                "name": "mask",
                "why": "a non-persistent buffer, which state_dict() leaves out",
            },
            {
                "name": "modules",
                "why": "classes, settings, plain attributes and what get_extra_state() may add, "
                "which only a full model holds",
            },
        ],
        "verified": False,
        "overflows": [],
        "notes": [],
    }
    same(load("net_state_dict.pth"), Net().state_dict())


@pytest.mark.parametrize(
    ("options", "written"),
    [
        ((), "ckpt_state_dict.pth"),
        (("--to", "state_dict"), "ckpt_state_dict.pth"),
        (("--to", "checkpoint"), "ckpt_checkpoint.pth"),
        (("--to", "safetensors"), "ckpt.safetensors"),
        (("-o", "x.safetensors"), "x.safetensors"),
        (("-o", "x.bin"), "x.bin"),
        (("-o", "x"), "x"),
        (("-o", "new/"), "new/model.safetensors"),
        (("-o", "new/", "--to", "state_dict"), "new/pytorch_model.bin"),
    ],
)
def test_outputs(modtool: Modtool, options: tuple[str, ...], written: str) -> None:
    torch.save(training(), "ckpt.pth.tar")
    ran = modtool("convert", "ckpt.pth.tar", *options)
    assert (ran.code, ran.out.splitlines()[-1]) == (0, written)
    assert os.path.isfile(written)
    assert [name for name in os.listdir() if name.startswith(".")] == []


def test_everything_left_out_is_named(modtool: Modtool) -> None:
    torch.save(training(), "ckpt.pth")
    found = document(modtool("convert", "ckpt.pth", "--json"))
    assert found["dropped"] == [
        {"name": "optimizer", "why": "not part of the model (optimizer)"},
        {"name": "epoch", "why": "a value, not a tensor"},
    ]
    lines = modtool("convert", "ckpt.pth", "--force").out.splitlines()
    assert lines[:2] == [
        "left out optimizer: not part of the model (optimizer)",
        "left out epoch: a value, not a tensor",
    ]


class Custom:
    def __init__(self) -> None:
        self.rate = 0.1


def test_values_become_what_weights_only_accepts(modtool: Modtool) -> None:
    saved = {
        "model": {"w": torch.ones(2)},
        "args": argparse.Namespace(lr=0.1, layers=[1, (2, 3)]),
        "path": pathlib.PurePosixPath("a/b"),
        "best": np.float64(0.25),
        "steps": np.int64(7),
        "object": Custom(),
        "text": "as it was",
        "nested": {"deep": [1, {"x": None}], 3: True},
        "layers": (1, frozenset([2]), {3}),
    }
    torch.save(saved, "ckpt.pth")
    found = document(modtool("convert", "ckpt.pth", "--to", "checkpoint", "--json"))
    assert [item["name"] for item in found["dropped"]] == ["object"]  # type: ignore[attr-defined]
    made = torch.load("ckpt_checkpoint.pth", weights_only=True)
    same(made.pop("model"), saved["model"])  # type: ignore[arg-type]
    assert made == {
        "args": {"lr": 0.1, "layers": [1, (2, 3)]},
        "path": "a/b",
        "best": 0.25,
        "steps": 7,
        "object": {"rate": 0.1},
        "text": "as it was",
        "nested": {"deep": [1, {"x": None}], 3: True},
        "layers": (1, {2}, {3}),
    }


def test_dry_run_lists_and_writes_nothing(modtool: Modtool) -> None:
    torch.save(training(), "ckpt.pth")
    ran = modtool("convert", "ckpt.pth", "--dry-run", "--dtype", "bf16")
    assert ran.code == 0
    assert "0.weight" in ran.out
    assert "bfloat16" in ran.out
    assert os.listdir() == ["ckpt.pth"]


# -- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "options", "after"),
    [
        (("module.a.w", "module.b"), ("--strip-prefix", "module."), ("a.w", "b")),
        (("module.a.w", "module.b"), ("--strip-prefix", "module"), ("a.w", "b")),
        (("module.module.a", "module.b"), ("--strip-prefix", "module."), ("a", "b")),
        (
            ("module._orig_mod.a", "_orig_mod.module.b"),
            ("--strip-prefix", "module.", "--strip-prefix", "_orig_mod."),
            ("a", "b"),
        ),
        (("module._orig_mod.model.a", "module.model.b"), ("--strip-prefix", "auto"), ("a", "b")),
        (("layers.0._orig_mod.a", "b"), ("--strip-prefix", "auto"), ("layers.0.a", "b")),
        (("model.a", "head.b"), ("--strip-prefix", "auto"), ("model.a", "head.b")),
        (("a.w", "b"), ("--add-prefix", "net."), ("net.a.w", "net.b")),
        (("a.w", "a.b", "ab.c"), ("--rename", "a=x.y"), ("x.y.w", "x.y.b", "ab.c")),
        (("l.0.gamma", "l.1.beta"), ("--rename", "*.gamma=*.weight"), ("l.0.weight", "l.1.beta")),
        (("e.l.0.w", "e.l.1.w"), ("--rename", "e.*.*.w=d.*.x.*.w"), ("d.l.x.0.w", "d.l.x.1.w")),
        (
            ("l0.w", "l11.w"),
            ("--rename", r"re:^l(\d+)\.=layers.\1."),
            ("layers.0.w", "layers.11.w"),
        ),
        (
            ("module.a", "module.b"),
            (*("--strip-prefix", "module."), *("--rename", "a=c"), *("--rename", "c=d")),
            ("d", "b"),
        ),
    ],
)
@pytest.mark.parametrize("output", ["out.pth", "out.safetensors"])
def test_names(
    modtool: Modtool,
    before: tuple[str, ...],
    options: tuple[str, ...],
    after: tuple[str, ...],
    output: str,
) -> None:
    saved = {name: torch.tensor([float(index)]) for index, name in enumerate(before)}
    torch.save(saved, "in.pth")
    assert modtool("convert", "in.pth", *options, "-o", output).code == 0
    same(load(output), dict(zip(after, saved.values(), strict=True)))


def test_names_in_a_checkpoint(modtool: Modtool) -> None:
    saved = training()
    torch.save(saved, "in.pth")
    options = ("--to", "checkpoint", "--add-prefix", "net.", "-o", "out.pth")
    assert modtool("convert", "in.pth", *options).code == 0
    made = torch.load("out.pth", weights_only=True)
    state = saved["model"]
    assert isinstance(state, dict)
    same(made["model"], {f"net.{name}": tensor for name, tensor in state.items()})
    assert list(made["optimizer"]["state"]) == [0, 1, 2, 3]


def test_the_versions_of_modules_move_with_their_names(modtool: Modtool) -> None:
    torch.save(nn.DataParallel(Net()).state_dict(), "in.pth")
    assert modtool("convert", "in.pth", "--strip-prefix", "auto", "-o", "out.pth").code == 0
    made = torch.load("out.pth", weights_only=True)
    assert made._metadata == Net().state_dict()._metadata  # type: ignore[attr-defined]
    assert Net().load_state_dict(made).missing_keys == []


@pytest.mark.parametrize("section", [None, "model"])
def test_a_value_among_the_tensors_is_dropped_by_its_name(
    modtool: Modtool, section: str | None
) -> None:
    saved = {"fc.weight": torch.ones(2), "fc.bias": torch.ones(1), "epoch": 3, "args": {"lr": 1}}
    torch.save({section: saved, "epoch": 5} if section else saved, "in.pth")
    to = ("--to", "checkpoint") if section else ()
    ran = modtool("convert", "in.pth", "--drop", "epoch", "--drop", "*.bias", "-o", "out.pth", *to)
    assert ran.code == 0
    assert ran.out.splitlines()[:3] == [
        "kept 1 of 2 tensors",
        "left out fc.bias: dropped as asked",
        "left out epoch: no tensor, dropped as asked",
    ]
    made = torch.load("out.pth", weights_only=True)
    assert made.get("epoch") == (5 if section else None)
    made = made["model"] if section else made
    assert made == {"fc.weight": made["fc.weight"], "args": {"lr": 1}}


class Counting(nn.Linear):
    def get_extra_state(self) -> object:
        return {"calls": 7}

    def set_extra_state(self, state: object) -> None:
        self.told = state


@pytest.mark.parametrize("to", ["state_dict", "checkpoint"])
def test_an_extra_state_goes_where_its_module_goes(modtool: Modtool, to: str) -> None:
    net = nn.Sequential(Counting(2, 2), nn.Linear(2, 2))
    torch.save(nn.DataParallel(net).state_dict(), "in.pth")
    options = ("--to", to, "--strip-prefix", "module.", "--rename", "0=2", "-o", "out.pth")
    assert modtool("convert", "in.pth", *options).code == 0
    made = torch.load("out.pth", weights_only=True)
    made = made if to == "state_dict" else made["model_state_dict"]
    assert list(made) == ["2.weight", "2.bias", "2._extra_state", "1.weight", "1.bias"]
    assert made["2._extra_state"] == {"calls": 7}


@pytest.mark.parametrize("inside", [False, True])
def test_the_versions_of_torchs_own_modules_are_known(modtool: Modtool, inside: bool) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.LSTMCell(4, 4))
    torch.save({"epoch": 1, "model": net} if inside else net, "in.pth")
    to = "checkpoint" if inside else "state_dict"
    assert modtool("convert", "in.pth", "--to", to, "-o", "out.pth").code == 0
    made = torch.load("out.pth", weights_only=True)
    made = made["model"] if inside else made
    assert made._metadata == net.state_dict()._metadata  # type: ignore[attr-defined]
    assert list(made) == list(net.state_dict())


def test_nothing_to_strip_is_said(modtool: Modtool) -> None:
    torch.save({"fc.w": torch.ones(1), "model.w": torch.ones(1)}, "in.pth")
    ran = modtool("convert", "in.pth", "--strip-prefix", "auto", "-o", "out.pth")
    said = "--strip-prefix auto: no known prefix is shared by all names; none is changed"
    assert (ran.code, ran.err) == (0, f"note: nothing-stripped: {said}\n")
    assert list(load("out.pth")) == ["fc.w", "model.w"]


def test_the_short_names_of_dtypes_are_told(modtool: Modtool) -> None:
    torch.save({"w": torch.ones(1)}, "in.pth")
    ran = modtool("convert", "in.pth", "--dtype", "bf17")
    assert ran.err.startswith(
        "error: 'bf17' is no floating-point dtype\n"
        "  one of: bf16, fp16, fp32, fp64, or float64, float32, float16, bfloat16, float8_e4m3fn"
    )


def test_the_versions_of_what_is_left_out_go_with_it(modtool: Modtool) -> None:
    torch.save(nn.ModuleDict({"a": nn.BatchNorm1d(2), "b": nn.Linear(2, 2)}), "in.pth")
    for options in (("--drop", "b"), ("--keep", "a"), ("--drop", "b", "--add-prefix", "x.")):
        assert modtool("convert", "in.pth", *options, "-o", "out.pth", "--force").code == 0
        versions = torch.load("out.pth", weights_only=True)._metadata
        prefix = "x." if "x." in options else ""
        assert versions[f"{prefix}a"] == {"version": 2}
        assert f"{prefix}b" not in versions


def test_names_that_collide(modtool: Modtool) -> None:
    torch.save({"a.w": torch.ones(1), "b.w": torch.ones(1)}, "in.pth")
    ran = modtool("convert", "in.pth", "--rename", "re:^[ab]=c", "-o", "out.pth")
    said = (
        "error: a.w and b.w would both be named c.w\n"
        "  leave one out, or name it otherwise; two change places through a third name: "
        "--rename A=X --rename B=A --rename X=B\n"
    )
    assert ran == Ran(2, "", said)
    assert os.listdir() == ["in.pth"]
    swap = ("--rename", "a=x", "--rename", "b=a", "--rename", "x=b")
    assert modtool("convert", "in.pth", *swap, "-o", "out.pth").code == 0
    assert list(load("out.pth")) == ["b.w", "a.w"]


# -- elements ------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["out.pth", "out.safetensors"])
@pytest.mark.parametrize(
    ("word", "dtype"),
    [
        ("bf16", torch.bfloat16),
        ("fp16", torch.float16),
        ("fp32", torch.float32),
        ("float8_e4m3fn", torch.float8_e4m3fn),
    ],
)
def test_dtypes(modtool: Modtool, word: str, dtype: torch.dtype, output: str) -> None:
    state = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).state_dict()
    torch.save(state, "in.pth")
    assert modtool("convert", "in.pth", "--dtype", word, "-o", output, "--verify").code == 0
    same(
        load(output),
        {
            name: tensor.to(dtype) if tensor.is_floating_point() else tensor
            for name, tensor in state.items()
        },
    )


@pytest.mark.parametrize(
    ("word", "large", "lost", "remedy"),
    [
        ("fp16", [65504.0, -65519.0, 65520.0, math.inf, math.nan], 1, "cast to bf16, or "),
        ("bf16", [3e38, 3.3895314e38, -3.4028235e38, 7e4, -math.inf], 1, ""),
        ("float8_e4m3fn", [448.0, -464.0, 465.0, -1e9, math.nan], 2, ""),
        ("float8_e5m2", [57344.0, -61439.0, 61440.0, 1e9, 0.0], 2, ""),
        ("float8_e4m3fnuz", [240.0, -247.0, 248.0, -1e9, 0.0], 2, ""),
    ],
)
def test_finite_values_that_a_cast_has_no_place_for(
    modtool: Modtool, word: str, large: list[float], lost: int, remedy: str
) -> None:
    torch.save({"a": torch.tensor(large), "b": torch.ones(3)}, "in.pth")
    ran = modtool("convert", "in.pth", "--dtype", word, "-o", "out.pth")
    dtype = str(load("out.pth")["a"].dtype).removeprefix("torch.")
    assert (ran.code, ran.err) == (
        0,
        "warning: cast-overflow: a: finite values beyond the range of "
        f"{dtype} are lost: a ({lost} of 5)\n"
        f"  {remedy}leave such tensors as they are: --dtype-for 'a=float32'\n",
    )


@pytest.mark.parametrize("output", ["out.pth", "out.safetensors", "out/"])
def test_each_tensor_is_counted_by_itself(modtool: Modtool, output: str) -> None:
    both = torch.zeros(700_000)
    both[3], both[400_000:400_005] = 1e5, -1e6
    saved = {"net": {"x": both[:9], "y": both[9:], "z": torch.full((2, 3), 1e9).T}, "epoch": 1}
    torch.save(saved, "in.pth")
    ran = modtool("convert", "in.pth", "--dtype", "fp16", "-o", output, "--verify", "--json")
    found = json.loads(ran.out)
    assert found["overflows"] == [
        {"name": "x", "dtype": "float16", "elements": 1},
        {"name": "y", "dtype": "float16", "elements": 5},
        {"name": "z", "dtype": "float16", "elements": 6},
    ]
    assert [note["message"] for note in found["notes"] if note["code"] == "cast-overflow"] == [
        "finite values beyond the range of float16 are lost: "
        "x (1 of 9), y (5 of 699,991), z (6 of 6)"
    ]


def test_what_is_lost_of_a_file_that_is_replaced(modtool: Modtool) -> None:
    save_file({"a": torch.tensor([1e5, 1.0])}, "x.safetensors")
    ran = modtool("convert", "x.safetensors", "--in-place", "--dtype", "fp16", "--json")
    found = json.loads(ran.out)
    assert found["overflows"] == [{"name": "a", "dtype": "float16", "elements": 1}]


def test_a_wider_type_loses_nothing(modtool: Modtool) -> None:
    torch.save({"a": torch.tensor([65504.0, math.inf, math.nan]).half()}, "in.pth")
    ran = modtool("convert", "in.pth", "--dtype", "bf16", "-o", "out.pth")
    assert (ran.code, ran.err) == (0, "")


def test_a_dtype_for_some(modtool: Modtool) -> None:
    torch.save(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), "in.pth")
    rules = ("--dtype-for", "type:BatchNorm1d=fp32", "--dtype-for", "*.bias=fp64")
    assert modtool("convert", "in.pth", "--dtype", "bf16", *rules, "-o", "out.pth").code == 0
    assert {name: tensor.dtype for name, tensor in load("out.pth").items()} == {
        "0.weight": torch.bfloat16,
        "0.bias": torch.float64,
        "1.weight": torch.float32,
        "1.bias": torch.float64,
        "1.running_mean": torch.float32,
        "1.running_var": torch.float32,
        "1.num_batches_tracked": torch.int64,
    }


def test_tied(modtool: Modtool) -> None:
    torch.save(Net(), "net.pth")
    ran = modtool("convert", "net.pth", "-o", "kept.safetensors")
    said = "stored once, as embed.weight; load_model restores it"
    assert ran.err == f"note: tied-stored-once: head.weight: {said}\n"
    ran = modtool("convert", "net.pth", "-o", "set/", "--max-shard-size", "100B")
    said = (
        "stored once, as embed.weight; load_state_dict of a model that ties them needs strict=False"
    )
    assert ran.err == f"note: tied-stored-once: head.weight: {said}\n"
    fresh = Net()
    nn.init.zeros_(fresh.embed.weight)
    missing, unexpected = safetensors.torch.load_model(fresh, "kept.safetensors")
    assert not missing
    assert not unexpected
    same(fresh.state_dict(), Net().state_dict())
    cloned = modtool("convert", "net.pth", "-o", "cloned.safetensors", "--tied", "clone")
    assert cloned.err == ""
    same(load("cloned.safetensors"), Net().state_dict())
    assert modtool("convert", "kept.safetensors", "-o", "back.pth").code == 0
    back = load("back.pth")
    assert back["embed.weight"].data_ptr() == back["head.weight"].data_ptr()


def test_shrink(modtool: Modtool) -> None:
    torch.save({"part": torch.arange(100_000.0)[10:20]}, "in.pth")
    modtool("convert", "in.pth", "-o", "whole.pth")
    modtool("convert", "in.pth", "-o", "small.pth", "--shrink")
    assert os.path.getsize("whole.pth") > 400_000
    assert os.path.getsize("small.pth") < 3_000
    same(load("small.pth"), {"part": torch.arange(10.0, 20.0)})


def test_the_optimizer_is_dropped(modtool: Modtool) -> None:
    torch.save(training(), "in.pth")
    options = ("--to", "checkpoint", "--drop-optimizer", "--set", "epoch=4", "-o", "out.pth")
    found = document(modtool("convert", "in.pth", *options, "--json"))
    why = "the optimizer's state, dropped as asked"
    assert found["dropped"] == [{"name": "optimizer", "why": why}]
    made = torch.load("out.pth", weights_only=True)
    assert list(made) == ["epoch", "model"]
    assert made["epoch"] == 4


def test_keep_drop_and_where(modtool: Modtool) -> None:
    torch.save(Net(), "in.pth")
    options = ("--keep", "norm", "--drop", "*.running_*", "--map-location", "cuda:1")
    assert modtool("convert", "in.pth", *options, "-o", "out.pth").code == 0
    with open("out.pth", "rb") as file:
        assert b"cuda:1" in file.read()
    found = torch.load("out.pth", weights_only=True, map_location="cpu")
    assert sorted(found) == ["norm.bias", "norm.num_batches_tracked", "norm.weight"]


# -- sets of files -------------------------------------------------------------------------------


def large() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    made = {f"layers.{index}.w": torch.randn(100, 10) for index in range(10)}
    made["tied"] = made["layers.3.w"]
    made["count"] = torch.tensor(3)
    return made


@pytest.mark.parametrize("to", ["safetensors", "state_dict"])
def test_to_shards_and_back(modtool: Modtool, to: str) -> None:
    torch.save(large(), "in.pth")
    options = ("--to", to, "--max-shard-size", "12KB", "-o", "set", "--verify")
    ran = modtool("convert", "in.pth", *options)
    stem, suffix = ("model", ".safetensors") if to == "safetensors" else ("pytorch_model", ".bin")
    files = [f"{stem}-{index:05d}-of-00004{suffix}" for index in range(1, 5)]
    index = f"{stem}{suffix}.index.json"
    assert ran.out.splitlines()[-5:] == [f"set/{name}" for name in (*files, index)]
    assert sorted(os.listdir("set")) == sorted([*files, index])
    found = json.loads(Path(f"set/{index}").read_text())
    assert found["metadata"] == {"total_size": 40_008}
    parts = {name: load(f"set/{name}") for name in files}
    assert found["weight_map"] == {name: file for file in files for name in parts[file]}
    merged = {name: tensor for part in parts.values() for name, tensor in part.items()}
    expected = large()
    if to == "safetensors":
        del expected["tied"]
    same(merged, expected)
    for target in ("set", f"set/{index}"):
        back = modtool("convert", target, "-o", "back.pth", "--verify", "--force")
        assert back.code == 0
        same(load("back.pth"), large())


def test_transformers_reads_the_set(modtool: Modtool) -> None:
    from transformers.modeling_utils import load_state_dict as load_shard

    torch.save(large(), "in.pth")
    assert modtool("convert", "in.pth", "--max-shard-size", "12KB", "-o", "set/").code == 0
    weight_map = json.loads(Path("set/model.safetensors.index.json").read_text())["weight_map"]
    for name, file in weight_map.items():
        assert torch.equal(load_shard(f"set/{file}", map_location="cpu")[name], large()[name])


def test_a_suffix_in_capitals_means_what_it_says(modtool: Modtool) -> None:
    saved = {"w": torch.ones(3)}
    torch.save(saved, "in.pth")
    assert modtool("convert", "in.pth", "-o", "OUT.SAFETENSORS").code == 0
    same(safetensors.torch.load_file("OUT.SAFETENSORS"), saved)


def test_a_set_of_one_is_a_file(modtool: Modtool) -> None:
    torch.save(large(), "in.pth")
    assert modtool("convert", "in.pth", "--max-shard-size", "1GB", "-o", "set/").code == 0
    assert os.listdir("set") == ["model.safetensors"]


def test_beside_a_file_name(modtool: Modtool) -> None:
    torch.save(large(), "in.pth")
    assert modtool("convert", "in.pth", "--max-shard-size", "30KB", "-o", "x.safetensors").code == 0
    assert sorted(os.listdir()) == [
        "in.pth",
        "x-00001-of-00002.safetensors",
        "x-00002-of-00002.safetensors",
        "x.safetensors.index.json",
    ]
    again = modtool("convert", "in.pth", "--max-shard-size", "30KB", "-o", "x.safetensors")
    assert again.err.endswith("exists already\n  --force replaces it\n")


def test_a_set_is_not_converted_in_part(modtool: Modtool) -> None:
    torch.save(large(), "in.pth")
    modtool("convert", "in.pth", "--max-shard-size", "12KB", "-o", "set/")
    os.unlink("set/model-00002-of-00004.safetensors")
    ran = modtool("convert", "set", "-o", "back.pth")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: set is not complete: model-00002-of-00004")
    assert ran.err.count("\n") == 2


@pytest.mark.parametrize("to", ["safetensors", "state_dict"])
def test_what_a_set_without_one_of_its_files_holds_is_salvaged(modtool: Modtool, to: str) -> None:
    torch.save(large(), "in.pth")
    modtool("convert", "in.pth", "--to", to, "--max-shard-size", "12KB", "-o", "set/")
    (gone,) = (name for name in os.listdir("set") if "-00002-of-" in name)
    lost = load(f"set/{gone}")
    os.unlink(f"set/{gone}")
    ran = modtool("convert", "set", "-o", "back.pth")
    assert ran.code == 2
    assert ran.err.endswith("beside the others; --salvage writes what the others hold\n")
    ran = modtool("convert", "set", "-o", "back.pth", "--salvage", "--json")
    assert ran.code == 1
    why = f"lost: {gone} is not there"
    assert json.loads(ran.out)["dropped"] == [{"name": name, "why": why} for name in lost]
    (index,) = Path("set").glob("*.index.json")
    back, whole = load("back.pth"), large()
    assert back.keys() == json.loads(index.read_text())["weight_map"].keys() - lost.keys()
    assert all(torch.equal(back[name], whole[name]) for name in back)


def test_nobody_knows_what_a_file_without_an_index_held(modtool: Modtool) -> None:
    torch.save(large(), "in.pth")
    modtool("convert", "in.pth", "--max-shard-size", "12KB", "-o", "set/")
    os.unlink("set/model-00002-of-00004.safetensors")
    os.unlink("set/model.safetensors.index.json")
    ran = modtool("convert", "set", "-o", "back.pth", "--salvage")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.endswith("nothing is converted in part\n")


@pytest.mark.parametrize("size", ["12KB", "30KB", "1GB"])
def test_a_set_onto_its_own_source(modtool: Modtool, size: str) -> None:
    torch.save(large(), "in.pth")
    modtool("convert", "in.pth", "--max-shard-size", "12KB", "-o", "set/")
    before = {name: Path(f"set/{name}").read_bytes() for name in os.listdir("set")}
    ran = modtool("convert", "set", "--max-shard-size", size, "-o", "set/", "--force")
    assert ran.code == 2
    assert "is a part of the source itself\n  write to another folder\n" in ran.err
    assert {name: Path(f"set/{name}").read_bytes() for name in os.listdir("set")} == before


def test_a_file_takes_the_place_of_an_older_set(modtool: Modtool) -> None:
    torch.save(large(), "in.pth")
    modtool("convert", "in.pth", "--max-shard-size", "12KB", "-o", "set/")
    Path("set/config.json").write_text("{}")
    refused = modtool("convert", "in.pth", "-o", "set/")
    assert refused.err.startswith("error: set/model.safetensors.index.json exists already\n")
    assert modtool("convert", "in.pth", "-o", "set/", "--force").code == 0
    assert sorted(os.listdir("set")) == ["config.json", "model.safetensors"]


# -- safety --------------------------------------------------------------------------------------


def test_in_place(modtool: Modtool) -> None:
    torch.save(training(), "ckpt.pth")
    before = torch.load("ckpt.pth", weights_only=True)
    refused = modtool("convert", "ckpt.pth", "-o", "ckpt.pth", "--force")
    said = (
        "error: ckpt.pth is the source itself\n"
        "  name another file; only convert replaces its source, with --in-place\n"
    )
    assert refused == Ran(2, "", said)
    assert modtool("convert", "ckpt.pth", "--in-place", "--verify").code == 0
    after = torch.load("ckpt.pth", weights_only=True)
    same(after["model"], before["model"])
    assert (after.keys(), after["epoch"]) == (before.keys(), before["epoch"])
    assert modtool("convert", "ckpt.pth", "--in-place", "--drop-optimizer").code == 0
    assert load("ckpt.pth").keys() == before.keys() - {"optimizer"}
    assert modtool("convert", "ckpt.pth", "--in-place", "--to", "state_dict").code == 0
    same(load("ckpt.pth"), before["model"])
    assert os.listdir() == ["ckpt.pth"]


def test_in_place_safetensors_stay_safetensors(modtool: Modtool) -> None:
    save_file({"a": torch.ones(3)}, "x.safetensors")
    assert modtool("convert", "x.safetensors", "--in-place", "--dtype", "fp16").code == 0
    assert torch.equal(load_file("x.safetensors")["a"], torch.ones(3, dtype=torch.float16))


@pytest.mark.parametrize("empty", [nn.ReLU().state_dict(), {}])
def test_the_state_of_a_module_without_parameters(modtool: Modtool, empty: object) -> None:
    torch.save(empty, "in.pth")
    for output in ("out.pth", "out.safetensors"):
        ran = modtool("convert", "in.pth", "-o", output, "--verify")
        assert (ran.code, ran.err) == (0, "")
        assert load(output) == {}
    written = torch.load("out.pth")
    assert type(written) is type(empty)
    assert getattr(written, "_metadata", None) == getattr(empty, "_metadata", None)
    assert modtool("convert", "out.safetensors", "-o", "back.pth").code == 0
    assert torch.load("back.pth") == {}


def test_verify_says_so(modtool: Modtool) -> None:
    torch.save(training(), "ckpt.pth")
    ran = modtool("convert", "ckpt.pth", "--to", "checkpoint", "--verify")
    assert "read back and compared: all 19 tensors are as they should be" in ran.out.splitlines()
    found = document(modtool("convert", "ckpt.pth", "--verify", "--json", "-o", "x.safetensors"))
    assert found["verified"] is True


# -- far into a sparse file ----------------------------------------------------------------------


def test_far_into_a_sparse_file(modtool: Modtool) -> None:
    begin = 5 << 30
    header = {
        "hole": {"dtype": "U8", "shape": [begin], "data_offsets": [0, begin]},
        "far": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, begin + 24]},
    }
    text = json.dumps(header).encode()
    values = torch.randn(2, 3)
    with open("in.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + begin)
        file.seek(0, os.SEEK_END)
        file.write(bytes(values.view(torch.uint8).flatten().tolist()))
    options = ("--drop", "hole", "--verify")
    for output in ("out.pth", "out.safetensors"):
        assert modtool("convert", "in.safetensors", *options, "-o", output).code == 0
        same(load(output), {"far": values})


# -- wrong inputs --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere.pth",), "nowhere.pth: no such file or directory"),
        (("text.txt",), "text.txt: a text file, not a checkpoint"),
        (("empty.pth",), "empty.pth: an empty file"),
        (("cut.pth",), "cut.pth: truncated"),
        (("net.py",), "net.py is a model definition, and convert takes checkpoints"),
        (("in.pth", "--to", "onnx"), "Invalid value for '--to'"),
        (("in.pth", "--section", "ema"), "in.pth has no section 'ema'"),
        (("in.pth", "--keep", "nose"), "no name matches 'nose'"),
        (("in.pth", "--drop", "*"), "nothing is left of the model"),
        (
            ("in.pth", "--drop", "re:("),
            "'re:(' is no regular expression: missing ), unterminated subpattern at position 0\n"
            "  write \\( \\[ \\* \\. and such for those that are meant as they stand\n",
        ),
        (
            ("in.pth", "--rename", r"re:^n(o)=\2"),
            r"'\\2' cannot take the place of '^n(o)': invalid group reference 2 at position 1"
            "\n  \\1 is its first (group), of which it has 1; \\\\ is a backslash\n",
        ),
        (("in.pth", "-o"), "Option '-o' requires an argument.\n  try: modtool convert --help\n"),
        (("in.pth", "--strip-prefix", "module."), "no name begins with 'module.'"),
        (("in.pth", "--rename", "nose"), "'nose' is no renaming"),
        (("in.pth", "--rename", "nose=ear"), "--rename nose=ear: it changes no name"),
        (
            ("in.pth", "--rename", "norm=*"),
            "norm=*: '*' has more stars than 'norm'\n  a star of NEW is what that of OLD matched\n",
        ),
        (("in.pth", "--dtype", "int8"), "'int8' is no floating-point dtype"),
        (("in.pth", "--dtype-for", "fp32"), "--dtype-for 'fp32' casts nothing\n  write PATTERN="),
        (
            ("in.pth", "--dtype-for", "norm.num_batches_tracked=fp32"),
            "'norm.num_batches_tracked' selects nothing that can be cast: "
            "norm.num_batches_tracked is of type int64\n  name another one, such as embed.weight\n",
        ),
        (
            ("sparse.pth", "--dtype", "fp16"),
            "s: a sparse_coo tensor cannot be cast\n  leave it as it is: --dtype-for 's=float32'\n",
        ),
        (("in.pth", "--dtype-for", "nose=fp32"), "no name matches 'nose'"),
        (("in.pth", "--max-shard-size", "big"), "'big' is no size"),
        (("in.pth", "--max-shard-size", "0"), "'0' is no size"),
        (("in.pth", "--to", "checkpoint", "--max-shard-size", "1GB"), "a checkpoint is one file"),
        (("in.pth", "--tied", "cut"), "Invalid value for '--tied'"),
        (("in.pth", "--set", "epoch=3"), "a state_dict has no place for 'epoch'"),
        (("in.pth", "--to", "checkpoint", "--set", "epoch"), "--set 'epoch' sets nothing"),
        (
            ("in.pth", "--map-location", "cpu", "--map-location", "a=b"),
            "--map-location cpu is for all tensors, and stands alone\n"
            "  leave out the others, or write OLD=NEW for each, such as cuda:0=cpu\n",
        ),
        (
            ("in.pth", "--map-location", "=cpu"),
            "--map-location: no tensor is on ''\n  they are on cpu\n",
        ),
        (
            ("in.pth", "--to", "dcp", "--in-place"),
            "a distributed checkpoint is a folder of its own, with one large file\n"
            "  leave out --max-shard-size and --in-place\n",
        ),
        (("in.pth", "-o", "folder/none/x.pth"), "folder/none/x.pth: there is no folder"),
        (("in.pth", "-o", "folder", "--in-place"), "--in-place replaces one file by one file"),
        (("in.pth", "-o", "text.txt"), "text.txt exists already"),
        (("odd.pth", "--to", "safetensors"), "z: safetensors has no complex128 tensors"),
        (("sparse.pth", "--to", "safetensors"), "s: safetensors has no sparse_coo tensors"),
        (("in.pth", "more.pth"), "Got unexpected extra argument"),
        (("in.pth", "--nonsense"), "No such option"),
        (
            ("in.pth", "--set", "epoch=3", "-o", "x.safetensors"),
            "epoch: the metadata of safetensors holds text, not 3\n"
            "  quotes make it text: --set \"epoch='3'\"",
        ),
        (("in.pth", "-o", ""), "-o: an empty name"),
        (
            ("in.pth", "-o", "-"),
            "-o -: a checkpoint needs a file\n  name one; ./- is a file of that",
        ),
        (
            ("in.pth", "-o", "/proc/x.pth"),
            "/proc/x.pth was not written: nothing can be put there\n  write elsewhere\n",
        ),
        (
            ("in.pth", "-o", "/proc/x/"),
            "/proc/x was not written: nothing can be put there\n  write elsewhere\n",
        ),
        (
            ("in.pth", "-o", "loop"),
            "loop was not written: it is a link that leads back to itself\n  name another file\n",
        ),
        (
            ("in.pth", "-o", "text.txt/x/"),
            "text.txt is no folder\n  name a folder, or another file\n",
        ),
        (("in.pth", "-o", "x.gguf"), "x.gguf: files of this kind are not written"),
        (("in.pth", "-o", "x.pth", "--to", "safetensors"), "x.pth: its name does not fit --to"),
        (("in.pth", "--in-place", "--to", "safetensors"), "in.pth: its name does not fit --to"),
        (("in.pth", "--in-place", "-o", "x.pth"), "--in-place replaces the source and writes no"),
        (("in.pth", "--map-location", "gpu"), "--map-location: 'gpu' is no device"),
        (
            ("in.pth", "--map-location", "meta"),
            "--map-location: tensors on meta have no elements, and all values would be lost\n"
            "  name a device that has memory, such as cpu\n",
        ),
        (("in.pth", "--map-location", "cuda:0=cpu"), "--map-location: no tensor is on cuda:0"),
        ((), "Missing argument 'CKPT'"),
    ],
)
def test_wrong_inputs(modtool: Modtool, arguments: tuple[str, ...], said: str) -> None:
    torch.save(Net().state_dict(), "in.pth")
    torch.save({"z": torch.zeros(1, dtype=torch.complex128)}, "odd.pth")
    torch.save({"s": torch.eye(2).to_sparse()}, "sparse.pth")
    Path("text.txt").write_text("hello\n")
    Path("empty.pth").write_bytes(b"")
    Path("cut.pth").write_bytes(Path("in.pth").read_bytes()[:500])
    Path("net.py").write_text("import torch\n")
    Path("folder").mkdir()
    Path("loop").symlink_to("loop")
    before = sorted(os.listdir())
    ran = modtool("convert", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {said}"), ran.err
    assert ran.err.count("\n") <= 2
    assert sorted(os.listdir()) == before


def test_an_optimizer_without_tensors_is_dropped(modtool: Modtool) -> None:
    net = nn.Linear(2, 2)
    sgd = torch.optim.SGD(net.parameters(), lr=1.0)
    torch.save({"epoch": 1, "model": net.state_dict(), "sgd": sgd.state_dict()}, "in.pth")
    options = ("--to", "checkpoint", "--drop-optimizer", "-o", "x.pth", "--json")
    assert document(modtool("convert", "in.pth", *options))["dropped"] == [
        {"name": "sgd", "why": "the optimizer's state, dropped as asked"}
    ]
    assert sorted(torch.load("x.pth", weights_only=True)) == ["epoch", "model"]


def test_optimizers_are_dropped_at_any_depth(modtool: Modtool) -> None:
    net = nn.Linear(2, 2)
    sgd, adam = torch.optim.SGD(net.parameters(), lr=1.0), torch.optim.Adam(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    adam.step()
    both = [adam.state_dict(), sgd.state_dict()]
    part = {"optimizer": sgd.state_dict(), "step": 5}
    torch.save({"model": net.state_dict(), "opts": both, "train": part, "again": both[1]}, "in.pth")
    options = ("--to", "checkpoint", "--drop-optimizer", "-o", "x.pth", "--verify", "--json")
    found = document(modtool("convert", "in.pth", *options))
    assert (found["tensors"], found["dropped"]) == (
        2,
        [
            {"name": name, "why": "the optimizer's state, dropped as asked"}
            for name in ("opts.0", "opts.1", "again", "train.optimizer")
        ],
    )
    left = torch.load("x.pth", weights_only=True)
    assert (left.pop("opts"), left.pop("train")) == ([None, None], {"step": 5})
    same(left.pop("model"), net.state_dict())
    assert left == {}


@pytest.mark.parametrize("kind", [list, tuple])
def test_parts_of_a_list_by_their_position(modtool: Modtool, kind: type) -> None:
    saved = training()
    torch.save(kind([saved["model"], saved["optimizer"]]), "in.pth")
    options = ("--to", "checkpoint", "--drop-optimizer", "-o", "x.pth", "--json")
    assert document(modtool("convert", "in.pth", *options))["dropped"] == [
        {"name": "1", "why": "the optimizer's state, dropped as asked"}
    ]
    model, nothing = torch.load("x.pth", weights_only=True)
    same(model, saved["model"])  # type: ignore[arg-type]
    assert nothing is None
    assert modtool("convert", "in.pth", "--section", "0", "-o", "y.safetensors").code == 0
    same(load("y.safetensors"), saved["model"])  # type: ignore[arg-type]


def test_values_are_set_at_any_depth(modtool: Modtool) -> None:
    torch.save(training(), "ckpt.pth")
    values = ("epoch=4", "optimizer.param_groups.0.lr=0.5", "args.name=best of all", "3rd=[1, 2]")
    options = [word for value in values for word in ("--set", value)]
    assert modtool("convert", "ckpt.pth", "--to", "checkpoint", "-o", "x.pth", *options).code == 0
    found = torch.load("x.pth", weights_only=True)
    assert found["epoch"] == 4
    assert found["optimizer"]["param_groups"][0]["lr"] == 0.5
    assert found["optimizer"]["param_groups"][0]["betas"] == (0.9, 0.999)
    assert (found["args.name"], found["3rd"]) == ("best of all", [1, 2])


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("model", "'model' holds tensors; a value cannot take its place\n  name another key"),
        (
            "model.0.weight",
            "'model.0.weight' holds tensors; a value cannot take its place\n  name ",
        ),
        ("model.first.bias", "'model.first.bias' holds tensors; a value cannot take its place\n  "),
        ("optimizer.state", "'optimizer.state' holds tensors; a value cannot take its place\n  n"),
        (
            "optimizer.param_groups.7.lr",
            "'optimizer.param_groups.7.lr': optimizer.param_groups is a list without such an item\n"
            "  it has items 0 to 0\n",
        ),
        ("epoch.x", "'epoch.x': epoch is no dict or list\n  set epoch itself, or another key\n"),
    ],
)
def test_a_value_takes_the_place_of_no_tensor(modtool: Modtool, key: str, said: str) -> None:
    torch.save(training(), "ckpt.pth")
    options = ("--to", "checkpoint", "--rename", "0=first", "--set", f"{key}=1", "-o", "x.pth")
    ran = modtool("convert", "ckpt.pth", *options)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {said}"), ran.err


def test_items_of_lists_are_set(modtool: Modtool) -> None:
    torch.save({"model": nn.Linear(2, 2).state_dict(), "history": [1, 2], "at": (3, 4)}, "in.pth")
    options = ("--to", "checkpoint", "--set", "history.0=5", "--set", "at.1=[6]", "-o", "x.pth")
    assert modtool("convert", "in.pth", *options).code == 0
    found = torch.load("x.pth", weights_only=True)
    assert (found["history"], found["at"]) == ([5, 2], (3, [6]))


def test_many_that_are_left_out_are_told_of_together(modtool: Modtool) -> None:
    torch.save({f"{index}.w": torch.ones(1) for index in range(30)}, "in.pth")
    ran = modtool("convert", "in.pth", "--keep", "[0-4].w", "-o", "out.pth")
    assert ran.out.splitlines()[:2] == [
        "kept 5 of 30 tensors",
        "left out 5.w, 6.w, 7.w and 22 more: not among those to keep (--json names all)",
    ]
    options = ("--drop", "3.w", "--drop", "4.w", "--keep", "[0-4].w")
    ran = modtool("convert", "in.pth", *options, "-o", "y.pth")
    assert ran.out.splitlines()[:3] == [
        "kept 3 of 30 tensors",
        "left out 5.w, 6.w, 7.w and 22 more: not among those to keep (--json names all)",
        "left out 3.w, 4.w: dropped as asked",
    ]
    found = document(modtool("convert", "in.pth", "--keep", "[0-4].w", "-o", "x.pth", "--json"))
    assert len(found["dropped"]) == 25  # type: ignore[arg-type]
