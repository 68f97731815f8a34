"""Containers that lie about themselves, through every command that reads files.

Each runs in a process of its own, whose time and memory are measured (`tests/examiner.py`).
"""

import io
import json
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.archives import archive, tensor, text
from tests.examiner import EVERY_VIEW, NASTY, Examiner, examiner, is_printable
from tests.formats.gguf_files import ARRAY, BOOL, STRING, U32, Writer
from tests.formats.samples import Sample, file, whole

__all__ = ["examiner", "whole"]


# -- zip -------------------------------------------------------------------------------------------

BODY = b"\x80\x02}" + text("w") + tensor() + b"s."
GOOD = archive(BODY)
DIRECTORY = GOOD.index(b"PK\x01\x02")
END = GOOD.index(b"PK\x05\x06")


def patched(at: int, data: bytes, whole: bytes = GOOD) -> bytes:
    """An archive with some bytes replaced."""
    return whole[:at] + data + whole[at + len(data) :]


def entry(name: bytes) -> int:
    """Where the directory's entry of a member begins."""
    return GOOD.index(name, DIRECTORY) - 46


def same_names(name: str) -> bytes:
    """An archive in which a name that is there occurs once more."""
    stream = io.BytesIO(GOOD)
    other = f"{name[:-1]}~"
    with zipfile.ZipFile(stream, "a") as made:
        made.writestr(other, b"2")
    return stream.getvalue().replace(other.encode(), name.encode())


def inflating(size: int) -> bytes:
    """A deflated data.pkl of few bytes that becomes many."""
    return archive(b"\x80\x02" + b"N0" * (size // 2) + b"N.", deflate=True)


DATA = entry(b"archive/data/0")
PICKLE = entry(b"archive/data.pkl")
ZIPS = {
    "a name twice": (same_names("archive/data.pkl"), "two members are named"),
    "a name twice but for case": (same_names("archive/DATA.PKL"), "two members are named"),
    "overlapping members": (
        patched(DATA + 42, GOOD[PICKLE + 42 : PICKLE + 46]),
        "two members overlap",
    ),
    "a member inside another": (patched(DATA + 20, b"\xff\xff\0\0\xff\xff\0\0"), "its place"),
    "sizes beyond the file": (patched(DATA + 20, b"\xfe\xff\xff\x7f" * 2), "its place"),
    "a header beyond the file": (patched(DATA + 42, b"\xf0\xff\xff\x7f"), "beyond its place"),
    "zip64 sizes that are not there": (patched(DATA + 20, b"\xff" * 8), "without its ZIP64 sizes"),
    "more entries than there are": (patched(END + 10, b"\xff\xff"), "does not fit the file"),
    "one entry too many": (
        patched(END + 10, struct.pack("<H", 6)),
        "directory",
    ),
    "a directory elsewhere": (patched(END + 16, struct.pack("<L", 0)), "reaches beyond its place"),
    "a directory of no size": (patched(END + 12, struct.pack("<L", 0)), "directory"),
    "several parts": (patched(END + 4, b"\1\0\1\0"), "in several"),
    "an encrypted pickle": (patched(PICKLE + 8, b"\1\0"), "is encrypted"),
    "an unknown method": (patched(PICKLE + 10, b"\x0c\0"), "packed in an unknown way"),
    "stored, and of two sizes": (patched(DATA + 24, b"\x20\0\0\0"), "has two sizes"),
    "a local header that is none": (patched(GOOD.index(b"PK\3\4", 4), b"XX"), "is damaged"),
    "a bomb": (inflating(40 << 20), "inflates past"),
    "a short end record": (b"PK\x03\x04\0Z,iPK\x05\x06\0\0\0", "without its central directory"),
}  # fmt: skip


@pytest.mark.parametrize("name", ZIPS)
def test_zip_directories_that_lie(
    examiner: Examiner, whole: Path, tmp_path: Path, name: str
) -> None:
    data, reason = ZIPS[name]
    examiner.refuse(file(data).lay_out(tmp_path), whole, reason)


# -- safetensors -----------------------------------------------------------------------------------


def safetensors(header: object, size: int = 16) -> bytes:
    """A file with a header, given as text or as an object, and bytes after it."""
    data = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(data)) + data + bytes(size)


def one(**changes: object) -> dict[str, object]:
    """A header of one tensor, with changes."""
    return {"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **changes}}


TWO = {"dtype": "F32", "shape": [2]}
SAFETENSORS = {
    "header of 2^64-1 bytes": (
        b"\xff" * 8 + b"{}",
        "a header of 18,446,744,073,709,551,615 bytes is too large",
    ),
    "header beyond the file": (struct.pack("<Q", 99_999) + b"{}" + bytes(9), "should end at"),
    "a header that is a list": (safetensors(b'{"a": 1]'), "is no valid JSON"),
    "nested a million times": (safetensors(b'{"a":' + b"[" * 1_000_000), "is no valid JSON"),
    "nested objects": (safetensors(b'{"a":' * 100_000), "is no valid JSON"),
    "a key twice": (safetensors(b'{"w": 1, "w": 2}'), "a key occurs twice"),
    "too many values": (safetensors(b"{" + b"[]," * 1_300_000 + b"}"), "has too many values"),
    "a number of a million digits": (
        safetensors(b'{"w": ' + b"9" * 1_000_000 + b"}"),
        "is no valid JSON",
    ),
    "overlap": (
        safetensors({"a": {**TWO, "data_offsets": [0, 8]}, "b": {**TWO, "data_offsets": [4, 12]}}),
        "does not begin where the last one ends",
    ),
    "the same bytes twice": (
        safetensors({"a": {**TWO, "data_offsets": [0, 8]}, "b": {**TWO, "data_offsets": [0, 8]}}),
        "does not begin where the last one ends",
    ),
    "a hole": (
        safetensors({"a": {**TWO, "data_offsets": [0, 8]}, "b": {**TWO, "data_offsets": [12, 20]}}),
        "does not begin where the last one ends",
    ),
    "less than the file": (safetensors(one(), 24), "damaged"),
    "negative offsets": (safetensors(one(data_offsets=[-16, 0])), "last one ends"),
    "reversed offsets": (safetensors(one(data_offsets=[16, 0])), "contradicts itself"),
    "a negative size": (safetensors(one(shape=[-4])), "contradicts itself"),
    "two negative sizes": (safetensors(one(shape=[-2, -2])), "contradicts itself"),
    "a product of 2^64": (safetensors(one(shape=[2**32, 2**32])), "contradicts itself"),
    "a product of 2^64 + 4": (safetensors(one(shape=[2**62 + 1, 4])), "contradicts itself"),
    "a size of 2^64": (safetensors(one(shape=[2**64 + 4])), "contradicts itself"),
    "a shape of no numbers": (safetensors(one(shape=[True, 4])), "contradicts itself"),
    "an unknown dtype": (safetensors(one(dtype="F3")), "has the unknown dtype 'F3'"),
    "metadata that is no text": (safetensors({"__metadata__": {"a": 1}}, 0), "text to text"),
    "no UTF-8": (safetensors(b'{"\xff": 1}'), "is no valid JSON"),
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_safetensors_headers_that_lie(
    examiner: Examiner, whole: Path, tmp_path: Path, name: str
) -> None:
    data, reason = SAFETENSORS[name]
    examiner.refuse(file(data).lay_out(tmp_path), whole, reason)


@pytest.mark.parametrize("data", [GOOD[:DIRECTORY], safetensors(one(), 8)])
def test_files_cut_short_tell_their_header_and_no_more(
    examiner: Examiner, whole: Path, tmp_path: Path, data: bytes
) -> None:
    found = examiner.every_command(file(data).lay_out(tmp_path), whole)
    summary = found.pop("summary")
    notes = json.loads(summary.out)["notes"]
    assert (summary.code, [note["code"] for note in notes]) == (0, ["truncated"])
    for outcome in found.values():
        assert outcome.code == 2
        assert "truncated: " in outcome.err


# -- GGUF ------------------------------------------------------------------------------------------

HUGE = 2**64 - 1
ARCHITECTURE: dict[str, tuple[int, object]] = {"general.architecture": (STRING, "x")}


def gguf(tensors: int, values: int, rest: bytes = b"") -> bytes:
    """A file that says how much is in it, and something after that."""
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, values) + rest


def key(kind: int, body: bytes) -> bytes:
    return struct.pack("<Q", 1) + b"k" + struct.pack("<I", kind) + body


GGUFS = {
    "2^64-1 tensors": gguf(HUGE, 0),
    "2^64-1 values": gguf(0, HUGE),
    "2^40 tensors, and a few bytes": gguf(2**40, 0, bytes(10_000)),
    "a text of 2^64-1 bytes": gguf(0, 1, key(STRING, struct.pack("<Q", HUGE))),
    "a key of 2^63 bytes": gguf(0, 1, struct.pack("<Q", 2**63)),
    "an array of 2^64-1 flags": gguf(0, 1, key(ARRAY, struct.pack("<IQ", BOOL, HUGE))),
    "an array of 2^61 numbers": gguf(0, 1, key(ARRAY, struct.pack("<IQ", U32, 2**61))),
    "nested arrays": gguf(0, 1, key(ARRAY, struct.pack("<IQ", ARRAY, 1) * 100_000)),
    "an unknown kind": gguf(0, 1, key(99, b"")),
    "a product of 2^64": Writer().file(ARCHITECTURE, [("w", (2**32, 2**32), 0, 0)], 64),
    "an offset beyond": Writer().file(ARCHITECTURE, [("w", (4,), 0, 2**62)], 64),
    "an unaligned offset": Writer().file(ARCHITECTURE, [("w", (4,), 0, 3)], 64),
    "2^31 dimensions": gguf(1, 0, struct.pack("<Q", 1) + b"w" + struct.pack("<I", 2**31)),
    "a name twice": Writer().file(ARCHITECTURE, [("w", (4,), 0, 0), ("w", (4,), 0, 32)], 64),
    "alignment of nothing": Writer().file(
        {**ARCHITECTURE, "general.alignment": (U32, 0)}, [("w", (4,), 0, 0)], 64
    ),
}


GGUF_REASONS = {
    "2^64-1 tensors": "it claims to have 18,446,744,073,709,551,615 tensors",
    "2^64-1 values": "it claims to have 18,446,744,073,709,551,615 values",
    "2^40 tensors, and a few bytes": "it claims to have 1,099,511,627,776 tensors",
    "a text of 2^64-1 bytes": "a text of 18,446,744,073,709,551,615 bytes",
    "a key of 2^63 bytes": "a text of 9,223,372,036,854,775,808 bytes",
    "an array of 2^64-1 flags": "truncated or damaged",
    "an array of 2^61 numbers": "truncated or damaged",
    "nested arrays": "arrays nested more than",
    "an unknown kind": "a value of the unknown type 99",
    "a product of 2^64": "cannot have the shape",
    "an offset beyond": "truncated",
    "an unaligned offset": "overlaps another tensor",
    "2^31 dimensions": "has 2,147,483,648 dimensions",
    "a name twice": "two tensors have one name",
    "alignment of nothing": "an impossible alignment",
}


@pytest.mark.parametrize("name", GGUFS)
def test_gguf_headers_that_lie(examiner: Examiner, whole: Path, tmp_path: Path, name: str) -> None:
    examiner.refuse(file(GGUFS[name]).lay_out(tmp_path), whole, GGUF_REASONS[name])


# -- NumPy -----------------------------------------------------------------------------------------


def npy(header: str, size: int = 16, length: int | None = None) -> bytes:
    data = header.encode()
    count = len(data) if length is None else length
    return b"\x93NUMPY\x02\0" + struct.pack("<I", count) + data + bytes(size)


def described(descr: object = "<f4", shape: object = (4,)) -> str:
    return repr({"descr": descr, "fortran_order": False, "shape": shape})


NUMPY = {
    "a header of 2^32-1 bytes": npy("{}", length=2**32 - 1),
    "a header beyond the file": npy("{}", length=9_999),
    "a call": npy("__import__('os').system('touch /tmp/called')"),
    "a call in it": npy(described().replace("False", "print(1)")),
    "deep parentheses": npy("(" * 30_000 + ")" * 30_000),
    "a product of 2^64": npy(described(shape=(2**32, 2**32))),
    "a negative size": npy(described(shape=(-4,))),
    "more than the file": npy(described(shape=(5,))),
    "an item of 2^31 bytes": npy(described(descr="|V2147483648", shape=(2**33,))),
    "65 dimensions": npy(described(shape=(1,) * 65)),
    "a number of 9,000 digits": npy(described(shape=(0,)).replace("0,", "9" * 9_000 + ",")),
    "nested records": npy(described(descr=[("a", [("b", "<f4")] * 60)] * 30)),
}


NUMPY_REASONS = {
    "a header of 2^32-1 bytes": "is too large",
    "a header beyond the file": "truncated inside",
    "a call": "is damaged",
    "a call in it": "is damaged",
    "deep parentheses": "is damaged",
    "a product of 2^64": "contradicts itself",
    "a negative size": "is damaged",
    "more than the file": "elements",
    "an item of 2^31 bytes": "of an unknown type",
    "65 dimensions": "contradicts itself",
    "a number of 9,000 digits": "is damaged",
    "nested records": "elements",
}


@pytest.mark.parametrize("container", ["npy", "npz"])
@pytest.mark.parametrize("name", NUMPY)
def test_array_headers_that_lie(
    examiner: Examiner, whole: Path, tmp_path: Path, name: str, container: str
) -> None:
    data = NUMPY[name]
    if container == "npz":
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as made:
            made.writestr("w.npy", data)
        data = stream.getvalue()
    examiner.refuse(file(data).lay_out(tmp_path), whole, NUMPY_REASONS[name])


# -- tar -------------------------------------------------------------------------------------------


def tar_of(**changes: object) -> bytes:
    """The members of torch 0.1's tar, with one whose header says something else."""
    data = b""
    for name in ("sys_info", "pickle", "tensors", "storages"):
        member = tarfile.TarInfo(name)
        member.size = 8
        for key, value in changes.items() if name == "tensors" else ():
            setattr(member, key, value)
        data += member.tobuf(tarfile.GNU_FORMAT) + bytes(512)
    return data + bytes(1024)


TARS = {
    "a member of 2^62 bytes": (tar_of(size=2**62), "reaches beyond"),
    "a member of 2^33 bytes": (tar_of(size=2**33), "reaches beyond"),
    "a negative size": (tar_of(size=-512), "a damaged tar header"),
    "a link": (tar_of(type=tarfile.SYMTYPE, linkname="/etc/passwd", size=0), "not one that torch"),
    "nothing in it": (tar_of(), "storages: unknown opcode"),
    "cut": (tar_of()[:700], "not one that torch saved"),
}


@pytest.mark.parametrize("name", TARS)
def test_tars_that_lie(examiner: Examiner, whole: Path, tmp_path: Path, name: str) -> None:
    data, reason = TARS[name]
    examiner.refuse(file(data).lay_out(tmp_path), whole, reason)


# -- names -----------------------------------------------------------------------------------------


def named_npz(name: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        data = io.BytesIO()
        np.lib.format.write_array(data, np.ones(2))
        made.writestr(f"{name}.npy", data.getvalue())
        made.writestr(f"{name}.txt", b"hello")
    return stream.getvalue()


LINE = NASTY.replace("\0", "")
NAMED = {
    "safetensors": file(
        safetensors({**one(), NASTY: {**TWO, "shape": [0], "data_offsets": [16, 16]},
                     "__metadata__": {NASTY: NASTY}})
    ),
    "gguf": file(
        Writer().file({**ARCHITECTURE, NASTY: (STRING, NASTY)}, [(NASTY, (4,), 0, 0)], 16)
    ),
    "npz": file(named_npz(LINE)),
    "zip members": file(archive(BODY, {"data/0": bytes(16), NASTY: b"x"}, root=LINE)),
    "index": Sample(
        {"x.index.json": json.dumps({"weight_map": {NASTY: LINE, "w": "1"},
                                     "metadata": {NASTY: NASTY}}).encode(),
         "1": safetensors({**one(), NASTY: {**TWO, "shape": [0], "data_offsets": [16, 16]}})},
        "x.index.json",
    ),
    "names of files": Sample({f"{LINE}.safetensors": safetensors(one())}, f"{LINE}.safetensors"),
    "a folder": Sample({f"{LINE}/model.safetensors": safetensors(one())}, LINE),
    "no checkpoint": Sample({f"{LINE}.pth": b"hello"}, f"{LINE}.pth"),
    "a number of them": Sample({f"{LINE}/{n}.safetensors": safetensors(one()) for n in "ab"}, LINE),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_names_do_not_reach_the_terminal_raw(
    examiner: Examiner, whole: Path, tmp_path: Path, name: str
) -> None:
    path = NAMED[name].lay_out(tmp_path)
    found = examiner.every_command(path, whole)
    for view in EVERY_VIEW:
        shown = examiner.run("summary", str(path), *view)
        assert shown.code == found["summary"].code
        assert is_printable(shown.out + shown.err)
