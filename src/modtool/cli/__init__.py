"""The command line, and the one place where errors become text."""

import gc
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer
from click.exceptions import Abort, ClickException, Exit, NoArgsIsHelpError

from modtool.cli.loading import SETTINGS, Commands
from modtool.cli.show import print_error
from modtool.errors import ModtoolError

__all__ = ["app", "main", "run"]

app = typer.Typer(
    name="modtool",
    cls=Commands,
    help="See what is inside any PyTorch model or checkpoint, and turn it into what you need. "
    "A checkpoint is never executed.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    suggest_commands=False,  # click does so itself
    context_settings=SETTINGS,
)


INTERRUPTED = 130


def print_version(asked: bool) -> None:
    """Print the version and stop."""
    if asked:
        from importlib.metadata import version

        print(f"modtool {version('modtool')}")
        raise Exit(0)


@app.callback()
def top(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """See what is inside any PyTorch model or checkpoint, and turn it into what you need.

    A checkpoint is never executed; of a model's file, the code is run.
    """


def main() -> None:
    """The entry point of the `modtool` command."""
    # Reading a checkpoint makes millions of objects and hardly any garbage: looking for it
    # again and again would take half of the time.
    gc.set_threshold(3_000_000, 50, 100)
    for name in ("SIGTERM", "SIGHUP"):  # as Ctrl-C does: what is half written is removed
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), ended)
    # torch says so at its import where there is no numpy, which nothing here needs.
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has what it wanted: `modtool … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def ended(number: int, frame: object) -> None:
    """Leave as a signal asks, through everything that cleans up."""
    raise SystemExit(128 + number)


def run(arguments: Sequence[str]) -> int:
    """Run one command and give its exit code; errors are printed as one or two lines."""
    try:
        result = app(list(arguments), prog_name="modtool", standalone_mode=False)
    except ModtoolError as error:
        return refused(error.message, error.hint)
    except NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return 2
    except ClickException as error:
        return refused(error.format_message(), usage_hint(error, arguments))
    except (Abort, KeyboardInterrupt):
        return refused("interrupted", code=INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if result == INTERRUPTED:  # typer makes an exit code of Ctrl-C
        return refused("interrupted", code=INTERRUPTED)
    return result if isinstance(result, int) else 0


def refused(message: str, hint: str = "", code: int = 2) -> int:
    """Say why nothing was done; with MODTOOL_DEBUG=1, also where."""
    if os.environ.get("MODTOOL_DEBUG") == "1":
        import traceback

        traceback.print_exc()
    print_error(message, hint)
    return code


def usage_hint(error: ClickException, arguments: Sequence[str]) -> str:
    """Where the help of the command at fault is, which click does not always tell."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else " ".join(["modtool", *arguments[:1]])
    return f"try: {path} --help"
