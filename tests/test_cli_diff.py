"""`modtool diff`: streams, exit codes, tables, JSON."""

import csv
import io
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.conftest import Ran
from tests.test_guards import CALL, HEAVY, run_and_list_modules

Modtool = Callable[..., Ran]
EXAMPLES = Path(__file__).parents[1] / "examples"


def save_two() -> None:
    a = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.zeros(2), "old": torch.zeros(1)}
    b = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.zeros(2), "new": torch.zeros(4)}
    b["fc.weight"][0, 0] = 1.5
    torch.save(a, "a.pth")
    torch.save(b, "b.pth")


def test_the_same_is_exit_code_0(modtool: Modtool) -> None:
    save_two()
    assert modtool("diff", "a.pth", "a.pth") == Ran(
        0,
        "no differences\n\n"
        "in both 3   equal 3   different 0   other structure 0   only in A 0   only in B 0\n",
        "",
    )


TABLE = """\
name  difference  A            B
────  ──────────  ───────────  ─
old   only in A   float32 [1]  –
new   only in B   –            float32 [4]

values of  max abs  max rel  cosine     ULPs
─────────  ───────  ───────  ──────  ───────
fc.weight      0.5   0.3333  0.9855  4194304

in both 2   equal 1   different 1   other structure 0   only in A 1   only in B 1
"""


def test_differences_are_exit_code_1(modtool: Modtool) -> None:
    save_two()
    assert modtool("diff", "a.pth", "b.pth") == Ran(1, TABLE, "")


def test_a_tolerance(modtool: Modtool) -> None:
    save_two()
    alike = ("diff", "a.pth", "b.pth", "--only", "fc")
    assert modtool(*alike, "--atol", "0.5").code == 0
    assert modtool(*alike, "--rtol", "0.34").code == 0
    assert modtool(*alike, "--atol", "0.4").code == 1
    assert modtool(*alike, "--rtol", "0.2", "--atol", "0.2").code == 0
    assert modtool(*alike, "--atol", "0.5").out.startswith(
        "no differences beyond atol 0.5 and rtol 0\n"
    )


def test_depth_folds_the_table(modtool: Modtool) -> None:
    save_two()
    assert modtool("diff", "a.pth", "b.pth", "--depth", "1").out.splitlines()[:4] == [
        "module  tensors  same  differ  only A  only B  max abs  max rel  cosine     ULPs",
        "──────  ───────  ────  ──────  ──────  ──────  ───────  ───────  ──────  ───────",
        "fc            2     1       1       0       0      0.5   0.3333  0.9855  4194304",
        "(all)         2     0       0       1       1        –        –       –        –",
    ]


def test_top_cuts_the_folded_table_and_keeps_what_differs(modtool: Modtool) -> None:
    state = {f"{name}.w": torch.ones(2) for name in ("a", "b", "c", "d")}
    torch.save(state, "a.pth")
    torch.save({**state, "c.w": torch.zeros(2), "d.w": torch.ones(3)}, "b.pth")

    def folded(*options: str) -> tuple[list[str], bool]:
        out = modtool("diff", "a.pth", "b.pth", "--depth", "1", *options).out
        told = "more row" in out
        return [line[0] for line in out.splitlines()[2:] if line[:1] in "abcd" and line], told

    assert folded("--top", "3") == (["a", "c", "d"], True)
    assert folded("--top", "2") == (["c", "d"], True)
    assert folded("--top", "0") == (["a", "b", "c", "d"], False)


def test_depth_keeps_what_is_nan(modtool: Modtool) -> None:
    torch.save({"fc.w": torch.tensor([1.0, 2.0]), "fc.b": torch.ones(1)}, "a.pth")
    torch.save({"fc.w": torch.tensor([1.0, math.nan]), "fc.b": torch.ones(1)}, "b.pth")
    assert modtool("diff", "a.pth", "b.pth", "--depth", "1").out.splitlines()[:3] == [
        "module  tensors  same  differ  only A  only B  max abs  max rel  cosine  ULPs  NaN A  "
        "NaN B  unlike",
        "──────  ───────  ────  ──────  ──────  ──────  ───────  ───────  ──────  ────  ─────  "
        "─────  ──────",
        "fc            2     1       1       0       0        0        0       1     0      0  "
        "    1       1",
    ]


def test_depth_tells_of_what_is_no_tensor(modtool: Modtool) -> None:
    state = {"fc.weight": torch.zeros(2)}
    torch.save({"model": state, "epoch": 1, "step": 5}, "a.pth")
    torch.save({"model": state, "epoch": 2, "step": 6}, "b.pth")
    ran = modtool("diff", "a.pth", "b.pth", "--depth", "1", "--top", "1")
    assert (ran.code, ran.out.splitlines()) == (
        1,
        [
            "module  tensors  same  differ  only A  only B",
            "──────  ───────  ────  ──────  ──────  ──────",
            "fc            1     1       0       0       0",
            "",
            "name   difference  A  B",
            "─────  ──────────  ─  ─",
            "epoch  value       1  2",
            "",
            "1 more row: --top 0 shows all",
            "",
            "in both 1   equal 1   different 0   other structure 0   only in A 0   only in B 0",
        ],
    )
    rows = modtool("diff", "a.pth", "b.pth", "--depth", "1", "--format", "csv").out.splitlines()
    assert [row.partition(",")[0] for row in rows] == ["module", "fc"]


def test_a_tolerance_asks_for_the_values_of_a_model(modtool: Modtool) -> None:
    head = "import torch\nfrom torch import nn\n\n\ndef build_model():\n"
    body = "    model = nn.Linear(2, 2)\n    nn.init.constant_(model.weight, 0.5)\n"
    Path("model.py").write_text(f"{head}{body}    nn.init.zeros_(model.bias)\n    return model\n")
    torch.save({"weight": torch.full((2, 2), 0.501), "bias": torch.zeros(2)}, "a.pth")
    assert modtool("diff", "model.py", "a.pth", "--atol", "1e-2").code == 0
    ran = modtool("diff", "model.py", "a.pth", "--atol", "1e-4")
    assert (ran.code, ran.err) == (1, "")
    assert "equal 1   close 0   different 1" in ran.out


def test_markdown_and_html_have_no_empty_tables(modtool: Modtool) -> None:
    torch.save({"w": torch.zeros(2)}, "a.pth")
    torch.save({"w": torch.ones(2)}, "b.pth")
    assert modtool("diff", "a.pth", "b.pth", "--format", "markdown").out == (
        "| values of | max abs | max rel | cosine | ULPs |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        "| w | 1 | 1 | – | 1065353216 |\n"
        "\n"
        "in both 1   equal 0   different 1   other structure 0   only in A 0   only in B 0\n"
    )
    assert modtool("diff", "a.pth", "b.pth", "--format", "html").out.count("<table") == 1
    assert modtool("diff", "a.pth", "a.pth", "--format", "markdown").out == (
        "no differences\n"
        "\n"
        "in both 1   equal 1   different 0   other structure 0   only in A 0   only in B 0\n"
    )


def test_top_cuts_tables_and_says_so(modtool: Modtool) -> None:
    torch.save({f"x{i}": torch.full((2,), float(i)) for i in range(9)}, "a.pth")
    torch.save({f"x{i}": torch.zeros(2) for i in range(9)}, "b.pth")
    ran = modtool("diff", "a.pth", "b.pth", "--top", "2")
    lines = ran.out.splitlines()
    assert [line.split()[0] for line in lines[2:4]] == ["x8", "x7"]
    assert "6 more rows: --top 0 shows all" in lines
    assert len(modtool("diff", "a.pth", "b.pth", "--top", "0").out.splitlines()) == 12
    found = json.loads(modtool("diff", "a.pth", "b.pth", "--top", "2", "--json").out)
    assert len(found["differing"]) == 8
    rows = modtool("diff", "a.pth", "b.pth", "--top", "2", "--format", "csv").out
    assert len(list(csv.DictReader(io.StringIO(rows)))) == 8


def test_csv_has_everything_in_one_table(modtool: Modtool) -> None:
    save_two()
    rows = list(
        csv.DictReader(io.StringIO(modtool("diff", "a.pth", "b.pth", "--format", "csv").out))
    )
    assert [(row["name"], row["difference"], row["max_abs"]) for row in rows] == [
        ("old", "only in A", ""),
        ("new", "only in B", ""),
        ("fc.weight", "values", "0.5"),
    ]


def test_json_key_by_key(modtool: Modtool) -> None:
    save_two()
    ran = modtool("diff", "a.pth", "b.pth", "--json")
    found = json.loads(ran.out)
    side = {"dtype": "float32", "shape": [2, 3], "device": "cpu", "requires_grad": None}
    cosine = found["differing"][0]["cosine"]
    assert cosine == pytest.approx(6.5 / (6 * 7.25) ** 0.5, rel=1e-6)
    measures = {"max_abs": 0.5, "max_rel": pytest.approx(1 / 3), "max_ulps": 1 << 22}
    assert (ran.code, ran.err) == (1, "")
    assert found == {
        "schema": 1,
        "a": "a.pth",
        "b": "b.pth",
        "same": False,
        "values_compared": True,
        "tolerance": None,
        "tensors": {"both": 2, "equal": 1, "close": 0, "different": 1, "unknown": 0},
        "only_a": [
            {"name": "old", "dtype": "float32", "shape": [1], "likely": None, "reason": None}
        ],
        "only_b": [
            {"name": "new", "dtype": "float32", "shape": [4], "likely": None, "reason": None}
        ],
        "differing": [
            {
                "name": "fc.weight",
                "differs": [],
                "a": side,
                "b": side,
                "values": "different",
                **measures,
                "cosine": cosine,
                "nan_a": 0,
                "nan_b": 0,
                "unlike": 0,
                "reason": None,
            }
        ],
        "ties": [],
        "values": [],
        "modules": [],
        "by_module": [
            {
                "module": "fc",
                "tensors": 2,
                "same": 1,
                "differ": 1,
                "only_a": 0,
                "only_b": 0,
                **measures,
                "cosine": cosine,
                "nan_a": 0,
                "nan_b": 0,
                "unlike": 0,
            },
            {
                "module": "",
                "tensors": 2,
                "same": 0,
                "differ": 0,
                "only_a": 1,
                "only_b": 1,
                "max_abs": None,
                "max_rel": None,
                "cosine": None,
                "max_ulps": None,
                "nan_a": None,
                "nan_b": None,
                "unlike": None,
            },
        ],
        "renamings": [],
        "load": None,
        "notes": [],
    }


def test_nan_is_counted_and_the_json_stays_strict(modtool: Modtool) -> None:
    torch.save({"x": torch.tensor([1.0, 2.0]), "step": 1.0}, "a.pth")
    torch.save({"x": torch.tensor([1.0, float("nan")]), "step": float("nan")}, "b.pth")
    assert modtool("diff", "a.pth", "b.pth").out.splitlines()[4:7] == [
        "values of  max abs  max rel  cosine  ULPs  NaN A  NaN B  unlike",
        "─────────  ───────  ───────  ──────  ────  ─────  ─────  ──────",
        "x                0        0       1     0      0      1       1",
    ]
    found = json.loads(modtool("diff", "a.pth", "b.pth", "--json").out)
    assert found["differing"][0]["nan_b"] == 1
    assert found["values"] == [{"name": "step", "sides": ["a", "b"], "a": 1.0, "b": None}]


FITS = """\
name         difference  A                   B
───────────  ──────────  ──────────────────  ─
fc1.weight   missing     float32 [256, 784]  likely module.fc1.weight
fc1.bias     missing     float32 [256]       likely module.fc1.bias
fc2.weight   missing     float32 [128, 256]  likely module.fc2.weight
fc2.bias     missing     float32 [128]       likely module.fc2.bias
head.weight  missing     float32 [10, 128]   likely module.head.weight
head.bias    missing     float32 [10]        likely module.head.bias

names were likely changed (DataParallel or DistributedDataParallel): --strip-prefix module. \
brings 6 together
load_state_dict would refuse it
what fits: modtool convert ddp.pth --strip-prefix module. -o ddp_fixed.pth

in both 0   missing 6   unexpected 6   mismatched 0
"""


def save_wrapped() -> None:
    layers = {"fc1": (784, 256), "fc2": (256, 128), "head": (128, 10)}
    modules = nn.ModuleDict({name: nn.Linear(*sizes) for name, sizes in layers.items()})
    torch.save({f"module.{k}": v for k, v in modules.state_dict().items()}, "ddp.pth")


def test_a_model_and_what_it_is_to_load(modtool: Modtool) -> None:
    save_wrapped()
    assert modtool("diff", EXAMPLES / "mlp.py", "ddp.pth") == Ran(1, FITS, "")
    ran = modtool("diff", EXAMPLES / "mlp.py", "ddp.pth", "--strip-prefix", "module.")
    assert ran == Ran(
        0,
        "load_state_dict would take it\n\nin both 6   missing 0   unexpected 0   mismatched 0\n",
        "",
    )
    narrow = ("--arg", "classes=7", "--strip-prefix", "auto")
    assert "other classes" in modtool("diff", EXAMPLES / "mlp.py", "ddp.pth", *narrow).out


def test_load_in_json(modtool: Modtool) -> None:
    save_wrapped()
    assert json.loads(modtool("diff", EXAMPLES / "mlp.py", "ddp.pth", "--json").out)["load"] == {
        "model": "a",
        "missing": 6,
        "unexpected": 6,
        "mismatched": 0,
        "section": None,
        "fix": "modtool convert ddp.pth --strip-prefix module. -o ddp_fixed.pth",
        "fixed": True,
        "whole": False,
        "loads": False,
    }


WRONG = [
    (["a.pth", "none.pth"], "error: none.pth: no such file or directory"),
    (["a.pth", "b.pth", "--atol", "-1"], "error: --atol -1.0: not a number from 0 on"),
    (["a.pth", "b.pth", "--rtol", "inf"], "error: --rtol inf: not a number from 0 on"),
    (
        ["a.pth", "b.pth", "--structure", "--atol", "1"],
        "error: values are not read with --structure",
    ),
    (["a.pth", "b.pth", "--only", "zz"], "error: no name matches 'zz'"),
    (["a.pth", "b.pth", "--rename", "fc"], "error: 'fc' is no renaming"),
    (["a.pth", "b.pth", "--rename", "q=z"], "error: --rename q=z changes no name"),
    (["a.pth", "b.pth", "--strip-prefix", "q."], "error: no name begins with 'q.'"),
    (["a.pth", "b.pth", "--section", "model"], "error: a.pth has no section 'model'"),
    (["a.pth", "b.pth", "--ignore", "names"], "error: Invalid value for '--ignore': 'names'"),
    (
        ["a.pth", "b.pth", "--arg", "x=1"],
        "error: --arg is for models, and both sides are checkpoints",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_what_is_wrong_is_said_in_two_lines(
    modtool: Modtool, arguments: list[str], message: str
) -> None:
    save_two()
    ran = modtool("diff", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(message)
    assert len(ran.err.splitlines()) <= 2


def test_a_file_that_became_shorter_is_an_error(modtool: Modtool) -> None:
    save_file({"x": torch.zeros(10)}, "a.safetensors")
    save_file({"x": torch.zeros(10)}, "b.safetensors")
    with open("b.safetensors", "r+b") as file:
        file.truncate(90)
    ran = modtool("diff", "a.safetensors", "b.safetensors")
    assert (ran.code, ran.out) == (2, "")


@pytest.mark.parametrize("options", [[], ["--structure"], ["--depth", "1"]])
def test_what_is_equal_needs_no_torch(tmp_path: Path, options: list[str]) -> None:
    state = {"x": torch.randn(7, 5), "y": torch.randn(5, 7).t()}
    for name in "ab":
        torch.save(state, tmp_path / f"{name}.pth")
    paths = [str(tmp_path / f"{name}.pth") for name in "ab"]
    assert not run_and_list_modules(CALL, "diff", *paths, *options) & HEAVY


def test_structure_of_what_differs_needs_no_torch(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(3)}, tmp_path / "a.pth")
    torch.save({"y": torch.ones(3)}, tmp_path / "b.pth")
    call = CALL.replace("code == 0", "code == 1")
    paths = [str(tmp_path / f"{name}.pth") for name in "ab"]
    assert not run_and_list_modules(call, "diff", *paths, "--structure") & HEAVY


def test_memory_stays_small(tmp_path: Path) -> None:
    """96 MiB on each side, in the memory of torch and a few buffers."""
    state = {f"x{index}": torch.zeros(12 << 20) for index in range(2)}
    save_file(state, tmp_path / "a.safetensors")
    save_file({name: value + 1 for name, value in state.items()}, tmp_path / "b.safetensors")
    code = (
        "import resource, sys\nimport torch\nfrom modtool.cli import run\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert run(sys.argv[1:]) == 1\n"
        "sys.stderr.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))"
    )
    paths = [str(tmp_path / f"{name}.safetensors") for name in "ab"]
    done = subprocess.run(
        [sys.executable, "-c", code, "diff", *paths], capture_output=True, text=True, check=True
    )
    assert int(done.stderr) < 64 << 10  # KiB
