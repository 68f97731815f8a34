"""summary and count from the command line, over every example: what nn.Module can be made of."""

import csv
import io
import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from modtool.live.load import load_model
from tests.conftest import Ran

Modtool = Callable[..., Ran]
EXAMPLES = Path(__file__).parents[1] / "examples"

# total, buffers, bytes, tensors: worked out by hand.
COUNTS = {
    "add_module": (20 * 15 + 15 + 15 * 10 + 10, 0, 475 * 4, 4),
    "branching": (2 * (4 * 3 + 3), 0, 30 * 4, 4),
    "loss": (10, 0, 40, 1),
    "mlp": (784 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10, 0, 235_146 * 4, 6),
    "module_dict": (16 * 16 + 16 + 1, 0, 273 * 4, 3),
    "module_list": (3 * (32 * 32 + 32), 0, 3168 * 4, 6),
    # Two convolutions and their norms, a head; of five buffers each, two are int64 scalars.
    "nested_sequential": (480 + 4704 + 330, 2 * 16 + 2 * 32 + 2, (5514 + 96) * 4 + 2 * 8, 16),
    "no_parameters": (0, 0, 0, 0),
    "own_parameters": (6 * 3 + 3, 1, 22 * 4, 3),
    "self_init": (8 * 9 + 8 + 8 * 2 + 2, 0, 98 * 4, 4),
    "unregistered": (8 * 2 + 2, 0, 18 * 4, 2),
}
COUNTS["ordered_sequential"] = COUNTS["nested_sequential"]


def example(name: str) -> str:
    return str(EXAMPLES / f"{name}.py")


def document(ran: Ran) -> Any:
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def rows(ran: Ran) -> list[list[str]]:
    assert ran.code == 0, ran.err
    return list(csv.reader(io.StringIO(ran.out)))


# -- count -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COUNTS)
def test_count(modtool: Modtool, name: str) -> None:
    total, buffers, size, tensors = COUNTS[name]
    assert document(modtool("count", example(name), "--json")) == {
        "schema": 1,
        "target": example(name),
        "total": total,
        "trainable": total,
        "frozen": 0,
        "buffers": buffers,
        "bytes": size,
        "tensors": tensors,
    }


@pytest.mark.parametrize("name", COUNTS)
def test_every_figure_of_count_alone(modtool: Modtool, name: str) -> None:
    total, buffers, size, _ = COUNTS[name]
    figures = {"total": total, "trainable": total, "frozen": 0, "buffers": buffers, "bytes": size}
    for option, figure in figures.items():
        assert modtool("count", example(name), f"--{option}") == Ran(0, f"{figure}\n", "")


def test_count_the_example_of_the_contract(modtool: Modtool) -> None:
    Path("model.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, hidden=298, bias=True):\n"
        "        super().__init__()\n"
        "        self.fc1 = nn.Linear(784, hidden, bias=bias)\n"
        "        self.fc2 = nn.Linear(hidden, 4, bias=bias)\n"
    )
    ran = modtool("count", "model.py:Net", "--arg", "hidden=10", "--arg", "bias=false", "--json")
    assert list(json.loads(ran.out)) == [
        "schema",
        "target",
        "total",
        "trainable",
        "frozen",
        "buffers",
        "bytes",
        "tensors",
    ]
    assert json.loads(ran.out)["total"] == 7880


def test_frozen_and_shared_parameters(modtool: Modtool) -> None:
    Path("model.py").write_text(
        "from torch import nn\n"
        "tied = nn.Linear(4, 10, bias=False)\n"
        "model = nn.Sequential(nn.Embedding(10, 4), tied, nn.Linear(10, 1))\n"
        "model[1].weight = model[0].weight\n"
        "model[2].requires_grad_(False)\n"
    )
    made = document(modtool("count", "model.py:model", "--json"))
    assert (made["total"], made["trainable"], made["frozen"], made["tensors"]) == (51, 40, 11, 4)
    tied = document(modtool("summary", "model.py:model", "--json"))["tensors"]
    assert {each["name"]: each["shares_with"] for each in tied}["1.weight"] == "0.weight"


def test_two_figures_at_once_are_none(modtool: Modtool) -> None:
    ran = modtool("count", example("mlp"), "--total", "--bytes")
    assert ran == Ran(2, "", "error: --total and --bytes each print one bare number: choose one\n")


# -- summary: the tree -------------------------------------------------------------------------


def printed(model: nn.Module) -> list[str]:
    """The lines of print(model) that begin a module, each as a module of its own would begin."""
    lines = [line for line in repr(model).splitlines() if line.strip() != ")"]
    return [f"{line})" if line.endswith("(") else line for line in lines]


# print() itself folds the three equal layers of module_list into one line.
@pytest.mark.parametrize("name", sorted(COUNTS.keys() - {"module_list"}))
def test_the_tree_is_as_print_says_it(modtool: Modtool, name: str) -> None:
    # The first column as the plain table has it, up to the gap that ends it.
    ran = modtool("summary", example(name), "--columns", "module")
    lines = ran.out.split("\n\n")[0].splitlines()[2:]
    assert lines == printed(load_model(example(name)).model)


# ruff: noqa: E501
GOLDEN = {
    "module_list": """\
module                                                       parameters  trainable  shape
───────────────────────────────────────────────────────────  ──────────  ─────────  ─────
Residual()                                                        3,168      3,168
  (layers): ModuleList()                                          3,168      3,168
    (0): Linear(in_features=32, out_features=32, bias=True)       1,056      1,056  weight [32, 32], bias [32]
    (1): Linear(in_features=32, out_features=32, bias=True)       1,056      1,056  weight [32, 32], bias [32]
    (2): Linear(in_features=32, out_features=32, bias=True)       1,056      1,056  weight [32, 32], bias [32]

parameters 3,168   trainable 3,168   frozen 0   buffers 0   size 12.4 KiB
""",
    "module_dict": """\
module                                                          parameters  trainable  shape
──────────────────────────────────────────────────────────────  ──────────  ─────────  ─────
Switch()                                                               273        273
  (linear): Linear(in_features=16, out_features=16, bias=True)         272        272  weight [16, 16], bias [16]
  (activations): ModuleDict()                                            1          1
    (relu): ReLU()                                                       0          0
    (gelu): GELU(approximate='none')                                     0          0
    (prelu): PReLU(num_parameters=1)                                     1          1  weight [1]

parameters 273   trainable 273   frozen 0   buffers 0   size 1.1 KiB
""",
    "own_parameters": """\
module          parameters  trainable  shape
──────────────  ──────────  ─────────  ─────
ScaledLinear()          21         21  weight [6, 3], bias [3], scale []

parameters 21   trainable 21   frozen 0   buffers 1   size 88 B
""",
    "no_parameters": """\
module    parameters  trainable
────────  ──────────  ─────────
Centre()           0          0

parameters 0   trainable 0   frozen 0   buffers 0   size 0 B
""",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_whole_table(modtool: Modtool, name: str) -> None:
    assert modtool("summary", example(name)) == Ran(0, GOLDEN[name], "")


def test_names_of_a_sequential_with_and_without_an_ordered_dict(modtool: Modtool) -> None:
    plain, named = (
        [each["path"] for each in document(modtool("summary", example(name), "--json"))["modules"]]
        for name in ("nested_sequential", "ordered_sequential")
    )
    assert plain == [
        *("", "0", "0.0", "0.1", "0.2", "1", "1.0", "1.1", "1.2"),
        *("2", "2.0", "2.1", "2.2"),
    ]
    assert named == [
        *("", "stem", "stem.conv", "stem.norm", "stem.act", "body", "body.conv", "body.norm"),
        *("body.act", "head", "head.pool", "head.flatten", "head.classify"),
    ]


def test_add_module_names(modtool: Modtool) -> None:
    ran = modtool("summary", example("add_module"), "--arg", "sizes=[784, 300, 100, 10]", "--json")
    made = document(ran)
    assert [each["path"] for each in made["modules"]] == ["", "linear1", "linear2", "linear3"]
    assert made["totals"]["total"] == 784 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10


def test_a_module_in_a_plain_list_is_noted(modtool: Modtool) -> None:
    ran = modtool("summary", example("unregistered"))
    assert ran.code == 0
    assert ran.err == (
        "warning: unregistered-module: layers: `layers` is a plain list that holds 2 modules "
        "(Linear): parameters(), state_dict() and to() do not see what is in it\n"
        "  use nn.ModuleList\n"
    )
    (note,) = document(modtool("summary", example("unregistered"), "--json"))["notes"]
    assert (note["code"], note["level"], note["where"]) == (
        "unregistered-module",
        "warning",
        "layers",
    )


def test_what_behaves_differently_in_train_and_eval(modtool: Modtool) -> None:
    made = document(modtool("summary", example("nested_sequential"), "--json"))
    assert [each["path"] for each in made["modules"] if each["mode_sensitive"]] == ["0.1", "1.1"]
    ran = modtool("summary", example("nested_sequential"), "--columns", "path,mode", "--format=csv")
    assert [row for row in rows(ran) if row[1]] == [
        ["path", "mode"],
        ["0.1", "train"],
        ["1.1", "train"],
    ]


def test_the_document_key_by_key(modtool: Modtool) -> None:
    made = document(modtool("summary", example("mlp"), "--json"))
    assert made["totals"] == {
        "total": 235146,
        "trainable": 235146,
        "frozen": 0,
        "buffers": 0,
        "bytes": 940584,
        "tensors": 6,
    }
    assert made["modules"][1] == {
        "path": "fc1",
        "type": "Linear",
        "settings": "in_features=784, out_features=256, bias=True",
        "depth": 1,
        "parameters": 200960,
        "trainable": 200960,
        "own_parameters": 200960,
        "training": True,
        "mode_sensitive": False,
        "alias_of": None,
        "class": "torch.nn.modules.linear.Linear",
        "section": None,
    }
    assert made["tensors"][0] == {
        "name": "fc1.weight",
        "section": None,
        "role": "parameter",
        "dtype": "float32",
        "shape": [256, 784],
        "numel": 200704,
        "bytes": 802816,
        "device": "cpu",
        "requires_grad": True,
        "shares_with": None,
        "layout": "strided",
        "stride": None,
        "persistent": True,
        "chunks": None,
    }
    rest = {key: made[key] for key in made if key not in ("totals", "modules", "tensors")}
    assert rest == {
        "schema": 1,
        "target": example("mlp"),
        "format": "python",
        "kind": "model",
        "sections": [],
        "values": {},
        "metadata": {},
        "notes": [],
    }


SHARDED = """
import torch, torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
model = nn.Sequential(nn.Embedding(10, 7), nn.Linear(7, 7), nn.Linear(7, 10, bias=False))
model[2].weight = model[0].weight
fully_shard(model, mesh=mesh)
torch.save(model.state_dict(), "rank0.pth")
"""


def test_tied_tensors_of_a_sharded_model_are_counted_once(modtool: Modtool) -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", SHARDED], check=True)
    made = document(modtool("summary", "rank0.pth", "--json"))
    assert made["totals"]["total"] == 70 + 56
    assert [(each["name"], each["shape"], each["shares_with"]) for each in made["tensors"]] == [
        ("0.weight", [10, 7], None),
        ("1.weight", [7, 7], None),
        ("1.bias", [7], None),
        ("2.weight", [10, 7], "0.weight"),
    ]


def test_sparse_and_meta_tensors_that_are_one_are_counted_once(modtool: Modtool) -> None:
    sparse, meta = torch.eye(5).to_sparse(), torch.empty(3, 3, device="meta")
    saved = {
        "sparse": sparse,
        "again": sparse,
        "detached": sparse.detach(),
        "alike": torch.eye(5).to_sparse(),
        "meta": meta,
        "its_name": meta,
        "other": torch.empty(3, 3, device="meta"),
    }
    torch.save(saved, "parts.pth")
    made = document(modtool("summary", "parts.pth", "--json"))
    assert made["totals"]["total"] == 2 * 25 + 2 * 9
    assert {each["name"]: each["shares_with"] for each in made["tensors"]} == {
        "sparse": None,
        "again": "sparse",
        "detached": "sparse",
        "alike": None,
        "meta": None,
        "its_name": "meta",
        "other": None,
    }


def test_the_stride_of_what_is_not_contiguous(modtool: Modtool) -> None:
    saved = {
        "contiguous": torch.ones(2, 3),
        "turned": torch.ones(2, 3).T,
        "expanded": torch.ones(3, 1).expand(3, 4),
        "channels_last": torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "one": torch.ones(1, 4)[:, :1],
        "sparse": torch.eye(3).to_sparse(),
    }
    torch.save(saved, "layouts.pth")
    made = document(modtool("summary", "layouts.pth", "--json"))
    assert {each["name"]: each["stride"] for each in made["tensors"]} == {
        "contiguous": None,
        "turned": [1, 3],
        "expanded": [1, 0],
        "channels_last": [48, 1, 12, 3],
        "one": None,
        "sparse": None,
    }


def test_depth_folds_and_columns_choose(modtool: Modtool) -> None:
    ran = modtool(
        "summary",
        example("ordered_sequential"),
        *("--depth", "1", "--columns", "path,type,parameters,own_parameters", "--format", "csv"),
    )
    assert rows(ran) == [
        ["path", "type", "parameters", "own_parameters"],
        ["", "Sequential", "5514", "0"],
        ["stem", "Sequential", "480", "0"],
        ["body", "Sequential", "4704", "0"],
        ["head", "Sequential", "330", "0"],
    ]


@pytest.mark.parametrize(("option", "device"), [((), "cpu"), (("--device", "meta"), "meta")])
def test_devices(modtool: Modtool, option: tuple[str, ...], device: str) -> None:
    made = document(modtool("summary", example("mlp"), *option, "--json"))
    assert {each["device"] for each in made["tensors"]} == {device}
    assert made["totals"]["total"] == 235146


# -- weights -----------------------------------------------------------------------------------


def test_weights_that_do_not_fit_are_reported(modtool: Modtool) -> None:
    model = load_model(example("mlp")).model
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save(state, "wrapped.pth")
    assert modtool("summary", example("mlp"), "--weights", "wrapped.pth").err == ""
    del state["module.fc2.bias"]
    state["module.head.weight"] = torch.zeros(3, 128)
    state["module.more"] = torch.zeros(1)
    torch.save(state, "other.pth")
    ran = modtool("summary", example("mlp"), "--weights", "other.pth")
    assert ran.code == 0
    assert ran.err.splitlines() == [
        "warning: missing-weights: other.pth: 1 name of the model is not in it and keeps its "
        "initial values: fc2.bias",
        "warning: unexpected-weights: other.pth: 1 name in it is not in the model and is left out: more",
        "warning: mismatched-weights: other.pth: 1 name is in it in another shape and keeps its "
        "initial values: "
        "head.weight ([3, 128] for [10, 128])",
    ]


def test_weights_of_another_model(modtool: Modtool) -> None:
    torch.save({"a": torch.zeros(1)}, "a.pth")
    ran = modtool("summary", example("mlp"), "--weights", "a.pth")
    assert ran.code == 2
    assert ran.err.splitlines() == [
        "error: a.pth: none of its 1 tensors fits the model",
        "  the model has fc1.weight, fc1.bias, fc2.weight, fc2.bias, …; the checkpoint has a",
    ]
    torch.save({"fc1.bias": torch.zeros(1)}, "b.pth")
    ran = modtool("summary", example("mlp"), "--weights", "b.pth")
    assert ran.err.splitlines() == [
        "error: b.pth: none of its 1 tensors fits the model",
        "  their shapes differ: fc1.bias ([1] for [256])",
    ]


@pytest.mark.parametrize("prefix", ["model.", "module.model.", "_orig_mod.module.", "model.model."])
def test_weights_below_the_prefix_of_a_wrapper(modtool: Modtool, prefix: str) -> None:
    state = load_model(example("mlp")).model.state_dict()
    under = {prefix + name: value for name, value in state.items()}
    torch.save({"state_dict": under, "pytorch-lightning_version": "2.0"}, "epoch=3.ckpt")
    ran = modtool("summary", example("mlp"), "--weights", "epoch=3.ckpt")
    assert (ran.code, ran.err) == (0, "")


def test_weights_below_another_prefix_and_without_one(modtool: Modtool) -> None:
    Path("net.py").write_text(NESTED)
    torch.save({"net.fc.weight": torch.zeros(2, 2), "steps": torch.ones(1)}, "deep.pth")
    ran = modtool("summary", "net.py:Net", "--weights", "deep.pth")
    assert (ran.code, ran.err.splitlines()) == (
        2,
        [
            "error: deep.pth: none of its 2 tensors fits the model",
            "  the model's names stand there after net. : "
            "modtool convert deep.pth -o OUT.pth --strip-prefix net.",
        ],
    )
    torch.save({"fc.weight": torch.zeros(2, 2)}, "flat.pth")
    ran = modtool("summary", "net.py:Wrapper", "--weights", "flat.pth")
    assert (ran.code, ran.err.splitlines()) == (
        2,
        [
            "error: flat.pth: none of its 1 tensors fits the model",
            "  the model has its names after net. : "
            "modtool convert flat.pth -o OUT.pth --add-prefix net.",
        ],
    )
    assert modtool("convert", "deep.pth", "-o", "a.pth", "--strip-prefix", "net.").code == 0
    assert modtool("convert", "flat.pth", "-o", "b.pth", "--add-prefix", "net.").code == 0
    assert modtool("summary", "net.py:Net", "--weights", "a.pth").code == 0
    assert modtool("summary", "net.py:Wrapper", "--weights", "b.pth").code == 0


NESTED = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2, bias=False)

class Wrapper(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Net()
"""


# -- what goes wrong ---------------------------------------------------------------------------

FILES = {
    "raises.py": "\n\nraise ValueError('boom')\n",
    "missing.py": "import a_module_that_is_nowhere\n",
    "syntax.py": "def f(:\n",
    "exits.py": "import sys\nsys.exit(3)\n",
    "empty.py": "",
    "two.py": "from torch import nn\na = nn.ReLU()\nb = nn.ReLU()\n",
    "needs.py": (
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, hidden):\n"
        "        super().__init__()\n"
        "        if hidden % 2:\n"
        "            raise ValueError('hidden is odd')\n"
        "build = 3\n"
        "def make():\n"
        "    return 'no model'\n"
    ),
}
WRONG = [
    (("raises.py",), "error: raises.py:3: ValueError: boom (while importing raises.py)"),
    (("missing.py",), "error: missing.py:1: ModuleNotFoundError: No module named"),
    (("syntax.py",), "error: syntax.py:1: SyntaxError: "),
    (("exits.py",), "error: exits.py:2: the file ended the program with exit(3)"),
    (("empty.py",), "error: empty.py holds no nn.Module"),
    (("two.py",), "error: two.py holds more than one model: a, b"),
    (("needs.py",), "error: needs.py holds no model that can be built (Net: missing a required"),
    (("needs.py:Net",), "error: needs.py: Net(hidden): missing a required argument: 'hidden'"),
    (("needs.py", "--arg", "hidden=3"), "error: needs.py:6: ValueError: hidden is odd (while"),
    (("needs.py:Net", "--arg", "wide=3"), "error: needs.py: Net(hidden): "),
    (("needs.py", "--arg", "hidden"), "error: 'hidden' is no argument"),
    (("needs.py:Nets",), "error: needs.py has no Nets"),
    (("needs.py:build",), "error: needs.py:build is an int, not a model"),
    (("needs.py:make()",), "error: needs.py: make() gave a str, not a model"),
    (("needs.py:a b",), "error: needs.py:a b"),
    (("gone.py",), "error: gone.py: no such file"),
    (("folder.py",), "error: folder.py is a folder, not a Python file"),
    (("no.such.module:Net",), "error: ModuleNotFoundError: No module named 'no'"),
    (("two.py:a", "--device", "tpu9"), "error: 'tpu9' is no device"),
    (("two.py:a", "--device", "cuda:77"), "error: there is no cuda:77 on this machine"),
    (("two.py:a", "--columns", "colour"), "error: no column 'colour' here"),
    (("two.py:a", "--section", "model"), "error: two.py:a has no section 'model'"),
    (("two.py:a", "--args-from", "two.py"), "error: two.py: "),
    (("two.py:a", "--args-from", "gone.toml"), "error: gone.toml: cannot be read"),
    (("two.py:a", "--weights", "gone.pth"), "error: gone.pth: no such file"),
]


@pytest.mark.parametrize(("arguments", "error"), WRONG, ids=lambda each: str(each)[:40])
def test_what_goes_wrong_is_one_error(
    modtool: Modtool, arguments: tuple[str, ...], error: str
) -> None:
    for name, text in FILES.items():
        Path(name).write_text(text)
    Path("folder.py").mkdir()
    before = sorted(Path().iterdir())
    ran = modtool("summary", *arguments)
    assert (ran.code, ran.out) == (2, "")
    lines = ran.err.splitlines()
    assert lines[0].startswith(error)
    assert len(lines) <= 2
    assert [path for path in sorted(Path().iterdir()) if path.name != "__pycache__"] == before


def test_in_a_process_of_its_own(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "modtool", "summary", example("own_parameters")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == GOLDEN["own_parameters"]


def test_names_stand_in_the_order_of_the_file_and_numbers_in_theirs(modtool: Modtool) -> None:
    names = ["stem.w", "blocks.0.w", "blocks.10.w", "blocks.2.w", "a.w", "stem.b"]
    torch.save({name: torch.zeros(1) for name in names}, "x.pth")
    rows = modtool("summary", "x.pth", "--columns", "path", "--format", "csv").out.split()
    assert rows == ["path", '""', "stem", "blocks", "blocks.0", "blocks.2", "blocks.10", "a"]


@pytest.mark.parametrize("name", [".weight", "..weight", "."])
def test_names_that_begin_with_a_dot(modtool: Modtool, name: str) -> None:
    """They are what is left when a prefix is cut off without its dot."""
    torch.save({name: torch.ones(2), "fc.bias": torch.ones(3)}, "x.pth")
    ran = modtool("summary", "x.pth")
    assert ran.code == 0
    assert "parameters 5 " in ran.out


def test_values_that_a_user_set_stand_before_what_a_trainer_keeps(modtool: Modtool) -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    parts = {
        "callbacks": {"EarlyStopping{}": {"wait_count": 2}},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [scheduler.state_dict()],
        "loops": {"fit_loop": {"ready": 5}},
        "state_dict": model.state_dict(),
        "hyper_parameters": {"net": {"depth": 3}, "args": Namespace(name="a"), "lr": 0.5},
        "epoch": 4,
    }
    torch.save(parts, "last.ckpt")
    text = modtool("summary", "last.ckpt").out.partition("\nvalues\n")[2]
    names = [line.split()[0] for line in text.splitlines()[2:22]]
    assert names[:6] == [
        *("epoch", "hyper_parameters.lr", "hyper_parameters.net.depth"),
        *("hyper_parameters.args.name", "optimizer_states.0.param_groups.0.lr"),
        "callbacks.EarlyStopping{}.wait_count",
    ]
    assert all(
        name.startswith(("loops.", "lr_schedulers.", "optimizer_states.")) for name in names[6:]
    )


@pytest.mark.filterwarnings("ignore:`torch.jit", "ignore:torch.quantize_per_tensor")
def test_tensors_that_no_module_holds_stand_in_the_one_around(modtool: Modtool) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1)).eval()
    torch_jit: Any = torch.jit
    torch_jit.freeze(torch_jit.script(model)).save("frozen.pt")
    rows = modtool("summary", "frozen.pt", "--columns", "path,shape,dtype", "--format", "csv").out
    assert rows.splitlines()[1] == (
        ',"CONSTANTS.c0 [2, 3], CONSTANTS.c1 [2], CONSTANTS.c2 [1, 2] and 1 more",float32'
    )
    dynamic: Any = nn.quantized.dynamic
    packed = nn.Sequential(dynamic.Linear(3, 2))
    torch.save(packed, "packed.pth")
    rows = modtool("summary", "packed.pth", "--columns", "path,shape,dtype", "--format", "csv").out
    assert rows.splitlines()[3] == (
        '0._packed_params,"_packed_params.0 [2, 3], _packed_params.1 [2]","qint8, float32"'
    )
