"""Booleans of a pickle changed where they stand."""

import pickle
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modtool.errors import CorruptFileError
from modtool.pickles.patching import patched
from modtool.pickles.reader import read_pickle

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
PROTOCOLS = range(6)


def flipped(value: Any, choose: Any) -> Any:
    """The same value with other objects, and some other booleans, in it."""
    if isinstance(value, bool):
        return choose()
    if isinstance(value, list | tuple):
        return type(value)(flipped(item, choose) for item in value)
    if isinstance(value, dict):
        return {key: flipped(item, choose) for key, item in value.items()}
    return value


@given(VALUES, st.sampled_from(PROTOCOLS), st.randoms(use_true_random=False))
def test_the_changed_bytes_say_what_is_wanted_and_come_back(
    value: Any, protocol: int, random: Random
) -> None:
    value = flipped(value, lambda: random.random() < 0.5)
    wanted = flipped(value, lambda: random.random() < 0.5)
    before = pickle.dumps(value, protocol)
    after = patched(before, wanted, {})
    assert after is not None
    assert repr(pickle.loads(after)) == repr(wanted)
    assert len(after) == len(before)
    assert patched(after, value, {}) == before


@given(VALUES, VALUES)
def test_what_differs_in_more_than_booleans_cannot_be_changed_so(one: Any, other: Any) -> None:
    made = patched(pickle.dumps(one, 2), other, {})
    alike = repr(flipped(one, lambda: ...)) == repr(flipped(other, lambda: ...))
    assert (made is not None) == alike


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_byte_that_two_objects_share_stays(protocol: int) -> None:
    pair = (True, "a")
    data = pickle.dumps([pair, pair, (True, "b")], protocol)
    assert patched(data, [(True, "a"), (False, "a"), (True, "b")], {}) is None
    both = patched(data, [(False, "a"), (False, "a"), (True, "b")], {})
    assert both is not None
    assert pickle.loads(both) == [(False, "a"), (False, "a"), (True, "b")]


def test_a_duplicate_shares_its_byte() -> None:
    data = b"\x80\x02(\x882l."  # MARK NEWTRUE DUP LIST STOP
    assert read_pickle(data).root == [True, True]
    assert patched(data, [False, True], {}) is None
    assert patched(data, [False, False], {}) == b"\x80\x02(\x892l."


def test_a_number_is_no_boolean() -> None:
    assert patched(pickle.dumps([1], 2), [True], {}) is None
    assert patched(pickle.dumps([True], 2), [1], {}) is None
    assert patched(pickle.dumps({True: 1}, 2), {False: 1}, {}) == pickle.dumps({False: 1}, 2)


def test_what_replaces_an_object_is_found_by_identity() -> None:
    data = pickle.dumps([[True], [True]], 2)
    root = read_pickle(data).root
    assert isinstance(root, list)
    assert patched(data, root, {id(root[1]): [False]}) == pickle.dumps([[True], [False]], 2)


def test_bytes_that_are_no_pickle_any_more() -> None:
    data = pickle.dumps([True], 2)
    with pytest.raises(CorruptFileError):
        patched(data[:-1], [False], {})
    with pytest.raises(CorruptFileError, match="changed while it was read"):
        patched(data + b".", [False], {})


def test_places_are_told_only_when_they_are_asked_for() -> None:
    assert read_pickle(b"\x80\x02(\x88\x89I01\nI00\nl.").root == [True, False, True, False]
    marked = read_pickle(b"\x80\x02(\x88\x89I01\nI00\nl.", marks_flags=True).root
    assert isinstance(marked, list)
    assert [(flag.value, flag.place) for flag in marked] == [
        (True, 3),
        (False, 4),
        (True, 7),
        (False, 11),
    ]
