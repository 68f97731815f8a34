"""`modtool check` of a model's definition, as a user sees it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from modtool.api.checking import check
from tests.conftest import Ran

Modtool = Callable[..., Ran]

HEAD = "import torch\nfrom torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self):\n"
SOUND = "        super().__init__()\n        self.layer = nn.Linear(4, 4)\n"
FORWARD = "\n    def forward(self, x):\n        return self.layer(x)\n"


def test_a_sound_model_exits_with_0(modtool: Modtool) -> None:
    Path("model.py").write_text(HEAD + SOUND + FORWARD)
    ran = modtool("check", "model.py", "--input-shape", "2,4", "--fail-on", "note")
    assert (ran.code, ran.out, ran.err) == (0, "findings 0\n", "")


def test_a_faulty_model_exits_with_1(modtool: Modtool) -> None:
    unused = "        self.drop = nn.Dropout(0.1)\n        self.mean = torch.zeros(4)\n"
    Path("model.py").write_text(HEAD + SOUND + unused + FORWARD)
    ran = modtool("check", "model.py", "--input-shape", "2,4", "--json")
    found = [(each["code"], each["where"]) for each in json.loads(ran.out)["findings"]]
    assert (ran.code, found) == (1, [("plain-tensor", "mean"), ("never-called", "drop")])
    ran = modtool("check", "model.py", "--json")
    found = [(each["code"], each["where"]) for each in json.loads(ran.out)["findings"]]
    assert (ran.code, found) == (1, [("plain-tensor", "mean")])


def test_a_model_that_cannot_be_built_is_a_finding(modtool: Modtool) -> None:
    lines = SOUND.splitlines(keepends=True)
    Path("model.py").write_text(HEAD + lines[1] + lines[0] + FORWARD)
    ran = modtool("check", "model.py", "--format", "csv")
    assert ran.code == 1
    assert 'before-module-init,model.py:7,"`self.layer = nn.Linear(4, 4)` runs' in ran.out
    assert "move super().__init__() to the top of Net.__init__" in ran.out
    ran = modtool("check", "model.py", "--select", "no-gradient")
    assert (ran.code, ran.out) == (2, "")
    assert "model.py:7: AttributeError: cannot assign module" in ran.err


def test_a_model_without_the_tables_of_a_module_is_a_finding(modtool: Modtool) -> None:
    Path("model.py").write_text(HEAD + "        self.depth = 3\n" + FORWARD)
    ran = modtool("check", "model.py", "--input-shape", "2,4", "--json")
    (found,) = json.loads(ran.out)["findings"]
    assert (ran.code, found["code"], found["where"]) == (1, "before-module-init", "")
    ran = modtool("check", "model.py", "--ignore", "before-module-init")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        "error: model.py: Net was built without Module.__init__(): it has no parameters, and every "
        "use of it fails\n  begin with super().__init__() in Net.__init__\n"
    )


def test_a_forward_pass_that_fails_is_a_finding(modtool: Modtool) -> None:
    Path("model.py").write_text(HEAD + SOUND + FORWARD)
    ran = modtool("check", "model.py", "--input-shape", "2,5", "--json")
    (found,) = json.loads(ran.out)["findings"]
    assert (ran.code, found["code"], found["where"]) == (1, "forward-failed", "layer")
    assert found["message"].startswith("was given [2, 5] and failed in eval mode: RuntimeError")


DROPPING = (
    "from torch import nn\n\n\nclass Net(nn.Module):\n    def forward(self, x):\n"
    "        return nn.functional.dropout(x, 0.3)\n"
)


def test_the_whole_model_has_a_place_and_a_line(modtool: Modtool) -> None:
    Path("model.py").write_text(DROPPING)
    given = ("check", "model.py", "--input-shape", "2,4")
    assert "warning  dropout-in-eval  (model)  dropout at model.py:6 " in modtool(*given).out
    (line,) = modtool(*given, "--format", "github").out.splitlines()
    assert line.startswith("::warning file=model.py,line=6,title=modtool dropout-in-eval::dropout ")
    (found,) = json.loads(modtool(*given, "--json").out)["findings"]
    assert (found["where"], found["file"], found["line"]) == ("", "model.py", 6)


def test_a_finding_has_the_line_that_sets_what_it_is_about(modtool: Modtool) -> None:
    block = (
        "class Block(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.mean = torch.zeros(4)\n\n    def forward(self, x):\n        return x\n\n\n"
    )
    faulty = "        if True:\n            self.drop = nn.Dropout(0.1)\n"
    head, net = HEAD.split("class Net", 1)
    calls = "        self.layer = nn.Sequential(Block(), nn.Linear(4, 4))\n"
    Path("model.py").write_text(
        f"{head}{block}class Net{net}        super().__init__()\n{calls}{faulty}{FORWARD}"
    )
    ran = modtool("check", "model.py:Net", "--input-shape", "2,4", "--json")
    found = json.loads(ran.out)["findings"]
    assert [(each["where"], each["file"], each["line"]) for each in found] == [
        ("layer.0.mean", "model.py", 8),
        ("drop", "model.py", 19),
    ]


def test_what_has_no_line_of_its_own_has_none(modtool: Modtool) -> None:
    Path("model.py").write_text(
        "from torch import nn\n\nmodel = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))\n"
    )
    (found,) = json.loads(modtool("check", "model.py", "--json").out)["findings"]
    assert (found["code"], found["file"], found["line"]) == ("bias-before-batchnorm", None, None)
    ran = modtool("check", "model.py", "--format", "github")
    assert ran.out.startswith("::notice file=model.py,title=modtool bias-before-batchnorm::")


def test_the_library_takes_every_input_that_the_command_takes(modtool: Modtool) -> None:
    forward = "\n    def forward(self, x, scale):\n        return self.layer(x) * scale\n"
    Path("model.py").write_text(HEAD + SOUND + forward)
    Path("inputs.py").write_text("import torch\n\n\ndef make():\n    return torch.ones(2, 5)\n")
    torch.save(torch.ones(2, 5), "x.pt")
    asked: list[dict[str, Any]] = [
        {"input_files": ["x.pt"]},
        {"input_functions": ["inputs.py:make"]},
        {"input_shapes": ["2,5"]},
    ]
    for each in asked:
        (found,) = check("model.py", input_values={"scale": 2}, **each).findings
        assert (found.code, found.where) == ("forward-failed", "layer")
    assert check("model.py", input_shapes=["2,4"], input_values={"scale": 2}).findings == ()
