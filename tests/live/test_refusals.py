"""What torch's kernels refuse, a pass on fake tensors refuses too, in the same words."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from modtool.live.fake import fake_mode
from modtool.live.inputs import parse_inputs
from modtool.live.passes import Executed, Settings, run_pass
from modtool.live.trace import trace
from tests.nets import Function

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


def image() -> torch.Tensor:
    """Ones, beside which a function of the table puts what it is given."""
    return torch.ones(2, 3, 4, 4)


def first() -> torch.Tensor:
    """Positions of two rows."""
    return torch.zeros(2, dtype=torch.int64)


# Functions of an image (2, 3, 4, 4) in every type. Without asking the kernels, a pass on fake
# tensors takes types in each of them that a real one refuses.
FUNCTIONS: dict[str, Callable[[torch.Tensor], object]] = {
    "relu": functional.relu,
    "relu_": lambda x: functional.relu(x.clone(), inplace=True),
    "dropout": lambda x: functional.dropout(x, 0.5, training=True),
    "glu": functional.glu,
    "hardshrink": functional.hardshrink,
    "threshold": lambda x: functional.threshold(x, 0.0, 1.0),
    "max_pool2d": lambda x: functional.max_pool2d(x, 2),
    "max_pool3d": lambda x: functional.max_pool3d(x, 2),
    "avg_pool1d": lambda x: functional.avg_pool1d(x[0], 2),
    "avg_pool2d": lambda x: functional.avg_pool2d(x, 3, stride=2, padding=1),
    "avg_pool3d": lambda x: functional.avg_pool3d(x, 2),
    "adaptive_avg_pool2d": lambda x: functional.adaptive_avg_pool2d(x, 2),
    "adaptive_max_pool2d": lambda x: functional.adaptive_max_pool2d(x, 2),
    "nearest": lambda x: functional.interpolate(x, scale_factor=2),
    "bilinear": lambda x: functional.interpolate(x, size=8, mode="bilinear"),
    "trilinear": lambda x: functional.interpolate(x[None], scale_factor=2, mode="trilinear"),
    "reflect": lambda x: functional.pad(x, (1, 1, 1, 1), "reflect"),
    "unfold": lambda x: functional.unfold(x, 2),
    "grid_sample of": lambda x: functional.grid_sample(x, torch.zeros(2, 4, 4, 2)),
    "grid_sample at": lambda x: functional.grid_sample(image(), x[:, 0, :, :2].unsqueeze(1)),
    "affine_grid": lambda x: functional.affine_grid(x[:, 0, :2, :3], [2, 3, 4, 4], False),
    "Bilinear": lambda x: functional.bilinear(x, x, torch.ones(5, 4, 4)),
    "attention": lambda x: functional.scaled_dot_product_attention(x, x, x),
    "attention to": lambda x: functional.scaled_dot_product_attention(x, image(), image()),
    "layer_norm": lambda x: functional.layer_norm(x, (4,), torch.ones(4)),
    "cross_entropy": lambda x: functional.cross_entropy(image()[..., 0], x[:, 0, 0]),
    "multi_margin_loss": lambda x: functional.multi_margin_loss(x[:, :, 0, 0], first()),
    "index_add": lambda x: image().index_add(0, first(), x),
    "index_copy": lambda x: image().index_copy(0, first(), x),
    "index_put": lambda x: image().index_put((first(),), x),
    "index_select": lambda x: torch.index_select(image(), 0, x[:, 0, 0, 0]),
    "mask": lambda x: image().__setitem__(torch.ones(2, dtype=torch.bool), x),
    "embedding": lambda x: functional.embedding(torch.zeros(3, dtype=torch.int64), x[0, 0]),
    "gather": lambda x: torch.gather(image(), 1, x),
    "scatter_add": lambda x: image().scatter_add(1, torch.zeros(2, 3, 4, 4, dtype=torch.int64), x),
    "masked_fill": lambda x: image().masked_fill(x, 1.0),
    "and": lambda x: x & x,
    "maximum": lambda x: torch.maximum(x, image()),
    "mul_": lambda x: x.clone().mul_(torch.ones(4)),
    "lerp": lambda x: torch.lerp(x, image(), 0.5),
    "where": lambda x: torch.where(x, 1.0, 0.0),
    "std": lambda x: x.std(),
    "argmax": lambda x: x.argmax(1),
    "topk": lambda x: x.topk(2, 1)[0],
    "cumsum": lambda x: x.cumsum(1),
    "det": torch.det,
    "rand_like": torch.rand_like,
    "complex": lambda x: torch.complex(x, x),
    "weight_norm": lambda x: torch._weight_norm(x[0, 0], torch.ones(4, 1)),
}


def refused(model: nn.Module, dtype: str, executed: Executed) -> str | None:
    """What a pass raises."""
    inputs = parse_inputs([f"2,3,4,4:{dtype}"], model)
    failure = run_pass(model, inputs, Settings(), executed).failure
    return str(failure.error) if failure else None


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_refused_what_their_kernels_refuse(name: str) -> None:
    model = Function(FUNCTIONS[name])
    for dtype in ("float64", "bfloat16", "int64", "bool", "complex64"):
        fake, real = (refused(model, dtype, executed) for executed in ("fake", "real"))
        assert (fake is None) == (real is None), (dtype, fake, real)


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


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("executed", ["fake", "real"])
def test_a_fake_twin_that_is_stricter_than_the_kernel(dtype: str, executed: Executed) -> None:
    def experts(x: torch.Tensor) -> torch.Tensor:
        weights = torch.ones(2, 16, 8, dtype=x.dtype)
        made: torch.Tensor = torch._grouped_mm(x, weights, offs=torch.tensor([2, 4]).int())
        return made

    model = Function(experts)
    done = run_pass(model, parse_inputs([f"4,16:{dtype}"], model), Settings(), executed)
    assert (done.failure, done.macs, done.outputs[0].dtype) == (None, 4 * 16 * 8, dtype)


@pytest.mark.parametrize("executed", ["fake", "real"])
def test_experts_of_float64_are_refused(executed: Executed) -> None:
    model = Function(lambda x: torch._grouped_mm(x, x.expand(2, 16, 16), offs=first().int()))
    done = run_pass(model, parse_inputs(["16,16:float64"], model), Settings(), executed)
    assert done.failure is not None
