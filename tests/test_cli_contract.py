"""What scripts may rely on: streams, exit codes, formats, the model that is meant."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from modtool.cli.loading import COMMANDS
from modtool.render import RENDERERS
from tests.conftest import Ran

Modtool = Callable[..., Ran]
EXAMPLES = Path(__file__).parents[1] / "examples"

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(784, 256)
        self.fc2 = nn.Linear(256, 10)

    def forward(self, x):
        return self.fc2(self.fc1(x).relu())
"""


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.2))


# -- count -------------------------------------------------------------------------------------


def test_count_json_key_by_key(modtool: Modtool) -> None:
    ran = modtool("count", EXAMPLES / "mlp.py", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out) == {
        "schema": 1,
        "target": str(EXAMPLES / "mlp.py"),
        "total": 235146,
        "trainable": 235146,
        "frozen": 0,
        "buffers": 0,
        "bytes": 940584,
        "tensors": 6,
    }


@pytest.mark.parametrize(
    ("option", "printed"),
    [
        ("--total", "21"),
        ("--trainable", "21"),
        ("--frozen", "0"),
        ("--buffers", "7"),
        ("--bytes", "116"),
    ],
)
def test_count_prints_a_bare_number(modtool: Modtool, option: str, printed: str) -> None:
    torch.save(small(), "net.pth")
    assert modtool("count", "net.pth", option) == Ran(0, f"{printed}\n", "")


def test_a_state_dict_does_not_say_what_is_trainable(modtool: Modtool) -> None:
    torch.save(small().state_dict(), "net.pth")
    assert json.loads(modtool("count", "net.pth", "--json").out)["trainable"] is None
    ran = modtool("count", "net.pth", "--trainable")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: net.pth does not record which parameters are trainable\n")


def test_shared_parameters_are_counted_once(modtool: Modtool) -> None:
    layer = nn.Linear(3, 3)
    torch.save(nn.Sequential(layer, layer), "tied.pth")
    assert modtool("count", "tied.pth", "--total").out == "12\n"


def test_count_table(modtool: Modtool) -> None:
    torch.save(small(), "net.pth")
    assert modtool("count", "net.pth").out == (
        "parameters 21   trainable 21   frozen 0   buffers 7   size 116 B\n"
    )


# -- formats -----------------------------------------------------------------------------------


TABLE = """\
module                                                   parameters  trainable  mode   shape
───────────────────────────────────────────────────────  ──────────  ─────────  ─────  ─────
Sequential()                                                     15         15
  (0): Linear(in_features=4, out_features=3, bias=True)          15         15         weight [3, 4], bias [3]
  (1): Dropout(p=0.2, inplace=False)                              0          0  train

parameters 15   trainable 15   frozen 0   buffers 0   size 60 B
"""  # noqa: E501


def test_summary_as_a_table(modtool: Modtool) -> None:
    torch.save(nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.2)), "net.pth")
    assert modtool("summary", "net.pth") == Ran(0, TABLE, "")


def test_summary_as_csv_has_raw_numbers(modtool: Modtool) -> None:
    torch.save({"a.weight": torch.zeros(2000, 3)}, "net.pth")
    ran = modtool(
        "summary", "net.pth", "--tensors", "--columns", "name,dtype,shape,numel", "--format", "csv"
    )
    assert list(csv.reader(io.StringIO(ran.out))) == [
        ["name", "dtype", "shape", "numel"],
        ["a.weight", "float32", "[2000, 3]", "6000"],
    ]


def test_summary_as_markdown_escapes_markup(modtool: Modtool) -> None:
    torch.save({"a|b*": torch.zeros(2)}, "net.pth")
    ran = modtool("summary", "net.pth", "--format", "markdown", "--columns", "name,shape")
    assert ran.out.splitlines()[:3] == [
        "| name | shape |",
        "| --- | --- |",
        "| a\\|b\\* | \\[2\\] |",
    ]


def test_summary_as_html_escapes_tags(modtool: Modtool) -> None:
    torch.save({"<script>": torch.zeros(2)}, "net.pth")
    ran = modtool("summary", "net.pth", "--format", "html")
    assert "<script>" not in ran.out
    assert "&lt;script&gt;" in ran.out


def test_names_do_not_reach_the_terminal_raw(modtool: Modtool) -> None:
    torch.save({"a\x1b[31m\x07.weight\x9b": torch.zeros(2)}, "net.pth")
    for form in RENDERERS:
        ran = modtool("summary", "net.pth", "--format", form)
        assert ran.code == 0
        assert not {"\x1b", "\x07", "\x9b"} & set(ran.out)


def test_names_with_half_of_a_surrogate_pair_stay_apart(modtool: Modtool) -> None:
    names = ["a\udc80", "a\udc81"]
    torch.save({name: torch.ones(1) for name in names} | {"v\udc82": "x\udc83"}, "c.pth")
    made = json.loads(modtool("summary", "c.pth", "--json").out)
    assert [tensor["name"] for tensor in made["tensors"]] == ["a\\udc80", "a\\udc81"]
    assert made["values"] == {"v\\udc82": "x\\udc83"}


@pytest.mark.parametrize("count", [999, 1000, 1001, 2000, 2001])
def test_json_of_many_tensors_is_one_list(modtool: Modtool, count: int) -> None:
    # a list of more than a thousand is written in parts
    names = [f"layers.{index}.weight" for index in range(count - 1)] + ["half \udc80"]
    torch.save({name: torch.zeros(1) for name in names}, "many.pth")
    out = modtool("summary", "many.pth", "--json").out
    made = json.loads(out)
    assert [tensor["name"] for tensor in made["tensors"]] == [*names[:-1], "half \\udc80"]
    assert out == json.dumps(made) + "\n"


def test_json_is_strict_where_values_are_not(modtool: Modtool) -> None:
    values = {"loss": float("nan"), "best": float("inf"), "name": "half \ud83d", "n": 10**1000}
    torch.save({**values, "model": {"w": torch.zeros(1), "b": torch.ones(1)}}, "c.pth")

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    document = json.loads(modtool("summary", "c.pth", "--json").out, parse_constant=refuse)
    assert document["values"]["loss"] is None
    assert document["values"]["best"] is None
    assert document["values"]["name"] == "half \\ud83d"
    assert document["values"]["n"] == 10**1000


# -- what is meant -----------------------------------------------------------------------------


def test_model_py_is_meant_where_nothing_else_is(modtool: Modtool) -> None:
    Path("model.py").write_text(NET)
    assert modtool("count", "--total").out == "203530\n"


def test_pyproject_names_a_model_from_below(
    modtool: Modtool, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("net.py").write_text(NET)
    Path("pyproject.toml").write_text('[tool.modtool]\nmodel = "net.py:Net"\n')
    Path("deep").mkdir()
    monkeypatch.chdir("deep")
    assert modtool("count", "--total").out == "203530\n"


def test_the_environment_wins(modtool: Modtool, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("model.py").write_text("raise SystemExit")
    Path("net.py").write_text(NET)
    monkeypatch.setenv("MODTOOL_MODEL", "net.py")
    assert modtool("count", "--total").out == "203530\n"


def test_nothing_is_meant(modtool: Modtool) -> None:
    ran = modtool("count")
    assert ran.code == 2
    assert ran.err.startswith("error: no target given, and there is no model.py here\n")


def test_trace_json_of_the_contract(modtool: Modtool) -> None:
    Path("model.py").write_text(NET)
    ran = modtool("trace", "--input-shape", "32,784", "--json")
    document = json.loads(ran.out)
    assert (ran.code, document["error"]) == (0, None)
    assert (document["mode"], document["executed"]) == ("eval", "fake")
    assert document["inputs"] == [{"name": "x", "shape": [32, 784], "dtype": "float32"}]
    assert document["outputs"] == [{"path": "", "shape": [32, 10], "dtype": "float32"}]
    first = document["calls"][0]
    assert (
        first.items()
        >= {
            "index": 0,
            "path": "fc1",
            "type": "Linear",
            "call": 1,
            "depth": 1,
            "inputs": [{"path": "0", "shape": [32, 784], "dtype": "float32"}],
            "outputs": [{"path": "", "shape": [32, 256], "dtype": "float32"}],
            "parameters": 200960,
            "macs": 6422528,
        }.items()
    )
    totals = document["totals"]
    assert (totals["parameters"], totals["trainable"]) == (203530, 203530)
    assert totals["macs"] == 6504448


def test_a_pass_that_fails_is_exit_code_1(modtool: Modtool) -> None:
    Path("model.py").write_text(NET)
    ran = modtool("trace", "--input-shape", "32,783", "--json")
    document = json.loads(ran.out)
    assert ran.code == 1
    assert document["error"]["path"] == "fc1"


# -- errors ------------------------------------------------------------------------------------

HINTS = {
    "missing.pth": "error: missing.pth: no such file or directory",
    "folder": "error: folder",
    "empty.pth": "error: empty.pth: an empty file",
    "text.txt": "error: text.txt: a text file",
    "cut.pth": "error: cut.pth: truncated",
    "cut.safetensors": "error: cut.safetensors: truncated",
    "raises.py": "error: raises.py:1: ValueError: boom",
    "needs.py": "error: needs.py holds no model that can be built",
}


@pytest.fixture
def wrong(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.pth").touch()
    (tmp_path / "text.txt").write_text("hello\n")
    torch.save(small().state_dict(), tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:200])
    save_file(small().state_dict(), tmp_path / "whole.safetensors")
    data = (tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[:30])
    (tmp_path / "raises.py").write_text("raise ValueError('boom')\n")
    (tmp_path / "needs.py").write_text(
        "from torch import nn\nclass Net(nn.Module):\n    def __init__(self, hidden): ...\n"
    )


@pytest.mark.usefixtures("wrong")
@pytest.mark.parametrize("target", HINTS)
@pytest.mark.parametrize(
    "command",
    [
        ("summary", "{}"),
        ("count", "{}"),
        ("convert", "{}", "-o", "out"),
        ("freeze", "{}", "*", "-o", "out"),
        ("reinit", "{}", "--scheme", "zeros", "-o", "out"),
    ],
    ids=lambda command: command[0],
)
def test_a_wrong_target(modtool: Modtool, command: tuple[str, ...], target: str) -> None:
    ran = modtool(*(part.format(target) for part in command))
    assert (ran.code, ran.out) == (2, "")
    lines = ran.err.splitlines()
    assert 1 <= len(lines) <= 2
    if not (command[0] == "convert" and target.endswith(".py")):
        assert lines[0].startswith(HINTS[target])
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("sumary",), "error: No such command 'sumary'."),
        (("summary", "--nonsense"), "error: No such option"),
        (("summary", "x.pth", "--depth", "deep"), "error: Invalid value for '--depth'"),
        (("summary", "x.pth", "--format", "yaml"), "error: Invalid value for '--format'"),
        (("freeze",), "error: Missing argument 'TARGET'"),
    ],
)
def test_wrong_usage(modtool: Modtool, arguments: tuple[str, ...], error: str) -> None:
    ran = modtool(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(error)
    assert len(ran.err.splitlines()) == 2


def test_debug_shows_where(modtool: Modtool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODTOOL_DEBUG", "1")
    assert "Traceback" in modtool("summary", "missing.pth").err


# -- writing -----------------------------------------------------------------------------------


def test_nothing_is_overwritten_without_force(modtool: Modtool) -> None:
    torch.save(small(), "net.pth")
    Path("out.pth").write_text("precious")
    ran = modtool("convert", "net.pth", "-o", "out.pth")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "error: out.pth exists already\n  --force replaces it\n"
    assert Path("out.pth").read_text() == "precious"
    assert modtool("convert", "net.pth", "-o", "out.pth", "--force").code == 0
    assert torch.load("out.pth", weights_only=True).keys() == small().state_dict().keys()


def test_the_path_is_the_last_line(modtool: Modtool) -> None:
    torch.save(small(), "net.pth")
    assert modtool("convert", "net.pth").out.splitlines()[-1] == "net_state_dict.pth"
    document = json.loads(modtool("convert", "net.pth", "--force", "--json").out)
    assert document["written"] == ["net_state_dict.pth"]


def test_a_dry_run_writes_nothing(modtool: Modtool) -> None:
    torch.save(small(), "net.pth")
    before = sorted(os.listdir())
    for command in (("convert",), ("freeze", "0"), ("reinit", "--scheme", "zeros")):
        name, *rest = command
        ran = modtool(name, "net.pth", *rest, "-o", "out.pth", "--dry-run")
        assert ran.code == 0
        assert "0.weight" in ran.out
    assert sorted(os.listdir()) == before


def test_a_reader_that_has_enough_is_no_error(tmp_path: Path) -> None:
    torch.save({f"layer.{index}": torch.zeros(1) for index in range(20_000)}, tmp_path / "n.pth")
    done = subprocess.run(
        f"{sys.executable} -m modtool summary n.pth --tensors | head -2",
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 2


def test_version(modtool: Modtool) -> None:
    assert modtool("--version").out.startswith("modtool 0.")


def test_help_cuts_no_sentence_short(modtool: Modtool) -> None:
    shown = modtool("--help")
    assert shown.code == 0
    commands = shown.out.partition("Commands:\n")[2].splitlines()
    assert "..." not in "".join(commands)
    assert [line.split()[0] for line in commands] == list(COMMANDS)
    assert all(line.endswith(".") for line in commands)


def test_a_mistyped_command(modtool: Modtool) -> None:
    assert modtool("sumary") == Ran(
        2,
        "",
        "error: No such command 'sumary'. Did you mean 'summary'?\n  try: modtool --help\n",
    )


@pytest.mark.parametrize("form", ["table", "csv", "markdown", "html"])
def test_the_path_is_the_last_line_in_every_form(modtool: Modtool, form: str) -> None:
    torch.save(small(), "net.pth")
    shown = modtool("freeze", "net.pth", "0", "-o", "x.pth", "--format", form)
    assert shown.out.splitlines()[-1] == "x.pth"


def test_no_command_is_a_question_for_help(modtool: Modtool) -> None:
    asked = modtool()
    assert (asked.code, asked.out) == (2, "")
    assert asked.err.startswith("Usage: modtool [OPTIONS] COMMAND [ARGS]...\n")


def test_an_interrupt_while_the_command_line_is_imported() -> None:
    program = """
import sys

class Interrupting:
    def find_spec(self, name, *others):
        if name == "modtool.cli":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupting())
from modtool.__main__ import main
main()
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "error: interrupted\n")


def test_an_interrupt_that_something_else_makes_an_error_of() -> None:
    program = """
import signal
import sys

class Interrupted:
    def find_spec(self, name, *others):
        if name == "modtool.api.converting":
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                raise ImportError("half of it is there") from None

sys.meta_path.insert(0, Interrupted())
sys.argv = ["modtool", "convert", "x.pth"]
from modtool.__main__ import main
main()
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "error: interrupted\n")


def test_who_was_started_to_ignore_interrupts_ignores_them(tmp_path: Path) -> None:
    torch.save(small(), tmp_path / "x.pth")
    program = """
import signal
import sys

class Interrupting:
    def find_spec(self, name, *others):
        if name == "modtool.api.converting":
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
sys.argv = ["modtool", "convert", "x.pth", "-o", "y.pth"]
signal.signal(signal.SIGINT, signal.SIG_IGN)
from modtool.__main__ import main
main()
"""
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert (tmp_path / "y.pth").exists()
