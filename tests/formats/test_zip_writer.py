"""The zip layout, and what stands beyond 4 GiB; sparse files keep that cheap."""

import zipfile
from pathlib import Path
from zlib import crc32

import pytest
import safetensors.torch
import torch
from torch.utils.serialization import config

from modtool.formats import open_checkpoint
from modtool.formats.zip_writer import ZipLayout
from modtool.pickles.symbols import Call, Global, PersistentId
from modtool.pickles.writer import write_pickle
from modtool.plan import keep, plan_conversion
from modtool.write import write

GIB = 1 << 30


def tensor(key: str, numel: int, shape: int, offset: int = 0) -> Call:
    storage = PersistentId(("storage", Global("torch", "ByteStorage"), key, "cpu", numel))
    hooks = Call(Global("collections", "OrderedDict"), ())
    function = Global("torch._utils", "_rebuild_tensor_v2")
    return Call(function, (storage, offset, (shape,), (1,), False, hooks))


def sparse_file(path: Path, sizes: list[int], pickle: bytes) -> None:
    """An archive whose storages are holes, each ending with its number."""
    layout = ZipLayout(path.stem)
    with path.open("wb") as file:
        for name, data in (
            ("data.pkl", pickle),
            (".format_version", b"1"),
            ("byteorder", b"little"),
        ):
            file.write(layout.begin(name, len(data)) + data + layout.end(crc32(data)))
        for index, size in enumerate(sizes):
            file.write(layout.begin(f"data/{index}", size))
            assert file.tell() % 64 == 0
            file.seek(size - 1, 1)
            file.write(bytes([index + 1]))
            file.write(layout.end(0))
        file.write(layout.begin("version", 2) + b"3\n" + layout.end(crc32(b"3\n")))
        assert file.tell() == layout.position
        file.write(layout.finish())


def test_beyond_4_gib(tmp_path: Path) -> None:
    path = tmp_path / "big.pth"
    sizes = [5 * GIB, 100, 2**32 - 1, 2**32 - 2, 7]
    root = {
        "large": tensor("0", sizes[0], sizes[0]),
        "small": tensor("1", 100, 100),
        "limit": tensor("2", sizes[2], 3, sizes[2] - 3),
        "below": tensor("3", sizes[3], 3, sizes[3] - 3),
        "last": tensor("4", 7, 7),
        "far": tensor("0", sizes[0], 2, 5 * GIB - 2),
    }
    sparse_file(path, sizes, write_pickle(root))
    with zipfile.ZipFile(path) as archive:
        found = {info.filename: info.file_size for info in archive.infolist()}
        assert [found[f"big/data/{index}"] for index in range(5)] == sizes
        assert archive.read("big/version") == b"3\n"
    for calculate in (False, True):
        with config.patch({"load.calculate_storage_offsets": calculate}):  # type: ignore[attr-defined]
            loaded = torch.load(path, weights_only=True, mmap=True)
        ends = {name: int(tensor[-1]) for name, tensor in loaded.items()}
        assert ends == {"large": 1, "small": 2, "limit": 3, "below": 4, "last": 5, "far": 1}
    reader = torch._C.PyTorchFileReader(str(path))
    assert reader.get_record("data/4") == b"\0" * 6 + b"\5"

    plan = keep(plan_conversion(open_checkpoint(str(path)), to="safetensors"), ["far", "limit"])
    target = tmp_path / "far.safetensors"
    write(plan, str(target))
    cut = safetensors.torch.load_file(target)
    assert {name: tensor.tolist() for name, tensor in cut.items()} == {
        "far": [0, 1],
        "limit": [0, 0, 3],
    }


@pytest.mark.parametrize("count", [0, 1, 70_000])
def test_many_records(tmp_path: Path, count: int) -> None:
    layout = ZipLayout("root")
    parts = []
    for index in range(count):
        parts += [layout.begin(f"data/{index}", 1), b"x", layout.end(crc32(b"x"))]
    path = tmp_path / "many.zip"
    path.write_bytes(b"".join(parts) + layout.finish())
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == count
        if count:
            assert archive.read(f"root/data/{count - 1}") == b"x"


def test_a_record_without_data_has_no_descriptor() -> None:
    layout = ZipLayout("r")
    header = layout.begin("data/0", 0)
    assert header[6:8] == b"\x00\x08"
    assert layout.end(0) == b""
    assert layout.position == len(header) == 64
