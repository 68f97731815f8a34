"""Damaged files: cut anywhere and changed at random, they end in modtool's own errors, or in none.

The damage is seeded: a failure names the sample, the seed and the number of the mutation.
"""

import json
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from modtool.errors import ModtoolError
from modtool.formats import open_checkpoint
from modtool.render import RENDERERS
from modtool.report import count_report, summary_report
from tests.formats.samples import SAMPLES

SEEDS = range(3)
CHANGES = 1_400  # for each sample and seed
CUTS = 500

BYTES = (0x00, 0x01, 0x7F, 0x80, 0xFE, 0xFF)
RUNS = (
    b"\xff" * 8,
    b"\xff" * 4,
    bytes(8),
    b"\x7f" + b"\xff" * 7,
    b"PK\x05\x06",
    b"PK\x01\x02",
    b"]]]]",
)


@cache
def sample(name: str) -> bytes:
    return SAMPLES[name]()


def cuts(data: bytes, chance: random.Random) -> Iterator[bytes]:
    """The file cut at any byte; or with a piece missing in the middle, or doubled."""
    for _ in range(CUTS):
        begin, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
        yield chance.choice(
            [data[:end], data[:end], data[:begin] + data[end:], data[:end] + data[begin:]]
        )


def changes(data: bytes, chance: random.Random) -> Iterator[bytes]:
    """The file with one to eight bytes changed, or a run of bytes that means something put in.

    What is changed is not padding: a byte that differs from one of its neighbours.
    """
    places = [at for at in range(1, len(data)) if len(set(data[at - 1 : at + 2])) > 1]
    for _ in range(CHANGES):
        damaged = bytearray(data)
        for _ in range(chance.choice((1, 1, 2, 3, 8))):
            place = chance.choice(places)
            match chance.randrange(5):
                case 0:
                    damaged[place] = chance.randrange(256)
                case 1:
                    damaged[place] ^= 1 << chance.randrange(8)
                case 2:
                    damaged[place] = chance.choice(BYTES)
                case 3:
                    run = chance.choice(RUNS)
                    damaged[place : place + len(run)] = run
                case 4:
                    other = chance.choice(places)
                    damaged[place : place + 4] = damaged[other : other + 4]
        yield bytes(damaged)


def look_at(path: Path) -> None:
    """Everything that `summary` and `count` do with a file."""
    checkpoint = open_checkpoint(str(path))
    report = summary_report(checkpoint)
    json.loads(RENDERERS["json"](report))
    RENDERERS["table"](report).encode()
    RENDERERS["table"](summary_report(checkpoint, tensors=True)).encode()
    RENDERERS["csv"](count_report(checkpoint)).encode()


@pytest.mark.parametrize("name", SAMPLES)
def test_the_samples_are_whole(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(sample(name))
    look_at(path)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", SAMPLES)
def test_damaged_files_end_in_our_own_errors(name: str, seed: int, tmp_path: Path) -> None:
    data, path = sample(name), tmp_path / "x"
    chance = random.Random(f"{name} {seed}")
    for number, damaged in enumerate([*cuts(data, chance), *changes(data, chance)]):
        path.write_bytes(damaged)
        try:
            look_at(path)
        except ModtoolError:
            continue
        except BaseException as error:
            error.add_note(f"mutation {number} of {name!r} with seed {seed}")
            raise


@pytest.mark.parametrize("name", SAMPLES)
def test_a_file_cut_at_its_beginning_or_end_is_refused(name: str, tmp_path: Path) -> None:
    data, path = sample(name), tmp_path / "x"
    for end in (*range(64), *range(len(data) - 64, len(data))):
        path.write_bytes(data[:end])
        with pytest.raises(ModtoolError):
            look_at(path)


def test_there_are_twenty_thousand_mutations_in_every_run() -> None:
    assert len(SAMPLES) * len(SEEDS) * (CUTS + CHANGES) >= 20_000
