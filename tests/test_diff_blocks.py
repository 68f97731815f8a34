"""Tensors stored in blocks: distributed checkpoints beside other files and other splits."""

from itertools import pairwise, product
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed.checkpoint.state_dict_saver import save

from modtool.api.diffing import diff
from modtool.diffs import compare_bytes
from modtool.formats.dcp_values import MAX_READ, MAX_SMALL
from modtool.live.comparing import measure
from modtool.records import Chunk, Storage, TensorInfo


def in_blocks(value: torch.Tensor, rows: list[int], columns: list[int]) -> TensorInfo:
    """A matrix cut at some rows and columns, each block with bytes of its own."""
    chunks = []
    edges = [
        sorted({0, size, *cuts}) for size, cuts in zip(value.shape, (rows, columns), strict=True)
    ]
    for index, ((top, bottom), (left, right)) in enumerate(product(*map(pairwise, edges))):
        block = value[top:bottom, left:right].contiguous()
        data = memoryview(block.numpy().tobytes())
        storage = Storage(str(index), data.nbytes, data=data)
        chunks.append(Chunk((top, left), tuple(block.shape), storage))
    return TensorInfo("x", "float32", tuple(value.shape), chunks=tuple(chunks))


def whole(value: torch.Tensor) -> TensorInfo:
    data = memoryview(value.numpy().tobytes())
    return TensorInfo("x", "float32", tuple(value.shape), Storage("0", data.nbytes, data=data))


CUTS = st.lists(st.integers(1, 5), max_size=3)


@settings(max_examples=40, deadline=None)
@given(a=st.tuples(CUTS, CUTS), b=st.tuples(CUTS, CUTS), place=st.integers(0, 35))
def test_any_split_is_compared_with_any_other(
    a: tuple[list[int], list[int]], b: tuple[list[int], list[int]], place: int
) -> None:
    value = torch.arange(36.0).reshape(6, 6)
    changed = value.clone()
    changed.view(-1)[place] += 0.5
    for other in (in_blocks(value, *b), whole(value)):
        (equal,) = compare_bytes([(in_blocks(value, *a), other)])
        (far,) = measure([(in_blocks(value, *a), other)])
        assert equal is not False
        assert far is not None
        assert (far.identical, far.max_abs) == (True, 0.0)
    (equal,) = compare_bytes([(in_blocks(value, *a), in_blocks(changed, *b))])
    (far,) = measure([(in_blocks(value, *a), in_blocks(changed, *b))])
    assert equal is not True
    assert far is not None
    assert (far.identical, far.max_abs) == (False, 0.5)
    assert far.square_a == pytest.approx(float(value.square().sum()))


def test_a_distributed_checkpoint_beside_a_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = {"w": torch.randn(5, 4), "b": torch.randn(3)}
    with pytest.warns(UserWarning, match="assuming the intent is to save in a single process"):
        save(state, checkpoint_id=tmp_path / "dcp", no_dist=True)
    torch.save(state, tmp_path / "x.pth")
    assert diff(tmp_path / "dcp", tmp_path / "x.pth").same
    state["w"][2, 2] += 1
    torch.save(state, tmp_path / "y.pth")
    found = diff(tmp_path / "dcp", tmp_path / "y.pth")
    assert {pair.name: pair.verdict for pair in found.pairs} == {"w": "different", "b": "equal"}


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_all_values_of_a_distributed_checkpoint_are_compared(tmp_path: Path) -> None:
    large: dict[str, object] = {"ema": (torch.randn(10_000), 0.5), "text": "x" * MAX_SMALL}
    many: dict[str, object] = {f"value {number}": number for number in range(MAX_READ + 1)}
    state = {"model": {"w": torch.ones(2)}, **large, **many}
    save(state, checkpoint_id=tmp_path / "dcp", no_dist=True)
    torch.save(state, tmp_path / "x.pth")
    assert diff(tmp_path / "dcp", tmp_path / "x.pth").same
    torch.save({**state, f"value {MAX_READ}": -1}, tmp_path / "y.pth")
    found = diff(tmp_path / "dcp", tmp_path / "y.pth")
    assert [(each.name, each.a, each.b) for each in found.values] == [
        (f"value {MAX_READ}", MAX_READ, -1)
    ]
