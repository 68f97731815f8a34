"""What the elements of tensors are like: against torch, tensor by tensor."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modtool.checks.values import Facts
from modtool.formats import open_checkpoint
from modtool.live.compute import Scratch
from modtool.live.scanning import facts_of, scan

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
WHOLE = [torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64]


def facts(*values: float, dtype: torch.dtype = torch.float32) -> Facts:
    return facts_of(torch.tensor(values, dtype=dtype), Scratch())


@pytest.mark.parametrize("dtype", FLOATS)
@given(st.lists(st.floats(width=16), min_size=1, max_size=20))
def test_floats_are_counted_as_torch_has_them(dtype: torch.dtype, numbers: list[float]) -> None:
    values = torch.tensor(numbers, dtype=dtype)
    fine = [float(each) for each in values if math.isfinite(each)]
    tiny = torch.finfo(dtype).tiny
    found = facts_of(values, Scratch())
    assert (found.numel, found.nan, found.infinite) == (
        len(values),
        int(values.isnan().sum()),
        int(values.isinf().sum()),
    )
    assert found.subnormal == sum(0 < abs(each) < tiny for each in fine)
    assert found.least == min(fine, default=None)
    assert found.greatest == max(fine, default=None)


@pytest.mark.parametrize("dtype", WHOLE)
def test_whole_numbers_are_exact(dtype: torch.dtype) -> None:
    limits = torch.iinfo(dtype)
    values = torch.tensor([limits.max, limits.min, limits.max - 1], dtype=dtype)
    found = facts_of(values, Scratch())
    assert (found.least, found.greatest) == (limits.min, limits.max)


def test_a_constant_is_told_apart_from_what_comes_near() -> None:
    assert facts(0.5, 0.5).constant == 0.5
    assert facts(0.0, -0.0).constant == 0
    assert facts(0.5, math.nextafter(0.5, 1), dtype=torch.float64).constant is None
    assert facts(0.5).constant is None
    assert facts(0.5, 0.5, math.nan).constant is None
    assert facts(2**60, 2**60 + 1, dtype=torch.int64).constant is None


def test_complex_numbers_are_odd_once() -> None:
    values = torch.tensor([complex(math.nan, math.nan), complex(math.inf, 0), 1 + 2j])
    found = facts_of(values, Scratch())
    assert (found.numel, found.nan, found.infinite) == (3, 1, 1)
    assert (found.least, found.greatest) == (0, 2)


@given(st.integers(0, 20))
def test_the_facts_of_parts_add_up(at: int) -> None:
    values = torch.cat((torch.randn(18), torch.tensor([math.nan, math.inf])))
    parts = facts_of(values[:at], Scratch()) + facts_of(values[at:], Scratch())
    assert parts == facts_of(values, Scratch())


def test_what_repeats_without_end_is_read_once_or_not_at_all(tmp_path: Path) -> None:
    row = torch.tensor([1.0, math.nan])
    state = {
        "expanded": row.expand(10**12, 2),
        "windows": torch.arange(9.0).as_strided((4, 6), (1, 1)),
    }
    torch.save(state, tmp_path / "x.pth")
    tensors = open_checkpoint(str(tmp_path / "x.pth")).tensors
    count, bits = 10**12, scan_print(row)
    assert scan(tensors) == {0: Facts(2 * count, nan=count, least=1, greatest=1, fingerprint=bits)}


def scan_print(values: torch.Tensor) -> int:
    return facts_of(values, Scratch()).fingerprint


def test_a_file_is_read_whatever_its_layout(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weight = torch.randn(700, 500)
    weight[3, 4] = math.nan
    state = {
        "plain": weight,
        "tied": weight,
        "transposed": weight.t(),
        "slice": weight[::2, 1:],
        "copy": weight.t().contiguous().t(),
        "conjugate": torch.tensor([1 + 2j]).conj(),
        "empty": torch.zeros(0, 3),
        "sparse": torch.eye(3).to_sparse(),
    }
    torch.save(state, tmp_path / "x.pth")
    tensors = open_checkpoint(str(tmp_path / "x.pth")).tensors
    found = {tensors[index].name: made for index, made in scan(tensors).items()}
    assert set(found) == set(state) - {"sparse"}
    assert found["plain"] == found["tied"] == found["transposed"] == found["copy"]
    assert (found["plain"].numel, found["plain"].nan) == (350_000, 1)
    assert found["slice"].nan == 0  # 3 is odd
    assert found["slice"].least == float(weight[::2, 1:].amin())
    assert (found["conjugate"].least, found["conjugate"].greatest) == (-2, 1)
    assert found["empty"] == Facts()
