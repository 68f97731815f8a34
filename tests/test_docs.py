"""What is not tested drifts: README, help and examples against the code."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from modtool.checks.explanations import explained, sections
from modtool.live.initialise import SCHEMES
from modtool.notes import CODES
from modtool.report.columns import COLUMNS
from tests.reference import README, ROOT, commands, reference, renewed

TEXT = README.read_text()


def test_the_readme_is_what_the_code_says() -> None:
    """Renew it with `python -m tests.reference`."""
    assert renewed(TEXT) == TEXT


@pytest.mark.parametrize("name", commands())
def test_every_command_and_option_has_help_and_a_place(name: str) -> None:
    command = commands()[name]
    assert command.help
    assert "Examples:" in command.help
    assert f"modtool {name}" in TEXT
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help
            assert all(f"`{option}" in reference() for option in parameter.opts)


def test_every_column_scheme_and_code_has_help() -> None:
    columns = [column for group in COLUMNS.values() for column in group]
    assert all(column.help for column in columns)
    assert all(scheme.help for scheme in SCHEMES.values())
    assert all(meaning for _, meaning in CODES.values())


@pytest.mark.parametrize("code", CODES)
def test_every_code_is_explained(code: str) -> None:
    """A section of src/modtool/checks/explanations.md: why, an example, a remedy."""
    explanation = explained(code)
    assert explanation.why
    assert explanation.example
    assert "\n" not in explanation.remedy


def test_only_codes_are_explained() -> None:
    assert set(sections()) == set(CODES)


def test_the_pipeline_runs(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [str(ROOT / "examples" / "pipeline.sh"), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PATH": path},
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "parameters: 235146"
    assert "trainable: 1290" in lines
    assert lines[-1] == "the converted weights load"
    assert lines[-2] == str(tmp_path / "model.safetensors")


def test_the_examples_are_listed() -> None:
    listed = (ROOT / "examples" / "README.md").read_text()
    files = {path.name for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".sh")}
    assert [name for name in sorted(files) if f"`{name}`" not in listed] == []
