"""Pickles made to hang, to fill the memory or to fool: each ends in a clear error or an answer.

Each runs in a process of its own, whose time and memory are measured (`tests/examiner.py`).
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.archives import HOOKS, get, module, put, tensor, text, torch_file
from tests.examiner import Examiner, examiner

__all__ = ["examiner"]

LEVELS = 40
DEEP = 200_000


def doubled(bottom: bytes, wrap: Callable[[bytes], bytes], levels: int = LEVELS) -> bytes:
    """`wrap(x + x)` forty times over, each level shared by the memo."""
    made = bottom + put(0)
    for level in range(levels):
        made += b"0" + wrap(get(level) + get(level)) + put(level + 1)
    return made


def as_list(two: bytes) -> bytes:
    return b"](" + two + b"e"


def as_tuple(two: bytes) -> bytes:
    return b"(" + two + b"t"


def as_dict(two: bytes) -> bytes:
    one = two[: len(two) // 2]
    return b"}(" + text("a") + one + text("b") + one + b"u"


def as_ordered(two: bytes) -> bytes:
    one = two[: len(two) // 2]
    return b"ccollections\nOrderedDict\n)R(" + text("a") + one + text("b") + one + b"u"


def as_pairs(two: bytes) -> bytes:
    one = two[: len(two) // 2]
    pairs = b"](" + text("a") + one + b"\x86" + text("b") + one + b"\x86e"
    return b"ccollections\nOrderedDict\n" + pairs + b"\x85R"


def as_state(two: bytes) -> bytes:
    return b"cpkg\nThing\n)\x81" + as_dict(two) + b"b"


def as_namespace(two: bytes) -> bytes:
    return b"cargparse\nNamespace\n)\x81" + as_dict(two) + b"b"


def as_call(two: bytes) -> bytes:
    return b"cpkg\nmake\n" + as_tuple(two) + b"R"


def as_set_call(two: bytes) -> bytes:
    return b"cbuiltins\nset\n" + as_list(two) + b"\x85R"


def as_persistent(two: bytes) -> bytes:
    return as_tuple(two) + b"Q"


def as_parameter(two: bytes) -> bytes:
    one = two[: len(two) // 2]
    return b"ctorch._utils\n_rebuild_parameter\n(" + one + b"\x88" + HOOKS + b"tR"


def as_module(two: bytes) -> bytes:
    one = two[: len(two) // 2]
    return module(text("a") + one + text("b") + one)


WRAPS = [
    *(as_list, as_tuple, as_dict, as_ordered, as_pairs, as_state, as_namespace, as_call),
    *(as_set_call, as_persistent, as_parameter, as_module),
]
BOTTOMS = {"nothing": b"]", "a tensor": tensor()}


@pytest.mark.parametrize("wrap", WRAPS, ids=lambda wrap: wrap.__name__)
@pytest.mark.parametrize("bottom", BOTTOMS)
def test_shared_references_doubled_forty_times(
    examiner: Examiner, tmp_path: Path, wrap: Callable[[bytes], bytes], bottom: str
) -> None:
    body = doubled(BOTTOMS[bottom], wrap)
    examiner.examine(torch_file(tmp_path / "root.pth", body))
    nested = b"}(" + text("model") + body + text("epoch") + b"K\x03u"
    examiner.examine(torch_file(tmp_path / "nested.pth", nested), ())
    beside = b"}(" + text("w") + tensor() + text("x") + body + b"u"
    examiner.examine(torch_file(tmp_path / "beside.pth", beside), ())


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("dict", b"}" + doubled(b"K\x01", as_tuple) + b"Ns"),
        ("set", b"\x8f(" + doubled(b"K\x01", as_tuple) + b"\x90"),
        ("frozenset", doubled(b"K\x01", lambda two: b"(" + two + b"K\x02\x91")),
        ("frozenset of tuples", b"(" + doubled(b"K\x01", as_tuple) + b"\x91"),
    ],
)
def test_keys_doubled_forty_times(
    examiner: Examiner, tmp_path: Path, name: str, body: bytes
) -> None:
    outcome = examiner.examine(torch_file(tmp_path / "x.pth", body))
    if name != "frozenset":  # whose two equal members are one
        assert outcome.code == 2
        assert "a dictionary key of too many parts" in outcome.err


@pytest.mark.parametrize("inside", ["in_features", "bias", "kernel_size", "_backward_hooks"])
@pytest.mark.parametrize("kind", ["linear\nLinear", "conv\nConv2d", "container\nSequential"])
def test_settings_doubled_forty_times(
    examiner: Examiner, tmp_path: Path, kind: str, inside: str
) -> None:
    for wrap in (as_tuple, as_list, as_dict, as_call):
        attributes = text(inside) + doubled(b"K\x01", wrap)
        body = module(b"", text("weight") + tensor(), attributes, f"torch.nn.modules.{kind}")
        examiner.examine(torch_file(tmp_path / "x.pth", body), ())


def nested(begin: bytes, end: bytes) -> bytes:
    return begin * DEEP + b"N" + end * DEEP


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(nested(b"]", b"a"), id="lists"),
        pytest.param(nested(b"(", b"l"), id="LIST"),
        pytest.param(nested(b"(", b"t"), id="TUPLE"),
        pytest.param(nested(b"", b"\x85"), id="TUPLE1"),
        pytest.param(nested(b"}N", b"s"), id="dicts"),
        pytest.param(nested(b"(N", b"d"), id="DICT"),
        pytest.param(b"ca\nb\nq\x000" + nested(b"h\x00", b"\x85R"), id="calls"),
        pytest.param(b"ca\nb\nq\x000" + nested(b"h\x00)\x81", b"b"), id="states"),
        pytest.param(nested(b"", b"Q"), id="persistent ids"),
        pytest.param(b"N" * DEEP, id="a deep stack"),
        pytest.param(b"(" * DEEP, id="open marks"),
    ],
)
def test_deep_nesting(examiner: Examiner, tmp_path: Path, body: bytes) -> None:
    inside = b"}(" + text("w") + tensor() + text("x") + body + b"u"
    examiner.examine(torch_file(tmp_path / "x.pth", inside), ())


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        (b"]", b"a"),
        (b"}" + text("a"), b"s"),
        (b"cpkg\nThing\n)\x81}" + text("a"), b"sb"),
        (b"ctorch._utils\n_rebuild_parameter\n(", b"\x88NtR"),
        (
            b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_parameter\nN(",
            b"\x88NtNtR",
        ),
        (b"ctorch._dynamo.eval_frame\nOptimizedModule\n", b"\x85R"),
    ],
)
@pytest.mark.parametrize("levels", [50, 5_000])
def test_a_tensor_at_the_bottom(
    examiner: Examiner, tmp_path: Path, begin: bytes, end: bytes, levels: int
) -> None:
    body = begin * levels + tensor() + end * levels
    outcome = examiner.examine(torch_file(tmp_path / "x.pth", body))
    assert outcome.code == 2 or levels == 50


def test_a_deep_tree_of_modules(examiner: Examiner, tmp_path: Path) -> None:
    for levels in (50, 300, 5_000):
        body = b""
        head, _, tail = module(b"*").partition(b"*")
        body = (head + text("a")) * levels + module(b"", text("w") + tensor()) + tail * levels
        outcome = examiner.examine(torch_file(tmp_path / "x.pth", body))
        assert outcome.code == (0 if levels == 50 else 2)


# -- counts and numbers ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"N" + put(0xFFFFFFFF) + b"0" + get(0xFFFFFFFF),
        b"Np99999999999999999\n0g99999999999999999\n",
        b"Np" + b"9" * 100_000 + b"\n",
        *(b"N" + put(index * 65537 % 2**32) for index in (1, 2)),
        b"\x8e" + b"\xff" * 8,
        b"\x8e" + (2**62).to_bytes(8, "little"),
        b"\x8d" + b"\xff" * 8,
        b"\x96" + (2**40).to_bytes(8, "little"),
        b"\x96" + b"\xff" * 8,
        b"B\xff\xff\xff\xff",
        b"X\xff\xff\xff\xff",
        b"T\xff\xff\xff\xff",
        b"\x8b\xff\xff\xff\xff",
        b"\x8b\xff\xff\xff\x7f",
        b"\x8b" + (1_000_000).to_bytes(4, "little") + b"\x7f" * 1_000_000,
        b"L" + b"9" * 1_000_000 + b"L\n",
        b"I" + b"9" * 1_000_000 + b"\n",
        b"F" + b"9" * 1_000_000 + b"\n",
        b"\x95" + b"\xff" * 8 + b"N",
        b"K\x01" * 500_000 + b"t",
        b"\x8f" * 1_000_000,
        b"S'" + b"\\x41" * 250_000 + b"'\n",
        b"V" + b"\\u0041" * 200_000 + b"\n",
        b"N" + b"\x94" * 1_000_000,
        b"N" + b"2" * 1_000_000,
        b"]" + b"2a" * 1_000,
    ],
)
def test_huge_counts_and_numbers(examiner: Examiner, tmp_path: Path, body: bytes) -> None:
    examiner.examine(torch_file(tmp_path / "x.pth", body))


def test_integers_of_thousands_of_digits_are_shown(examiner: Examiner, tmp_path: Path) -> None:
    huge = 2**8000
    long4 = b"\x8b" + (1001).to_bytes(4, "little") + huge.to_bytes(1001, "little")
    body = b"}(" + text("seed") + long4 + text("w") + tensor() + long4 + b"K\x01u"
    outcome = examiner.examine(torch_file(tmp_path / "x.pth", body))
    assert json.loads(outcome.out)["values"]["seed"] == huge
