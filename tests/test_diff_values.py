"""How far apart elements are, against torch and against exact arithmetic."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from modtool.api.diffing import diff
from modtool.diffs import Measure, Pair, Tolerance
from modtool.live.kernel import ELEMENTS, Kernel

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
TINY_FLOATS = [
    torch.float8_e4m3fn,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2,
    torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
]
WHOLE = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]
UNSIGNED = [torch.uint64, torch.uint32, torch.uint16]
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def elements(dtype: torch.dtype, data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(dtype)


def place_on_the_line(bits: int, width: int) -> int:
    """How many representable numbers lie between zero and the one with these bits, signed."""
    magnitude = bits & ((1 << (width - 1)) - 1)
    return -magnitude if bits >> (width - 1) else magnitude


def ulps(a: torch.Tensor, b: torch.Tensor) -> int | None:
    """By definition, in whole numbers of any size, over the places where both are finite."""
    width = a.element_size() * 8
    whole = [each.view(BITS[a.element_size()]).tolist() for each in (a, b)]
    found = [
        abs(place_on_the_line(x % 2**width, width) - place_on_the_line(y % 2**width, width))
        if a.dtype != torch.float8_e8m0fnu
        else abs(x - y)
        for x, y, fine in zip(*whole, finite(a, b), strict=True)
        if fine
    ]
    return max(found) if found else None


def finite(a: torch.Tensor, b: torch.Tensor) -> list[bool]:
    pairs = zip(a.double().tolist(), b.double().tolist(), strict=True)
    return [math.isfinite(x) and math.isfinite(y) for x, y in pairs]


def exact_cosine(x: Sequence[float], y: Sequence[float]) -> float:
    product = math.fsum(p * q for p, q in zip(x, y, strict=True))
    return product / math.sqrt(math.fsum(p * p for p in x)) / math.sqrt(math.fsum(q * q for q in y))


# -- against torch -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS + TINY_FLOATS[:4], ids=str)
@pytest.mark.parametrize("scale", [1e-3, 1.0])
def test_floats_are_measured_as_torch_does(dtype: torch.dtype, scale: float) -> None:
    torch.manual_seed(0)
    a = torch.randn(5000).to(dtype)
    b = (a.float() + scale * torch.randn(5000)).to(dtype)
    work = torch.float64 if dtype == torch.float64 else torch.float32
    x, y = a.to(work), b.to(work)
    found = Kernel().measure(a, b)
    gap = (x - y).abs()
    larger = torch.maximum(x.abs(), y.abs())
    assert found.max_abs == gap.max().item()
    assert found.max_rel == torch.nan_to_num(gap / larger).max().item()
    assert found.max_ulps == ulps(a, b)
    assert (found.nan_a, found.nan_b, found.unlike) == (0, 0, 0)
    cosine = torch.nn.functional.cosine_similarity(x.double(), y.double(), dim=0).item()
    assert found.cosine == pytest.approx(cosine, abs=1e-9, rel=1e-6)


def test_the_cosine_of_nearly_equal_values_is_not_rounded_to_one() -> None:
    torch.manual_seed(0)
    a = torch.randn(10_000)
    b = a * (1 + 1e-5 * torch.randn(10_000))
    cosine = Kernel().measure(a, b).cosine
    assert cosine is not None
    expected = 1 - exact_cosine(a.tolist(), b.tolist())
    assert 1 - cosine == pytest.approx(expected, rel=1e-3)
    assert 0 < 1 - cosine < 1e-9


@pytest.mark.parametrize("scale", [1e30, 1e-30, 1e-42])
def test_squares_that_leave_float32_still_give_a_cosine(scale: float) -> None:
    a, b = torch.tensor([3.0, 4.0]) * scale, torch.tensor([4.0, 3.0]) * scale
    assert Kernel().measure(a, b).cosine == pytest.approx(0.96, abs=1e-3)


@pytest.mark.parametrize("dtype", WHOLE + UNSIGNED + [torch.bool], ids=str)
def test_whole_numbers_are_measured_exactly(dtype: torch.dtype) -> None:
    low, high = (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
    a = torch.tensor([low, high, 1], dtype=dtype)
    b = torch.tensor([low, low, 1], dtype=dtype)
    found = Kernel().measure(a, b)
    assert found.max_abs == high - low
    assert found.max_ulps is None
    assert Kernel().measure(b, a).max_abs == high - low


def test_complex_numbers_are_measured_in_the_plane() -> None:
    a = torch.tensor([3 + 4j, 1 + 1j], dtype=torch.complex64)
    b = torch.tensor([0 + 0j, 1 + 1j], dtype=torch.complex64)
    found = Kernel().measure(a, b)
    assert (found.max_abs, found.max_rel) == (5.0, 1.0)
    assert found.max_ulps == 0x40800000  # from 0 to 4.0
    assert found.square_a == pytest.approx(27)
    assert found.square_difference == pytest.approx(25)


def test_two_types_are_compared_in_one_that_holds_both() -> None:
    a = torch.tensor([1.0, 2.0], dtype=torch.bfloat16)
    b = torch.tensor([1.0, 2.25], dtype=torch.float64)
    found = Kernel().measure(a, b)
    assert (found.max_abs, found.max_rel, found.max_ulps) == (0.25, 0.25 / 2.25, None)
    whole = Kernel().measure(torch.tensor([3]), torch.tensor([3.5]))
    assert whole.max_abs == 0.5


# -- by definition -----------------------------------------------------------------------------


@settings(deadline=None)
@given(st.data(), st.sampled_from(FLOATS + TINY_FLOATS))
def test_any_bits_are_measured_alike_from_both_sides(
    data: st.DataObject, dtype: torch.dtype
) -> None:
    """Also NaN, infinities, denormals and both zeros."""
    count = data.draw(st.integers(1, 12))
    size = count * dtype.itemsize
    a, b = (elements(dtype, data.draw(st.binary(min_size=size, max_size=size))) for _ in "ab")
    found, back = Kernel().measure(a, b), Kernel().measure(b, a)
    assert back == replace(
        found,
        nan_a=found.nan_b,
        nan_b=found.nan_a,
        square_a=found.square_b,
        square_b=found.square_a,
    )
    assert found.max_ulps == ulps(a, b)
    assert found.nan_a == sum(map(math.isnan, a.double().tolist()))
    x, y = a.double().tolist(), b.double().tolist()
    fine = finite(a, b)
    odd = [(p, q) for p, q, both in zip(x, y, fine, strict=True) if not both]
    assert found.unlike == sum(not (p == q or (math.isnan(p) and math.isnan(q))) for p, q in odd)
    gaps = [abs(p - q) for p, q, both in zip(x, y, fine, strict=True) if both]
    assert found.max_abs == pytest.approx(max(gaps, default=0.0), rel=1e-6)
    assert 0 <= found.max_rel <= 2


@settings(deadline=None)
@given(st.data(), st.sampled_from(FLOATS))
def test_a_tensor_is_no_distance_from_itself(data: st.DataObject, dtype: torch.dtype) -> None:
    size = data.draw(st.integers(1, 12)) * dtype.itemsize
    a = elements(dtype, data.draw(st.binary(min_size=size, max_size=size)))
    found = Kernel().measure(a, a)
    assert (found.max_abs, found.max_rel, found.unlike) == (0.0, 0.0, 0)
    assert found.max_ulps in (0, None)
    assert found.cosine in (None, pytest.approx(1.0))
    same = Kernel().equal(a)
    assert replace(same, square_a=0, square_b=0) == replace(found, square_a=0, square_b=0)
    assert same.square_a == pytest.approx(found.square_a, rel=1e-5)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(width=32), st.floats(width=32)), min_size=1, max_size=9),
    st.floats(0, 2),
    st.floats(0, 1),
)
def test_a_tolerance_is_that_of_its_definition(
    values: list[tuple[float, float]], atol: float, rtol: float
) -> None:
    a, b = (torch.tensor(each, dtype=torch.float64) for each in zip(*values, strict=True))
    found = Kernel(rtol).measure(a, b).is_within(Tolerance(atol, rtol))
    expected = all(
        (math.isnan(x) and math.isnan(y))
        or x == y
        or (math.isfinite(x - y) and abs(x - y) - rtol * max(abs(x), abs(y)) <= atol)
        for x, y in values
    )
    assert found == expected


@settings(deadline=None)
@given(st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=20), st.integers(1, 19))
def test_measures_of_parts_add_up(values: list[float], cut: int) -> None:
    a, b = torch.tensor(values), torch.tensor(values[::-1])
    kernel = Kernel()
    whole = kernel.measure(a, b)
    parts = kernel.measure(a[:cut], b[:cut]) + kernel.measure(a[cut:], b[cut:])
    assert (parts.max_abs, parts.max_rel) == (whole.max_abs, whole.max_rel)
    assert parts.max_ulps == whole.max_ulps
    assert parts.square_a == pytest.approx(whole.square_a, rel=1e-5, abs=1e-30)


def test_both_zeros_are_one_number_and_two_patterns_of_bits(tmp_path: Path) -> None:
    pair = compared(tmp_path, torch.tensor([0.0]), torch.tensor([-0.0]))
    assert pair.verdict == "different"
    assert pair.measure == Measure(max_ulps=0, identical=False)
    close = compared(tmp_path, torch.tensor([0.0]), torch.tensor([-0.0]), Tolerance())
    assert close.verdict == "close"


# -- through files -----------------------------------------------------------------------------


def compared(
    folder: Path, a: torch.Tensor, b: torch.Tensor, tolerance: Tolerance | None = None
) -> Pair:
    torch.save({"x": a}, folder / "a.pth")
    torch.save({"x": b}, folder / "b.pth")
    (pair,) = diff(folder / "a.pth", folder / "b.pth", tolerance=tolerance).pairs
    return pair


def test_one_changed_element_is_found_in_the_last_of_many_pieces(tmp_path: Path) -> None:
    a = torch.ones(3 * ELEMENTS + 7)
    b = a.clone()
    b[-1] = 1.5
    pair = compared(tmp_path, a, b)
    assert pair.verdict == "different"
    assert pair.measure is not None
    assert (pair.measure.max_abs, pair.measure.max_ulps) == (0.5, 1 << 22)
    assert pair.measure.square_a == a.numel()
    assert pair.measure.square_b == a.numel() + 1.25


def test_equal_nan_is_equal_and_nan_is_counted(tmp_path: Path) -> None:
    a = torch.tensor([1.0, math.nan, math.inf])
    assert compared(tmp_path, a, a.clone()).verdict == "equal"
    pair = compared(tmp_path, a, torch.tensor([1.0, math.nan, math.nan]))
    assert pair.verdict == "different"
    assert pair.measure is not None
    assert (pair.measure.nan_a, pair.measure.nan_b, pair.measure.unlike) == (1, 2, 1)
    far = compared(tmp_path, a, torch.tensor([1.0, 2.0, math.inf]), Tolerance(atol=1e9))
    assert far.verdict == "different"


LAYOUTS = {
    "transposed": lambda x: x.t(),
    "sliced": lambda x: x[1:, ::2],
    "broadcast": lambda x: x[:1].expand(7, -1),
    "0-d": lambda x: x[0, 0],
    "empty": lambda x: x[:0],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_do_not_matter(tmp_path: Path, layout: str) -> None:
    torch.manual_seed(0)
    view = LAYOUTS[layout](torch.randn(40, 30))
    assert compared(tmp_path, view, view.contiguous().clone()).verdict == "equal"
    assert compared(tmp_path, view, view.clone()).verdict == "equal"
    if view.numel():
        pair = compared(tmp_path, view, view.contiguous() + 1)
        assert pair.measure is not None
        assert pair.measure.max_abs == (view + 1 - view).abs().max().item()


def test_gaps_between_elements_are_not_compared(tmp_path: Path) -> None:
    base = torch.zeros(4, 4)
    other = torch.full((4, 4), 9.0)
    other[:, :2] = 0
    assert compared(tmp_path, base[:, :2], other[:, :2]).verdict == "equal"


def test_conjugated_views_are_compared_by_value(tmp_path: Path) -> None:
    a = torch.tensor([1 + 2j, 3 - 4j])
    assert compared(tmp_path, a.conj(), a.conj().resolve_conj()).verdict == "equal"
    pair = compared(tmp_path, a, a.conj())
    assert pair.measure is not None
    assert pair.measure.max_abs == 8.0


@pytest.mark.parametrize("dtype", FLOATS + WHOLE, ids=str)
def test_containers_do_not_matter(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    state = {"x": torch.randn(70, 3).mul(50).to(dtype), "y": torch.randn(5)}
    torch.save(state, tmp_path / "a.pth")
    save_file(state, tmp_path / "a.safetensors")
    assert diff(tmp_path / "a.pth", tmp_path / "a.safetensors").same
    state["x"][3, 1] += 2
    save_file(state, tmp_path / "b.safetensors")
    found = diff(tmp_path / "a.pth", tmp_path / "b.safetensors")
    assert [pair.verdict for pair in found.pairs] == ["different", "equal"]
    assert not found.same


def test_a_cast_that_loses_nothing_is_equal_in_value(tmp_path: Path) -> None:
    a = torch.tensor([0.5, 1.0])
    pair = compared(tmp_path, a, a.double())
    assert (pair.differs, pair.verdict) == (("dtype",), "equal")


def test_tied_tensors_are_measured_once_and_told_twice(tmp_path: Path) -> None:
    a, b = torch.zeros(3), torch.ones(3)
    torch.save({"x": a, "y": a}, tmp_path / "a.pth")
    torch.save({"x": b, "y": b}, tmp_path / "b.pth")
    seen: list[str] = []
    found = diff(
        tmp_path / "a.pth", tmp_path / "b.pth", progress=lambda *step: seen.append(step[2])
    )
    assert [pair.verdict for pair in found.pairs] == ["different", "different"]
    assert found.pairs[0].measure == found.pairs[1].measure
    assert set(seen) == {"x"}


def test_what_cannot_be_compared_is_not_called_the_same(tmp_path: Path) -> None:
    state = {"x": torch.eye(3).to_sparse(), "y": torch.ones(2)}
    torch.save(state, tmp_path / "a.pth")
    torch.save(state, tmp_path / "b.pth")
    found = diff(tmp_path / "a.pth", tmp_path / "b.pth")
    assert [pair.verdict for pair in found.pairs] == ["unknown", "equal"]
    assert [note.code for note in found.notes] == ["values-not-compared"]
    assert not found.same


def test_many_threads_find_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    a = {f"x{index}": torch.randn(3_000_000) for index in range(3)}
    b = {name: value + 1e-3 * (name == "x1") for name, value in a.items()}
    save_file(a, tmp_path / "a.safetensors")
    save_file(b, tmp_path / "b.safetensors")
    found = diff(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert [pair.verdict for pair in found.pairs] == ["equal", "different", "equal"]
    assert found.pairs[1].measure is not None
    gap = (a["x1"] - b["x1"]).abs().max().item()
    assert found.pairs[1].measure.max_abs == gap


def test_what_expands_is_compared_where_it_is_stored(tmp_path: Path) -> None:
    row, other = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.5, math.nan])
    whole = compared(tmp_path, row.repeat(4, 1), other.repeat(4, 1)).measure
    assert compared(tmp_path, row.expand(4, 3), other.expand(4, 3)).measure == whole
    assert compared(tmp_path, row.expand(4, 3), other.repeat(4, 1)).measure == whole
    many = compared(tmp_path, row.expand(10**12, 3), other.expand(10**12, 3)).measure
    assert whole is not None
    assert many is not None
    assert (many.max_abs, many.nan_b, many.unlike) == (0.5, 10**12, 10**12)
    assert many.cosine == pytest.approx(whole.cosine)


def test_what_each_side_expands_otherwise_is_not_walked_through(tmp_path: Path) -> None:
    row = torch.arange(1e5)
    pair = compared(tmp_path, row.expand(10**5, 10**5), row[:, None].expand(10**5, 10**5))
    assert (pair.verdict, pair.measure) == ("unknown", None)
    small = compared(tmp_path, row[:3].expand(3, 3), row[:3, None].expand(3, 3))
    assert small.measure is not None
    assert small.measure.max_abs == 2
