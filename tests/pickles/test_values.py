"""How plain values are shown, whatever protocol wrote them."""

import enum
import json
from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from modtool.formats import open_checkpoint
from modtool.pickles.numpy_values import saved_array
from modtool.pickles.plain import plain
from modtool.pickles.reader import read_pickle
from modtool.pickles.symbols import Call

HERE = __name__


class Color(enum.Enum):
    RED = 1


class Names(list[str]):
    """A list by inheritance."""


Point = namedtuple("Point", "x y")


@dataclass
class Config:
    lr: float = 0.1
    betas: tuple[float, ...] = (0.9, 0.999)
    act: Any = nn.ReLU
    inner: Any = field(default_factory=lambda: Namespace(seeds={3, 1}))


# Value -> what is shown of it, by dotted name below `v`.
SHOWN: Mapping[str, tuple[object, Mapping[str, object]]] = {
    "set of numbers": ({10, 9, 1}, {"": [1, 9, 10]}),
    "set of texts": ({"b", "a", "c"}, {"": ["a", "b", "c"]}),
    "empty set": (set(), {"": []}),
    "frozenset": (frozenset({2, 1}), {"": [1, 2]}),
    "sets in a list": ([{1}, {"x": {2}}], {".0": [1], ".1.x": [2]}),
    "deque": (deque([1, 2, 3], maxlen=2), {"": [2, 3]}),
    "Counter": (Counter("aab"), {".a": 2, ".b": 1}),
    "defaultdict": (defaultdict(list, {"a": [1]}), {".a": [1]}),
    "OrderedDict": (OrderedDict(a=1), {".a": 1}),
    "subclass of list": (Names(["a"]), {"": ["a"]}),
    "datetime": (datetime(2024, 1, 2, 3, 4, 5, 6), {"": "2024-01-02T03:04:05.000006"}),
    "datetime with a zone": (datetime(2024, 1, 2, tzinfo=UTC), {"": "2024-01-02T00:00:00+00:00"}),
    "date": (date(2024, 1, 2), {"": "2024-01-02"}),
    "time": (time(3, 4, 5), {"": "03:04:05"}),
    "timedelta": (timedelta(1, 5), {"": "<datetime.timedelta(1, 5, 0)>"}),
    "path": (PurePosixPath("a/b"), {"": "a/b"}),
    "path of Windows": (PureWindowsPath("C:/a"), {"": "C:\\a"}),
    "Enum": (Color.RED, {"": f"<{HERE}.Color(1)>"}),
    "Decimal": (Decimal("1.5"), {"": "<decimal.Decimal('1.5')>"}),
    "torch version": (torch.torch_version.TorchVersion("2.1.0"), {"": "2.1.0"}),
    "range": (range(3), {"": "<range(0, 3, 1)>"}),
    "slice": (slice(1, 2), {"": "<slice(1, 2, None)>"}),
    "Ellipsis": (..., {"": "Ellipsis"}),
    "type": (float, {"": "float"}),
    "torch.Size": (torch.Size([1, 2]), {"": [1, 2]}),
    "layout": (torch.strided, {"": "torch.strided"}),
    "function": (torch.relu, {"": "<torch._C._VariableFunctionsClass.relu>"}),
    "class": (nn.Linear, {"": "torch.nn.modules.linear.Linear"}),
    "numpy text": (np.str_("hi"), {"": "hi"}),
    "numpy complex": (np.complex64(2j), {"": "2j"}),
    "numpy array": (np.arange(3.0), {"": "<numpy.ndarray f8 [3]>"}),
    "Namespace": (Namespace(lr=0.1, sizes=[1]), {".lr": 0.1, ".sizes": [1]}),
    "SimpleNamespace": (SimpleNamespace(b=2), {".b": 2}),
    "namedtuple": (Point(1, 2), {"": [1, 2]}),
    "module": (nn.ReLU(), {"": "<torch.nn.modules.activation.ReLU>"}),
    "dataclass": (
        Config(),
        {
            ".__class__": f"{HERE}.Config",
            ".lr": 0.1,
            ".betas": [0.9, 0.999],
            ".act": "torch.nn.modules.activation.ReLU",
            ".inner.seeds": [1, 3],
        },
    ),
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", SHOWN)
def test_a_value_in_every_protocol(tmp_path: Path, name: str, protocol: int) -> None:
    value, expected = SHOWN[name]
    path = tmp_path / "x.pth"
    torch.save({"weight": torch.ones(1), "v": value}, path, pickle_protocol=protocol)
    found = open_checkpoint(str(path)).values
    assert found == {f"v{end}": shown for end, shown in expected.items()}
    json.dumps(found)


DTYPE = (
    b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
)


@pytest.mark.parametrize("raw", [b"aaaB", b"\0\0\x8fB", b"\xc3\xa9\0B", b"\xe2\x82\xacB"])
def test_numbers_of_numpy_that_python_2_wrote(raw: bytes) -> None:
    """Their bytes are written as text is, of which some are UTF-8 and some are not."""
    text = bytes([ord("U"), len(raw)]) + raw
    scalar = b"\x80\x02cnumpy.core.multiarray\nscalar\n" + DTYPE + text + b"\x86R."
    assert plain(read_pickle(scalar).root) == np.frombuffer(raw, "<f4")[0]
    array = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    array += b"(K\x01K\x01\x85" + DTYPE + b"\x89" + text + b"tb."
    call = read_pickle(array).root
    assert isinstance(call, Call)
    found = saved_array(call)
    assert found is not None
    assert bytes(found.data or b"") == raw


def test_arguments_too_long_to_show_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    values = {"long": Decimal("1" * 61), "partial": partial(torch.relu)}
    torch.save({"weight": torch.ones(1), **values}, path)
    assert open_checkpoint(str(path)).values == {
        "long": "<decimal.Decimal>",
        "partial": "<functools.partial>",
    }


def test_an_optimizer_saved_as_an_object_shows_its_settings(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    net = nn.Linear(2, 2)
    torch.save({"model": net.state_dict(), "opt": torch.optim.SGD(net.parameters(), 0.5)}, path)
    found = open_checkpoint(str(path))
    assert {part.name: part.role for part in found.sections} == {
        "model": "model",
        "opt": "optimizer",
    }
    assert found.values["opt.__class__"] == "torch.optim.sgd.SGD"
    assert found.values["opt.param_groups.0.lr"] == 0.5


@pytest.mark.parametrize("shape", [(4, 2), (3, 5), (7,)])
@pytest.mark.parametrize("dtype", [torch.quint4x2, torch.quint2x4])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_quantized_types_of_less_than_a_byte(
    tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    path = tmp_path / "x.pth"
    tensor = torch._empty_affine_quantized(shape, scale=1.0, zero_point=0, dtype=dtype)
    torch.save({"t": tensor}, path)
    (found,) = open_checkpoint(str(path)).tensors
    assert (f"torch.{found.dtype}", found.shape, found.layout) == (str(dtype), shape, "quantized")
    assert found.nbytes == tensor.untyped_storage().nbytes()
