"""The tar of torch 0.1, written here as torch 0.1 did, and loaded by torch itself to compare."""

import io
import struct
import tarfile
from pathlib import Path

import pytest
import torch

from modtool.errors import ModtoolError, UnknownFormatError
from modtool.formats import open_checkpoint
from modtool.pickles.callables import callables_of, weights_only_of
from modtool.pickles.symbols import Call, Global, PersistentId
from modtool.pickles.writer import write_pickle
from tests.formats.compare import assert_same

Parts = dict[str, bytes]


def tensor_record(key: int, storage: int, offset: int, shape: tuple[int, ...]) -> bytes:
    stride = torch.empty(shape, device="meta").stride()
    count = len(shape)
    numbers = struct.pack(f"<2i{2 * count}qq", count, 0, *shape, *stride, offset)
    return write_pickle((key, storage, Global("torch", "FloatTensor"))) + numbers


def storage_record(key: int, cls: str, data: bytes, count: int) -> bytes:
    head = write_pickle((key, "cpu", Global("torch", cls)))
    return head + struct.pack("<q", count) + data


def parts(root: object) -> Parts:
    """Two storages, a view of the first, and four tensors."""
    longs = struct.pack("<3q", 7, 8, 9)
    return {
        "sys_info": write_pickle({"protocol_version": 1000, "little_endian": True}),
        "pickle": write_pickle(root),
        "tensors": b"".join(
            (
                write_pickle(4),
                tensor_record(101, 1, 0, (2, 3)),
                tensor_record(102, 2, 0, (3,)),
                tensor_record(103, 3, 1, (2,)),
                tensor_record(104, 1, 5, ()),
            )
        ),
        "storages": b"".join(
            (
                write_pickle(2),
                storage_record(1, "FloatStorage", struct.pack("<6f", *range(6)), 6),
                storage_record(2, "LongStorage", longs, 3),
                write_pickle([(3, 1, 2, 3)]),
            )
        ),
    }


def archive(path: Path, members: Parts) -> Path:
    with tarfile.open(path, "w:", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(data), 1.5  # a fraction needs an extended header
            tar.addfile(entry, io.BytesIO(data))
    return path


def reference(key: int) -> PersistentId:
    return PersistentId(str(key))


ROOT = {
    "weight": reference(101),
    "steps": reference(102),
    "view": reference(103),
    "last": reference(104),
    "again": reference(101),
}


def test_names_shapes_and_bytes_are_those_that_torch_loads(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.pth", parts(ROOT))
    loaded = torch.load(path, weights_only=False)
    assert loaded["view"].tolist() == [3.0, 4.0]
    found = open_checkpoint(str(path))
    assert (found.format, found.kind) == ("torch-tar", "state_dict")
    assert_same(found.tensors, loaded)
    storages = {tensor.name: tensor.storage for tensor in found.tensors}
    assert storages["weight"] == storages["view"] == storages["again"] == storages["last"]


def test_a_full_model(tmp_path: Path) -> None:
    hooks = Call(Global("collections", "OrderedDict"), ())
    cls = PersistentId((Global("gone.models", "Net"), "models.py", "class Net: ..."))
    weight = Call(Global("torch.nn.parameter", "Parameter"), (reference(101),), how="new")
    weight.state = (True, False, hooks)
    net = Call(cls, (), how="new")
    net.state = {
        "training": False,
        "_parameters": Call(Global("collections", "OrderedDict"), ([["weight", weight]],)),
        "_buffers": Call(Global("collections", "OrderedDict"), ([["mean", reference(102)]],)),
        "_modules": Call(Global("collections", "OrderedDict"), ()),
    }
    found = open_checkpoint(str(archive(tmp_path / "x.pth", parts(net))))
    assert found.kind == "full_model"
    assert [(node.class_name, node.training) for node in found.modules] == [
        ("gone.models.Net", False)
    ]
    assert [(tensor.name, tensor.role, tensor.requires_grad) for tensor in found.tensors] == [
        ("weight", "parameter", True),
        ("mean", "buffer", None),
    ]
    assert found.sources == {"gone.models.Net": "class Net: ..."}
    assert "gone.models.Net" in [use.name for use in callables_of(found)]


def test_weights_only_refuses_it(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.pth", parts(ROOT))
    with pytest.raises(RuntimeError, match="Cannot use ``weights_only=True``"):
        torch.load(path, weights_only=True)
    verdict = weights_only_of(open_checkpoint(str(path)))
    assert verdict is not None
    assert (verdict.accepted, verdict.line) == (False, "")


def test_another_tar_is_named(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.tar", {"notes.txt": b"hello"})
    with pytest.raises(UnknownFormatError, match="a tar archive, but not one that torch saved"):
        open_checkpoint(str(path))


def test_every_cut_is_a_clear_error(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.pth", parts(ROOT))
    data = path.read_bytes()
    end = data.rindex(struct.pack("<3q", 7, 8, 9))
    for cut in range(0, end, 7):
        path.write_bytes(data[:cut])
        with pytest.raises(ModtoolError):
            open_checkpoint(str(path))


@pytest.mark.parametrize(
    ("member", "old", "new"),
    [
        ("storages", struct.pack("<q", 6), struct.pack("<q", 60)),
        ("storages", struct.pack("<q", 6), struct.pack("<q", -6)),
        ("storages", write_pickle([(3, 1, 2, 3)]), write_pickle([(3, 1, 2, 5)])),
        ("storages", write_pickle([(3, 1, 2, 3)]), write_pickle([(3, 9, 2, 3)])),
        ("storages", write_pickle(2), write_pickle(2**40)),
        ("tensors", write_pickle(4), write_pickle(5)),
        ("tensors", struct.pack("<2i", 2, 0), struct.pack("<2i", 2**30, 0)),
        ("tensors", struct.pack("<2i2q", 2, 0, 2, 3), struct.pack("<2i2q", 2, 0, 2, 4)),
        ("pickle", b"U\x03101", b"U\x03999"),
    ],
)
def test_numbers_that_lie(tmp_path: Path, member: str, old: bytes, new: bytes) -> None:
    members = parts(ROOT)
    if member == "pickle":
        old, new = old.replace(b"U\x03", b"X\x03\0\0\0"), new.replace(b"U\x03", b"X\x03\0\0\0")
    assert old in members[member]
    members[member] = members[member].replace(old, new, 1)
    with pytest.raises(ModtoolError):
        open_checkpoint(str(archive(tmp_path / "x.pth", members)))
