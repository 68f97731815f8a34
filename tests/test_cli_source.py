"""summary --source: program text that a file carries."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import fx, nn

from tests.conftest import Ran

Modtool = Callable[..., Ran]
NET = """from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 1)
"""


def save_legacy_model(folder: Path) -> Path:
    """A full model whose class lies in a file that is gone afterwards."""
    (folder / "vanished.py").write_text(NET)
    program = (
        "import torch, vanished; torch.save(vanished.Net(), 'old.pth', "
        "_use_new_zipfile_serialization=False)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=folder, check=True)
    (folder / "vanished.py").unlink()
    return folder / "old.pth"


def test_source_of_a_legacy_model(modtool: Modtool, tmp_path: Path) -> None:
    path = save_legacy_model(tmp_path)
    net = NET.removeprefix("from torch import nn\n\n")
    ran = modtool("summary", path, "--source")
    assert (ran.code, ran.err) == (0, "")
    name, linear = ran.out.split("\n\n\n# ")
    assert name == f"# vanished.Net\n{net}".rstrip("\n")
    assert linear.startswith("torch.nn.modules.linear.Linear\nclass Linear(Module):\n")
    found = json.loads(modtool("summary", path, "--source", "--json").out)
    assert found["format"] == "torch-legacy"
    assert found["sources"]["vanished.Net"] == net


@pytest.mark.parametrize("zipped", [True, False])
def test_source_of_a_traced_model(modtool: Modtool, tmp_path: Path, zipped: bool) -> None:
    inner = fx.symbolic_trace(nn.ReLU())
    model = fx.symbolic_trace(nn.Sequential(nn.Linear(2, 1)))
    both = nn.ModuleList([model, inner])
    torch.save(both, tmp_path / "traced.pth", _use_new_zipfile_serialization=zipped)
    ran = modtool("summary", "traced.pth", "--source", "--json")
    assert (ran.code, ran.err) == (0, "")
    sources = json.loads(ran.out)["sources"]
    code = model.code.strip()
    assert "def forward(self, input):" in code
    assert sources["GraphModule"].endswith(f"\n\n{code}\n")
    assert "\nimport torch\n" in sources["GraphModule"]
    assert sources["GraphModule #2"].endswith(f"\n\n{inner.code.strip()}\n")


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_source_of_a_script(modtool: Modtool, tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 1)), tmp_path / "script.pt")
    ran = modtool("summary", "script.pt", "--source")
    assert (ran.code, ran.err) == (0, "")
    # torch numbers the second class of a name in one process: linear/___torch_mangle_0.py
    path = r"# __torch__/torch/nn/modules/linear(/___torch_mangle_\d+)?\.py"
    assert re.match(path + r"\nclass Linear\(Module\):\n", ran.out)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            "plain.pth",
            "error: plain.pth carries no source text\n  only modules that torch.fx",
        ),
        ("model.py", "error: model.py names Python code, which is its own source\n"),
    ],
)
def test_no_source(modtool: Modtool, tmp_path: Path, target: str, message: str) -> None:
    torch.save(nn.Linear(2, 1), tmp_path / "plain.pth")
    ran = modtool("summary", target, "--source")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(message)
