"""From the shell into the training run: apply_freeze and param_groups on what freeze wrote."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import modtool as library
from modtool.errors import TargetError, UsageError
from tests.conftest import Ran

Modtool = Callable[..., Ran]
ROOT = Path(__file__).parents[1]


class Net(nn.Module):
    """Has a buffer of its own, which a bare state_dict cannot tell from a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.head = nn.Linear(4, 2)
        self.register_buffer("offsets", torch.arange(2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.backbone(x)) + self.offsets
        return out


def test_the_example_runs(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [str(ROOT / "examples" / "finetune.sh"), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": path},
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "trains 1,370 of 1,466 parameters" in lines
    assert "tensors by learning rate: 4 at 0.0001, 2 at 0.01" in lines
    assert lines[-1] == "4 frozen tensors did not move by a bit"


@pytest.mark.parametrize("target", ["net.pth", "state.pth", "ckpt.pth", "net.safetensors"])
@pytest.mark.parametrize("output", ["out", "plan.json"])
def test_apply_freeze_takes_whatever_freeze_wrote(
    modtool: Modtool, target: str, output: str
) -> None:
    model = Net()
    torch.save(model, "net.pth")
    torch.save(model.state_dict(), "state.pth")
    torch.save({"epoch": 1, "model": model.state_dict()}, "ckpt.pth")
    save_file(model.state_dict(), "net.safetensors")
    output = output if output == "plan.json" else f"out{Path(target).suffix}"
    kept = target != "net.pth" or output == "plan.json"
    assert (
        modtool("freeze", target, "backbone", *(["--bn-eval"] if kept else []), "-o", output).code
        == 0
    )
    applied = library.apply_freeze(model, output)
    assert applied.frozen == tuple(
        name for name, _ in model.named_parameters() if name.startswith("backbone")
    )
    assert (applied.trainable, applied.total) == (10, 34)
    assert applied.bn_eval == (("backbone.1",) if kept else ())
    model.train()
    assert model.backbone[1].training is not kept
    assert library.apply_freeze(model, Path(output)).frozen == ()


@pytest.mark.parametrize("source", ["set", "set/model.safetensors.index.json"])
def test_apply_freeze_takes_a_set_of_files(modtool: Modtool, source: str) -> None:
    model = Net()
    save_file(model.state_dict(), "net.safetensors")
    modtool("freeze", "net.safetensors", "backbone", "--bn-eval", "-o", "out.safetensors")
    assert modtool("convert", "out.safetensors", "--max-shard-size", "60", "-o", "set/").code == 0
    applied = library.apply_freeze(model, source)
    assert (applied.trainable, applied.bn_eval) == (10, ("backbone.1",))


def test_apply_freeze_takes_a_legacy_file_also_for_a_wrapped_model(modtool: Modtool) -> None:
    torch.save(Net(), "old.pth", _use_new_zipfile_serialization=False)
    assert modtool("freeze", "old.pth", "head", "-o", "out.pth").code == 0
    model = Net()
    assert library.apply_freeze(model, "out.pth").frozen == ("head.weight", "head.bias")
    assert library.apply_freeze(nn.DataParallel(Net()), "out.pth").frozen == (
        "module.head.weight",
        "module.head.bias",
    )


def test_a_checkpoint_of_another_model_is_an_error(modtool: Modtool) -> None:
    torch.save(nn.Linear(3, 2).state_dict(), "other.pth")
    modtool("freeze", "other.pth", "weight", "-o", "out.pth")
    model = Net()
    with pytest.raises(UsageError, match="the model has no weight, bias"):
        library.apply_freeze(model, "out.pth")
    applied = library.apply_freeze(model, "out.pth", strict=False)
    assert applied.unknown == ("weight", "bias")
    assert all(each.requires_grad for each in model.parameters())
    with pytest.raises(TargetError, match="does not record what is frozen"):
        library.apply_freeze(model, "other.pth")
    with pytest.raises(TargetError, match="gone"):
        library.apply_freeze(model, "gone.pth")


def test_pruned_groups_fit_param_groups(modtool: Modtool) -> None:
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    torch.autograd.backward(model(torch.randn(5, 3)).square().sum())
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, "ckpt.pth")
    assert modtool("freeze", "ckpt.pth", "backbone", "--prune-groups", "-o", "out.pth").code == 0
    resumed = Net()
    library.apply_freeze(resumed, "out.pth")
    optimizer = torch.optim.Adam(library.param_groups(resumed, {"*": {"lr": 0.1}}))
    optimizer.load_state_dict(torch.load("out.pth", weights_only=True)["optimizer"])
    assert set(optimizer.state) == set(resumed.head.parameters())
