"""`--assert`: what an expression means, and what is said where it means nothing."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modtool.checks.assertions import Assertion, parse_assertion
from modtool.errors import UsageError

FIGURES = {
    "total": 235_146,
    "trainable": None,
    "frozen": 10,
    "buffers": 0,
    "bytes": 940_584,
    "tensors": 6,
}


def holds(text: str) -> bool:
    return parse_assertion(text).of(FIGURES, "net.pth").holds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("params <= 5e6", True),
        ("params == total and parameters == 235_146", True),
        ("params < 5k", False),
        ("params < 0.3M", True),
        ("params < 7B", True),
        ("bytes < 1MB", True),
        ("bytes < 918 KiB", False),
        ("bytes <= 918.6 KiB", True),
        ("params / bytes == 25%", True),
        ("params / bytes < 25.1%", True),
        ("frozen / params < 0.1 or buffers > 0", True),
        ("not frozen == 0", True),
        ("not (frozen == 10 and tensors == 6)", False),
        ("1 < tensors <= 6 < frozen", True),
        ("6 < tensors < 100", False),
        ("2 + 3 * 4 - 6 / 3 == 12", True),
        ("-tensors + 7 == 1", True),
        ("10 - 4 - 3 == 3", True),
        ("1 == 1 or buffers / 0 > 1", True),
        ("  tensors\n==   6 ", True),
    ],
)
def test_what_an_expression_means(text: str, expected: bool) -> None:
    assert holds(text) is expected


def test_an_assertion_tells_the_figures_that_it_speaks_of() -> None:
    assert parse_assertion("params < 3 or frozen < 3").of(FIGURES, "") == Assertion(
        "params < 3 or frozen < 3", False, {"params": 235_146, "frozen": 10}
    )


@pytest.mark.parametrize(
    ("text", "message", "column"),
    [
        ("", "expected a number or a key of count", 0),
        ("params", "expected a comparison, as in params <= 5e6", 0),
        ("params <=", "expected a number or a key of count", 9),
        ("params = 3", "'=' means nothing here: == compares", 7),
        ("params =< 3", "'=<' means nothing here: <= compares", 7),
        ("params => 3", "'=>' means nothing here: >= compares", 7),
        ("params ≤ 3", "'≤' means nothing here: <= compares", 7),
        ("params ≥ 3", "'≥' means nothing here: >= compares", 7),
        ("params ≠ 3", "'≠' means nothing here: != compares", 7),
        ("params in 3", "expected an operator, not 'in'", 7),
        ("params) < 3", "expected an operator, not ')'", 6),
        ("params < 3 $", "'$' means nothing here", 11),
        ("parms < 3", "there is no 'parms', but params, total, trainable, frozen, buffers, "
         "bytes, tensors", 0),
        ("params < 3 frozen", "expected an operator, not 'frozen'", 11),
        ("(params < 3", "expected a closing parenthesis", 11),
        ("params < 3 and 4", "expected a comparison, as in params <= 5e6", 15),
        ("1 + (2 < 3) < 4", "expected a number, and this is true or false", 4),
        ("params < 5X", "'X' is no unit: k, M, G, T, KB, MB, GB, TB, KiB, MiB, GiB, TiB, K, B, %",
         10),
        ("1__0 < 2", "'1__0' is no number", 0),
        ("params < and", "expected a number or a key of count", 9),
        ("__import__('os') == 1", "there is no '__import__', but params, total, trainable, frozen, "
         "buffers, bytes, tensors", 0),
        ("(" * 60, "nested more than 50 deep", 51),
    ],
)  # fmt: skip
def test_what_is_no_expression(text: str, message: str, column: int) -> None:
    with pytest.raises(UsageError) as caught:
        parse_assertion(text)
    assert caught.value.message == f"--assert '{text}': {message}"
    # The caret is printed two columns to the right, and `error: ` before the first line.
    assert caught.value.hint.index("^") + 2 == len(f"error: --assert '{text[:column]}")


def test_a_figure_that_is_not_known() -> None:
    with pytest.raises(UsageError, match=r"net\.pth does not record which are trainable"):
        holds("params > 1 or trainable > 1")


def test_a_division_by_zero_points_at_its_sign() -> None:
    with pytest.raises(UsageError) as caught:
        holds("params / buffers < 1")
    assert caught.value.message == "--assert 'params / buffers < 1': division by zero"
    assert caught.value.hint.index("^") == len("--assert 'params ") + 5


@pytest.mark.parametrize(
    ("text", "column"), [(f"params * {'9' * 400} * 1.5 > 1", 410), (f"params < {'9' * 400}%", 9)]
)
def test_a_number_beyond_all_points_at_its_place(text: str, column: int) -> None:
    with pytest.raises(UsageError) as caught:
        holds(text)
    assert "too large" in caught.value.message
    assert caught.value.hint.index("^") == len("--assert '") + column + 5


def test_an_expression_may_be_long_but_not_endless() -> None:
    assert holds(f"params{'+1' * 495} > 1")
    assert holds(f"params > 1{' and 1<2' * 123}")
    with pytest.raises(UsageError) as caught:
        parse_assertion(f"params{'+1' * 500} > 1")
    assert caught.value.message == (
        "--assert 'params+1+1+1+1+1+1+1…': 1,010 characters, and 1,000 are the most"
    )


NUMBERS = st.one_of(
    st.integers(0, 1000).map(str),
    st.floats(0, 1000, allow_nan=False).map(lambda number: f"{number:.4f}"),
    st.sampled_from(["tensors", "frozen", "bytes"]),
)
SUMS = st.recursive(
    NUMBERS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*"), inner).map(" ".join),
        inner.map(lambda text: f"({text})"),
        inner.map(lambda text: f"-({text})"),
    ),
    max_leaves=6,
)
SIGNS = st.sampled_from(["<", "<=", "==", "!=", ">", ">="])
TRUTHS = st.recursive(
    st.one_of(
        st.tuples(SUMS, SIGNS, SUMS).map(" ".join),
        st.tuples(SUMS, SIGNS, SUMS, SIGNS, SUMS).map(" ".join),
    ),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(" ".join),
        inner.map(lambda text: f"not ({text})"),
        inner.map(lambda text: f"not {text}"),
    ),
    max_leaves=4,
)


@given(TRUTHS)
def test_an_expression_means_what_it_means_in_python(text: str) -> None:
    assert holds(text) == eval(text, {"__builtins__": {}}, dict(FIGURES))


@given(st.text(max_size=40))
def test_whatever_is_typed_is_an_expression_or_an_error_of_ours(text: str) -> None:
    with suppress(UsageError):
        holds(text)
