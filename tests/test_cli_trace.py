"""trace from the command line: every example, every option, everything that can be wrong."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from modtool import trace
from modtool.errors import UsageError
from tests.conftest import Ran

Modtool = Callable[..., Ran]
EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name: str) -> str:
    return str(EXAMPLES / f"{name}.py")


def document(ran: Ran, code: int = 0) -> Any:
    assert ran.code == code, ran.err
    return json.loads(ran.out)


def shapes(*texts: str) -> list[str]:
    return [part for text in texts for part in ("--input-shape", text)]


# -- the examples ------------------------------------------------------------------------------

# Input shapes; the path and the output shape of every call; multiply-accumulates.
PASSES: dict[str, tuple[tuple[str, ...], list[tuple[str, list[int]]], int]] = {
    "add_module": (
        ("4,20",),
        [("linear1", [4, 15]), ("linear2", [4, 10])],
        4 * (20 * 15 + 15 * 10),
    ),
    "loss": (("8,10", "target=8:int64"), [], 0),
    "mlp": (
        ("32,784",),
        [("fc1", [32, 256]), ("fc2", [32, 128]), ("head", [32, 10])],
        32 * (784 * 256 + 256 * 128 + 128 * 10),
    ),
    "module_dict": (("4,16",), [("linear", [4, 16]), ("activations.relu", [4, 16])], 4 * 256),
    "module_list": (
        ("4,32",),
        [("layers.0", [4, 32]), ("layers.1", [4, 32]), ("layers.2", [4, 32])],
        3 * 4 * 32 * 32,
    ),
    "no_parameters": (("4,8",), [], 0),
    "own_parameters": (("4,6",), [], 4 * 6 * 3),
    "unregistered": (("4,8",), [("head", [4, 2])], 4 * (2 * 8 * 8 + 8 * 2)),
}


@pytest.mark.parametrize("name", PASSES)
def test_the_examples(modtool: Modtool, name: str) -> None:
    given, calls, macs = PASSES[name]
    made = document(modtool("trace", example(name), *shapes(*given), "--json"))
    assert [(each["path"], each["outputs"][0]["shape"]) for each in made["calls"]] == calls
    assert made["totals"]["macs"] == macs
    assert (made["executed"], made["mode"], made["error"]) == ("fake", "eval", None)


TABLE = """\
call            input        output     parameters       MACs
──────────────  ───────────  ─────────  ──────────  ─────────
(model)         x [32, 784]  [32, 10]      235,146  7,512,064
  fc1: Linear   [32, 784]    [32, 256]     200,960  6,422,528
  fc2: Linear   [32, 256]    [32, 128]      32,896  1,048,576
  head: Linear  [32, 128]    [32, 10]        1,290     40,960

MACs: multiply-accumulates of matrix products, convolutions and attention; FLOPs are twice that
eval mode, run without arithmetic (fake tensors)

parameters 235,146   trainable 235,146   MACs 7,512,064
"""
NESTED = """\
call                         input                 output           parameters        MACs
───────────────────────────  ────────────────────  ───────────────  ──────────  ──────────
(model)                      input [8, 3, 32, 32]  [8, 10]               5,514  41,290,240
  stem: Sequential           [8, 3, 32, 32]        [8, 16, 32, 32]         480   3,538,944
    conv: Conv2d             [8, 3, 32, 32]        [8, 16, 32, 32]         448   3,538,944
    norm: BatchNorm2d        [8, 16, 32, 32]       [8, 16, 32, 32]          32           0
    act: ReLU                [8, 16, 32, 32]       [8, 16, 32, 32]           0           0
  body: Sequential           [8, 16, 32, 32]       [8, 32, 32, 32]       4,704  37,748,736
    conv: Conv2d             [8, 16, 32, 32]       [8, 32, 32, 32]       4,640  37,748,736
    norm: BatchNorm2d        [8, 32, 32, 32]       [8, 32, 32, 32]          64           0
    act: ReLU                [8, 32, 32, 32]       [8, 32, 32, 32]           0           0
  head: Sequential           [8, 32, 32, 32]       [8, 10]                 330       2,560
    pool: AdaptiveAvgPool2d  [8, 32, 32, 32]       [8, 32, 1, 1]             0           0
    flatten: Flatten         [8, 32, 1, 1]         [8, 32]                   0           0
    classify: Linear         [8, 32]               [8, 10]                 330       2,560

MACs: multiply-accumulates of matrix products, convolutions and attention; FLOPs are twice that
eval mode, run without arithmetic (fake tensors)

parameters 5,514   trainable 5,514   MACs 41,290,240
"""
BRANCHING = """\
call                input     output  parameters  MACs
──────────────────  ────────  ──────  ──────────  ────
(model)             x [2, 4]  [2, 3]          30    24
  negative: Linear  [2, 4]    [2, 3]          15    24

MACs: multiply-accumulates of matrix products, convolutions and attention; FLOPs are twice that
eval mode, run for real
never called: positive

parameters 30   trainable 30   MACs 24
"""


def test_a_table(modtool: Modtool) -> None:
    assert modtool("trace", example("mlp"), *shapes("32,784")) == Ran(0, TABLE, "")


def test_a_nested_table(modtool: Modtool) -> None:
    ran = modtool("trace", example("ordered_sequential"), *shapes("8,3,32,32"))
    assert ran == Ran(0, NESTED, "")


def test_a_forward_that_branches_runs_for_real_and_says_why(modtool: Modtool) -> None:
    ran = modtool("trace", example("branching"), *shapes("2,4"))
    assert (ran.code, ran.out) == (0, BRANCHING)
    assert ran.err.startswith("note: ran-for-real: the forward pass needs values at ")
    assert "branching.py:18" in ran.err


def test_a_layer_alone_has_a_row(modtool: Modtool) -> None:
    ran = modtool("trace", example("no_parameters"), *shapes("4,8"), "--format", "csv")
    assert ran.out == 'call,inputs,outputs,parameters,macs\r\n(model),"x [4, 8]","[4, 8]",0,0\r\n'


def test_the_document_of_the_contract(modtool: Modtool) -> None:
    made = document(modtool("trace", example("mlp"), *shapes("32,784"), "--json"))
    first = made["calls"][0]
    assert first == {
        "index": 0,
        "path": "fc1",
        "type": "Linear",
        "call": 1,
        "depth": 1,
        "inputs": [{"path": "0", "shape": [32, 784], "dtype": "float32"}],
        "outputs": [{"path": "", "shape": [32, 256], "dtype": "float32"}],
        "parameters": 200960,
        "macs": 6422528,
        "activation_bytes": 32 * 256 * 4,
        "gradients": None,
        "seconds": None,
        "dead": None,
    }
    assert {key: value for key, value in made.items() if key != "calls"} == {
        "schema": 1,
        "target": example("mlp"),
        "mode": "eval",
        "executed": "fake",
        "inputs": [{"name": "x", "shape": [32, 784], "dtype": "float32"}],
        "outputs": [{"path": "", "shape": [32, 10], "dtype": "float32"}],
        "totals": {"parameters": 235146, "trainable": 235146, "macs": 7512064},
        "uncounted": [],
        "never_called": [],
        "parameter_gradients": None,
        "gradient_norms": None,
        "unused_parameters": [],
        "loss": None,
        "seconds": None,
        "error": None,
        "notes": [],
    }


# -- mode, device, backward --------------------------------------------------------------------


def test_modes(modtool: Modtool) -> None:
    Path("model.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x if self.training else x[:1]\n"
    )
    for mode, rows in (("train", 8), ("eval", 1)):
        made = document(modtool("trace", *shapes("8,4"), "--mode", mode, "--json"))
        assert (made["mode"], made["outputs"][0]["shape"]) == (mode, [rows, 4])


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_devices(modtool: Modtool, device: str) -> None:
    made = document(
        modtool("trace", example("mlp"), *shapes("2,784"), "--device", device, "--json")
    )
    assert (made["executed"], made["totals"]["macs"]) == ("fake", 2 * 234752)


def test_backward_shows_gradients(modtool: Modtool) -> None:
    made = document(
        modtool(
            "trace", example("mlp"), *shapes("32,784"), "--backward", "--mode", "train", "--json"
        )
    )
    assert [each["gradients"][0]["shape"] for each in made["calls"]] == [
        [32, 256],
        [32, 128],
        [32, 10],
    ]
    # The gradient of a sum of the outputs is one for each of them.
    assert made["calls"][-1]["gradients"][0]["norm"] == pytest.approx(320**0.5)
    assert made["parameter_gradients"] == {
        "fc1.weight": [256, 784],
        "fc1.bias": [256],
        "fc2.weight": [128, 256],
        "fc2.bias": [128],
        "head.weight": [10, 128],
        "head.bias": [10],
    }
    assert made["gradient_norms"]["head.bias"] == pytest.approx(32 * 10**0.5)
    assert made["unused_parameters"] == []


def test_backward_without_values_has_shapes_alone(modtool: Modtool) -> None:
    ran = modtool(
        "trace", example("mlp"), *shapes("1,784"), "--backward", "--device", "meta", "--json"
    )
    made = document(ran)
    assert (made["executed"], made["gradient_norms"]) == ("fake", None)
    assert made["parameter_gradients"]["fc1.weight"] == [256, 784]
    assert [each["code"] for each in made["notes"]] == ["norms-left-out"]


def test_two_traces_give_the_same(modtool: Modtool) -> None:
    arguments = ("trace", example("mlp"), *shapes("4,784"), "--backward", "--stats", "--json")
    assert modtool(*arguments) == modtool(*arguments)


def test_parameters_without_gradient_are_listed(modtool: Modtool) -> None:
    ran = modtool("trace", example("module_dict"), *shapes("4,16"), "--backward")
    assert ran.code == 0
    assert ran.err == (
        "warning: unused-parameters: 1 trainable parameters got no gradient: "
        "activations.prelu.weight\n"
    )


@pytest.mark.parametrize(
    ("loss", "target"),
    [("CrossEntropyLoss", ()), ("nn.functional.cross_entropy", ("--target-shape", "32:int64"))],
)
def test_a_loss(modtool: Modtool, loss: str, target: tuple[str, ...]) -> None:
    made = document(
        modtool("trace", example("mlp"), *shapes("32,784"), "--loss", loss, *target, "--json")
    )
    assert (made["loss"], made["error"]) == (loss, None)
    # Of softmax minus one-hot, over 32: every row sums to nothing, and is shorter than sqrt(2)/32.
    assert 0 < made["calls"][-1]["gradients"][0]["norm"] < 2**0.5 / 32**0.5
    assert made["totals"]["macs"] == 7512064


def test_a_loss_of_ones_own(modtool: Modtool) -> None:
    Path("losses.py").write_text(
        "import torch\ndef half(output):\n    return output.sum() / 2\n"
        "class Twice(torch.nn.Module):\n"
        "    def forward(self, output, target):\n        return 2 * (output * (target < 2)).sum()\n"
    )
    for loss, norm in (("losses.py:half", 0.5), ("losses.py:Twice", 2)):
        made = document(
            modtool("trace", example("mlp"), *shapes("4,784"), "--loss", loss, "--json")
        )
        assert made["calls"][-1]["gradients"][0]["norm"] == pytest.approx(norm * 40**0.5)


def test_a_loss_of_ones_own_is_given_all_that_the_model_gives(modtool: Modtool) -> None:
    Path("model.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layer = nn.Linear(3, 2)\n"
        "    def forward(self, x):\n"
        "        return {'logits': self.layer(x), 'scale': 5}\n"
        "def scaled(output, target):\n"
        "    return output['scale'] * (output['logits'] - target).sum()\n"
    )
    options = ("--loss", "model.py:scaled", "--target-shape", "4,2", "--json")
    made = document(modtool("trace", *shapes("4,3"), *options))
    assert made["gradient_norms"]["layer.bias"] == pytest.approx(5 * 4 * 2**0.5)
    # Torch's own are given the logits.
    made = document(modtool("trace", *shapes("4,3"), "--loss", "L1Loss", "--json"))
    assert (made["error"], made["loss"]) == (None, "L1Loss")


def test_a_loss_that_does_not_fit_is_a_report(modtool: Modtool) -> None:
    ran = modtool(
        *("trace", example("mlp"), *shapes("32,784"), "--loss", "CrossEntropyLoss"),
        *("--target-shape", "31", "--json"),
    )
    made = document(ran, code=1)
    assert (made["error"]["path"], made["error"]["type"]) == ("(loss)", "CrossEntropyLoss")
    assert len(made["calls"]) == 3


# -- inputs ------------------------------------------------------------------------------------

TWO = """
import torch
from torch import nn

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x, batch=None, scale=1, return_dict=True):
        y = self.linear(x) * scale
        if batch is not None:
            y = y + batch["shift"] + batch["more"][0] + batch["more"][1]
        return {"y": y} if return_dict else y

def make_inputs():
    return {"x": torch.ones(5, 3), "scale": 2}

def with_model(model):
    return torch.ones(7, model.linear.in_features)
"""


def given(made: Any) -> dict[str, tuple[list[int], str]]:
    return {each["name"]: (each["shape"], each["dtype"]) for each in made["inputs"]}


def test_nested_inputs_and_plain_arguments(modtool: Modtool) -> None:
    Path("model.py").write_text(TWO)
    ran = modtool(
        "trace",
        *shapes("4,3", "batch.shift=2", "batch.more.0=4,2", "batch.more.1=:float64"),
        *("--kwarg", "return_dict=false", "--kwarg", "scale=2", "--json"),
    )
    made = document(ran)
    assert given(made) == {
        "x": ([4, 3], "float32"),
        "batch.shift": ([2], "float32"),
        "batch.more.0": ([4, 2], "float32"),
        "batch.more.1": ([], "float64"),
    }
    assert made["outputs"] == [{"path": "", "shape": [4, 2], "dtype": "float32"}]


def write_inputs() -> None:
    x, shift = torch.ones(4, 3), torch.zeros(2)
    batch = {"shift": shift, "more": [shift, shift]}
    torch.save({"x": x, "batch": batch, "return_dict": False}, "nested.pt")
    torch.save(x, "one.pt")
    torch.save((x, batch), "two.pt")
    save_file({"x": x}, "named.safetensors")
    np.savez("named.npz", x=x.numpy())
    np.savez("unnamed.npz", x.numpy())
    np.save("one.npy", x.numpy())
    Path("all.json").write_text(
        '{"x": [[1, 2, 3.5], [4, 5, 6]], "scale": 3, "return_dict": false,'
        ' "batch": {"shift": [1, 2], "more": [[1.5, 2], [3, 4]]}}'
    )


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("one.pt", {"x": [4, 3]}),
        ("one.npy", {"x": [4, 3]}),
        ("named.npz", {"x": [4, 3]}),
        ("unnamed.npz", {"x": [4, 3]}),
        ("named.safetensors", {"x": [4, 3]}),
        ("two.pt", {"x": [4, 3], "batch.shift": [2], "batch.more.0": [2], "batch.more.1": [2]}),
        ("nested.pt", {"x": [4, 3], "batch.shift": [2], "batch.more.0": [2], "batch.more.1": [2]}),
        ("all.json", {"x": [2, 3], "batch.shift": [2], "batch.more": [2, 2]}),
    ],
)
def test_inputs_from_files(modtool: Modtool, file: str, expected: dict[str, list[int]]) -> None:
    Path("model.py").write_text(TWO)
    write_inputs()
    made = document(modtool("trace", "--input", file, "--json"))
    assert {name: shape for name, (shape, _) in given(made).items()} == expected
    plain = file in ("nested.pt", "all.json")
    assert [each["path"] for each in made["outputs"]] == ["" if plain else "y"]


def test_a_pickle_of_inputs_is_not_executed(modtool: Modtool) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (Path("exploded"),)

    Path("model.py").write_text(TWO)
    torch.save({"x": torch.ones(1, 3), "scale": Bomb()}, "bomb.pt")
    ran = modtool("trace", "--input", "bomb.pt")
    assert not Path("exploded").exists()
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: --input bomb.pt: scale is <")
    assert "neither a tensor nor a plain value" in ran.err


class Gone:
    """A class that a file of inputs may name."""


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"x": torch.ones(1, 3), "scale": Gone()}, "scale"),
        ({"x": torch.ones(1, 3), "scale": [1, Gone()]}, "scale"),
        ({"x": torch.ones(1, 3), "batch": {"shift": torch.ones(2), "more": Gone()}}, "batch.more"),
        ([torch.ones(1, 3), Gone()], "1"),
        ({"x": torch.ones(1, 3), "batch": [torch.ones(2), Gone()]}, "batch.1"),
        ({"x": torch.ones(1, 3), "scale": "x" * 20_000 + str(Gone)}, None),
    ],
)
def test_an_object_among_inputs_is_refused_by_name(
    modtool: Modtool, value: object, name: str | None
) -> None:
    Path("model.py").write_text(TWO)
    torch.save(value, "objects.pt")
    ran = modtool("trace", "--input", "objects.pt")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: --input objects.pt: {name or 'scale'} is ")


def test_plain_values_of_inputs_arrive_as_they_are(modtool: Modtool) -> None:
    Path("model.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def forward(self, x, pad, sizes):\n"
        "        return x.view(sizes) if pad == '<pad>' else x\n"
    )
    torch.save({"x": torch.ones(4, 3), "pad": "<pad>", "sizes": [2, 6]}, "plain.pt")
    made = document(modtool("trace", "--input", "plain.pt", "--json"))
    assert made["outputs"] == [{"path": "", "shape": [2, 6], "dtype": "float32"}]


def test_a_function_may_return_arguments_and_keywords(modtool: Modtool) -> None:
    pair = "def pair(): return (torch.ones(5, 3),), {'return_dict': False}\n"
    Path("model.py").write_text(TWO + pair)
    made = document(modtool("trace", "model.py:Two", "--inputs", "model.py:pair", "--json"))
    assert given(made) == {"x": ([5, 3], "float32")}
    assert made["outputs"] == [{"path": "", "shape": [5, 2], "dtype": "float32"}]


def test_a_function_that_is_not_there_has_the_others_listed(modtool: Modtool) -> None:
    Path("model.py").write_text(TWO)
    ran = modtool("trace", "model.py:Two", "--inputs", "model.py:gone")
    assert ran.code == 2
    assert ran.err.splitlines() == [
        "error: model.py has no gone",
        "  its functions: make_inputs, with_model",
    ]


@pytest.mark.parametrize(("name", "rows"), [("make_inputs", 5), ("with_model", 7)])
def test_inputs_from_a_function(modtool: Modtool, name: str, rows: int) -> None:
    Path("model.py").write_text(TWO)
    made = document(modtool("trace", "model.py:Two", "--inputs", f"model.py:{name}", "--json"))
    assert given(made) == {"x": ([rows, 3], "float32")}


def test_indices_are_found_by_what_looks_them_up(modtool: Modtool) -> None:
    Path("model.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.scale = nn.Linear(3, 8)\n"
        "        self.table = nn.Embedding(10, 8)\n"
        "    def forward(self, dense, words):\n"
        "        return self.scale(dense) + self.table(words.view(-1))\n"
    )
    made = document(modtool("trace", *shapes("4,3", "4,1"), "--json"))
    assert given(made) == {"dense": ([4, 3], "float32"), "words": ([4, 1], "int64")}
    # What was said is not changed.
    failed = document(modtool("trace", *shapes("4,3", "4,1:float32"), "--json"), code=1)
    assert (failed["error"]["path"], failed["error"]["from_input"]) == ("table", "words")


DTYPES = """
import torch
from torch import nn

class Tabled(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 8)
        self.scale = nn.Linear(8, 8)

    def forward(self, dense, words):
        return self.scale(dense["x"]) + self.table(words)

class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3, dtype=torch.complex64)

    def forward(self, x):
        return self.layer(x)

class Spectral(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(9, dtype=torch.complex64))

    def forward(self, x):
        return torch.fft.irfft(torch.fft.rfft(x) * self.weight)
"""


@pytest.mark.parametrize(
    ("name", "given_shapes", "expected"),
    [
        (
            "Tabled",
            ("dense.x=4,8", "words=4"),
            {"dense.x": ([4, 8], "float32"), "words": ([4], "int64")},
        ),
        ("Complex", ("2,4",), {"x": ([2, 4], "complex64")}),
        ("Spectral", ("2,16",), {"x": ([2, 16], "float32")}),
    ],
)
def test_a_guessed_dtype_that_does_not_fit_is_guessed_again(
    modtool: Modtool,
    name: str,
    given_shapes: tuple[str, ...],
    expected: dict[str, tuple[list[int], str]],
) -> None:
    Path("model.py").write_text(DTYPES)
    made = document(modtool("trace", f"model.py:{name}", *shapes(*given_shapes), "--json"))
    assert given(made) == expected


def test_a_shape_that_cannot_be_right_is_told_also_where_the_dtype_was_guessed(
    modtool: Modtool,
) -> None:
    Path("model.py").write_text(DTYPES)
    ran = modtool("trace", "model.py:Tabled", *shapes("dense.x=4,9", "words=4"), "--json")
    error = document(ran, 1)["error"]
    assert (error["path"], error["from_input"]) == ("scale", "dense.x")
    assert "(4x9 and 8x8)" in error["message"]


# -- statistics and time -----------------------------------------------------------------------

ONES = """
import torch
from torch import nn

class Ones(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 4, bias=False)
        self.relu = nn.ReLU()
        self.log = Log()
        self.after = nn.Identity()
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([[1., 0.], [-1., 0.], [3., 0.], [0., 0.]]))

    def forward(self, x):
        return self.after(self.log(self.relu(self.linear(torch.ones_like(x)))))

class Log(nn.Module):
    def forward(self, x):
        return x.log()
"""


def test_statistics(modtool: Modtool) -> None:
    Path("model.py").write_text(ONES)
    ran = modtool("trace", "model.py:Ones", *shapes("5,2"), "--stats", "--json")
    made = document(ran)
    assert made["executed"] == "real"
    linear, relu, log, _ = made["calls"]
    # Every row is 1, -1, 3, 0.
    assert linear["outputs"][0]["statistics"] == {
        "mean": 0.75,
        "std": pytest.approx((11 / 4 - 0.75**2) ** 0.5),
        "min": -1,
        "max": 3,
        "zeros": 0.25,
        "nan": 0,
        "inf": 0,
    }
    assert relu["dead"] == [2, 4]
    assert log["outputs"][0]["statistics"]["inf"] == 0.5
    codes = [(each["code"], each["where"]) for each in made["notes"]]
    assert codes == [("non-finite", "log"), ("dead-units", "")]


def test_a_table_of_statistics(modtool: Modtool) -> None:
    Path("model.py").write_text(ONES)
    ran = modtool("trace", "model.py:Ones", *shapes("5,2"), "--stats", "--format", "csv")
    rows = list(csv.reader(io.StringIO(ran.out)))
    assert rows[0] == [
        *("call", "outputs", "mean", "std", "min", "max", "zeros", "nan", "inf", "dead")
    ]
    assert rows[2][2:] == ["0.75", "1.479019945774904", "-1.0", "3.0", "0.25", "0.0", "0.0", ""]
    assert rows[3][-1] == "2 of 4"


BLOCKS = """
import torch
from torch import inf, nan, nn

class Block(nn.Module):
    def __init__(self, values):
        super().__init__()
        self.values = nn.Parameter(torch.tensor([values, values]))
        self.act = nn.ReLU()
    def forward(self, x):
        self.act(self.values)
        return self.values

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        rows = [1., -1, 3, 0], [2., 0, 4, 1], [inf, nan, 1, 1]
        self.layers = nn.ModuleList(map(Block, rows))
    def forward(self, x):
        return sum(layer(x) for layer in self.layers)
"""


def test_a_run_of_blocks_has_the_statistics_of_all_their_elements(modtool: Modtool) -> None:
    Path("model.py").write_text(BLOCKS)
    options = ("--stats", "--backward", "--collapse", "--format", "csv")
    ran = modtool("trace", "model.py:Net", *shapes("1"), *options)
    _, blocks, act = csv.DictReader(io.StringIO(ran.out))
    assert blocks["call"] == "layers.[0-2]: Block"
    finite = torch.tensor([1, -1, 3, 0, 2, 0, 4, 1, 1, 1], dtype=torch.float64)
    figures = {key: float(blocks[key]) for key in ("mean", "std", "min", "max", "norms")}
    assert figures == pytest.approx(
        {
            "mean": 1.2,
            "std": float(finite.std(correction=0)),
            "min": -1,
            "max": 4,
            "norms": 24**0.5,  # of as many ones
        }
    )
    shares = [float(blocks[key]) for key in ("zeros", "nan", "inf")]
    assert shares == pytest.approx([2 / 12, 1 / 12, 1 / 12])
    assert act["dead"] == "3 of 12"


def test_times(modtool: Modtool) -> None:
    made = document(
        modtool("trace", example("mlp"), *shapes("32,784"), "--time", "--repeat", "3", "--json")
    )
    parts = [each["seconds"] for each in made["calls"]]
    assert all(part > 0 for part in parts)
    assert made["seconds"] > 0
    assert made["executed"] == "real"


def test_statistics_gradients_and_times_are_shown_together(modtool: Modtool) -> None:
    Path("model.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layer = nn.Linear(3, 2)\n"
        "    def forward(self, x):\n"
        "        return self.layer(x), x[:0]\n"
    )
    asked = (*shapes("4,3"), "--stats", "--backward", "--time", "--repeat", "1")
    rows = list(csv.reader(io.StringIO(modtool("trace", *asked, "--format", "csv").out)))
    assert rows[0] == [
        *("call", "outputs", "mean", "std", "min", "max", "zeros", "nan", "inf"),
        *("gradients", "norms", "seconds"),
    ]
    made = document(modtool("trace", *asked, "--json"))
    # An empty tensor has no statistics.
    assert [each["statistics"] is None for each in made["outputs"]] == [False, True]


# -- views -------------------------------------------------------------------------------------

DEEP = """
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(self.fc(x))

class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Block() for _ in range(12))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(x)
"""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            ("--collapse",),
            [
                ("(model)", "891", "3168"),
                ("layers.[0-11]: Block", "864", "3072"),
                ("fc: Linear", "864", "3072"),
                ("act: ReLU", "0", "0"),
                ("head: Linear", "27", "96"),
            ],
        ),
        (
            ("--collapse", "--depth", "1"),
            [
                ("(model)", "891", "3168"),
                ("layers.[0-11]: Block", "864", "3072"),
                ("head: Linear", "27", "96"),
            ],
        ),
        (
            ("--collapse", "--leaves"),
            [
                ("(model)", "891", "3168"),
                ("layers.[0-11].fc: Linear", "864", "3072"),
                ("layers.[0-11].act: ReLU", "0", "0"),
                ("head: Linear", "27", "96"),
            ],
        ),
        (
            ("--only", "layers.3", "--only", "!*.act"),
            [
                ("(model)", "891", "3168"),
                ("layers.3: Block", "72", "256"),
                ("layers.3.fc: Linear", "72", "256"),
            ],
        ),
        (
            ("--only", "type:Linear", "--only", "!layers"),
            [("(model)", "891", "3168"), ("head: Linear", "27", "96")],
        ),
        (("--depth", "0"), [("(model)", "891", "3168")]),
    ],
)
def test_views(modtool: Modtool, options: tuple[str, ...], expected: list[tuple[str, ...]]) -> None:
    Path("model.py").write_text(DEEP)
    ran = modtool(
        *("trace", *shapes("4,8"), *options),
        *("--columns", "call,parameters,macs", "--format", "csv"),
    )
    assert [tuple(row) for row in csv.reader(io.StringIO(ran.out))][1:] == expected


def test_modules_that_were_not_called_are_listed_in_runs(modtool: Modtool) -> None:
    Path("model.py").write_text(
        "from torch import nn\n"
        "class Block(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.drop, self.layer, self.skip = nn.Dropout(), nn.Linear(2, 2), nn.Identity()\n"
        "    def forward(self, x):\n"
        "        return self.layer(x)\n"
        "def build_model():\n"
        "    return nn.Sequential(*(Block() for _ in range(12)))\n"
    )
    ran = modtool("trace", *shapes("1,2"))
    assert "never called: [0-11].drop, [0-11].skip" in ran.out.splitlines()
    assert len(document(modtool("trace", *shapes("1,2"), "--json"))["never_called"]) == 24


def test_every_column(modtool: Modtool) -> None:
    ran = modtool(
        *("trace", example("mlp"), *shapes("32,784"), "--depth", "1", "--only", "fc2"),
        *("--columns", "index,path,type,depth,dtypes,bytes", "--format", "csv"),
    )
    assert ran.out.splitlines()[2] == "1,fc2,Linear,1,float32,16384"


# -- failures ----------------------------------------------------------------------------------


def test_a_failure_shows_the_rows_up_to_it(modtool: Modtool) -> None:
    Path("model.py").write_text(
        "from torch import nn\nmodel = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(5, 2))\n"
    )
    ran = modtool("trace", *shapes("2,4"))
    assert ran.code == 1
    assert ran.err == ""
    lines = ran.out.splitlines()
    assert [line.split("  ")[1].strip() for line in lines[3:5]] == ["0: Linear", "1: ReLU"]
    (failed,) = (line for line in lines if line.startswith("failed in "))
    assert failed.startswith(
        "failed in 2: Linear(in_features=5, out_features=2, bias=True) given [2, 3] from 1: "
        "RuntimeError: "
    )


def test_a_failure_of_a_pass_that_needed_values_says_what_asked(modtool: Modtool) -> None:
    Path("model.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def forward(self, x):\n"
        "        if x.sum() > 1e9:\n"
        "            return x\n"
        "        raise ValueError('too little')\n"
    )
    ran = modtool("trace", *shapes("2,4"))
    assert (ran.code, ran.out, ran.err) == (
        1,
        "eval mode, run for real\n"
        "failed in the model: Net() given [2, 4] from the input x: ValueError: too little "
        "(model.py:6)\n\n"
        "parameters 0   trainable 0   MACs 0\n",
        "note: ran-for-real: the forward pass needs values at model.py:4 "
        "(aten._local_scalar_dense.default)\n",
    )


def test_a_failure_names_the_input_it_was_for(modtool: Modtool) -> None:
    ran = modtool("trace", example("mlp"), *shapes("32,783"))
    assert ran.code == 1
    (failed,) = (line for line in ran.out.splitlines() if line.startswith("failed in "))
    assert failed.startswith(
        "failed in fc1: Linear(in_features=784, out_features=256, bias=True) given [32, 783] "
        "from the input x: RuntimeError: "
    )


BAD = """three = 3
def raises():
    return {}['x']
def nothing(): ...
def text(): return "x"
def number(): return 3
def batches(): yield 3
def array():
    import numpy
    return numpy.ones(3)
"""
WRONG = [
    ((), "error: MLP.forward(x: torch.Tensor): missing a required argument: 'x'"),
    (shapes("1,784", "2"), "error: MLP.forward(x: torch.Tensor): too many positional arguments"),
    (shapes("y=1,784"), "error: MLP.forward has no parameter 'y'"),
    (shapes("32x784"), "error: --input-shape '32x784': '32x784' is no size"),
    (shapes("1,784:float31"), "error: --input-shape '1,784:float31': 'float31' is no dtype"),
    (shapes("x.a=2", "x=2"), "error: the input 'x' is given twice"),
    (shapes("x=2", "x.a=2"), "error: the input 'x.a' is a part of what is a value itself"),
    (("--input", "gone.pt"), "error: gone.pt: no such file"),
    (
        ("--input", "text.json"),
        "error: --input text.json: no valid JSON: Expecting value: line 1 column 1 (char 0)",
    ),
    (("--input", "ragged.json"), "error: --input ragged.json: a list of numbers is no tensor"),
    (("--input", "empty.pt"), "error: --input empty.pt: there is no tensor in it"),
    (("--inputs", "bad.py"), "error: --inputs bad.py: name a function in it"),
    (("--inputs", "bad.py:gone"), "error: bad.py has no gone"),
    (("--inputs", "bad.py:nothing"), "error: --inputs bad.py:nothing: nothing returned None"),
    (("--inputs", "bad.py:text"), "error: --inputs bad.py:text: text returned a str"),
    (("--inputs", "bad.py:number"), "error: --inputs bad.py:number: number returned an int"),
    (("--inputs", "bad.py:array"), "error: --inputs bad.py:array: array returned an ndarray"),
    (
        ("--inputs", "bad.py:batches"),
        "error: --inputs bad.py:batches: batches returned a generator",
    ),
    (("--inputs", "bad.py:three"), "error: --inputs bad.py:three is no function"),
    (("--inputs", "bad.py:raises"), "error: bad.py:3: KeyError: 'x' (while making inputs"),
    (("--kwarg", "return_dict"), "error: 'return_dict' is no argument"),
    (
        (*shapes("1,784"), "--kwarg", "y=3"),
        "error: MLP.forward has no parameter 'y'",
    ),
    ((*shapes("1,784"), "--mode", "test"), "error: Invalid value for '--mode'"),
    ((*shapes("1,784"), "--loss", "CrossEntropy"), "error: --loss CrossEntropy: torch has no loss"),
    ((*shapes("1,784"), "--loss", "bad.py:three"), "error: --loss bad.py:three is an int, not"),
    ((*shapes("1,784"), "--target-shape", "3"), "error: a target's shape is for a loss"),
    ((*shapes("1,784"), "--repeat", "3"), "error: --repeat says how often to time a pass"),
    ((*shapes("1,784"), "--time", "--repeat", "0"), "error: Invalid value for '--repeat'"),
    (("--input", "bad.py"), "error: --input bad.py: a file of Python code, which holds no inputs"),
    ((*shapes("1,784"), "--only", "fc9"), "error: no name matches 'fc9'"),
    ((*shapes("1,784"), "--columns", "colour"), "error: no column 'colour' here"),
    ((*shapes("1,784"), "--device", "cuda:99"), "error: there is no cuda:99 on this machine"),
    ((*shapes("1,784"), "--stats", "--device", "meta"), "error: what is asked needs values"),
    ((*shapes("1,784"), "--depth", "-1"), "error: Invalid value for '--depth'"),
]


@pytest.mark.parametrize(("options", "error"), WRONG, ids=lambda each: " ".join(each)[:50])
def test_what_is_wrong_is_one_error(modtool: Modtool, options: list[str], error: str) -> None:
    Path("bad.py").write_text(BAD)
    Path("text.json").write_text("hello")
    Path("ragged.json").write_text('{"x": [[1, 2], [3]]}')
    torch.save({"x": 3}, "empty.pt")
    ran = modtool("trace", example("mlp"), *options)
    assert (ran.code, ran.out) == (2, "")
    lines = ran.err.splitlines()
    assert lines[0].startswith(error)
    assert len(lines) <= 2


def test_only_what_was_never_called_has_no_row(modtool: Modtool) -> None:
    Path("model.py").write_text(SPARE)
    ran = modtool("trace", *shapes("2,3"), "--only", "spare")
    error = "error: spare: never called in this pass, so there is no row\n"
    assert ran == Ran(2, "", error)
    ran = modtool("trace", *shapes("2,3"), "--only", "spare", "--only", "used")
    assert (ran.code, "used: Linear" in ran.out) == (0, True)


SPARE = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.used = nn.Linear(3, 2)
        self.spare = nn.Linear(3, 2)

    def forward(self, x):
        return self.used(x)
"""


def test_a_checkpoint_is_no_model(modtool: Modtool) -> None:
    torch.save(nn.Linear(3, 2).state_dict(), "net.pth")
    ran = modtool("trace", "net.pth", *shapes("1,3"))
    assert ran.code == 2
    assert ran.err.splitlines() == [
        "error: net.pth is a checkpoint, and this needs a model to run",
        "  name the model, and its weights: MODEL.py --weights net.pth",
    ]


def test_weights_are_there_when_values_are_needed(modtool: Modtool) -> None:
    Path("model.py").write_text(
        "from torch import nn\ndef build_model():\n    return nn.Linear(2, 2)\n"
    )
    torch.save({"weight": torch.eye(2) * 3, "bias": torch.zeros(2)}, "w.pth")
    Path("ones.json").write_text("[[1.0, 1.0]]")
    made = document(
        modtool("trace", "--weights", "w.pth", "--input", "ones.json", "--stats", "--json")
    )
    assert made["outputs"][0]["statistics"]["mean"] == 3


# -- other kinds of models ---------------------------------------------------------------------


def test_trust(modtool: Modtool) -> None:
    torch.save(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), "full.pth")
    ran = modtool("trace", "full.pth", *shapes("4,3"))
    assert ran.code == 2
    assert ran.err.startswith("error: full.pth would have to be unpickled for real")
    made = document(modtool("trace", "full.pth", *shapes("4,3"), "--trust", "--json"))
    assert [each["path"] for each in made["calls"]] == ["0", "1"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_trusted_torchscript(modtool: Modtool) -> None:
    torch.jit.script(nn.Sequential(nn.Linear(3, 2), nn.ReLU())).save("script.pt")  # type: ignore[no-untyped-call]
    assert modtool("trace", "script.pt", *shapes("4,3")).code == 2
    made = document(modtool("trace", "script.pt", *shapes("4,3"), "--trust", "--json"))
    assert made["totals"] == {"parameters": 8, "trainable": 8, "macs": 24}
    assert [each["code"] for each in made["notes"]] == ["scripted-module"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_frozen_torchscript(modtool: Modtool) -> None:
    script = torch.jit.script(nn.Sequential(nn.Linear(3, 2), nn.ReLU()).eval())
    torch.jit.freeze(script).save("frozen.pt")
    made = document(modtool("trace", "frozen.pt", *shapes("4,3"), "--trust", "--json"))
    assert (made["error"], made["totals"]["macs"]) == (None, 24)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_overloaded_torchscript(modtool: Modtool) -> None:
    torch.jit.script(nn.LSTM(3, 2)).save("lstm.pt")  # type: ignore[no-untyped-call]
    # Torch itself cannot call what it loads of it.
    ran = modtool("trace", "lstm.pt", *shapes("4,1,3"), "--trust", "--json")
    error = document(ran, 1)["error"]["message"]
    assert error == "AttributeError: 'RecursiveScriptModule' object has no attribute 'forward'"


LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.mark.parametrize("target", ["llama", "llama/config.json"])
def test_a_configuration_of_transformers(modtool: Modtool, target: str) -> None:
    pytest.importorskip("transformers")
    Path("llama").mkdir()
    Path("llama/config.json").write_text(json.dumps(LLAMA))
    block = 16 * 16 * 2 + 2 * 16 * 8 + 3 * 16 * 32
    parameters = 2 * 100 * 16 + 3 * (block + 2 * 16) + 16
    assert modtool("count", target, "--total") == Ran(0, f"{parameters}\n", "")
    ran = modtool("trace", target, *shapes("2,5"), "--collapse", "--depth", "2", "--json")
    made = document(ran)
    assert made["totals"]["parameters"] == parameters
    # Of the keys and values, two heads are repeated for four of queries.
    attention = 2 * (2 * 4 * 5 * 5 * 4)
    assert made["totals"]["macs"] == 3 * (10 * block + attention) + 10 * 1600
    assert given(made) == {"input_ids": ([2, 5], "int64")}


def test_a_configuration_tells_the_element_type(modtool: Modtool) -> None:
    pytest.importorskip("transformers")
    Path("config.json").write_text(json.dumps({**LLAMA, "dtype": "bfloat16"}))
    made = document(modtool("trace", "config.json", *shapes("1,8"), "--json"))
    assert made["outputs"][0]["dtype"] == "bfloat16"


INITIAL = (
    "note: initial-values: these are initial values: "
    "the model's configuration has no weights; add --weights\n"
)


@pytest.mark.parametrize(
    ("options", "err"),
    [
        (("--stats",), INITIAL),
        (("--backward", "--real"), INITIAL),
        ((), ""),
        (("--stats", "--weights", "w.pth"), ""),
    ],
)
def test_values_of_a_configuration_are_initial_ones(
    modtool: Modtool, options: tuple[str, ...], err: str
) -> None:
    transformers = pytest.importorskip("transformers")
    Path("llama").mkdir()
    Path("llama/config.json").write_text(json.dumps(LLAMA))
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA))
    torch.save(model.state_dict(), "w.pth")
    ran = modtool("trace", "llama", *shapes("1,5"), *options)
    assert (ran.code, ran.err) == (0, err)


def test_a_package_with_relative_imports(modtool: Modtool) -> None:
    Path("pkg").mkdir()
    Path("pkg/__init__.py").touch()
    Path("pkg/layers.py").write_text("from torch import nn\nclass Layer(nn.Linear):\n    pass\n")
    Path("pkg/net.py").write_text(
        "from torch import nn\n"
        "from .layers import Layer\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.layer = Layer(3, 2)\n"
        "    def forward(self, x):\n"
        "        from . import layers\n"
        "        assert isinstance(self.layer, layers.Layer)\n"
        "        return self.layer(x)\n"
    )
    for target in ("pkg/net.py", "pkg.net:Net"):
        made = document(modtool("trace", target, *shapes("1,3"), "--json"))
        assert [each["type"] for each in made["calls"]] == ["Layer"]


def test_in_a_process_of_its_own(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "modtool", "trace", example("mlp"), *shapes("32,784")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == TABLE


@pytest.mark.parametrize(
    ("shape", "kind"),
    [(["2,3"], "a list"), ((2, 3), "a tuple"), (3, "an int"), (torch.ones(2, 3), "a Tensor")],
)
def test_a_shape_that_is_no_text_is_bad_usage(shape: Any, kind: str) -> None:
    with pytest.raises(UsageError, match=f"the shape of an input is text, not {kind}"):
        trace(nn.Linear(3, 2), shape)
