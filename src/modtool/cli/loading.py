"""The list of commands; the file of a command is loaded when that command is asked for."""

from collections.abc import Callable, Mapping
from importlib import import_module
from inspect import cleandoc
from types import MappingProxyType

import click
import typer
from typer.core import TyperGroup

__all__ = ["COMMANDS", "SETTINGS", "Commands"]

# Name of a command -> the module that has the function of that name, in the order of the help.
COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "summary": "modtool.cli.inspecting",
        "count": "modtool.cli.inspecting",
        "trace": "modtool.cli.tracing",
        "freeze": "modtool.cli.freezing",
        "unfreeze": "modtool.cli.freezing",
        "reinit": "modtool.cli.reinitialising",
        "convert": "modtool.cli.converting",
        "check": "modtool.cli.checking",
        "diff": "modtool.cli.diffing",
    }
)
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Commands(TyperGroup):
    """All commands, each made when it is first asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name; for a name that there is not, all are made, to suggest one."""
        for name in [cmd_name] if cmd_name in COMMANDS else COMMANDS:
            if name not in self.commands:
                self.commands[name] = loaded(name)
        return self.commands.get(cmd_name)


def loaded(name: str) -> click.Command:
    """Import the module of a command, and make the command of its function."""
    function = getattr(import_module(COMMANDS[name]), name)
    single = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=SETTINGS)
    single.command(name, help=help_of(function))(function)
    return typer.main.get_command(single)


def help_of(command: Callable[..., int | None]) -> str:
    """The docstring, with a backspace that tells click to keep the lines of the examples."""
    return cleandoc(command.__doc__ or "").replace("Examples:\n", "\b\nExamples:\n")
