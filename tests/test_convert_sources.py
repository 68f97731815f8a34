"""From everything that is read, to every form: bit for bit what torch has."""

import io
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.package.package_exporter import PackageExporter

from modtool.formats.zip_writer import ZipLayout
from modtool.pickles.symbols import Call, Global, PersistentId
from modtool.pickles.writer import write_pickle
from tests.conftest import Ran
from tests.formats.gguf_files import F32, STRING, Writer
from tests.formats.test_torch_tar import ROOT, parts
from tests.formats.test_torch_tar import archive as tar_archive

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*TypedStorage.*:UserWarning"),
]

Modtool = Callable[..., Ran]
Tensors = dict[str, torch.Tensor]


class Block(nn.Module):
    """Under names that TorchScript and packages keep."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.register_buffer("shift", torch.tensor([1, 2]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.norm(self.conv(x))
        return found


def state() -> Tensors:
    return {name: tensor.detach() for name, tensor in Block().state_dict().items()}


def legacy(path: Path) -> Tensors:
    whole = torch.arange(6.0).reshape(2, 3)
    saved = {**state(), "whole": whole, "tied": whole, "turned": whole.t(), "part": whole[1]}
    torch.save(saved, path, _use_new_zipfile_serialization=False)
    return saved


def legacy_model(path: Path) -> Tensors:
    torch.save(Block(), path, _use_new_zipfile_serialization=False)
    return state()


def full_model(path: Path) -> Tensors:
    torch.save(Block(), path)
    return state()


def torchscript(path: Path) -> Tensors:
    torch.jit.save(torch.jit.script(Block()), str(path))
    return state()


def tar(path: Path) -> Tensors:
    tar_archive(path, parts(ROOT))
    found = torch.load(path, weights_only=False)
    assert isinstance(found, dict)
    return found


def package(path: Path) -> Tensors:
    with PackageExporter(str(path)) as made:
        made.extern(["torch.**", "numpy.**", "collections.**"])
        made.save_pickle("weights", "state.pkl", state())
    return state()


def gguf(path: Path) -> Tensors:
    values = torch.arange(6.0).reshape(2, 3)
    data = struct.pack("<6f", *range(6)) + bytes(8) + struct.pack("<3e", 1.0, -2.0, 0.5)
    names = [("a.weight", (3, 2), 0, 0), ("b.weight", (3,), 1, 32)]
    head = Writer().file({"general.architecture": (STRING, "llama"), "x": (F32, 0.5)}, names)
    path.write_bytes(head + bytes(-len(head) % 32) + data)
    return {"a.weight": values, "b.weight": torch.tensor([1.0, -2.0, 0.5]).half()}


def arrays() -> dict[str, "np.ndarray[tuple[int, ...], np.dtype[np.generic]]"]:
    return {
        "plain": np.arange(6, dtype=np.float32).reshape(2, 3),
        "turned": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">i4"),
        "none": np.zeros((0, 2), dtype=np.int64),
        "one": np.array(True),
    }


def from_arrays() -> Tensors:
    native = {name: array.astype(array.dtype.newbyteorder("=")) for name, array in arrays().items()}
    return {name: torch.from_numpy(array) for name, array in native.items()}


def npz(path: Path) -> Tensors:
    np.savez(path, **arrays())  # type: ignore[arg-type]
    return from_arrays()


def npy(path: Path) -> Tensors:
    np.save(path, arrays()["turned"])
    return {"": from_arrays()["turned"]}


def big_endian(path: Path) -> Tensors:
    torch.save({"a": torch.arange(4.0)}, path)
    swapped = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(swapped, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("/byteorder"):
                data = b"big"
            if name.endswith("/data/0"):
                data = struct.pack(">4f", *range(4))
            new.writestr(name, data)
    path.write_bytes(swapped.getvalue())
    return {"a": torch.arange(4.0)}


def sharded_bin(path: Path) -> Tensors:
    path.mkdir()
    index = {}
    for number, (name, tensor) in enumerate(state().items()):
        file = f"pytorch_model-{number + 1:05d}-of-00007.bin"
        torch.save({name: tensor}, path / file)
        index[name] = file
    text = json.dumps({"metadata": {"total_size": 0}, "weight_map": index})
    (path / "pytorch_model.bin.index.json").write_text(text)
    return state()


MAKERS: dict[str, Callable[[Path], Tensors]] = {
    "legacy.pth": legacy,
    "legacy_model.pth": legacy_model,
    "model.pth": full_model,
    "script.pt": torchscript,
    "old.pth": tar,
    "package.pt": package,
    "model.gguf": gguf,
    "arrays.npz": npz,
    "array.npy": npy,
    "big.pth": big_endian,
    "sharded": sharded_bin,
}


def bits(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.contiguous().view(-1).view(torch.uint8).tolist())


def same(found: Tensors, expected: Tensors) -> None:
    assert sorted(found) == sorted(expected)
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        assert bits(found[name]) == bits(tensor), name


def test_an_array_gets_a_name(modtool: Modtool) -> None:
    np.save("array.npy", np.arange(3.0))
    assert modtool("convert", "array.npy", "--add-prefix", "weight", "-o", "x.pth").code == 0
    same(torch.load("x.pth"), {"weight": torch.arange(3.0).double()})


# -- far into a sparse file ----------------------------------------------------------------------

FAR = 5 << 30


def sparse_file(path: Path) -> None:
    """One storage of five gigabytes that is a hole but for its end, and a small one after it."""
    layout = ZipLayout("archive")
    far = struct.pack("<6f", *range(6))
    near = struct.pack("<3q", 7, 8, 9)
    location = ("cpu",)
    long = PersistentId(("storage", Global("torch", "FloatStorage"), "0", *location, FAR // 4 + 6))
    short = PersistentId(("storage", Global("torch", "LongStorage"), "1", *location, 3))
    hooks = Call(Global("collections", "OrderedDict"), ())
    rebuild = Global("torch._utils", "_rebuild_tensor_v2")
    root = {
        "far": Call(rebuild, (long, FAR // 4, (2, 3), (3, 1), False, hooks)),
        "turned": Call(rebuild, (long, FAR // 4, (3, 2), (1, 3), False, hooks)),
        "after": Call(rebuild, (short, 0, (3,), (1,), False, hooks)),
    }
    with path.open("wb") as file:
        for name, data in (("data.pkl", write_pickle(root)), ("version", b"3\n")):
            file.write(layout.begin(name, len(data)) + data + layout.end(crc32(data)))
        file.write(layout.begin("data/0", FAR + len(far)))
        file.seek(FAR, os.SEEK_CUR)
        file.write(far + layout.end(0))
        file.write(layout.begin("data/1", len(near)) + near + layout.end(crc32(near)))
        file.write(layout.finish())


def test_far_into_a_sparse_torch_file(modtool: Modtool) -> None:
    sparse_file(Path("in.pth"))
    assert os.stat("in.pth").st_blocks * 512 < 1 << 20
    expected = torch.load("in.pth", mmap=True, weights_only=True)
    assert expected["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]
    apart = "note: tied-stored-apart: stored once for each name: far, turned\n"
    for output, said in (("out.safetensors", apart), ("out.pth", "")):
        ran = modtool("convert", "in.pth", "-o", output, "--shrink", "--verify")
        assert (ran.code, ran.err) == (0, said)
        assert os.path.getsize(output) < 4096
    same(safetensors.torch.load_file("out.safetensors"), expected)
    found = torch.load("out.pth", weights_only=True)
    same(found, expected)
    assert found["far"].data_ptr() == found["turned"].data_ptr()
    assert modtool("convert", "out.safetensors", "-o", "back.pth").code == 0
    same(torch.load("back.pth", weights_only=True), expected)


# -- everything to everything --------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_to_every_form(modtool: Modtool, name: str) -> None:
    expected = MAKERS[name](Path(name))
    for output, options in (
        ("a.safetensors", ("--tied", "clone")),
        ("a.pth", ()),
        ("b.pth", ("--to", "checkpoint")),
        ("set/", ("--max-shard-size", "100", "--tied", "clone")),
        ("bins/", ("--max-shard-size", "100", "--to", "state_dict")),
        ("dcp/", ("--to", "dcp")),
    ):
        ran = modtool("convert", name, "-o", output, "--verify", *options)
        assert ran.code == 0, ran.err
    same(safetensors.torch.load_file("a.safetensors"), expected)
    same(torch.load("a.pth", weights_only=True), expected)
    same(torch.load("b.pth", weights_only=True)["model_state_dict"], expected)
    for number, folder in enumerate(("set", "bins", "dcp")):
        assert modtool("convert", folder, "-o", f"back{number}.pth", "--verify").code == 0
        same(torch.load(f"back{number}.pth", weights_only=True), expected)
    assert not [file for file in os.listdir() if file.startswith(".modtool")]


def test_text_in_the_metadata_of_safetensors_is_kept_or_named(modtool: Modtool) -> None:
    text = {"format": "pt", "author": "me"}
    safetensors.torch.save_file({"w": torch.ones(1)}, "in.safetensors", metadata=text)
    ran = modtool("convert", "in.safetensors", "--to", "checkpoint", "-o", "ckpt.pth", "--json")
    assert json.loads(ran.out)["dropped"] == []
    assert torch.load("ckpt.pth", weights_only=True)["metadata"] == {"author": "me"}
    ran = modtool("convert", "in.safetensors", "-o", "out.pth")
    said = "left out metadata.author: text beside the tensors, which --to checkpoint or"
    assert ran.out.startswith(said)
    assert list(torch.load("out.pth", weights_only=True)) == ["w"]
