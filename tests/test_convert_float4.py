"""Numbers of four bits: torch takes two for one element, safetensors counts each."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import Ran

Modtool = Callable[..., Ran]


def pairs(*shape: int) -> torch.Tensor:
    made = torch.arange(math.prod(shape), dtype=torch.uint8).view(shape)
    return made.view(torch.float4_e2m1fn_x2)


def tensors() -> dict[str, torch.Tensor]:
    whole = pairs(4, 3)
    return {
        "whole": whole,
        "turned": pairs(2, 3).t(),
        "row": pairs(7),
        "empty": pairs(3, 0),
        "none": pairs(0, 3),
        "other": torch.ones(2, 2),
    }


def same(found: dict[str, torch.Tensor]) -> None:
    expected = tensors()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        one, other = found[name].contiguous(), tensor.contiguous()
        assert torch.equal(one.view(torch.uint8), other.view(torch.uint8)), name


@pytest.mark.parametrize("output", ["out.safetensors", "out.pth", "out/", "dcp"])
@pytest.mark.parametrize("source", ["in.pth", "in.safetensors"])
def test_the_way_there_and_back(modtool: Modtool, source: str, output: str) -> None:
    torch.save(tensors(), "in.pth")
    save_file({name: tensor.contiguous() for name, tensor in tensors().items()}, "in.safetensors")
    options = {"out/": ("--max-shard-size", "30"), "dcp": ("--to", "dcp")}.get(output, ())
    assert modtool("convert", source, "-o", output, *options, "--verify").code == 0
    assert modtool("convert", output, "-o", "back.safetensors", "--verify").code == 0
    assert modtool("convert", output, "-o", "back.pth", "--verify").code == 0
    same(load_file("back.safetensors"))
    same(torch.load("back.pth", weights_only=True))


def test_both_files_are_the_same_to_us(modtool: Modtool) -> None:
    torch.save({"w": pairs(4, 3)}, "a.pth")
    save_file({"w": pairs(4, 3)}, "b.safetensors")
    shown = [
        json.loads(modtool("summary", name, "--json").out) for name in ("a.pth", "b.safetensors")
    ]
    assert [(each["tensors"][0]["dtype"], each["tensors"][0]["shape"]) for each in shown] == [
        ("float4_e2m1fn_x2", [4, 3]),
        ("float4_e2m1fn_x2", [4, 3]),
    ]
    assert modtool("diff", "a.pth", "b.safetensors").code == 0


def test_a_scalar_is_half_a_pair(modtool: Modtool) -> None:
    torch.save({"s": pairs()}, "in.pth")
    said = (
        "error: s: safetensors has no float4_e2m1fn_x2 scalars\n"
        "  leave it out with --drop 's', or choose another form\n"
    )
    ran = modtool("convert", "in.pth", "-o", "out.safetensors")
    assert (ran.code, ran.err) == (2, said)


def test_rows_that_torch_cannot_have(modtool: Modtool) -> None:
    header = b'{"a":{"dtype":"F4","shape":[2,3],"data_offsets":[0,3]}}'
    Path("odd.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(3))
    ran = modtool("convert", "odd.safetensors", "-o", "out.pth")
    said = (
        "error: a: its elements are float4_e2m1fn, which only safetensors has\n"
        "  leave it out with --drop 'a'\n"
    )
    assert (ran.code, ran.err) == (2, said)
