"""Zip archives of few bytes that inflate to many, in every member that a reader inflates.

Each runs in a process of its own, whose time and memory are measured (`tests/examiner.py`).
"""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.archives import archive, text
from tests.examiner import Examiner, examiner
from tests.formats.samples import Sample, file, sample

__all__ = ["examiner"]

SIZE = 16 << 20


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with nothing wrong, to compare with."""
    return sample("safetensors").lay_out(tmp_path_factory.mktemp("whole"))


def packed(data: bytes, members: Mapping[str, bytes]) -> bytes:
    """An archive with some members replaced or added, deflated; the others are as they were."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w") as new:
        for each in old.infolist():
            if each.filename not in members:
                new.writestr(each, old.read(each))
        for name, body in members.items():
            new.writestr(name, body, zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def root_of(data: bytes) -> str:
    """The one folder of an archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as made:
        return made.namelist()[0].partition("/")[0]


def pickle() -> bytes:
    """A pickle of opcodes that leave nothing behind."""
    return b"\x80\x02" + b"N0" * (SIZE // 2) + b"N."


def code() -> bytes:
    """TorchScript of one class after the other."""
    return b"class A(Module):\n" * (SIZE // 17)


def lists() -> bytes:
    """JSON of empty lists."""
    return b'{"a": [' + b"[]," * (SIZE // 3) + b"[]]}"


def zeros() -> bytes:
    """What deflates best."""
    return bytes(SIZE)


# Sample, member -> what it inflates to.
BOMBS = {
    "data.pkl": ("torch-zip: state_dict", "data.pkl", pickle),
    "byteorder": ("torch-zip: state_dict", "byteorder", zeros),
    "script: data.pkl": ("torchscript", "data.pkl", pickle),
    "script: constants.pkl": ("torchscript", "constants.pkl", pickle),
    "script: code": ("torchscript", "code/__torch__/more.py", code),
    "script: version": ("torchscript", "version", zeros),
    "script: bytecode.pkl": ("torchscript: mobile", "bytecode.pkl", pickle),
    "script: model.json": ("torchscript: model.json", "model.json", lists),
    "script: attributes.pkl": ("torchscript: model.json", "attributes.pkl", pickle),
    "package: pickle": ("torch-package", "model/more.pkl", pickle),
    "package: source": ("torch-package", "more.py", code),
    "package: extern_modules": ("torch-package", ".data/extern_modules", zeros),
    "package: script": ("torch-package", ".data/ts_code/0/data.pkl", pickle),
    "package: code of scripts": ("torch-package", ".data/ts_code/code/__torch__/a.py", code),
}


@pytest.mark.parametrize("name", BOMBS)
def test_members_that_inflate(examiner: Examiner, whole: Path, tmp_path: Path, name: str) -> None:
    kind, member, body = BOMBS[name]
    data = sample(kind).files["x"]
    path = file(packed(data, {f"{root_of(data)}/{member}": body()})).lay_out(tmp_path)
    assert path.stat().st_size < 200_000
    outcome = examiner.run("summary", "--json", str(path))
    assert (outcome.code, outcome.out) == (2, "")
    assert "inflates past" in outcome.err or "bytes is too large" in outcome.err
    assert examiner.run("check", str(path)).code == 2


@pytest.mark.parametrize(
    ("kind", "member"),
    [
        ("torch-zip: state_dict", "more{}.pkl"),
        ("torchscript", "more{}.pkl"),
        ("torch-package", "more{}.pkl"),
        ("torch-package", ".data/ts_code/{}/data.pkl"),
        ("torch-package", "more{}.py"),
    ],
)
def test_many_members_that_inflate_a_little_each(
    examiner: Examiner, whole: Path, tmp_path: Path, kind: str, member: str
) -> None:
    data = sample(kind).files["x"]
    small = b"\x80\x02" + b"N0" * 500_000 + b"N."
    members = {f"{root_of(data)}/{member.format(number)}": small for number in range(50)}
    path = file(packed(data, members)).lay_out(tmp_path)
    examiner.refuse(path, whole, "what is packed in it inflates past")


@pytest.mark.parametrize(
    ("kind", "member"),
    [("torch-package", "m{}.pkl"), ("torch-package", ".data/ts_code/{}/data.pkl")],
)
def test_many_pickles_that_share_references(
    examiner: Examiner, tmp_path: Path, kind: str, member: str
) -> None:
    """What each file may cost, however small, is not for each pickle in it."""
    inner = b"}(" + b"".join(text(f"{key}") + b"N" for key in range(200)) + b"uq\0000"
    outer = b"}(" + b"".join(text(f"{key}") + b"h\0" for key in range(200)) + b"u"
    body = b"\x80\x02" + inner + outer + b"."
    data = sample(kind).files["x"]
    members = {f"{root_of(data)}/{member.format(number)}": body for number in range(1_000)}
    examiner.examine(file(packed(data, members)).lay_out(tmp_path), ())


def test_records_that_torch_writes_and_nobody_needs(
    examiner: Examiner, whole: Path, tmp_path: Path
) -> None:
    """They are not inflated at all."""
    data = sample("torch-zip: state_dict").files["x"]
    root = root_of(data)
    names = (".data/serialization_id", "version", ".format_version", ".storage_alignment")
    path = file(packed(data, {f"{root}/{name}": zeros() for name in names})).lay_out(tmp_path)
    assert examiner.run("summary", str(path)).code == 0
    assert examiner.run("convert", str(path), "-o", str(tmp_path / "out.pth")).code == 0


def test_arrays_that_inflate(examiner: Examiner, whole: Path, tmp_path: Path) -> None:
    """Of a deflated array, no more than its header is inflated."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.zeros(SIZE // 8))
    path = file(packed(sample("npz").files["x"], {"w.npy": stream.getvalue()})).lay_out(tmp_path)
    outcome = examiner.run("summary", "--json", str(path))
    assert outcome.code == 0
    assert f'"bytes": {SIZE}' in outcome.out
    headers = {f"{number}.npy": stream.getvalue()[:10] + b"(" * 60_000 for number in range(500)}
    examiner.examine(file(packed(sample("npz").files["x"], headers)).lay_out(tmp_path), ())


def test_items_of_a_distributed_checkpoint_that_inflate(
    examiner: Examiner, whole: Path, tmp_path: Path
) -> None:
    made = sample("dcp")
    items = made.files["__0_0.distcp"]
    bomb = archive(pickle(), deflate=True)
    padded = bomb + bytes(max(len(items) - len(bomb), 0))
    files = {**made.files, "__0_0.distcp": padded}
    path = Sample(files, made.target).lay_out(tmp_path)
    examiner.every_command(path, whole)
