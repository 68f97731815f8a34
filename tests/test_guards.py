"""Borders that must hold: heavy imports, the order of the rooms, documentation."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import modtool
from modtool.notes import CODES

SOURCE = Path(modtool.__file__).parent
README = Path(__file__).parents[1] / "README.md"

# Data order, which is import order: a room imports only from its left.
ROOMS = (
    "errors",
    "records",
    "traces",
    "notes",
    "patterns",
    "names",
    "sharing",
    "pickles",
    "formats",
    "plan",
    "write",
    "checks",
    "diffs",
    "report",
    "render",
    "live",
    "api",
    "cli",
)
HEAVY = {"torch", "numpy", "rich", "pydantic", "transformers", "safetensors"}


def run_and_list_modules(code: str, *arguments: str) -> set[str]:
    script = f"import sys\nsys.argv[1:] = {list(arguments)!r}\n{code}\n"
    script += "import json; sys.stderr.write('MODULES ' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    found = done.stderr.rpartition("MODULES ")[2]
    return {name.partition(".")[0] for name in ast.literal_eval(found)}


CALL = "from modtool.cli import run\ncode = run(sys.argv[1:])\nassert code == 0, code"


def test_import_modtool_imports_nothing_heavy() -> None:
    assert not run_and_list_modules("import modtool") & HEAVY


def test_help_imports_nothing_heavy() -> None:
    assert not run_and_list_modules(CALL, "--help") & HEAVY


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_summary_of_a_file_imports_nothing_heavy(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    state = {"fc.weight": torch.zeros(2, 3)}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    assert not run_and_list_modules(CALL, "summary", str(path)) & HEAVY


@pytest.mark.parametrize("form", ["state_dict", "checkpoint", "safetensors"])
def test_convert_imports_nothing_heavy(tmp_path: Path, form: str) -> None:
    path = tmp_path / "x.pth"
    torch.save(torch.nn.Linear(3, 2), path)
    modules = run_and_list_modules(
        CALL, "convert", str(path), "--to", form, "-o", str(tmp_path / "out")
    )
    assert not modules & HEAVY


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=str)
def test_a_room_imports_only_from_its_left(path: Path) -> None:
    room = room_of(path)
    if room in ("__init__", "__main__"):
        return
    tree = ast.parse(path.read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue  # never run: types of the live side may be named
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "modtool" and len(parts) > 1:
                assert ROOMS.index(parts[1]) <= ROOMS.index(room), f"{path.name} imports {name}"
            if parts[0] in ("torch", "numpy"):
                assert room == "live", f"{path.name} imports {name}"


def test_all_is_what_is_public() -> None:
    assert sorted(modtool.__all__) == sorted(modtool.PUBLIC)
    for name in modtool.__all__:
        assert getattr(modtool, name).__doc__


def test_no_room_is_called_as_a_public_function_is() -> None:
    # Importing a part of it would put the room in the function's place: modtool.diff, called twice.
    assert not {part.stem for part in SOURCE.iterdir()} & modtool.PUBLIC.keys()


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = modtool.nonsense


def test_every_code_of_a_note_is_in_the_readme() -> None:
    text = README.read_text()
    assert [code for code in CODES if f"`{code}`" not in text] == []


def test_every_code_that_is_used_is_registered() -> None:
    pattern = re.compile(r"\b(?:note|Note)\(\s*\"([a-z0-9-]+)\"")
    used = {code for path in SOURCE.rglob("*.py") for code in pattern.findall(path.read_text())}
    assert used <= set(CODES)
