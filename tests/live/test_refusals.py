"""What torch's kernels refuse, a pass on fake tensors refuses too, in the same words."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from modtool.live.fake import fake_mode
from modtool.live.inputs import parse_inputs
from modtool.live.trace import trace

TYPES = ("float32", "float64", "float16", "bfloat16", "int64", "bool", "complex64")


def linear() -> nn.Module:
    return nn.Linear(4, 4)


def without_bias() -> nn.Module:
    return nn.Linear(4, 4, bias=False)


def convolution() -> nn.Module:
    return nn.Conv1d(2, 4, 3, stride=2, padding=1, dilation=2, groups=2)


def transposed() -> nn.Module:
    return nn.ConvTranspose1d(2, 4, 3, stride=2, padding=1, output_padding=1)


def half_bias() -> nn.Module:
    model = nn.Linear(4, 4)
    model.bias = nn.Parameter(torch.zeros(4, dtype=torch.float16))
    return model


def lstm() -> nn.Module:
    return nn.LSTM(4, 4)


def gru() -> nn.Module:
    return nn.GRU(4, 4)


def norm() -> nn.Module:
    return nn.LayerNorm(4)


def batch_norm() -> nn.Module:
    return nn.BatchNorm1d(2)


def group_norm() -> nn.Module:
    return nn.GroupNorm(2, 2)


def attention() -> nn.Module:
    return nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)


def activation() -> nn.Module:
    return nn.Sequential(nn.GELU(), nn.Softmax(-1), nn.Linear(4, 4))


BUILDS = (
    linear,
    without_bias,
    half_bias,
    convolution,
    transposed,
    lstm,
    gru,
    norm,
    batch_norm,
    group_norm,
    activation,
    attention,
)


def raised(model: nn.Module, dtype: str) -> str | None:
    """What a real pass raises."""
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(2, 2, 4, dtype=getattr(torch, dtype)))
    except (RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return None


@pytest.mark.parametrize("build", BUILDS)
def test_a_fake_pass_fails_where_a_real_one_does(build: Callable[[], nn.Module]) -> None:
    with fake_mode():
        model = build()
    for dtype in TYPES:
        found = trace(model, parse_inputs([f"2,2,4:{dtype}"], model))
        assert found.executed == "fake"
        assert (found.error is None) == (raised(build(), dtype) is None), dtype


@pytest.mark.parametrize("dtype", TYPES)
def test_the_words_are_those_of_the_kernel(dtype: str) -> None:
    with fake_mode():
        model = nn.Sequential(nn.Identity(), linear())
    found = trace(model, parse_inputs([f"2,2,4:{dtype}"], model))
    expected = raised(linear(), dtype)
    assert (found.error and found.error.message) == expected
    if found.error is not None:
        assert (found.error.path, found.error.from_input) == ("1", "input")


def test_autocast_casts_before() -> None:
    class Cast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                made: torch.Tensor = self.layer(x)
            return made

    with fake_mode():
        model = Cast()
    found = trace(model, parse_inputs(["2,4:float16"], model))
    assert (found.error, found.outputs[0].dtype) == (None, "bfloat16")


def test_on_the_meta_device_products_alone_are_held() -> None:
    with torch.device("meta"):
        product, other = linear(), activation()
    wrong = trace(product, parse_inputs(["2,4:float16"], product))
    assert wrong.error is not None
    assert "must have the same dtype" in wrong.error.message
    later = trace(other, parse_inputs(["2,4:int64"], other))
    assert later.error is not None
    assert later.error.path == "2"  # the GELU before it passes


def test_an_answer_of_a_model_with_values_is_that_of_a_real_pass() -> None:
    model = linear()
    found = trace(model, parse_inputs(["2,4:int64"], model))
    assert found.error is not None
    assert (found.executed, found.error.path, found.macs) == ("real", "", 0)
    assert found.error.message == raised(model, "int64")
