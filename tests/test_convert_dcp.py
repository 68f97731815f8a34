"""Distributed checkpoints, put together block by block."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modtool.records import Chunk, FileRange, Storage, TensorInfo
from modtool.write.assembling import assembled, regions
from modtool.write.streams import Sources
from tests.conftest import Ran
from tests.formats.dcp_ranks import tensors

Modtool = Callable[..., Ran]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    script = Path(__file__).parent / "formats" / "dcp_ranks.py"
    subprocess.run([sys.executable, str(script), str(folder)], check=True, capture_output=True)
    return folder


def same(found: dict[str, torch.Tensor]) -> None:
    expected = tensors()
    assert sorted(found) == sorted(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("kind", ["dcp", "hf"])
def test_to_each_form(modtool: Modtool, saved: Path, kind: str) -> None:
    for output in ("out.safetensors", "out.pth"):
        assert modtool("convert", saved / kind, "-o", output, "--verify").code == 0
    same(safetensors.torch.load_file("out.safetensors"))
    same(torch.load("out.pth", weights_only=True))


def test_to_a_checkpoint_with_its_values(modtool: Modtool, saved: Path) -> None:
    ran = modtool("convert", saved / "dcp", "--to", "checkpoint", "-o", "out.pth", "--verify")
    assert ran.code == 0
    found = torch.load("out.pth", weights_only=True)
    assert found.pop("epoch") == 3
    same(found["model"])


def test_to_shards(modtool: Modtool, saved: Path) -> None:
    options = ("--max-shard-size", "150", "-o", "set/", "--verify")
    assert modtool("convert", saved / "dcp", *options).code == 0
    assert len(os.listdir("set")) > 2
    assert modtool("convert", "set", "-o", "back.pth").code == 0
    same(torch.load("back.pth", weights_only=True))


def test_a_cast(modtool: Modtool, saved: Path) -> None:
    options = ("--dtype", "fp16", "-o", "out.safetensors", "--verify")
    assert modtool("convert", saved / "dcp", *options).code == 0
    found = safetensors.torch.load_file("out.safetensors")
    assert torch.equal(found["grid"], tensors()["grid"].half())


def test_beside_the_folder(modtool: Modtool, saved: Path) -> None:
    ran = modtool("convert", f"{saved}/dcp/", "--to", "safetensors")
    assert ran.out.splitlines()[-1] == f"{saved}/dcp.safetensors"


# -- any blocks at all ---------------------------------------------------------------------------


@st.composite
def split_tensors(draw: st.DrawFn) -> tuple[torch.Tensor, list[tuple[slice, ...]]]:
    shape = tuple(draw(st.lists(st.integers(1, 6), max_size=4)))
    whole = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
    cuts = [sorted(draw(st.sets(st.integers(1, size)))) for size in shape]
    places: list[tuple[slice, ...]] = [()]
    for size, inner in zip(shape, cuts, strict=True):
        edges = [0, *(cut for cut in inner if cut < size), size]
        parts = [slice(a, b) for a, b in pairwise(edges)]
        places = [(*place, part) for place in places for part in parts]
    return whole, draw(st.permutations(places))


@given(split_tensors(), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_any_blocks(split: tuple[torch.Tensor, list[tuple[slice, ...]]], limit: int) -> None:
    whole, places = split
    descriptor, path = tempfile.mkstemp()
    chunks = []
    with open(descriptor, "wb") as file:
        for index, place in enumerate(places):
            block = whole[place].clone()
            data = bytes(block.flatten().view(torch.uint8).tolist())
            storage = Storage(str(index), len(data), data=FileRange(path, file.tell(), len(data)))
            begin = tuple(part.start for part in place)
            chunks.append(Chunk(begin, tuple(block.shape), storage))
            file.write(data)
    tensor = TensorInfo("x", "float32", tuple(whole.shape), chunks=tuple(chunks))
    try:
        assert gathered(tensor, 4 * limit) == bytes(whole.flatten().view(torch.uint8).tolist())
    finally:
        os.unlink(path)


def fresh(nbytes: int) -> memoryview:
    return memoryview(bytearray(nbytes))


def gathered(tensor: TensorInfo, limit: int) -> bytes:
    with Sources() as sources:
        return b"".join(bytes(piece) for piece in assembled(tensor, sources, fresh, limit))


@given(st.lists(st.integers(0, 9), max_size=4), st.integers(1, 30))
def test_regions_tile_a_shape_in_order(shape: list[int], limit: int) -> None:
    seen: list[int] = []
    whole = torch.arange(torch.Size(shape).numel()).reshape(shape)
    for region in regions(tuple(shape), limit):
        place = tuple(slice(a, b) for a, b in zip(region.begin, region.end, strict=True))
        part = whole[place].flatten().tolist()
        assert len(part) <= limit
        seen += part
    assert seen == whole.flatten().tolist()
