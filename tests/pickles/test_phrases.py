"""A tensor that is read in one step is what its opcodes make of it one by one.

`read_pickle(data, resolve=PersistentId)` takes every opcode by itself, and stands for the truth.
"""

import io
import random
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import cache

import pytest
import torch
from torch import nn

from modtool.errors import ModtoolError
from modtool.pickles.phrases import TENSOR
from modtool.pickles.reader import Pickle, read_pickle
from modtool.pickles.symbols import Call, Global, PersistentId

MUTATIONS = 1000


@cache
def pickle_of(name: str) -> bytes:
    """`data.pkl` of a sample as `torch.save` writes it."""
    file = io.BytesIO()
    torch.save(SAMPLES[name], file)
    with zipfile.ZipFile(file) as archive:
        return archive.read("archive/data.pkl")


def many(count: int = 60) -> dict[str, torch.Tensor]:
    """Tensors of zero to six dimensions, of sizes of one, two and four bytes, in some dtypes."""
    shapes = [(), (3,), (2, 300), (1, 2, 70_000), (1, 2, 3, 4), (2, 1, 1, 300, 1, 1)]
    dtypes = [torch.float32, torch.bfloat16, torch.int64, torch.bool]
    return {
        f"part.{index}": torch.zeros(shapes[index % 6], dtype=dtypes[index % 4])
        for index in range(count)
    }


def told(pickle: Pickle) -> object:
    """All that was read, as plain values; symbols by their number and what they hold."""
    numbers: dict[int, int] = {}

    def tell(value: object) -> object:
        if isinstance(value, Mapping):
            return [(tell(key), tell(item)) for key, item in value.items()]
        if isinstance(value, list | tuple):
            return type(value).__name__, [tell(item) for item in value]
        if not isinstance(value, Call | Global | PersistentId):
            return type(value).__name__, repr(value)
        if id(value) in numbers:
            return numbers[id(value)]
        numbers[id(value)] = len(numbers)
        return [tell(getattr(value, name)) for name in type(value).__slots__]

    kept = (pickle.root, pickle.calls, pickle.persistent_ids, pickle.globals)
    return [tell(part) for part in kept], pickle.protocol, pickle.end, pickle.unusual, pickle.latin


def outcome(data: bytes, resolve: Callable[[object], object] | None = None) -> object:
    """What comes of reading: everything that was read, or the error."""
    try:
        return told(read_pickle(data, resolve=resolve))
    except ModtoolError as error:
        return type(error), error.message


SAMPLES: dict[str, object] = {
    "state_dict": many(),
    "ordered": OrderedDict(many()),
    "trained": [nn.Parameter(torch.zeros(4, 4)) for _ in range(60)],
    "leaves": [torch.zeros(index, requires_grad=True) for index in range(60)],
    "tied": [torch.zeros(8)] * 60,
    "views": list(torch.zeros(60, 70_000).unbind()),
    "shared": [
        part for base in [torch.zeros(64, 64)] for _ in range(30) for part in (base, base.T)
    ],
    "model": nn.Sequential(*(nn.Linear(300, 2) for _ in range(9))),
}


# What refers to a storage again refers to its tuple, which is not said a second time.
ONE_STORAGE = ("tied", "views", "shared")


@pytest.mark.parametrize("name", SAMPLES)
def test_a_phrase_is_what_its_opcodes_say(name: str) -> None:
    data = pickle_of(name)
    assert outcome(data) == outcome(data, resolve=PersistentId)
    assert (TENSOR.search(data) is None) is (name in ONE_STORAGE)


def test_legacy_files_have_the_same_phrase() -> None:
    file = io.BytesIO()
    torch.save(many(), file, _use_new_zipfile_serialization=False)
    data = file.getvalue()
    at = data.index(b"\x80\x02}", 20)
    assert TENSOR.search(data, at) is not None
    assert outcome(data[at:]) == outcome(data[at:], resolve=PersistentId)


@pytest.mark.parametrize("name", ["state_dict", "model"])
def test_whatever_a_phrase_is_changed_to_is_read_alike(name: str) -> None:
    data = pickle_of(name)
    places = random.Random(name)
    starts = [found.span() for found in TENSOR.finditer(data)]
    for _ in range(MUTATIONS):
        begin, end = places.choice(starts)
        at = places.randrange(begin, end)
        byte = places.choice(OPCODES) if places.random() < 0.5 else places.randrange(256)
        changed = data[:at] + bytes([byte]) + data[at + places.randrange(2) :]
        assert outcome(changed) == outcome(changed, resolve=PersistentId), (at, byte)


OPCODES = b"()KMJXhjrqtRQN\x85\x86\x87\x88\x89.0"


@pytest.mark.parametrize("cut", range(0, 140, 3))
def test_a_phrase_that_is_cut_ends_too_early(cut: int) -> None:
    data = pickle_of("state_dict")
    begin = [found.start() for found in TENSOR.finditer(data)][-1]
    assert outcome(data[: begin + cut]) == outcome(data[: begin + cut], resolve=PersistentId)
