"""Files that are no checkpoints: each is named for what it is, with a step that can be taken."""

import bz2
import gzip
import io
import lzma
import pickle
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from modtool.errors import CorruptFileError, ModtoolError, UnknownFormatError
from modtool.formats import open_checkpoint
from modtool.formats.foreign import what_archive_it_is, what_it_is


def tar() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("notes.txt"))
    return made.getvalue()


def text_pickle(value: object, protocol: int) -> bytes:
    return pickle.dumps(value, protocol=protocol)


# The first bytes of files that onnx 1.23, coremltools, TensorFlow, joblib 1.6 and msgpack wrote.
ONNX = bytes.fromhex("080e3a330a0c0a01780a01791204526508")
ONNX_OF_TORCH = b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\x80\x04"
CORE_ML = b"\x08\x04\x12\xb2\x02\x0a\x0f\x0a\x05input\x12\x00"
SAVED_MODEL = b"\x08\x01\x12\xc2\x0a\x0a\x10\x0a\x04serve"
FROZEN_GRAPH = b"\x0a\x30\x0a\x05input\x12\x0bPlaceholder*\x10"
JOBLIB = bytes.fromhex(
    "800495d7000000000000007d948c0161948c136a6f626c69622e6e756d70795f7069636b6c65"
)
FLAX = b"\x81\xa6params\x81\xa5dense\x81\xa6kernel"
SCIKIT = b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00\x8c\x1asklearn.linear_model._base\x94"

CASES: Mapping[str, tuple[bytes, str, str]] = {
    "empty": (b"", "an empty file", "interrupted"),
    "zeros": (bytes(5000), "nothing but zeros at its beginning", "download or copy it again"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\n", "a Git-LFS pointer", "git lfs pull"),
    "html": (b"\n<!DOCTYPE html>\n<html>", "an HTML page, perhaps an error page", "download"),
    "html without doctype": (b"<HTML><body>404", "an HTML page", "download the file itself"),
    "xml": (b"<?xml version='1.0'?><Error/>", "an XML or HTML text", "download the file itself"),
    "gzip": (gzip.compress(b"x"), "a gzip file", "gunzip FILE"),
    "bzip2": (bz2.compress(b"x"), "a bzip2 file", "bunzip2 FILE"),
    "xz": (lzma.compress(b"x"), "an xz file", "unxz FILE"),
    "lzma": (lzma.compress(b"x", lzma.FORMAT_ALONE), "an LZMA file", "unlzma FILE"),
    "zstd": (b"\x28\xb5\x2f\xfd\x24", "a Zstandard file", "unzstd FILE"),
    "7z": (b"7z\xbc\xaf\x27\x1c\x00\x04", "a 7z archive", "7z x FILE"),
    "rar": (b"Rar!\x1a\x07\x01\x00", "a RAR archive", "unrar x FILE"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(8), "an HDF5 file (Keras)", "Keras"),
    "onnx": (ONNX, "an ONNX model", "onnx package"),
    "onnx of torch": (ONNX_OF_TORCH, "an ONNX model", "onnx package"),
    "core ml": (CORE_ML, "a Core ML model", "coremltools"),
    "saved model": (SAVED_MODEL, "a TensorFlow SavedModel", "TensorFlow"),
    "frozen graph": (FROZEN_GRAPH, "a frozen TensorFlow graph", "TensorFlow"),
    "flatbuffer of torch": (
        b"<\0\0\0PTMF" + bytes(8),
        "a TorchScript model for mobile",
        "jit_module",
    ),
    "executorch": (b"\x38\0\0\0ET12" + bytes(8), "an ExecuTorch program (.pte)", "exported from"),
    "tflite": (b"\x1c\x00\x00\x00TFL3" + bytes(20), "a TensorFlow Lite model", "TensorFlow"),
    "checkpoint": (b'model_checkpoint_path: "model"\n', "the list of a TensorFlow", "TensorFlow"),
    "joblib": (JOBLIB, "a joblib file", "joblib.load"),
    "old joblib": (b"ZF0x1e5  x\x9c", "a joblib file", "joblib.load"),
    "joblib, compressed": (b"\x78\x5e" + zlib.compress(b"x")[2:], "a zlib stream", "joblib.load"),
    "scikit-learn": (SCIKIT, "a plain pickle of a scikit-learn", "no torch tensors"),
    "flax": (FLAX, "a MessagePack file (Flax)", "from_flax=True"),
    "flax, many keys": (b"\xde\x00\x14\xa2p0\x01", "a MessagePack file (Flax)", "from_flax=True"),
    "ggml": (b"tjgg\x03\x00\x00\x00", "a GGML file of before GGUF", "llama.cpp"),
    "json": (b' {"a": 1}', "a JSON text", "its folder"),
    "json list": (b"[1, 2]", "a JSON text", "its folder"),
    "python": (b"# a model\nimport torch\n", "Python source", "ends in .py"),
    "text": ("Grüße\n".encode(), "a text file, not a checkpoint", "ends in .py"),
    "png": (b"\x89PNG\r\n\x1a\n", "a PNG picture", "name the checkpoint"),
    "pdf": (b"%PDF-1.7", "a PDF document", "name the checkpoint"),
    "program": (b"\x7fELF\x02\x01", "a program or library (ELF)", "name the checkpoint"),
    "noise": (b"\xfe\xdc\xba\x98" * 9, "no format that modtool knows", "modtool summary --help"),
    **{
        f"pickle {protocol}": (
            text_pickle({"a": [1, 2.5]}, protocol),
            "a plain pickle, not written by torch.save",
            "pickle.load where you trust it",
        )
        for protocol in range(6)
    },
}


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_file(tmp_path: Path, case: str) -> None:
    data, what, step = CASES[case]
    path = tmp_path / "file.pth"
    path.write_bytes(data)
    with pytest.raises(UnknownFormatError) as caught:
        open_checkpoint(str(path))
    assert caught.value.message.startswith(f"{path}: {what}")
    assert step in caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_flatbuffer_that_torch_wrote(tmp_path: Path) -> None:
    """Its first byte is 60, that of `<`: it is no HTML."""
    path = tmp_path / "x.ptl"
    torch_jit: Any = torch.jit
    script = torch_jit.script(torch.nn.Sequential(torch.nn.Linear(2, 1)))
    torch_jit.save_jit_module_to_flatbuffer(script, str(path))
    with pytest.raises(UnknownFormatError, match="TorchScript model for mobile"):
        open_checkpoint(str(path))


def test_a_tar_archive() -> None:
    assert what_it_is(tar(), 10_240) == (
        "a tar archive",
        "unpack it first: tar -xf FILE, and name the checkpoint inside",
    )


# -- zip archives --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "what", "step"),
    [
        (["MAR-INF/MANIFEST.json", "model.pt"], "a TorchServe archive (.mar)", "unzip it"),
        (["metadata.json", "config.json", "model.weights.h5"], "a Keras model (.keras)", "Keras"),
        (["META-INF/MANIFEST.MF", "A.class"], "a Java archive (.jar)", "name the checkpoint"),
        (["AndroidManifest.xml"], "an Android package (.apk)", "name the checkpoint"),
        (["[Content_Types].xml", "word/document.xml"], "a Word document (.docx)", "name the"),
        (["xl/workbook.xml"], "an Excel workbook (.xlsx)", "name the checkpoint"),
        (["p/__init__.py", "p-1.dist-info/WHEEL"], "a Python wheel", "unzip it"),
        (["m/saved_model.pb"], "a TensorFlow SavedModel, zipped", "TensorFlow"),
        (
            ["x/archive_format", "x/data/sample_inputs/model.pt"],
            "a program of torch.export",
            "load(",
        ),
        (["serialized_exported_program.json", "version"], "a program of torch.export", "load("),
        (["a/model.safetensors"], "a zip archive that holds a/model.safetensors", "unzip it"),
        (["notes.txt"], "a zip archive, but not one that torch.save wrote", "look for the"),
    ],
)
def test_every_kind_of_archive(tmp_path: Path, members: list[str], what: str, step: str) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in members:
            archive.writestr(name, "")
    with pytest.raises(UnknownFormatError) as caught:
        open_checkpoint(str(path))
    assert caught.value.message.startswith(f"{path}: {what}")
    assert step in caught.value.hint


class Unwilling:
    def __reduce__(self) -> str:
        raise RuntimeError("not to be saved")


def test_what_a_save_that_failed_leaves(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    with pytest.raises(RuntimeError, match="not to be saved"):
        torch.save({"w": torch.ones(3), "what": Unwilling()}, path)
    with pytest.raises(UnknownFormatError) as caught:
        open_checkpoint(str(path))
    assert str(caught.value) == (
        f"{path}: what a torch.save that failed or was interrupted leaves: no object, no tensor\n"
        "save it again, and see what error that torch.save ends with"
    )


def test_an_empty_archive() -> None:
    assert what_archive_it_is([])[0].startswith("a zip archive, but not one")
    assert what_it_is(b"PK\x05\x06" + bytes(18), 22)[0] == "an empty zip archive"


# -- truncated -----------------------------------------------------------------------------------


def zip_file(path: Path) -> None:
    torch.save({"w": torch.ones(1000)}, path)


def legacy_file(path: Path) -> None:
    torch.save({"w": torch.ones(1000)}, path, _use_new_zipfile_serialization=False)


def safetensors_file(path: Path) -> None:
    save_file({"w": torch.ones(1000)}, path)


@pytest.mark.parametrize("write", [zip_file, legacy_file, safetensors_file])
@pytest.mark.parametrize("share", [0.5, 0.999])
def test_a_file_that_ends_too_early(
    tmp_path: Path, write: Callable[[Path], None], share: float
) -> None:
    path = tmp_path / "x"
    write(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CorruptFileError, match=r"truncated|too early") as caught:
        open_checkpoint(str(path))
    assert str(path) in caught.value.message


def test_a_header_of_safetensors_that_ends_too_early(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", 1000) + b'{"w": {')
    with pytest.raises(CorruptFileError, match=r"the header should end at byte 1,008"):
        open_checkpoint(str(path))


# -- anything ------------------------------------------------------------------------------------


@given(st.binary(min_size=1, max_size=300))
def test_any_bytes_are_named(head: bytes) -> None:
    what, step = what_it_is(head, len(head))
    assert re.fullmatch(r"[A-Za-z].{5,}", what)
    assert step


@given(st.sampled_from(sorted(CASES)), st.binary(max_size=30))
def test_any_end_of_a_known_beginning(case: str, end: bytes) -> None:
    data = CASES[case][0][:20] + end
    what_it_is(data, len(data))


@given(st.binary(max_size=200))
def test_any_bytes_are_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "x"
    path.write_bytes(data)
    with pytest.raises(ModtoolError):
        open_checkpoint(str(path))
