"""Files of `torch.save` before torch 1.6, written by torch itself or opcode by opcode."""

import importlib
import inspect
import io
import pickle
import pickletools
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
import torch
from torch import nn

from modtool.errors import CorruptFileError, ModtoolError
from modtool.formats import open_checkpoint, torch_legacy
from modtool.pickles.callables import weights_only_of
from modtool.pickles.reader import Pickle
from modtool.pickles.symbols import ABSENT, Call, Global, PersistentId
from modtool.pickles.writer import write_pickle
from modtool.records import DTYPES, Checkpoint, Section
from tests.formats.compare import assert_same, persistent

MAGIC = 0x1950A86A20F9469CFC6C


def save(value: object, path: Path, protocol: int = 2) -> Checkpoint:
    torch.save(value, path, pickle_protocol=protocol, _use_new_zipfile_serialization=False)
    return open_checkpoint(str(path))


def load(path: Path) -> object:
    return torch.load(path, weights_only=False)


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_a_state_dict_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    found = save(model.state_dict(), tmp_path / "x.pth", protocol)
    assert (found.format, found.kind, found.notes) == ("torch-legacy", "state_dict", ())
    assert_same(found.tensors, model.state_dict())
    assert [tensor.role for tensor in found.tensors] == ["parameter"] * 4 + ["buffer"] * 3


LEGACY_DTYPES = [
    dtype.name for dtype in DTYPES.values() if dtype.storage and not dtype.name.startswith("q")
]


@pytest.mark.parametrize("name", LEGACY_DTYPES)
def test_every_dtype(tmp_path: Path, name: str) -> None:
    state = {"x": torch.tensor([[0, 1, 0], [1, 1, 0]]).to(getattr(torch, name))}
    assert_same(save(state, tmp_path / "x.pth").tensors, state)


def test_views_empty_and_zero_dimensional_tensors(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    state = {
        "base": base,
        "column": base[:, 1],
        "turned": base.t(),
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(2.5),
    }
    found = save(state, tmp_path / "x.pth")
    assert_same(found.tensors, state)
    assert [(tensor.offset, tensor.stride) for tensor in found.tensors[:3]] == [
        (0, (4, 1)),
        (1, (4,)),
        (0, (1, 4)),
    ]
    assert len({tensor.storage for tensor in found.tensors[:3]}) == 1


def test_a_training_checkpoint(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    saved = {"epoch": 3, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    found = save(saved, tmp_path / "x.pth")
    assert found.sections == (Section("model", "model"), Section("optimizer", "optimizer"))
    assert_same(found.model_tensors, model.state_dict())
    assert found.values["epoch"] == 3


SOURCE = '''
from torch import nn


class Inner(nn.Module):
    """A class whose source goes with the file."""

    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(2, 3)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = Inner(), Inner()
        self.drop = nn.Dropout(0.25)
'''


def test_a_full_model_carries_its_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "legacy_gone.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("legacy_gone")
    model = module.Net().eval()
    sources = {name: inspect.getsource(getattr(module, name)) for name in ("Net", "Inner")}
    torch.save(model, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    state = model.state_dict()
    del sys.modules["legacy_gone"], module, model
    (tmp_path / "legacy_gone.py").unlink()

    found = open_checkpoint(str(tmp_path / "x.pth"))
    assert found.kind == "full_model"
    assert_same(found.tensors, state)
    assert {name: found.sources[f"legacy_gone.{name}"] for name in sources} == sources
    assert found.sources["torch.nn.modules.linear.Linear"] == inspect.getsource(nn.Linear)
    assert [(node.path, node.class_name, node.settings) for node in found.modules] == [
        ("", "legacy_gone.Net", ""),
        ("first", "legacy_gone.Inner", ""),
        ("first.proj", "torch.nn.modules.linear.Linear", LINEAR),
        ("second", "legacy_gone.Inner", ""),
        ("second.proj", "torch.nn.modules.linear.Linear", LINEAR),
        ("drop", "torch.nn.modules.dropout.Dropout", "p=0.25, inplace=False"),
    ]
    assert {node.training for node in found.modules} == {False}


LINEAR = "in_features=2, out_features=3, bias=True"


def test_every_pickle_is_kept_for_the_report_of_what_would_run(tmp_path: Path) -> None:
    found = save({"x": torch.ones(1)}, tmp_path / "x.pth")
    assert list(found.pickles) == [
        "magic number",
        "protocol version",
        "system info",
        "object",
        "storage keys",
    ]
    body = found.pickles["object"]
    assert isinstance(body, Pickle)
    assert body.root is found.root


# -- what only older releases wrote --------------------------------------------------------------


def python2(data: bytes, encoding: str) -> bytes:
    """A pickle as Python 2 would have written it: every text as a byte string."""
    made = bytearray()
    parts = [*pickletools.genops(data)]
    ends = [position for _, _, position in parts[1:]] + [len(data)]
    for (opcode, argument, start), end in zip(parts, ends, strict=True):
        if opcode.name == "BINUNICODE":
            text = str(argument).encode(encoding)
            short = len(text) < 256
            made += b"U" + bytes([len(text)]) if short else b"T" + struct.pack("<i", len(text))
            made += text
        else:
            made += data[start:end]
    return bytes(made)


def as_python2(data: bytes, encoding: str = "utf-8") -> bytes:
    """A legacy file with each of its five pickles as Python 2 would have written it."""
    stream = io.BytesIO(data)
    made = b""
    for _ in range(5):
        start = stream.tell()
        for _ in pickletools.genops(stream):
            pass
        made += python2(data[start : stream.tell()], encoding)
    return made + data[stream.tell() :]


def test_python_2_wrote_byte_strings(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    torch.save({"state_dict": model.state_dict(), "arch": "net"}, path, **OLD)
    path.write_bytes(as_python2(path.read_bytes()))
    loaded = load(path)
    assert isinstance(loaded, dict)
    found = open_checkpoint(str(path))
    assert_same(found.tensors, loaded["state_dict"])
    assert dict(found.values) == {"arch": "net"}


def test_text_of_python_2_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"été": torch.ones(2), "arch": "café"}, path, **OLD)
    path.write_bytes(as_python2(path.read_bytes(), "latin-1"))
    with pytest.raises(UnicodeDecodeError):
        torch.load(path, weights_only=True)
    with pytest.warns(UserWarning, match="pickle_load_args"):
        loaded = torch.load(path, weights_only=True, encoding="latin1")
    assert loaded["arch"] == "café"
    found = open_checkpoint(str(path))
    assert_same(found.tensors, {"été": loaded["été"]})
    assert dict(found.values) == {"arch": "café"}
    verdict = weights_only_of(found)
    assert verdict is not None
    assert (verdict.accepted, verdict.possible, verdict.reasons) == (
        False,
        True,
        ("object: text of Python 2 that is not UTF-8: load it with encoding='latin1'",),
    )


@pytest.mark.parametrize("comment", ["# café", "# café, of many a line" + "\n    # again" * 30])
def test_a_source_of_python_2_that_is_not_utf_8(tmp_path: Path, comment: str) -> None:
    folder, path = tmp_path / "été", tmp_path / "x.pth"
    folder.mkdir()
    net = f"class Net(nn.Module):\n    {comment}\n    scale = 2\n"
    (folder / "legacy_latin.py").write_text(f"from torch import nn\n\n{net}", "utf-8")
    program = f"import torch, legacy_latin; torch.save(legacy_latin.Net(), {str(path)!r}, **{OLD})"
    subprocess.run([sys.executable, "-c", program], cwd=folder, check=True)
    path.write_bytes(as_python2(path.read_bytes(), "latin-1"))
    found = open_checkpoint(str(path))
    assert found.sources == {"legacy_latin.Net": net}


OLD = {"_use_new_zipfile_serialization": False}


def test_the_little_endian_flag_changes_nothing(tmp_path: Path) -> None:
    """torch converts on big-endian machines when it writes, and ignores the flag when it reads."""
    path = tmp_path / "x.pth"
    state = {"x": torch.tensor([1.0, 2.0]), "n": torch.tensor([1, 2])}
    data = bytearray(path_bytes(state, path))
    at = data.index(b"little_endian")
    at = data.index(b"\x88", at)
    data[at] = 0x89
    path.write_bytes(data)
    loaded = load(path)
    assert isinstance(loaded, dict)
    assert loaded["x"].tolist() == [1.0, 2.0]
    found = open_checkpoint(str(path))
    assert_same(found.tensors, loaded)
    assert {tensor.storage.byteorder for tensor in found.tensors if tensor.storage} == {"little"}


def path_bytes(state: object, path: Path) -> bytes:
    torch.save(state, path, **OLD)
    return path.read_bytes()


def written(root: object, keys: list[str], data: bytes) -> bytes:
    """A legacy file from symbols."""
    info = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    parts = (MAGIC, 1001, info, root, keys)
    return b"".join(map(write_pickle, parts)) + data


def floats(*numbers: float) -> bytes:
    return struct.pack(f"<q{len(numbers)}f", len(numbers), *numbers)


def storage_of(key: str, numel: int, view: object = None, cls: str = "FloatStorage") -> object:
    return PersistentId(("storage", Global("torch", cls), key, "cpu", numel, view))


def rebuilt(storage: object, offset: int, shape: tuple[int, ...]) -> Call:
    stride = tuple(torch.empty(shape, device="meta").stride())
    return Call(Global("torch._utils", "_rebuild_tensor"), (storage, offset, shape, stride))


def test_a_view_is_the_sixth_item_of_a_persistent_id(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    root = {
        "whole": rebuilt(storage_of("1", 6), 0, (6,)),
        "view": rebuilt(storage_of("1", 6, ("2", 2, 3)), 1, (2,)),
    }
    path.write_bytes(written(root, ["1"], floats(0, 1, 2, 3, 4, 5)))
    loaded = load(path)
    assert isinstance(loaded, dict)
    assert loaded["view"].tolist() == [3.0, 4.0]
    found = open_checkpoint(str(path))
    assert_same(found.tensors, loaded)
    assert found.tensors[1].offset == 3
    assert found.tensors[0].storage == found.tensors[1].storage


@pytest.mark.parametrize("view", [("2", 2, 5), ("2", 7, 0), ("2", -1, 2), "2", ("2", 1)])
def test_a_view_that_lies(tmp_path: Path, view: object) -> None:
    path = tmp_path / "x.pth"
    root = {"view": rebuilt(storage_of("1", 6, view), 0, (1,))}
    path.write_bytes(written(root, ["1"], floats(0, 1, 2, 3, 4, 5)))
    with pytest.raises(CorruptFileError):
        open_checkpoint(str(path))


def test_a_tensor_may_not_leave_its_view(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    root = {"view": rebuilt(storage_of("1", 6, ("2", 2, 3)), 1, (3,))}
    path.write_bytes(written(root, ["1"], floats(0, 1, 2, 3, 4, 5)))
    with pytest.raises(CorruptFileError, match="claims more than its storage"):
        open_checkpoint(str(path))


def parameter(state: object, arguments: tuple[object, ...] = ()) -> Call:
    cls = Global("torch.nn.parameter", "Parameter")
    return Call(cls, arguments, how="new", state=state)


def test_parameters_and_tensors_of_torch_before_0_4(tmp_path: Path) -> None:
    """A class and a state: of four for a tensor, of five or three for a parameter."""
    path = tmp_path / "x.pth"
    data = rebuilt(storage_of("1", 4), 0, (2, 2))
    hooks = Call(Global("collections", "OrderedDict"), ())
    tensor = Call(Global("torch", "FloatTensor"), ())
    tensor.state = (storage_of("1", 4), 1, (3,), (1,))
    root = {
        "five": parameter((data, None, hooks, True, False)),
        "three": parameter((False, False, hooks), (data,)),
        "tensor": tensor,
    }
    path.write_bytes(written(root, ["1"], floats(0, 1, 2, 3)))
    loaded = load(path)
    assert isinstance(loaded, dict)
    found = open_checkpoint(str(path))
    assert_same(found.tensors, loaded)
    assert [tensor.requires_grad for tensor in found.tensors] == [True, False, None]
    assert [loaded[name].requires_grad for name in loaded] == [True, False, False]


# -- files that lie ------------------------------------------------------------------------------


def test_bytes_after_the_last_storage_are_told(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(path_bytes({"x": torch.ones(2)}, path) + b"tail")
    (found,) = open_checkpoint(str(path)).notes
    assert found.code == "stray-bytes"
    assert found.message == "4 bytes after the last storage belong to nothing"


def test_every_cut_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    data = path_bytes({"x": torch.ones(3), "y": torch.zeros(2, dtype=torch.int64)}, path)
    for end in range(len(data)):
        path.write_bytes(data[:end])
        with pytest.raises(ModtoolError):
            open_checkpoint(str(path))


@pytest.mark.parametrize(
    ("root", "keys", "data", "message"),
    [
        ({"x": rebuilt(storage_of("1", 2), 0, (2,))}, [], b"", "storage 1 has no data"),
        ({}, ["1"], floats(1), "storage 1 belongs to no object"),
        ({"x": rebuilt(storage_of("1", 2), 0, (2,))}, ["1"], floats(1), "its count says 4"),
        ({"x": rebuilt(storage_of("1", 2), 0, (2,))}, ["1"], floats(1, 2)[:-1], "truncated"),
        ({"x": rebuilt(storage_of("1", 2), 0, (2,))}, ["1", "1"], floats(1, 2), "listed twice"),
        ({"x": rebuilt(storage_of("1", 2), 0, (3,))}, ["1"], floats(1, 2), "claims more than"),
        ({"x": rebuilt(storage_of("1", 2**62), 0, (1,))}, ["1"], floats(1), "its count says 4"),
    ],
)
def test_storages_that_lie(
    tmp_path: Path, root: object, keys: list[str], data: bytes, message: str
) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(written(root, keys, data))
    with pytest.raises(CorruptFileError, match=message):
        open_checkpoint(str(path))


def test_another_protocol_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(b"".join(map(write_pickle, (MAGIC, 1002, {}, {}, []))))
    with pytest.raises(CorruptFileError, match="protocol version is not 1001"):
        open_checkpoint(str(path))


@pytest.mark.parametrize("protocol", range(6))
def test_only_the_magic_number_is_sniffed(protocol: int) -> None:
    assert torch_legacy.sniff(pickle.dumps(MAGIC, protocol))
    assert not torch_legacy.sniff(pickle.dumps(MAGIC + 1, protocol))
    assert not torch_legacy.sniff(pickle.dumps({"a": 1}, protocol))


def test_the_size_of_the_data_costs_nothing(tmp_path: Path) -> None:
    """A sparse file of 4 GiB, of which a few hundred bytes are read."""
    path = tmp_path / "x.pth"
    count = 1 << 30
    root = {"x": rebuilt(storage_of("1", count), 0, (count,))}
    head = written(root, ["1"], struct.pack("<q", count))
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + 4 * count)
    tracemalloc.start()
    try:
        found = open_checkpoint(str(path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.tensors[0].nbytes == 4 << 30
    assert peak < 1_000_000


def test_nothing_of_the_file_is_called(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    victim = tmp_path / "victim"
    root = {
        "x": rebuilt(storage_of("1", 1), 0, (1,)),
        "y": Call(Global("posix", "mkdir"), (str(victim),), state=ABSENT),
    }
    path.write_bytes(written(root, ["1"], floats(1)))
    found = open_checkpoint(str(path))
    assert [tensor.name for tensor in persistent(found)] == ["x"]
    assert not victim.exists()
