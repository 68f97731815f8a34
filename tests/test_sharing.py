"""Shared elements, compared with the elements themselves."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modtool.records import DTYPES, Storage, TensorInfo
from modtool.sharing import MAX_RUNS, share, span, stored_elements

STORAGE = 48  # bytes
NAMES = {1: "uint8", 2: "float16", 4: "float32"}


def view(
    shape: Sequence[int],
    stride: Sequence[int] | None,
    offset: int = 0,
    *,
    key: str = "0",
    dtype: str = "float32",
    nbytes: int = STORAGE,
) -> TensorInfo:
    steps = None if stride is None else tuple(stride)
    return TensorInfo("x", dtype, tuple(shape), Storage(key, nbytes), offset, steps)


def places(tensor: TensorInfo) -> set[int]:
    """The bytes of a tensor's elements, as torch finds them."""
    size = DTYPES[tensor.dtype].bits // 8
    assert tensor.storage is not None
    every = torch.arange(tensor.storage.nbytes // size)
    assert tensor.stride is not None
    elements = every.as_strided(tensor.shape, tensor.stride, tensor.offset).flatten().tolist()
    return {element * size + byte for element in elements for byte in range(size)}


def brute(tensors: Sequence[TensorInfo]) -> tuple[list[int | None], list[int]]:
    first: list[int | None] = []
    fresh: list[int] = []
    held = [places(tensor) for tensor in tensors]
    for index, (tensor, own) in enumerate(zip(tensors, held, strict=True)):
        earlier = held[:index]
        first.append(next((at for at, other in enumerate(earlier) if own & other), None))
        fresh.append(len(own - set().union(*earlier)) * 8 // DTYPES[tensor.dtype].bits)
    return first, fresh


@st.composite
def views(draw: st.DrawFn, dtypes: Sequence[str] = ("float32",)) -> TensorInfo:
    dtype = draw(st.sampled_from(dtypes))
    elements = STORAGE * 8 // DTYPES[dtype].bits
    shape: list[int] = []
    stride: list[int] = []
    offset = draw(st.integers(0, elements - 1))
    room = elements - 1 - offset
    for _ in range(draw(st.integers(0, 3))):
        step = draw(st.integers(0, 5))
        size = draw(st.integers(0, 4)) if not step else draw(st.integers(0, room // step + 1))
        shape.append(size)
        stride.append(step)
        room -= max(size - 1, 0) * step
    return view(shape, stride, offset, dtype=dtype)


@settings(max_examples=500, deadline=None)
@given(st.lists(views(), max_size=6))
def test_views_of_one_storage_share_what_they_have_in_common(tensors: list[TensorInfo]) -> None:
    found = share(tensors)
    assert (found.first, found.fresh) == brute(tensors)


@settings(max_examples=300, deadline=None)
@given(st.lists(views(["float32", "float16", "uint8"]), max_size=5))
def test_views_of_different_types_share_bytes(tensors: list[TensorInfo]) -> None:
    found = share(tensors)
    assert (found.first, found.fresh) == brute(tensors)


@settings(max_examples=300, deadline=None)
@given(views())
def test_stored_elements_are_the_different_ones(tensor: TensorInfo) -> None:
    assert stored_elements(tensor) == len(places(tensor)) // 4
    begin, end = span(tensor)
    assert begin == tensor.offset * 4
    assert places(tensor) <= set(range(begin, end))
    assert max(places(tensor), default=begin - 1) == end - 1


@pytest.mark.parametrize(
    ("tensors", "first", "fresh"),
    [
        ([view([4], [1]), view([4], [1])], [None, 0], [4, 0]),
        ([view([4], [1]), view([4], [1], 4)], [None, None], [4, 4]),
        ([view([4], [1]), view([4], [1], 2)], [None, 0], [4, 2]),
        ([view([2, 2], [2, 1]), view([2, 2], [1, 2])], [None, 0], [4, 0]),
        ([view([4], [2]), view([4], [2], 1)], [None, None], [4, 4]),
        ([view([4], [2]), view([8], [1])], [None, 0], [4, 4]),
        ([view([3, 2], [4, 1]), view([3, 2], [4, 1], 2)], [None, None], [6, 6]),
        ([view([1], [1]), view([2], [1]), view([2], [1], 1)], [None, 0, 1], [1, 1, 1]),
        ([view([1], [1], 3), view([4], [1]), view([4], [1])], [None, 0, 0], [1, 3, 0]),
        ([view([5, 3], [0, 0])], [None], [1]),
        ([view([3, 3], [1, 1])], [None], [5]),
        ([view([0], [1]), view([0], [1])], [None, None], [0, 0]),
        ([view([4], None), view([4], [1])], [None, 0], [4, 0]),
        ([view([4], None), view([4], None, key="1")], [None, None], [4, 4]),
        ([TensorInfo("x", "float32", (3,)), TensorInfo("y", "float32", (3,))], [None] * 2, [3, 3]),
    ],
)
def test_what_is_shared(
    tensors: list[TensorInfo], first: list[int | None], fresh: list[int]
) -> None:
    found = share(tensors)
    assert (found.first, found.fresh) == (first, fresh)


def test_real_and_imaginary_parts_are_not_tied_however_large() -> None:
    parts = [view([10**9], [2], part, nbytes=8 * 10**9) for part in (0, 1)]
    found = share(parts)
    assert (found.first, found.fresh) == ([None, None], [10**9, 10**9])


def test_windows_that_overlap_are_counted_however_many() -> None:
    windows = view([10**6, 400], [10, 1], nbytes=4 * 10**8)
    assert stored_elements(windows) == 10**7 + 390
    found = share([windows, view([10**6], [1], 10**7 - 10, nbytes=4 * 10**8)])
    assert (found.first, found.fresh) == ([None, 0], [10**7 + 390, 10**6 - 400])


def test_the_weights_of_an_lstm_are_not_tied() -> None:
    lstm = torch.nn.LSTM(3, 5, 2)
    flat = torch.cat([weight.flatten() for weight in lstm.parameters()])
    offset, tensors = 0, []
    for weight in lstm.parameters():
        tensors.append(view(weight.shape, weight.stride(), offset, nbytes=flat.nbytes))
        offset += weight.numel()
    assert share(tensors).first == [None] * 8


def test_too_many_runs_are_taken_for_the_whole_span() -> None:
    rows = MAX_RUNS + 1
    left = view([rows, 2], [5, 1], nbytes=20 * rows)
    right = view([rows, 2], [5, 1], 2, nbytes=20 * rows)
    found = share([left, right])
    assert found.first == [None, 0]


@pytest.mark.parametrize(
    "tensors",
    [
        pytest.param(
            [view([1000], [2], index, nbytes=10**6) for index in range(20_000)], id="strided"
        ),
        pytest.param(
            [view([50_000 - index], [1], index, nbytes=10**6) for index in range(50_000)],
            id="nested",
        ),
        pytest.param(
            [view([300, 300], [301, 1], index, nbytes=10**8) for index in range(10_000)],
            id="blocks",
        ),
        pytest.param(
            [view([2] * 20, [3**power for power in range(20)], 0, nbytes=2**40)], id="a dust"
        ),
        pytest.param(
            [
                view([2] * 17, [3**power for power in range(17)], at, nbytes=2**40)
                for at in range(500)
            ],
            id="dusts",
        ),
        pytest.param(
            [
                view([300, 500 + index], [2, 3], key=str(index), nbytes=10**4)
                for index in range(10_000)
            ],
            id="overlaps",
        ),
        pytest.param([view([4], [1]) for _ in range(100_000)], id="the same"),
    ],
)
def test_hostile_views_are_compared_at_all(tensors: list[TensorInfo]) -> None:
    """Each takes about a second; pair by pair, it would be hours."""
    found = share(tensors)
    assert len(found.fresh) == len(tensors)
    assert all(fresh >= 0 for fresh in found.fresh)
