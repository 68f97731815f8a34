"""Hostile pickles in every container that holds pickles, through every command that reads files."""

import io
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from modtool.pickles.reader import read_pickle
from tests.archives import archive, tensor, text
from tests.examiner import EVERY_VIEW, Examiner, examiner, is_printable
from tests.formats import test_torch_tar
from tests.formats.samples import Sample, file, sample, written

__all__ = ["examiner"]

PROTOCOL = b"\x80\x02"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with nothing wrong, to compare with."""
    return sample("safetensors").lay_out(tmp_path_factory.mktemp("whole"))


def in_legacy(body: bytes) -> Sample:
    """In the place of the object; the storages are gone."""
    data = sample("torch-legacy: state_dict").files["x"]
    start = 0
    for _ in range(3):
        start = read_pickle(data, start).end
    return file(data[:start] + body + pickle.dumps([], 2))


def in_zip(name: str, member: str) -> Callable[[bytes], Sample]:
    """In the place of one member of a sample."""

    def made(body: bytes) -> Sample:
        stream = io.BytesIO()
        with (
            zipfile.ZipFile(io.BytesIO(sample(name).files["x"])) as old,
            zipfile.ZipFile(stream, "w") as new,
        ):
            for each in old.namelist():
                new.writestr(each, body if each.endswith(member) else old.read(each))
        return file(stream.getvalue())

    return made


def in_tar(body: bytes) -> Sample:
    members = {**test_torch_tar.parts({}), "pickle": body}
    return file(written(lambda path: test_torch_tar.archive(path, members)))


def in_folder(name: str, wrap: Callable[[bytes], bytes]) -> Callable[[bytes], Sample]:
    """In the file of a sample that tests damage."""

    def made(body: bytes) -> Sample:
        found = sample(name)
        return Sample({**found.files, found.damaged: wrap(body)}, found.target)

    return made


CARRIERS: Mapping[str, Callable[[bytes], Sample]] = MappingProxyType(
    {
        "torch-zip": lambda body: file(archive(body)),
        "torch-legacy": in_legacy,
        "torchscript": in_zip("torchscript", "data.pkl"),
        "torchscript constants": in_zip("torchscript", "constants.pkl"),
        "torch-package": in_zip("torch-package", "model.pkl"),
        "torch-tar": in_tar,
        "shard": in_folder("sharded: shard", archive),
        "dcp": in_folder("dcp", lambda body: body),
        "deepspeed": in_folder("deepspeed", archive),
    }
)

OBJECTS = "objects in "
REFUSED = {
    "memo bomb": (b"Nr\xff\xff\xff\xff.", "a memo index of 4,294,967,295"),
    "BINBYTES8": (b"\x8e" + (2**62).to_bytes(8, "little") + b".", "its pickle ends too early"),
    "BINUNICODE8": (b"\x8d" + b"\xff" * 8 + b".", "its pickle ends too early"),
    "BYTEARRAY8": (b"\x96" + (2**40).to_bytes(8, "little") + b".", "its pickle ends too early"),
    "LONG4": (b"\x8b\xff\xff\xff\x7f.", "an integer of 2,147,483,647 bytes"),
    "underflow": (b"0.", "not a well-formed pickle"),
    "underflow of a call": (b"R.", "not a well-formed pickle: stack underflow"),
    "no such memo": (b"h\x07.", "a memo entry that was never stored"),
    "unterminated": (b"](K\x01", ""),
    "nested dicts": (b"}N" * 10**6 + b"N" + b"s" * 10**6 + b".", OBJECTS),
    "lists": (b"](" + b"]" * 10**6 + b"e.", OBJECTS),
    "tuples": (b"](" + b"N\x85" * 10**6 + b"e.", OBJECTS),
    "sets": (b"](" + b"\x8f" * 10**6 + b"e.", OBJECTS),
    "frozensets": (b"](" + b"(N\x91" * 10**6 + b"e.", OBJECTS),
    "states": (b"cpkg\nThing\nq\0](" + b"h\0)\x81}b" * 10**6 + b"e.", OBJECTS),
    "open marks": (b"(" * 60_000 + b".", "its object is nested too deeply"),
    "names": (
        b"](" + b"".join(b"cm%d\nx\n" % i for i in range(20_000)) + b"e.",
        "more than 10,000 names to import",
    ),
    "numbers": (b"N0" * 5_000_000 + b"N.", "opcodes in 4,2"),
    "long name": (b"c" + b"a" * 600 + b"\nb\n.", "a name to import of hundreds of characters"),
    "colliding keys": (
        b"}(" + b"".join(b"\x8a\x10" + (i * (2**61 - 1) << 40).to_bytes(16, "little") + b"N"
                         for i in range(1, 5_000)) + b"u.",
        "too many large numbers as dictionary keys",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("carrier", CARRIERS)
def test_pickles_that_every_container_refuses(
    examiner: Examiner, whole: Path, tmp_path: Path, carrier: str, name: str
) -> None:
    body, reason = REFUSED[name]
    path = CARRIERS[carrier](PROTOCOL + body).lay_out(tmp_path)
    examiner.refuse(path, whole, reason)


def doubled(bottom: bytes) -> bytes:
    """A list of a list of …, each with the one below it twice."""
    return b"](" + bottom + b"e" + b"q\0000](h\0h\0e" * 40


STRANGE = {
    "deep nesting": b"]" * 20_000 + b"N" + b"a" * 20_000,
    "doubled lists": b"}(" + text("w") + tensor() + text("x") + doubled(b"N") + b"u",
    "doubled tensors": doubled(tensor()),
    "a list in itself": b"}(" + text("w") + tensor() + text("x") + b"]q\0h\0au",
    "a dict in itself": b"}q\0" + text("x") + b"h\0s",
    "a call in itself": b"cpkg\nThing\n)\x81q\0h\0b",
}


@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize("carrier", CARRIERS)
def test_objects_without_an_end(
    examiner: Examiner, whole: Path, tmp_path: Path, carrier: str, name: str
) -> None:
    """Some containers have an answer, some refuse such objects: all within the bounds."""
    path = CARRIERS[carrier](PROTOCOL + STRANGE[name] + b".").lay_out(tmp_path)
    examiner.every_command(path, whole)


@pytest.mark.parametrize("carrier", CARRIERS)
def test_nothing_is_called(examiner: Examiner, whole: Path, tmp_path: Path, carrier: str) -> None:
    mark = tmp_path / "called"
    call = b"cos\nsystem\n(" + text(f"touch {mark}") + b"tR"
    body = b"}(" + text("w") + tensor() + text("x") + call + b"u."
    (tmp_path / "file").mkdir()
    path = CARRIERS[carrier](PROTOCOL + body).lay_out(tmp_path / "file")
    found = examiner.every_command(path, whole)
    assert not mark.exists()
    check = found["check"]
    assert check.code == (2 if found["summary"].code == 2 else 1)
    if check.code == 1:
        assert "executes-code" in check.out
        assert "os.system" in check.out


NASTY = "\x1b]0;title\x07\x1b[2J\r\0\u202e\x9b31m"


@pytest.mark.parametrize("carrier", CARRIERS)
def test_names_to_import_do_not_reach_the_terminal_raw(
    examiner: Examiner, whole: Path, tmp_path: Path, carrier: str
) -> None:
    call = f"c{NASTY}\n{NASTY}\n".encode() + b"(" + text(NASTY) + b"tR"
    body = b"}(" + text("w") + tensor() + text(NASTY) + call + b"u."
    path = CARRIERS[carrier](PROTOCOL + body).lay_out(tmp_path)
    found = examiner.every_command(path, whole)
    for view in EVERY_VIEW:
        shown = examiner.run("summary", str(path), *view)
        assert shown.code == found["summary"].code
        assert is_printable(shown.out + shown.err)
