"""The parts of the README that are made, not written: `python -m tests.reference` renews them.

Between `<!-- reference -->` marks stand the commands with their options, the columns, the schemes
and the codes of notes. Every ```console block is run, and its output put below its commands.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import torch
import typer
from torch import nn

from modtool.cli import app
from modtool.live.initialise import SCHEMES
from modtool.notes import CODES
from modtool.report.columns import COLUMNS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
REFERENCE = re.compile(r"(<!-- reference -->\n).*?(<!-- end of reference -->)", re.DOTALL)
CONSOLE = re.compile(r"(```console\n)(.*?)(```)", re.DOTALL)


def commands() -> Mapping[str, click.Command]:
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group)
    context = click.Context(group)
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None}


def reference() -> str:
    """The reference, made from the code."""
    return "\n".join([*command_lines(), *column_lines(), *scheme_lines(), *code_lines()])


def command_lines() -> Iterator[str]:
    for name, command in commands().items():
        summary, _, rest = (command.help or "").partition("\n")
        arguments = " ".join(
            parameter.metavar or ""
            for parameter in command.params
            if isinstance(parameter, click.Argument)
        )
        yield f"### `modtool {name} {arguments}`\n"
        yield f"{summary}\n"
        yield from explanation(rest)
        yield "| option | meaning |"
        yield "|---|---|"
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                metavar = f" {parameter.metavar}" if parameter.metavar else ""
                names = ", ".join(f"`{option}{metavar}`" for option in parameter.opts)
                yield f"| {names.replace('|', chr(92) + '|')} | {parameter.help} |"
        yield ""


def explanation(text: str) -> Iterator[str]:
    """What a command's help says below its first line; its examples as a block of shell."""
    body, _, examples = text.partition("\b\nExamples:\n")
    if body.strip():
        yield " ".join(body.split()) + "\n"
    if examples.strip():
        yield "```sh"
        yield from (line.strip() for line in examples.strip("\n").splitlines())
        yield "```\n"


def column_lines() -> Iterator[str]:
    yield "### Columns\n"
    yield "`--columns` takes these, by commas.\n"
    for kind, columns in COLUMNS.items():
        yield f"| {kind} | what it shows |"
        yield "|---|---|"
        yield from (f"| `{column.key}` | {column.help} |" for column in columns)
        yield ""


def scheme_lines() -> Iterator[str]:
    yield "### Schemes of `reinit`\n"
    yield "| scheme | arguments | what it does |"
    yield "|---|---|---|"
    for name, scheme in SCHEMES.items():
        arguments = ", ".join(f"`{argument.name}`" for argument in scheme.arguments)
        yield f"| `{name}` | {arguments} | {scheme.help} |"
    yield ""


def code_lines() -> Iterator[str]:
    yield "### Codes of notes\n"
    yield "| code | level | meaning |"
    yield "|---|---|---|"
    yield from (f"| `{code}` | {level} | {meaning} |" for code, (level, meaning) in CODES.items())


# -- examples ----------------------------------------------------------------------------------


def prepare(folder: Path) -> None:
    """The files that the README's examples look at."""
    shutil.copytree(ROOT / "examples", folder / "examples")
    shutil.copy(ROOT / "examples" / "mlp.py", folder / "model.py")
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    model = type("Classifier", (nn.Module,), {"__module__": "a_repository_that_is_gone"})()
    model.backbone, model.head = backbone, nn.Linear(8, 10)
    module = type(sys)("a_repository_that_is_gone")
    module.Classifier = type(model)  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    torch.save(model, folder / "mystery.pth")
    del sys.modules[module.__name__]


def run_block(block: str, folder: Path) -> str:
    """The commands of a block, each with what it prints."""
    lines = []
    for line in block.splitlines():
        if line.startswith("$ "):
            done = subprocess.run(
                ["bash", "-c", line[2:]],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
                env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            )
            lines += [line, *(done.stderr + done.stdout).rstrip("\n").splitlines()]
    return "\n".join(lines) + "\n"


def renewed(text: str) -> str:
    """The README as the code has it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        text = CONSOLE.sub(lambda found: found[1] + run_block(found[2], folder) + found[3], text)
    return REFERENCE.sub(lambda found: found[1] + "\n" + reference() + "\n\n" + found[2], text)


if __name__ == "__main__":
    README.write_text(renewed(README.read_text()))
