"""Every example says what it claims to say."""

from pathlib import Path

import pytest

from modtool.live.inputs import parse_inputs
from modtool.live.load import LoadedModel, load_model
from modtool.live.state import checkpoint_of
from modtool.live.trace import trace

EXAMPLES = Path(__file__).parents[2] / "examples"

# Inputs; parameters, buffers, multiply-accumulates, worked out by hand.
VALUES = {
    "add_module": (["4,20"], 20 * 15 + 15 + 15 * 10 + 10, 0, 4 * (20 * 15 + 15 * 10)),
    "branching": (["2,4"], 2 * (4 * 3 + 3), 0, 2 * 4 * 3),
    "loss": (["8,10", "target=8:int64"], 10, 0, 0),
    "mlp": (["32,784"], 235_146, 0, 32 * (784 * 256 + 256 * 128 + 128 * 10)),
    "module_dict": (["4,16"], 16 * 16 + 16 + 1, 0, 4 * 16 * 16),
    "module_list": (["4,32"], 3 * (32 * 32 + 32), 0, 3 * 4 * 32 * 32),
    "nested_sequential": (
        ["8,3,32,32"],
        (27 * 16 + 16) + 32 + (144 * 32 + 32) + 64 + (32 * 10 + 10),
        2 * 16 + 1 + 2 * 32 + 1,
        8 * 1024 * (16 * 27 + 32 * 144) + 8 * 320,
    ),
    "no_parameters": (["4,8"], 0, 0, 0),
    "own_parameters": (["4,6"], 6 * 3 + 3, 1, 4 * 6 * 3),
    "self_init": (["2,1,8,8"], 8 * 9 + 8 + 8 * 2 + 2, 0, 2 * 8 * 36 * 9 + 2 * 8 * 2),
    "unregistered": (["4,8"], 8 * 2 + 2, 0, 4 * (2 * 8 * 8 + 8 * 2)),
}
VALUES["ordered_sequential"] = VALUES["nested_sequential"]


def load(name: str) -> LoadedModel:
    return load_model(str(EXAMPLES / f"{name}.py"), build="fake")


@pytest.mark.parametrize("name", VALUES)
def test_sizes(name: str) -> None:
    shapes, parameters, buffers, macs = VALUES[name]
    loaded = load(name)
    tensors = checkpoint_of(loaded.model, name).tensors
    assert sum(each.numel for each in tensors if each.role == "parameter") == parameters
    assert sum(each.numel for each in tensors if each.role == "buffer") == buffers
    inputs = parse_inputs(shapes, loaded.model)
    result = trace(loaded.model, inputs, target=name, rebuild=loaded.rebuild)
    assert (result.error, result.parameters, result.macs) == (None, parameters, macs)
    assert result.executed == ("real" if name == "branching" else "fake")


def test_names() -> None:
    names = {
        name: [each.path for each in checkpoint_of(load(name).model, name).modules if each.path]
        for name in VALUES
    }
    assert names["mlp"] == ["fc1", "fc2", "head"]
    assert names["add_module"] == ["linear1", "linear2"]
    assert names["nested_sequential"][:4] == ["0", "0.0", "0.1", "0.2"]
    assert names["ordered_sequential"][:4] == ["stem", "stem.conv", "stem.norm", "stem.act"]
    assert names["module_list"] == ["layers", "layers.0", "layers.1", "layers.2"]
    assert names["module_dict"][1:] == [
        "activations",
        "activations.relu",
        "activations.gelu",
        "activations.prelu",
    ]
    assert names["unregistered"] == ["head"]


def test_the_plain_list_is_noted() -> None:
    notes = checkpoint_of(load("unregistered").model, "").notes
    assert [(each.code, each.where) for each in notes] == [("unregistered-module", "layers")]


def test_layers_that_are_not_chosen_never_run() -> None:
    loaded = load("module_dict")
    result = trace(loaded.model, parse_inputs(["4,16"], loaded.model))
    assert result.never_called == ("activations.gelu", "activations.prelu")


def test_arguments_build_another_model() -> None:
    loaded = load_model(str(EXAMPLES / "module_list.py"), {"width": 64, "depth": 4})
    assert sum(each.numel() for each in loaded.model.parameters()) == 4 * (64 * 64 + 64)
