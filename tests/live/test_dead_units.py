"""Which units of a ReLU are dead: channels after a convolution, features after a linear layer."""

import pytest
import torch
from torch import nn

from modtool.live.inputs import parse_inputs
from modtool.live.trace import trace

# Three inputs, five units.
LAYERS: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "linear": (nn.Linear, (3, 5)),
    "conv1d": (nn.Conv1d, (3, 5, 1)),
    "conv2d": (nn.Conv2d, (3, 5, 1)),
    "conv3d": (nn.Conv3d, (3, 5, 1)),
    "transpose1d": (nn.ConvTranspose1d, (3, 5, 1)),
    "transpose2d": (nn.ConvTranspose2d, (3, 5, 1)),
    "transpose3d": (nn.ConvTranspose3d, (3, 5, 1)),
    "lazy1d": (nn.LazyConv1d, (5, 1)),
}


def with_two_dead(name: str) -> nn.Module:
    """A layer of whose five units two give less than zero, and three more, whatever comes."""
    kind, sizes = LAYERS[name]
    layer = kind(*sizes)
    bias = torch.tensor([1e6, -1e6, 1e6, -1e6, 1e6])
    if name == "lazy1d":
        layer.register_forward_hook(lambda module, args, output: output + bias[:, None])
    else:
        layer.bias = nn.Parameter(bias)
    return layer


def dead(model: nn.Module, shape: str) -> dict[str, tuple[int, int] | None]:
    found = trace(model, parse_inputs([shape], model), mode="train", statistics=True)
    assert found.error is None
    return {call.path: call.dead for call in found.calls if call.type in ("ReLU", "ReLU6")}


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("linear", "4,3"),
        ("linear", "4,7,3"),
        ("linear", "4,7,6,3"),
        ("linear", "4,7,6,2,3"),
        ("conv1d", "4,3,7"),
        ("conv1d", "3,7"),
        ("conv2d", "4,3,7,6"),
        ("conv2d", "3,7,6"),
        ("conv3d", "4,3,7,6,2"),
        ("conv3d", "3,7,6,2"),
        ("transpose1d", "4,3,7"),
        ("transpose1d", "3,7"),
        ("transpose2d", "4,3,7,6"),
        ("transpose2d", "3,7,6"),
        ("transpose3d", "4,3,7,6,2"),
        ("transpose3d", "3,7,6,2"),
        ("lazy1d", "4,3,7"),
    ],
)
@pytest.mark.parametrize("inplace", [False, True])
def test_units_are_those_of_the_layer_before(name: str, shape: str, inplace: bool) -> None:
    model = nn.Sequential(with_two_dead(name), nn.ReLU(inplace))
    assert dead(model, shape) == {"1": (2, 5)}


def test_one_sample_of_each_unit_tells_nothing() -> None:
    assert dead(nn.Sequential(with_two_dead("linear"), nn.ReLU()), "3") == {"1": None}


def test_units_are_followed_through_what_has_none_of_its_own() -> None:
    model = nn.Sequential(
        with_two_dead("conv1d"),
        nn.Dropout(0.1),
        nn.Sequential(nn.MaxPool1d(2), nn.ReLU()),
        nn.ReLU6(),
        nn.Flatten(),
        nn.ReLU(),
    )
    assert dead(model, "4,3,8") == {"2.1": (2, 5), "3": (2, 5), "5": (8, 20)}
    assert dead(model, "3,8") == {"2.1": (2, 5), "3": (2, 5), "5": (2, 5)}


def test_norms_have_their_units_where_convolutions_have_them() -> None:
    for norm in (nn.BatchNorm1d(5), nn.GroupNorm(5, 5)):
        nn.init.zeros_(norm.weight)
        norm.bias = nn.Parameter(torch.tensor([1.0, -1, 1, -1, 1]))
        assert dead(nn.Sequential(norm, nn.ReLU()), "4,5,7") == {"1": (2, 5)}
        assert dead(nn.Sequential(norm, nn.ReLU()), "4,5") == {"1": (2, 5)}


class Turned(nn.Module):
    """Channels are the last dimension here when they are rectified, and once more first."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = with_two_dead("conv1d")
        self.turned, self.added = nn.ReLU(), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        result: torch.Tensor = self.turned(x.transpose(1, 2)).transpose(1, 2) + self.added(x + 1)
        return result


def test_units_are_followed_through_sums_and_not_through_transposition() -> None:
    assert dead(Turned(), "4,3,7") == {"turned": (2, 5), "added": (2, 5)}
