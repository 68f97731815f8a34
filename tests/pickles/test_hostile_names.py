"""Names and texts of pickles: endless ones, and those that a terminal would obey.

Each runs in a process of its own, whose time and memory are measured (`tests/examiner.py`).
"""

import json
from pathlib import Path

import pytest

from tests.archives import get, module, put, storage, tensor, text, torch_file
from tests.examiner import EVERY_VIEW, Examiner, examiner

__all__ = ["examiner"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("a" * 1_000_000, id="long"),
        pytest.param(".".join("a" * 200_000), id="dots"),
        pytest.param("." * 1_000, id="only dots"),
        pytest.param("a.b." * 400, id="many parts"),
        pytest.param("", id="empty"),
    ],
)
def test_names_of_tensors(examiner: Examiner, tmp_path: Path, name: str) -> None:
    once = tensor() + put(0) + b"0"
    body = once + b"}(" + text(name) + get(0) + text("b") + get(0) + b"u"
    examiner.examine(torch_file(tmp_path / "one.pth", body))
    entries = b"".join(text(f"{index}") + get(0) for index in range(5_000))
    inner = b"}(" + entries + b"u"
    nested = once + b"}(" + text(name) + inner + text("c") + inner + text("d") + b"K\x01u"
    examiner.examine(torch_file(tmp_path / "prefix.pth", nested), ())
    values = b"}(" + b"".join(text(f"{index}") + b"K\x01" for index in range(20_000)) + b"u"
    shown = b"}(" + text(name) + values + text("w") + tensor() + b"u"
    examiner.examine(torch_file(tmp_path / "values.pth", shown), ())


def test_a_long_name_shared_by_many_levels(examiner: Examiner, tmp_path: Path) -> None:
    long = text("x" * 1_000) + put(0) + b"0"
    body = b"}" + get(0) * 1 + tensor() + b"s"
    for _ in range(60):
        body = b"}" + get(0) + body + b"s"
    examiner.examine(torch_file(tmp_path / "x.pth", long + body))


LINEAR = "torch.nn.modules.linear\nLinear"
NASTY = "\x1b]0;title\x07\x1b[2J\r\n\0\u202e\x9b31m"


def test_nothing_in_a_file_reaches_the_terminal_raw(examiner: Examiner, tmp_path: Path) -> None:
    line = NASTY.replace("\n", "")
    parts = {
        "key": b"}" + text(NASTY) + tensor() + b"s",
        "value": b"}(" + text("w") + tensor() + text("x") + text(NASTY) + b"u",
        "nested key": b"}(" + text("w") + tensor() + text("x") + b"}" + text(NASTY) + b"Nsu",
        "class": b"}(" + text("w") + tensor() + text("x") + f"c{line}\n{line}\n)R".encode() + b"u",
        "module": module(b"", text(NASTY) + tensor(), b"", f"{line}\n{line}"),
        "child": module(text(NASTY) + module(b"", text("w") + tensor())),
        "section": b"}(" + text(NASTY) + b"}" + text("w") + tensor() + b"s" + text("e") + b"K\x01u",
        "storage": tensor(store=storage(key=NASTY, place=NASTY)),
        "device": tensor(store=storage(place=NASTY)),
        "kind": tensor(store=storage(kind=f"{line}\n{line}")),
        "setting": module(b"", b"", text("in_features") + text(NASTY), LINEAR),
    }
    for body in parts.values():
        examiner.examine(torch_file(tmp_path / "x.pth", body), EVERY_VIEW)


@pytest.mark.parametrize("value", ["\ud800", "a\udfffb"])
def test_half_of_a_surrogate_pair_is_no_json(
    examiner: Examiner, tmp_path: Path, value: str
) -> None:
    body = (
        b"}("
        + text(value)
        + tensor()
        + text("x")
        + text(value)
        + text("y")
        + b"}"
        + text(value)
        + b"Nsu"
    )
    outcome = examiner.examine(torch_file(tmp_path / "x.pth", body))
    found = json.loads(outcome.out)
    json.dumps(found, ensure_ascii=False).encode("utf-8")  # no half of a pair is in any text
    assert found["tensors"][0]["name"] == ascii(value)[1:-1]


@pytest.mark.parametrize(
    "value", [b"\x7f\xf8" + bytes(6), b"\x7f\xf0" + bytes(6), b"\xff\xf0" + bytes(6)]
)
def test_numbers_that_are_no_json(examiner: Examiner, tmp_path: Path, value: bytes) -> None:
    body = (
        b"}("
        + text("w")
        + tensor()
        + text("loss")
        + b"G"
        + value
        + text("l")
        + b"](G"
        + value
        + b"e"
    )
    outcome = examiner.examine(torch_file(tmp_path / "x.pth", body + b"u"))
    assert json.loads(outcome.out)["values"] == {"loss": None, "l": [None]}
