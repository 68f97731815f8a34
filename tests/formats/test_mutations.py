"""Damaged files: cut anywhere and changed at random, they end in modtool's own errors, or in none.

The damage is seeded: a failure names the sample and the number of the mutation.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from modtool.errors import ModtoolError
from tests.formats.looking import look_at, plan_all
from tests.formats.samples import SAMPLES, sample

CHANGES = 750  # for each sample
PIECES = 100
FORMATS = {"sharded: index": "torch-sharded", "sharded: shard": "torch-sharded", "npy": "npz"}
EDGE = 128  # so many bytes of each end are cut one by one, the rest in steps
STEP = 32

BYTES = (0x00, 0x01, 0x7F, 0x80, 0xFE, 0xFF)
RUNS = (
    b"\xff" * 8,
    b"\xff" * 4,
    bytes(8),
    b"\x7f" + b"\xff" * 7,
    b"PK\x05\x06",
    b"PK\x01\x02",
    b"]]]]",
    b"-1",
    b"999999999999",
    b"\x1b[31m",
)


def cuts(size: int) -> list[int]:
    """Where a file of `size` bytes is cut: every byte near its ends, and in steps between them."""
    near = {*range(min(EDGE, size)), *range(max(0, size - EDGE), size)}
    return sorted(near | set(range(EDGE, size, STEP)))


def pieces(data: bytes, chance: random.Random) -> Iterator[bytes]:
    """The file with a piece missing in the middle, or doubled."""
    for _ in range(PIECES):
        begin, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
        yield chance.choice([data[:begin] + data[end:], data[:end] + data[begin:]])


def changes(data: bytes, chance: random.Random) -> Iterator[bytes]:
    """The file with one to eight bytes changed, or a run of bytes that means something put in.

    What is changed is not padding: a byte that differs from one of its neighbours.
    """
    places = [at for at in range(1, len(data)) if len(set(data[at - 1 : at + 2])) > 1]
    for _ in range(CHANGES):
        damaged = bytearray(data)
        for _ in range(chance.choice((1, 1, 2, 3, 8))):
            change(damaged, chance.choice(places), chance)
        yield bytes(damaged)


def change(data: bytearray, place: int, chance: random.Random) -> None:
    """Change one byte or a few."""
    match chance.randrange(5):
        case 0:
            data[place] = chance.randrange(256)
        case 1:
            data[place] ^= 1 << chance.randrange(8)
        case 2:
            data[place] = chance.choice(BYTES)
        case 3:
            run = chance.choice(RUNS)
            data[place : place + len(run)] = run
        case 4:
            other = chance.randrange(len(data))
            data[place : place + 4] = data[other : other + 4]


def damaged(name: str) -> Iterator[bytes]:
    """Every mutation of a sample; the same ones each time."""
    found = sample(name)
    data = found.files[found.damaged]
    chance = random.Random(name)
    yield from (data[:end] for end in cuts(len(data)))
    yield from pieces(data, chance)
    yield from changes(data, chance)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_samples_are_whole(name: str, tmp_path: Path) -> None:
    found = look_at(sample(name).lay_out(tmp_path))
    plan_all(found)
    assert FORMATS.get(name, name.partition(":")[0]) == found.format


@pytest.mark.parametrize("name", SAMPLES)
def test_damaged_files_end_in_our_own_errors(name: str, tmp_path: Path) -> None:
    target = sample(name).lay_out(tmp_path)
    path = tmp_path / sample(name).damaged
    for number, data in enumerate(damaged(name)):
        path.write_bytes(data)
        try:
            plan_all(look_at(target))
        except ModtoolError:
            continue
        except BaseException as error:
            error.add_note(f"mutation {number} of {name!r}")
            raise


def test_there_are_twenty_thousand_mutations_in_every_run() -> None:
    sizes = [len(found.files[found.damaged]) for found in map(sample, SAMPLES)]
    assert sum(len(cuts(size)) + PIECES + CHANGES for size in sizes) >= 20_000
