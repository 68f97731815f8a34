"""GGUF: names, shapes in torch's order, block-quantised types, metadata, and files that lie."""

import math
import struct
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modtool.errors import CorruptFileError, ModtoolError, UnknownFormatError, UnsafeFileError
from modtool.formats import open_checkpoint
from modtool.formats.gguf import TYPES
from modtool.formats.gguf_values import shortest
from modtool.records import DTYPES, Checkpoint, FileRange
from tests.formats.gguf_files import (
    ARRAY,
    BOOL,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    STRING,
    U8,
    U16,
    U32,
    U64,
    Writer,
)

VALUES: dict[str, tuple[int, object]] = {
    "general.architecture": (STRING, "llama"),
    "u8": (U8, 200),
    "i8": (I8, -3),
    "u16": (U16, 60_000),
    "i16": (I16, -300),
    "u32": (U32, 2**32 - 1),
    "i32": (I32, -(2**31)),
    "llama.attention.layer_norm_rms_epsilon": (F32, 1e-5),
    "yes": (BOOL, True),
    "u64": (U64, 2**64 - 1),
    "i64": (I64, -(2**63)),
    "f64": (F64, math.pi),
    "tags": (ARRAY, (STRING, ["a", "ü"])),
    "tokens": (ARRAY, (STRING, [str(number) for number in range(1000)])),
    "scores": (ARRAY, (F32, [0.5] * 1000)),
    "nested": (ARRAY, (ARRAY, [(U8, [1, 2]), (STRING, ["x"])])),
    "long nested": (ARRAY, (ARRAY, [(U8, [1])] * 17)),
}


def opened(path: Path, data: bytes) -> Checkpoint:
    path.write_bytes(data)
    return open_checkpoint(str(path))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize(("order", "name"), [("<", "little"), (">", "big")])
def test_every_version_and_byte_order(path: Path, version: int, order: str, name: str) -> None:
    writer = Writer(version, order)
    tensors = [("token_embd.weight", (256, 3), 12, 0), ("norm", (5,), 0, 3 * 144 + 16)]
    data = writer.file(VALUES, tensors, 3 * 144 + 16 + 20)
    found = opened(path, data)
    assert (found.format, found.kind, found.notes) == ("gguf", "state_dict", ())
    assert found.metadata == {"gguf_version": str(version)}
    first, second = found.tensors
    assert (first.name, first.dtype, first.shape) == ("token_embd.weight", "Q4_K", (3, 256))
    assert (first.nbytes, first.layout, first.numel) == (3 * 144, "quantized", 768)
    assert (second.name, second.dtype, second.shape) == ("norm", "float32", (5,))
    assert (second.nbytes, second.layout) == (20, "strided")
    begin = len(data) - (3 * 144 + 16 + 20)
    assert [tensor.storage and tensor.storage.data for tensor in found.tensors] == [
        FileRange(str(path), begin, 432),
        FileRange(str(path), begin + 448, 20),
    ]
    assert [tensor.storage and tensor.storage.byteorder for tensor in found.tensors] == [name] * 2


def test_every_type_of_value(path: Path) -> None:
    found = opened(path, Writer().file(VALUES))
    assert found.kind == "values"
    assert found.values == {
        "general.architecture": "llama",
        "u8": 200,
        "i8": -3,
        "u16": 60_000,
        "i16": -300,
        "u32": 2**32 - 1,
        "i32": -(2**31),
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "yes": True,
        "u64": 2**64 - 1,
        "i64": -(2**63),
        "f64": math.pi,
        "tags": ["a", "ü"],
        "tokens": "<1,000 × string>",
        "scores": "<1,000 × float32>",
        "nested": [[1, 2], ["x"]],
        "long nested": "<17 × array>",
    }


# What ggml stores for a block, field by field (`ggml-common.h`): d and m are halves of 2 bytes.
HALF, FLOAT = 2, 4
BLOCKS = {
    "Q4_0": (32, HALF + 16),
    "Q4_1": (32, 2 * HALF + 16),
    "Q5_0": (32, HALF + 4 + 16),
    "Q5_1": (32, 2 * HALF + 4 + 16),
    "Q8_0": (32, HALF + 32),
    "Q8_1": (32, 2 * HALF + 32),
    "Q2_K": (256, 16 + 64 + 2 * HALF),
    "Q3_K": (256, 32 + 64 + 12 + HALF),
    "Q4_K": (256, 2 * HALF + 12 + 128),
    "Q5_K": (256, 2 * HALF + 12 + 32 + 128),
    "Q6_K": (256, 128 + 64 + 16 + HALF),
    "Q8_K": (256, FLOAT + 256 + 16 * 2),
    "IQ2_XXS": (256, HALF + 32 * 2),
    "IQ2_XS": (256, HALF + 32 * 2 + 8),
    "IQ2_S": (256, HALF + 64 + 8 + 8),
    "IQ3_XXS": (256, HALF + 64 + 32),
    "IQ3_S": (256, HALF + 64 + 8 + 32 + 4),
    "IQ1_S": (256, HALF + 32 + 8 * 2),
    "IQ1_M": (256, 32 + 16 + 8),
    "IQ4_NL": (32, HALF + 16),
    "IQ4_XS": (256, HALF + 2 + 4 + 128),
    "TQ1_0": (256, 48 + 4 + HALF),
    "TQ2_0": (256, 64 + HALF),
    "MXFP4": (32, 1 + 16),
    "NVFP4": (64, 4 + 32),
    "Q1_0": (128, HALF + 16),
}
# Repacked at load in later releases, the same number of bits: 4 and a scale.
REPACKED = ("Q4_0_4_4", "Q4_0_4_8", "Q4_0_8_8", "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8")


def test_the_size_of_every_type() -> None:
    quantized = {kind.name: (kind.block, kind.nbytes) for kind in TYPES.values()}
    plain = {name: size for name, size in quantized.items() if name in DTYPES}
    assert plain == {name: (1, DTYPES[name].bits // 8) for name in plain}
    assert len(plain) == 8
    for name in plain:
        del quantized[name]
    assert quantized == BLOCKS | dict.fromkeys(REPACKED, (32, 18))


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_every_type_of_tensor(path: Path, kind: int) -> None:
    known = TYPES[kind]
    size = 2 * known.nbytes * 3
    found = opened(path, Writer().file({}, [("w", (2 * known.block, 3), kind, 0)], size))
    tensor = found.tensors[0]
    assert (tensor.dtype, tensor.shape, tensor.nbytes) == (known.name, (3, 2 * known.block), size)


def test_another_alignment(path: Path) -> None:
    values: dict[str, tuple[int, object]] = {"general.alignment": (U32, 64)}
    found = opened(path, Writer().file(values, [("w", (3,), 0, 64)], 76, alignment=64))
    storage = found.tensors[0].storage
    assert storage is not None
    assert isinstance(storage.data, FileRange)
    assert storage.data.offset % 64 == 0
    assert storage.data.offset + 12 == path.stat().st_size


def test_scalars_and_empty_tensors(path: Path) -> None:
    found = opened(path, Writer().file({}, [("s", (), 0, 0), ("e", (0, 4), 0, 32)], 32))
    assert [(tensor.shape, tensor.nbytes) for tensor in found.tensors] == [((), 4), ((4, 0), 0)]


def test_a_header_longer_than_a_piece(path: Path) -> None:
    words = [f"{'x' * (number % 300)}{number}" for number in range(20_000)]
    values: dict[str, tuple[int, object]] = {
        "words": (ARRAY, (STRING, words)),
        "after": (STRING, "y" * 2_000_000),
        "last": (U8, 7),
    }
    found = opened(path, Writer().file(values, [("w", (3,), 0, 0)], 12))
    assert found.values["words"] == "<20,000 × string>"
    assert found.values["after"] == "y" * 10_000 + "…"
    assert found.values["last"] == 7
    assert found.tensors[0].shape == (3,)


@given(st.floats(width=32))
def test_a_float32_is_shown_with_the_digits_that_it_has(value: float) -> None:
    found = shortest(value)
    assert struct.pack("<f", found) == struct.pack("<f", value)
    assert len(digits_of(found)) <= len(digits_of(value))


def digits_of(number: float) -> tuple[int, ...]:
    return Decimal(repr(number)).normalize().as_tuple().digits


# -- files that lie ------------------------------------------------------------------------------

W = Writer()
HEAD = b"GGUF" + struct.pack("<I", 3)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"GGUF", CorruptFileError, "truncated or damaged: the header should end at byte 8"),
        (b"GGUF" + bytes(4), UnknownFormatError, "a GGUF file of version 0"),
        (b"GGUF\4\0\0\0", UnknownFormatError, "a GGUF file of version 4"),
        (HEAD + b"\xff" * 16, UnsafeFileError, r"claims to have 18,446,\S+ tensors"),
        (HEAD + bytes(8) + b"\xff" * 8, UnsafeFileError, r"claims to have 18,446,\S+ values"),
        (HEAD + bytes(8) + b"\1" + bytes(7), CorruptFileError, "header should reach to byte 32"),
        (HEAD + bytes(8) + b"\1" + bytes(7) + b"\xff" * 8, UnsafeFileError, "a text of 18,446"),
        (W.file({}, [("w", (3,), 0, 0)], 11), CorruptFileError, "truncated: 'w' should end at"),
        (W.file({}, [("w", (3,), 0, 16)], 99), CorruptFileError, "'w' overlaps another tensor"),
        (W.file({}, [("a", (9,), 0, 0), ("b", (9,), 0, 32)], 99), CorruptFileError, "'b' overlaps"),
        (W.file({}, [("a", (1,), 0, 0)] * 2, 99), CorruptFileError, "two tensors have one name"),
        (W.file({}, [("w", (3,), 99, 0)], 99), CorruptFileError, "'w' is of type 99"),
        (W.file({}, [("w", (3,), 4, 0)], 99), CorruptFileError, "'w' is of type 4, which is not"),
        (W.file({}, [("w", (33,), 2, 0)], 99), CorruptFileError, "Q4_0 cannot have the shape"),
        (W.file({}, [("w", (2**62, 4), 0, 0)], 9), CorruptFileError, "cannot have the shape"),
        (W.file({}, [("w", (1,) * 9, 0, 0)], 99), CorruptFileError, "'w' has 9 dimensions"),
        (W.file({}, [("w", (1,), 0, 2**63)], 9), CorruptFileError, "truncated: 'w' should end"),
        (W.file({"general.alignment": (U32, 0)}), CorruptFileError, "an impossible alignment: 0"),
        (W.file({"general.alignment": (STRING, "x")}), CorruptFileError, "impossible alignment"),
    ],
)
def test_headers_that_lie(path: Path, data: bytes, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        opened(path, data)


def key(kind: int, body: bytes) -> bytes:
    """A file with one value, whose bytes are given."""
    return HEAD + struct.pack("<QQ", 0, 1) + W.text("k") + struct.pack("<I", kind) + body


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (key(13, b""), CorruptFileError, "a value of the unknown type 13"),
        (key(ARRAY, struct.pack("<IQ", 13, 0)), CorruptFileError, "of the unknown type 13"),
        (key(ARRAY, struct.pack("<IQ", U8, 2**62)), CorruptFileError, "header should reach to"),
        (key(ARRAY, struct.pack("<IQ", STRING, 2**62)), UnsafeFileError, "too many strings"),
        (key(ARRAY, struct.pack("<IQ", ARRAY, 2**62)), UnsafeFileError, "too many strings"),
        (
            key(ARRAY, struct.pack("<IQ", ARRAY, 1) * 9),
            UnsafeFileError,
            "arrays nested more than 4 deep",
        ),
        (
            HEAD + struct.pack("<QQ", 0, 2) + (W.text("k") + b"\0\0\0\0\1") * 2,
            CorruptFileError,
            "the key 'k' occurs twice",
        ),
    ],
)
def test_values_that_lie(path: Path, data: bytes, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        opened(path, data)


def test_strings_without_number_in_a_file_of_holes(path: Path) -> None:
    path.write_bytes(key(ARRAY, struct.pack("<IQ", STRING, 3_900_000)))
    with path.open("r+b") as file:
        file.truncate(1 << 36)
    assert open_checkpoint(str(path)).values == {"k": "<3,900,000 × string>"}


def test_a_header_that_goes_on_for_ever(path: Path) -> None:
    path.write_bytes(key(ARRAY, struct.pack("<IQ", U8, 1 << 35)))
    with path.open("r+b") as file:
        file.truncate(1 << 36)
    with pytest.raises(UnsafeFileError, match="header should reach to"):
        open_checkpoint(str(path))


@given(st.data())
def test_any_damage_is_an_error_or_a_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = bytearray(Writer().file(VALUES, [("w", (256, 3), 12, 0), ("b", (5,), 0, 448)], 468))
    for _ in range(data.draw(st.integers(0, 3))):
        whole[data.draw(st.integers(0, 900))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damage") / "x.gguf"
    with suppress(ModtoolError):
        opened(path, bytes(whole[: data.draw(st.integers(8, len(whole)))]))
