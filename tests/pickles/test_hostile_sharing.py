"""Keys made to collide, and calls by the thousand that share what is large.

Each runs in a process of its own, whose time and memory are measured (`tests/examiner.py`).
"""

from pathlib import Path

import pytest

from tests.archives import get, number, put, tensor, text, torch_file
from tests.examiner import Examiner, examiner

__all__ = ["examiner"]

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
