"""Pickles made to hang, to fill the memory or to fool: each ends in a clear error or an answer.

Each runs in a process of its own, whose time and memory are measured (`tests/examiner.py`).
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.archives import HOOKS, number, storage, tensor, text, torch_file
from tests.examiner import EVERY_VIEW, Examiner, examiner

__all__ = ["examiner"]

LEVELS = 40
DEEP = 200_000


def put(index: int) -> bytes:
    return b"r" + index.to_bytes(4, "little")


def get(index: int) -> bytes:
    return b"j" + index.to_bytes(4, "little")


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


def module(
    children: bytes, parameters: bytes = b"", more: bytes = b"", kind: str = "pkg\nNet"
) -> bytes:
    """A module with children (keys and items)."""
    members = b"}" + (b"(" + children + b"u" if children else b"")
    own = b"}" + (b"(" + parameters + b"u" if parameters else b"")
    state = text("_parameters") + own + text("_buffers") + b"}" + text("_modules") + members
    mode = text("training") + b"\x88"
    return f"c{kind}\n".encode() + b")\x81}(" + mode + state + more + b"ub"


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


# -- keys ------------------------------------------------------------------------------------------

MODULUS = 2**61 - 1


def many_keys(keys: bytes) -> bytes:
    return b"}(" + keys + b"u"


def colliding_pair(index: int) -> tuple[int, int]:
    """Pairs of small numbers whose hashes are equal: the second undoes the first."""
    # the tuple hash of Python 3.11 is xxHash with lanes that can be inverted
    prime1, prime2, prime5 = 11400714785074694791, 14029467366897019727, 2870177450012600261
    mask = 2**64 - 1
    inverse1, inverse2 = pow(prime1, -1, 2**64), pow(prime2, -1, 2**64)

    def rotated(value: int, by: int) -> int:
        return ((value << by) | (value >> (64 - by))) & mask

    first = (rotated((prime5 + index * prime2) & mask, 31) * prime1) & mask
    target = 1234567
    before = rotated((target * inverse1) & mask, 33)
    return index, (before - first) * inverse2 & mask


def test_tuples_can_be_made_to_collide() -> None:
    """The attack that the limit on large keys is there for."""
    pairs = [colliding_pair(index) for index in range(4000)]
    small = [pair for pair in pairs if pair[1] < MODULUS]
    assert len(small) > 100
    assert len({hash(pair) for pair in small}) == 1


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param(
            b"".join(number(index * MODULUS) + b"N" for index in range(50_000)), id="integers"
        ),
        pytest.param(
            b"".join(number(index << 40) + b"N" for index in range(20_000)), id="low bits"
        ),
        pytest.param(
            b"".join(
                b"(" + number(pair[0]) + number(pair[1]) + b"tN"
                for pair in map(colliding_pair, range(100_000))
                if pair[1] < MODULUS
            ),
            id="tuples",
        ),
        pytest.param(
            b"(" + b"N" * 900 + b"tr\0\0\0\x000" + (b"j\0\0\0\0N" * 50_000), id="a wide key"
        ),
        pytest.param(
            (text("a" * 1_000_000) + put(0) + b"0" + text("a" * 1_000_000) + put(1) + b"0")
            + (get(0) + b"N" + get(1) + b"N") * 20_000,
            id="long equal texts",
        ),
    ],
)
@pytest.mark.parametrize("container", ["dict", "set", "pairs"])
def test_keys_made_to_collide(
    examiner: Examiner, tmp_path: Path, keys: bytes, container: str
) -> None:
    body = {
        "dict": b"}(" + keys + b"u",
        "set": b"\x8f(" + keys + b"\x90",
        "pairs": b"ccollections\nOrderedDict\n](" + keys.replace(b"N", b"N\x86") + b"e\x85R",
    }[container]
    examiner.examine(torch_file(tmp_path / "x.pth", body), ())


def test_pairs_of_colliding_keys_at_protocol_0(examiner: Examiner, tmp_path: Path) -> None:
    pairs = b"".join(number(index * MODULUS) + b"N\x86" for index in range(50_000))
    body = b"ccollections\nOrderedDict\n](" + pairs + b"e\x85R"
    examiner.examine(torch_file(tmp_path / "x.pth", body))


# -- many calls that share what is large -----------------------------------------------------------

LARGE = b"](" + b"K\x01" * 50_000 + b"e" + put(0) + b"0"
LARGE_PAIRS = b"](" + (text("a") + b"K\x01\x86") * 25_000 + b"e" + put(0) + b"0"
LARGE_NO_PAIRS = b"](" + (text("a") + b"K\x01\x86") * 25_000 + b"Ne" + put(0) + b"0"
LARGE_DICT = b"}(" + b"".join(text(str(key)) + b"N" for key in range(25_000)) + b"u" + put(0) + b"0"
LARGE_TUPLE = b"(" + b"K\x01" * 50_000 + b"t" + put(0) + b"0"
LARGE_TEXTS = b"(" + text("a") * 25_000 + b"t" + put(0) + b"0"
MANY = 10_000


@pytest.mark.parametrize(
    ("large", "one"),
    [
        (LARGE, b"cbuiltins\nset\n" + get(0) + b"\x85R"),
        (LARGE, b"cbuiltins\nlist\n" + get(0) + b"\x85R"),
        (LARGE, b"ccollections\ndeque\n" + get(0) + b"\x85R"),
        (LARGE_TUPLE, b"ca\nb\n" + get(0) + b"R"),
        (LARGE_TUPLE, b"ctorch\nSize\n" + get(0) + b"\x85R"),
        (LARGE_TEXTS, b"cpathlib\nPosixPath\n" + get(0) + b"R"),
        (LARGE_PAIRS, b"ccollections\nOrderedDict\n" + get(0) + b"\x85R"),
        (LARGE_NO_PAIRS, b"ccollections\nOrderedDict\n" + get(0) + b"\x85R"),
        (LARGE_DICT, b"ccollections\nOrderedDict\n" + get(0) + b"\x85R"),
        (LARGE_DICT, b"cargparse\nNamespace\n)\x81" + get(0) + b"b"),
        (LARGE_DICT, b"cpkg\nThing\n)\x81" + get(0) + b"b"),
        (LARGE_DICT, b"cpkg\nThing\n)\x81" + get(0) + b"N\x86b"),
        (LARGE_TUPLE, b"cpkg\nThing\n)\x81" + get(0) + b"b"),
        (LARGE, get(0)),
        (LARGE_DICT, get(0)),
        (text("a" * 100_000) + put(0) + b"0", get(0)),
    ],
)
def test_many_share_what_is_large(
    examiner: Examiner, tmp_path: Path, large: bytes, one: bytes
) -> None:
    many = b"](" + one * MANY + b"e"
    examiner.examine(torch_file(tmp_path / "list.pth", large + many), ())
    entries = b"".join(text(f"k{index}") + one for index in range(MANY // 10))
    beside = large + b"}(" + text("w") + tensor() + entries + b"u"
    examiner.examine(torch_file(tmp_path / "dict.pth", beside), ())
    keys = large + b"}(" + (one + b"N") * (MANY // 10) + b"u"
    examiner.examine(torch_file(tmp_path / "keys.pth", keys), ())


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("a" * 1_000_000, id="long"),
        pytest.param(".".join("a" * 200_000), id="dots"),
        pytest.param("." * 1_000, id="only dots"),
        pytest.param("a.b." * 400, id="many parts"),
        pytest.param("", id="empty"),
    ],
)
def test_names_of_tensors(examiner: Examiner, tmp_path: Path, name: str) -> None:
    once = tensor() + put(0) + b"0"
    body = once + b"}(" + text(name) + get(0) + text("b") + get(0) + b"u"
    examiner.examine(torch_file(tmp_path / "one.pth", body))
    entries = b"".join(text(f"{index}") + get(0) for index in range(5_000))
    inner = b"}(" + entries + b"u"
    nested = once + b"}(" + text(name) + inner + text("c") + inner + text("d") + b"K\x01u"
    examiner.examine(torch_file(tmp_path / "prefix.pth", nested), ())
    values = b"}(" + b"".join(text(f"{index}") + b"K\x01" for index in range(20_000)) + b"u"
    shown = b"}(" + text(name) + values + text("w") + tensor() + b"u"
    examiner.examine(torch_file(tmp_path / "values.pth", shown), ())


def test_a_long_name_shared_by_many_levels(examiner: Examiner, tmp_path: Path) -> None:
    long = text("x" * 1_000) + put(0) + b"0"
    body = b"}" + get(0) * 1 + tensor() + b"s"
    for _ in range(60):
        body = b"}" + get(0) + body + b"s"
    examiner.examine(torch_file(tmp_path / "x.pth", long + body))


LINEAR = "torch.nn.modules.linear\nLinear"
NASTY = "\x1b]0;title\x07\x1b[2J\r\n\0\u202e\x9b31m"


def test_nothing_in_a_file_reaches_the_terminal_raw(examiner: Examiner, tmp_path: Path) -> None:
    line = NASTY.replace("\n", "")
    parts = {
        "key": b"}" + text(NASTY) + tensor() + b"s",
        "value": b"}(" + text("w") + tensor() + text("x") + text(NASTY) + b"u",
        "nested key": b"}(" + text("w") + tensor() + text("x") + b"}" + text(NASTY) + b"Nsu",
        "class": b"}(" + text("w") + tensor() + text("x") + f"c{line}\n{line}\n)R".encode() + b"u",
        "module": module(b"", text(NASTY) + tensor(), b"", f"{line}\n{line}"),
        "child": module(text(NASTY) + module(b"", text("w") + tensor())),
        "section": b"}(" + text(NASTY) + b"}" + text("w") + tensor() + b"s" + text("e") + b"K\x01u",
        "storage": tensor(store=storage(key=NASTY, place=NASTY)),
        "device": tensor(store=storage(place=NASTY)),
        "kind": tensor(store=storage(kind=f"{line}\n{line}")),
        "setting": module(b"", b"", text("in_features") + text(NASTY), LINEAR),
    }
    for body in parts.values():
        examiner.examine(torch_file(tmp_path / "x.pth", body), EVERY_VIEW)


@pytest.mark.parametrize("value", ["\ud800", "a\udfffb"])
def test_half_of_a_surrogate_pair_is_no_json(
    examiner: Examiner, tmp_path: Path, value: str
) -> None:
    body = (
        b"}("
        + text(value)
        + tensor()
        + text("x")
        + text(value)
        + text("y")
        + b"}"
        + text(value)
        + b"Nsu"
    )
    outcome = examiner.examine(torch_file(tmp_path / "x.pth", body))
    outcome.out.encode("utf-8")
    assert "\\ud" not in outcome.out


@pytest.mark.parametrize(
    "value", [b"\x7f\xf8" + bytes(6), b"\x7f\xf0" + bytes(6), b"\xff\xf0" + bytes(6)]
)
def test_numbers_that_are_no_json(examiner: Examiner, tmp_path: Path, value: bytes) -> None:
    body = (
        b"}("
        + text("w")
        + tensor()
        + text("loss")
        + b"G"
        + value
        + text("l")
        + b"](G"
        + value
        + b"e"
    )
    outcome = examiner.examine(torch_file(tmp_path / "x.pth", body + b"u"))
    assert json.loads(outcome.out)["values"] == {"loss": None, "l": [None]}
