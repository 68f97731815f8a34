"""Which names of a bare state_dict are buffers: those that torch itself registers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao import quantization
from torch.nn.utils import parametrizations, prune, spectral_norm
from torch.optim.swa_utils import AveragedModel

from modtool.formats import open_checkpoint
from modtool.pickles.roles import buffer_names
from modtool.report.totals import totals_of


class Scaled(nn.Linear):
    """A module with an extra state that holds tensors, and parameters named like buffers."""

    def __init__(self) -> None:
        super().__init__(3, 2)
        self.scale, self.eps = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(1))
        self.attention_mask = nn.Parameter(torch.ones(3))
        self.head_u, self.head_v = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(5))

    def get_extra_state(self) -> dict[str, object]:
        return {"amax": torch.ones(7), "scale": torch.ones(1), "steps": 3}

    def set_extra_state(self, state: object) -> None:
        pass


MODELS: Mapping[str, Callable[[], Any]] = {
    "averaged": lambda: AveragedModel(nn.Linear(2, 2)),
    "orthogonal": lambda: parametrizations.orthogonal(nn.Linear(3, 4)),
    "spectral norm, parametrized": lambda: parametrizations.spectral_norm(nn.Linear(3, 3)),
    "weight norm, parametrized": lambda: parametrizations.weight_norm(nn.Linear(3, 3)),
    "spectral norm": lambda: spectral_norm(nn.Linear(3, 2)),
    "spectral norm of a recurrent weight": lambda: spectral_norm(nn.LSTM(2, 3), "weight_hh_l0"),
    "pruned": lambda: prune.identity(nn.Linear(3, 2), "bias"),  # type: ignore[no-untyped-call]
    "a pruned recurrent weight": lambda: prune.identity(nn.LSTM(2, 3), "weight_hh_l0"),  # type: ignore[no-untyped-call]
    "positive weights": lambda: nn.BCEWithLogitsLoss(pos_weight=torch.ones(3)),
    "fractional pooling": lambda: nn.FractionalMaxPool2d(
        2, output_size=3, _random_samples=torch.ones(1, 1, 2)
    ),
    "fake quantization": quantization.FakeQuantize,
    "a histogram": quantization.HistogramObserver,
    "an extra state of tensors": lambda: nn.Sequential(Scaled(), nn.Linear(2, 1)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_state_dict_counts_as_the_model_does(tmp_path: Path, name: str) -> None:
    model: nn.Module = MODELS[name]()
    torch.save(model.state_dict(), tmp_path / "x.pth")
    found = open_checkpoint(str(tmp_path / "x.pth"))
    assert found.kind == "state_dict"
    parameters = {tensor.name for tensor in found.tensors if tensor.role == "parameter"}
    assert parameters == dict(model.named_parameters()).keys()
    assert totals_of(found.tensors).total == sum(each.numel() for each in model.parameters())


def test_a_direction_of_weight_norm_is_a_parameter() -> None:
    assert buffer_names(["weight_g", "weight_v", "bias"]) == frozenset()
    assert buffer_names(["weight_bar", "weight_u", "weight_v"]) == {"weight_u", "weight_v"}


def test_an_extra_state_of_tensors_beside_an_optimizer(tmp_path: Path) -> None:
    state: dict[str, Tensor] = Scaled().state_dict()
    torch.save({"net": state, "epoch": 3}, tmp_path / "x.pth")
    found = open_checkpoint(str(tmp_path / "x.pth"))
    roles = {tensor.name: tensor.role for tensor in found.model_tensors}
    assert roles["_extra_state.amax"] == roles["_extra_state.scale"] == "buffer"
    assert (roles["scale"], roles["weight"]) == ("parameter", "parameter")
    assert found.values == {"net._extra_state.steps": 3, "epoch": 3}
