"""Runs commands on hostile files in processes of their own, and measures what they cost.

One clean process forks a child for each command, so that an import is paid for once.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

__all__ = ["EVERY_VIEW", "NASTY", "Examiner", "Outcome", "examiner"]

# A name that a terminal would obey.
NASTY = "\x1b]0;title\x07\x1b[2J\r\n\0\u202e\x9b31m"
# The bounds are 2 seconds and 300 MB; a busy machine is granted more time, not more memory.
CPU_SECONDS = 6
MEGABYTES = 300

DRIVER = """
import json, os, resource, sys, tempfile
from modtool.cli import main
from modtool.api import checking, converting, diffing, freezing, inspecting  # once for all
from modtool.cli import checking, converting, diffing, freezing, inspecting

def child(arguments, out, err):
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", closefd=False, errors="surrogateescape")
    sys.argv = ["modtool", *arguments]
    try:
        main()
    except SystemExit as end:
        code = end.code
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

def examine(arguments):
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if not pid:
            try:
                child(arguments, out, err)
            except BaseException:
                import traceback
                traceback.print_exc()
                sys.stderr.flush()
            os._exit(70)
        _, status, usage = os.wait4(pid, 0)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read(50_000_000).decode("utf-8", "surrogateescape"))
        return {
            "code": os.waitstatus_to_exitcode(status),
            "out": texts[0],
            "err": texts[1],
            "cpu": usage.ru_utime + usage.ru_stime,
            "megabytes": usage.ru_maxrss / 1024,
        }

for line in sys.stdin:
    print(json.dumps(examine(json.loads(line))), flush=True)
"""


@dataclass(frozen=True)
class Outcome:
    """What a command did: its exit code, what it printed, what it cost."""

    code: int
    out: str
    err: str
    cpu: float
    megabytes: float


class Examiner:
    """Runs commands, one at a time."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.costs: list[tuple[float, float, str]] = []

    def run(self, *arguments: str) -> Outcome:
        """Run a command, and hold it to what every command must keep to."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(arguments) + "\n")
        self.process.stdin.flush()
        outcome = Outcome(**json.loads(self.process.stdout.readline()))
        self.costs.append((outcome.cpu, outcome.megabytes, " ".join(arguments)))
        assert outcome.code in (0, 1, 2), (arguments, outcome.code, outcome.err[-2000:])
        assert "Traceback" not in outcome.err
        assert outcome.megabytes < MEGABYTES, (arguments, outcome.megabytes)
        assert outcome.cpu < CPU_SECONDS, (arguments, outcome.cpu)
        return outcome

    def every_command(self, path: Path, other: Path) -> dict[str, Outcome]:
        """Run each command that reads a checkpoint; nothing is written but what is complete."""
        out = Path(f"{other}.out.safetensors")
        found = {}
        for name, arguments in (
            ("summary", ("--json", str(path))),
            ("check", (str(path),)),
            ("convert", (str(path), "-o", str(out))),
            ("diff", (str(path), str(other))),
            ("freeze", (str(path), "*", "-o", str(out))),
        ):
            outcome = found[name] = self.run(name, *arguments)
            assert is_printable(outcome.out)
            assert is_printable(outcome.err)
            if outcome.code == 2:
                lines = outcome.err.splitlines()
                assert lines[0].startswith("error: "), outcome.err
                assert len(lines) == 2, outcome.err  # what and where; what to do
            if name in ("convert", "freeze"):
                assert out.exists() == (outcome.code == 0)
                out.unlink(missing_ok=True)
        return found

    def refuse(self, path: Path, other: Path, reason: str) -> None:
        """Every command refuses the file, for that reason; `other` is one that is whole."""
        for name, outcome in self.every_command(path, other).items():
            assert (outcome.code, outcome.out) == (2, ""), (name, outcome)
            assert reason in outcome.err, (name, outcome.err)

    def examine(self, path: Path, views: Sequence[Sequence[str]] = ((),)) -> Outcome:
        """Look at a file; the outcome is that of `summary --json`."""
        outcome = self.run("summary", "--json", str(path))
        if outcome.code == 0:
            json.loads(outcome.out, parse_constant=no_constant)
        for options in views:
            shown = self.run("summary", str(path), *options)
            assert shown.code == outcome.code
            assert is_printable(shown.out)
            assert is_printable(shown.err)
        if outcome.code:
            lines = outcome.err.splitlines()
            assert len(lines) == 2  # what and where; what to do
            assert lines[0].startswith("error: ")
        return outcome


EVERY_VIEW = ((), ("--tensors",), ("--format", "csv"), ("--format", "markdown"))


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def is_printable(text: str) -> bool:
    """True for text that no terminal takes for a command."""
    return all(character.isprintable() or character in "\n\r" for character in text)


@contextmanager
def started() -> Iterator[Examiner]:
    """An examiner, and its process."""
    script = DRIVER.replace("SECONDS", str(CPU_SECONDS))
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as process:
        yield Examiner(process)
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(scope="module")
def examiner() -> Iterator[Examiner]:
    """Runs commands on hostile files."""
    with started() as made:
        yield made
