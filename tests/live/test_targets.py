from pathlib import Path

import pytest

from modtool.errors import TargetError, UsageError
from modtool.live.arguments import parse_arguments, read_arguments
from modtool.live.targets import ModelTarget, is_model_target, parse_target


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model.py", True),
        ("missing.py", True),
        ("model.py:Net", True),
        ("model.py:build()", True),
        ("pkg.module:Net", True),
        ("model.pth", False),
        ("runs/model.safetensors", False),
        ("folder", False),
    ],
)
def test_code_is_told_from_files_by_the_text_alone(text: str, expected: bool) -> None:
    assert is_model_target(text) is expected


def test_a_file_with_a_colon_in_its_name_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a:b").touch()
    assert not is_model_target("a:b")


def test_targets_are_taken_apart(tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    file.touch()
    assert parse_target(f"{file}") == ModelTarget(str(file), str(file), file, "")
    assert parse_target(f"{file}:Net") == ModelTarget(f"{file}:Net", str(file), file, "Net")
    assert parse_target(f"{file}:make()") == ModelTarget(f"{file}:make()", str(file), file, "make")
    assert parse_target("a.b:C.D") == ModelTarget("a.b:C.D", "a.b", None, "C.D")


def test_what_is_no_target_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "model.py").touch()
    with pytest.raises(TargetError, match=r"missing\.py: no such file"):
        parse_target("missing.py")
    with pytest.raises(TargetError, match="is a folder"):
        parse_target(str(tmp_path / "folder.py"))
    with pytest.raises(UsageError, match=r"'build\(3\)' is no name"):
        parse_target(f"{tmp_path / 'model.py'}:build(3)")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hidden=256", 256),
        ("hidden=-1.5e3", -1500.0),
        ("hidden=relu", "relu"),
        ("hidden='7'", "7"),
        ("hidden=[64, 32]", [64, 32]),
        ("hidden=None", None),
        ("hidden=null", None),
        ("hidden=true", True),
        ("hidden=False", False),
        ("hidden=", ""),
        ("hidden=a=b", "a=b"),
        ("hidden=__import__('os')", "__import__('os')"),
    ],
)
def test_an_argument_is_a_literal_or_a_string(text: str, expected: object) -> None:
    assert parse_arguments([text]) == {"hidden": expected}


@pytest.mark.parametrize("text", ["hidden", "=3", "a b=3", "1x=2"])
def test_what_is_no_argument_is_an_error(text: str) -> None:
    with pytest.raises(UsageError, match="is no argument"):
        parse_arguments([text])


def test_arguments_from_files(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"hidden": 3, "act": "relu"}')
    (tmp_path / "a.toml").write_text('hidden = 3\nact = "relu"\n')
    assert read_arguments(str(tmp_path / "a.json")) == {"hidden": 3, "act": "relu"}
    assert read_arguments(str(tmp_path / "a.toml")) == {"hidden": 3, "act": "relu"}


def test_unreadable_argument_files_are_errors(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    with pytest.raises(TargetError, match="No such file"):
        read_arguments(str(tmp_path / "none.json"))
    with pytest.raises(TargetError, match="not UTF-8"):
        read_arguments(str(tmp_path / "bytes.json"))
    with pytest.raises(UsageError, match="line 1 column 2"):
        read_arguments(str(tmp_path / "bad.json"))
    with pytest.raises(UsageError, match="holds a list"):
        read_arguments(str(tmp_path / "list.json"))
