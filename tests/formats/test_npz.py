"""NumPy arrays, alone and in archives, as NumPy itself writes them; and headers that lie."""

import io
import struct
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modtool.errors import CorruptFileError, ModtoolError, UnknownFormatError, UnsafeFileError
from modtool.formats import open_checkpoint
from modtool.records import Checkpoint, FileRange, TensorInfo

SAVEZ: Callable[..., None] = np.savez
SAVEZ_COMPRESSED: Callable[..., None] = np.savez_compressed


def saved(path: Path, array: np.ndarray, version: tuple[int, int] | None = None) -> Checkpoint:
    with path.open("wb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.lib.format.write_array(file, array, version=version)
    return open_checkpoint(str(path))


def place_of(tensor: TensorInfo) -> FileRange:
    assert tensor.storage is not None
    assert isinstance(tensor.storage.data, FileRange)
    return tensor.storage.data


def elements(tensor: TensorInfo) -> np.ndarray:
    """The array again, from the bytes that it is said to have."""
    place = place_of(tensor)
    with open(place.path, "rb") as file:
        file.seek(place.offset)
        data = file.read(place.length)
    assert tensor.storage is not None
    order = ">" if tensor.storage.byteorder == "big" else "<"
    dtype = np.dtype(tensor.dtype).newbyteorder(order)  # type: ignore[arg-type]
    flat = np.frombuffer(data, dtype)
    if tensor.stride is None:
        return flat.reshape(tensor.shape)
    strides = tuple(step * dtype.itemsize for step in tensor.stride)
    return np.lib.stride_tricks.as_strided(flat, tensor.shape, strides)


PLAIN = [
    *("float16", "float32", "float64", "complex64", "complex128", "bool"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", PLAIN)
def test_every_plain_type(tmp_path: Path, name: str, order: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(np.dtype(name).newbyteorder(order))  # type: ignore[arg-type]
    found = saved(tmp_path / "x.npy", array)
    assert (found.format, found.kind, found.notes) == ("npz", "tensors", ())
    tensor = found.tensors[0]
    assert (tensor.name, tensor.dtype, tensor.shape) == ("", name, (2, 3))
    assert (tensor.role, tensor.layout, tensor.nbytes) == ("tensor", "strided", array.nbytes)
    assert np.array_equal(elements(tensor), array)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version(tmp_path: Path, version: tuple[int, int]) -> None:
    array = np.arange(3.0)
    assert np.array_equal(elements(saved(tmp_path / "x", array, version).tensors[0]), array)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (2, 3, 4)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_shapes_and_fortran_order(tmp_path: Path, shape: tuple[int, ...], order: str) -> None:
    array = np.asarray(np.arange(np.prod(shape)).reshape(shape), order=order)  # type: ignore[call-overload]
    tensor = saved(tmp_path / "x.npy", array).tensors[0]
    assert tensor.shape == shape
    assert np.array_equal(elements(tensor), array)


def test_fortran_order_is_a_stride(tmp_path: Path) -> None:
    tensor = saved(tmp_path / "x.npy", np.zeros((2, 3, 4), order="F")).tensors[0]
    assert (tensor.stride, tensor.is_contiguous) == ((1, 2, 6), False)


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        ("S5", "|S5"),
        ("U3", "<U3"),
        ("M8[ns]", "<M8[ns]"),
        ("V7", "|V7"),
        ([("a", "<f4"), ("b", "<i8", (2, 2))], "[('a', '<f4'), ('b', '<i8', (2, 2))]"),
        ([("in", [("x", "u1"), ("ü", "<f8")])], "[('in', [('x', '|u1'), ('ü', '<f8')])]"),
        ("g", np.dtype("g").str),
    ],
)
def test_types_that_torch_does_not_have(tmp_path: Path, dtype: object, name: str) -> None:
    array = np.zeros((2, 3), dtype=dtype)  # type: ignore[call-overload]
    tensor = saved(tmp_path / "x.npy", array).tensors[0]
    assert (tensor.dtype, tensor.layout, tensor.shape) == (name, "numpy", (2, 3))
    assert (tensor.nbytes, place_of(tensor).length) == (array.nbytes, array.nbytes)


@pytest.mark.parametrize("dtype", ["O", [("a", "<f4"), ("b", "O")]])
def test_pickled_objects_are_named_and_not_loaded(tmp_path: Path, dtype: object) -> None:
    array = np.zeros((2,), dtype=dtype)  # type: ignore[call-overload]
    found = saved(tmp_path / "x.npy", array)
    tensor = found.tensors[0]
    assert (tensor.layout, tensor.shape, tensor.storage) == ("pickled", (2,), None)
    assert tensor.nbytes > 0
    assert [note.code for note in found.notes] == ["pickled-array"]


def test_two_arrays_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    with path.open("wb") as file:
        np.save(file, np.arange(2.0))
        np.save(file, np.arange(3.0))
    notes = open_checkpoint(str(path)).notes
    assert [(note.code, note.message[:9]) for note in notes] == [("stray-bytes", "152 bytes")]


def test_the_header_of_python_2(tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2L,)}", 8)
    )
    assert open_checkpoint(str(tmp_path / "x.npy")).tensors[0].shape == (2,)


# -- archives ------------------------------------------------------------------------------------

ARRAYS = {"fc.weight": np.arange(6.0).reshape(2, 3), "bn.running_mean": np.zeros(2, np.float16)}


def test_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    SAVEZ(path, **ARRAYS)
    found = open_checkpoint(str(path))
    assert (found.format, found.kind, found.notes) == ("npz", "state_dict", ())
    assert [(tensor.name, tensor.role) for tensor in found.tensors] == [
        ("fc.weight", "parameter"),
        ("bn.running_mean", "buffer"),
    ]
    for tensor in found.tensors:
        assert np.array_equal(elements(tensor), ARRAYS[tensor.name])


def test_a_compressed_archive(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    SAVEZ_COMPRESSED(path, objects=np.zeros(2, dtype=object), **ARRAYS)
    found = open_checkpoint(str(path))
    assert [(tensor.name, tensor.dtype, tensor.shape) for tensor in found.tensors] == [
        ("objects", "object", (2,)),
        ("fc.weight", "float64", (2, 3)),
        ("bn.running_mean", "float16", (2,)),
    ]
    assert [tensor.storage and tensor.storage.data for tensor in found.tensors] == [None] * 3
    assert [note.code for note in found.notes] == ["pickled-array", "compressed-member"]


def test_other_members_are_values(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    SAVEZ(path, a=np.zeros(2))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("notes.txt", "hello")
    assert open_checkpoint(str(path)).values == {"notes.txt": "<5 bytes>"}


def test_an_archive_without_arrays(tmp_path: Path) -> None:
    SAVEZ(tmp_path / "x.npz")
    with pytest.raises(UnknownFormatError, match="an empty zip archive"):
        open_checkpoint(str(tmp_path / "x.npz"))


def archived(path: Path, data: bytes, method: int = zipfile.ZIP_STORED) -> Checkpoint:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("w.npy", data)
    return open_checkpoint(str(path))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_that_lie(tmp_path: Path, method: int) -> None:
    with pytest.raises(CorruptFileError, match=r"w\.npy: 9 bytes of elements, not 8"):
        archived(tmp_path / "x.npz", npy(PLAIN_HEADER, 9), method)
    with pytest.raises(CorruptFileError, match=r"w\.npy: no header of a NumPy array"):
        archived(tmp_path / "x.npz", b"hello", method)


def test_a_bomb_costs_no_more_than_its_header(tmp_path: Path) -> None:
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (100000000,)}"
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("w.npy", npy(header, 100_000_000))
    assert open_checkpoint(str(path)).tensors[0].nbytes == 100_000_000


# -- headers that lie ----------------------------------------------------------------------------

PLAIN_HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}"


def npy(header: str, size: int, version: int = 1) -> bytes:
    """A file with a header of one's own, and `size` bytes of elements."""
    data = header.encode("utf-8")
    length = struct.pack("<H" if version == 1 else "<I", len(data))
    return b"\x93NUMPY" + bytes([version, 0]) + length + data + bytes(size)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "{}",
        "[1]",
        "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (2,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': [2]}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'more': 1}",
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**62}, 4)}}",
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({'1,' * 65})}}",
        "{'descr': 'nonsense', 'fortran_order': False, 'shape': (2,)}",
        "{'descr': [], 'fortran_order': 1, 'shape': (2,)}",
        "{'descr': [('a',)], 'fortran_order': False, 'shape': (2,)}",
        "{'descr': [[[[[['O']]]]]], 'fortran_order': False, 'shape': (2,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)} + __import__('os')",
        "__import__('os').system('true')",
        "{[]: 1}",
        "(" * 5000,
        "{'a':" * 300,
        "1if 1else 2",
        "'\\x41'",
        "9" * 5000,
    ],
)
def test_headers_that_are_none(tmp_path: Path, header: str) -> None:
    (tmp_path / "x.npy").write_bytes(npy(header, 8))
    with pytest.raises(CorruptFileError, match=r"the header of an array|an array of an unknown"):
        open_checkpoint(str(tmp_path / "x.npy"))


def test_headers_of_any_size(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(npy(PLAIN_HEADER, 7))
    with pytest.raises(CorruptFileError, match="truncated: its elements should end at byte 73"):
        open_checkpoint(str(path))
    path.write_bytes(npy(PLAIN_HEADER, 8)[:30])
    with pytest.raises(CorruptFileError, match="truncated inside the header"):
        open_checkpoint(str(path))
    path.write_bytes(npy(" " * 70_000, 8, 2))
    with pytest.raises(UnsafeFileError, match="an array header of 70,000 bytes is too large"):
        open_checkpoint(str(path))
    path.write_bytes(b"\x93NUMPY\x09\x00")
    with pytest.raises(CorruptFileError, match="no header of a NumPy array"):
        open_checkpoint(str(path))


@given(st.data())
def test_any_damage_is_an_error_or_a_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = io.BytesIO()
    save = data.draw(st.sampled_from([SAVEZ, SAVEZ_COMPRESSED]))
    save(whole, **ARRAYS)
    damaged = bytearray(whole.getvalue())
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damage") / "x.npz"
    path.write_bytes(damaged[: data.draw(st.integers(8, len(damaged)))])
    with suppress(ModtoolError):
        open_checkpoint(str(path))
