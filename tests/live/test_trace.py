from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import distributions as dist
from torch import nn

from modtool.errors import UsageError
from modtool.live.affording import guess
from modtool.live.fake import fake_mode
from modtool.live.inputs import Inputs, InputSpec, parse_inputs
from modtool.live.trace import trace
from modtool.traces import ModuleCall, Trace, TracedTensor


def run(model: nn.Module, *shapes: str, **options: object) -> Trace:
    return trace(model, parse_inputs(shapes, model), **options)  # type: ignore[arg-type]


def shapes(tensors: tuple[TracedTensor, ...] | None) -> dict[str, tuple[int, ...]]:
    return {each.path: each.shape for each in tensors or ()}


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))


def test_every_call_in_order() -> None:
    result = run(mlp(), "32,784", target="model.py:Net")
    assert result.calls == (
        ModuleCall(
            index=0,
            path="0",
            type="Linear",
            call=1,
            depth=1,
            inputs=(TracedTensor("0", (32, 784), "float32", 100_352),),
            outputs=(TracedTensor("", (32, 256), "float32", 32_768),),
            parameters=200_960,
            macs=6_422_528,
        ),
        ModuleCall(
            index=1,
            path="1",
            type="ReLU",
            call=1,
            depth=1,
            inputs=(TracedTensor("0", (32, 256), "float32", 32_768),),
            outputs=(TracedTensor("", (32, 256), "float32", 32_768),),
            parameters=0,
            macs=0,
        ),
        ModuleCall(
            index=2,
            path="2",
            type="Linear",
            call=1,
            depth=1,
            inputs=(TracedTensor("0", (32, 256), "float32", 32_768),),
            outputs=(TracedTensor("", (32, 10), "float32", 1_280),),
            parameters=2_570,
            macs=81_920,
        ),
    )
    assert result == Trace(
        target="model.py:Net",
        mode="eval",
        executed="fake",
        inputs=(TracedTensor("input", (32, 784), "float32", 100_352),),
        outputs=(TracedTensor("", (32, 10), "float32", 1_280),),
        calls=result.calls,
        parameters=203_530,
        trainable=203_530,
        macs=6_504_448,
    )


def test_depth_call_numbers_and_macs_of_what_lies_within() -> None:
    block = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
    result = run(nn.Sequential(block, block, nn.Linear(8, 2)), "4,8")
    rows = [(each.path, each.call, each.depth, each.macs) for each in result.calls]
    assert rows == [
        ("0", 1, 1, 256),
        ("0.0", 1, 2, 256),
        ("0.1", 1, 2, 0),
        ("0", 2, 1, 256),
        ("0.0", 2, 2, 256),
        ("0.1", 2, 2, 0),
        ("2", 1, 1, 64),
    ]
    assert (result.macs, result.parameters) == (576, 72 + 18)


@dataclass
class Answer:
    logits: torch.Tensor
    note: str


Pair = namedtuple("Pair", ["left", "right"])


class Nesting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()

    def forward(self, x: torch.Tensor, *, scale: torch.Tensor) -> object:
        return self.inner({"a": x, "b": [x, (x, None)]}, scale=scale, flag=True)


class Inner(nn.Module):
    def forward(self, batch: object, scale: torch.Tensor, flag: bool) -> object:
        normal = torch.distributions.Normal(scale, scale.abs() + 1, validate_args=False)
        return {"answer": Answer(scale, "x"), "pair": Pair(scale, [scale]), "normal": normal}


def test_every_leaf_of_nested_values() -> None:
    result = run(Nesting(), "2,3", "scale=5")
    assert shapes(result.calls[0].inputs) == {
        "0.a": (2, 3),
        "0.b.0": (2, 3),
        "0.b.1.0": (2, 3),
        "scale": (5,),
    }
    assert (
        shapes(result.calls[0].outputs)
        == shapes(result.outputs)
        == {
            "answer.logits": (5,),
            "pair.left": (5,),
            "pair.right.0": (5,),
            "normal.loc": (5,),
            "normal.scale": (5,),
        }
    )
    assert shapes(result.inputs) == {"x": (2, 3), "scale": (5,)}


class Plain:
    """Holds tensors in attributes, and one that holds it."""

    def __init__(self, x: torch.Tensor) -> None:
        self.tensors = x
        self.parts = [SimpleNamespace(mask=x[0], size=3)]
        self.itself = self
        self.module = nn.Linear(1, 1)


class Slim:
    """Holds tensors in slots."""

    __slots__ = ("empty", "mask", "tensors")
    empty: torch.Tensor

    def __init__(self, x: torch.Tensor) -> None:
        self.tensors = x
        self.mask = x[0]


class KeyCache:
    """Is handed on, and grows."""

    def __init__(self) -> None:
        self.keys: list[torch.Tensor] = []


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (Plain, {"tensors": (2, 3), "parts.0.mask": (3,)}),
        (Slim, {"mask": (3,), "tensors": (2, 3)}),
        (lambda x: SimpleNamespace(a=x, b=(x[0], 1)), {"a": (2, 3), "b.0": (3,)}),
        (lambda x: {"one": Slim(x)}, {"one.mask": (3,), "one.tensors": (2, 3)}),
    ],
)
def test_objects_that_hold_tensors(
    make: Callable[[torch.Tensor], object], expected: dict[str, tuple[int, ...]]
) -> None:
    class Makes(nn.Module):
        def forward(self, x: torch.Tensor) -> object:
            return make(x)

    class Takes(nn.Module):
        def forward(self, given: object) -> object:
            return given

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))
            self.makes, self.takes = Makes(), Takes()

        def forward(self, x: torch.Tensor) -> object:
            return self.takes(self.makes(x * self.scale))

    result = run(Net(), "2,3", backward=True, statistics=True)
    makes, takes = result.calls
    assert result.error is None
    assert shapes(makes.outputs) == shapes(takes.outputs) == shapes(result.outputs) == expected
    assert shapes(takes.inputs) == {f"0.{path}": shape for path, shape in expected.items()}
    assert all(each.statistics for each in result.outputs)
    assert result.parameter_gradients == {"scale": (3,)}


def test_a_cache_is_listed_where_it_comes_out_and_is_no_part_of_the_loss() -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.key = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x: torch.Tensor, cache: KeyCache) -> torch.Tensor:
            cache.keys.append(self.key(x))
            result: torch.Tensor = self.inner(x)
            return result

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([Layer(), Layer()])

        def forward(self, x: torch.Tensor) -> dict[str, object]:
            cache = KeyCache()
            for layer in self.layers:
                x = layer(x, cache)
            return {"x": x, "cache": cache}

    result = run(Net(), "4,3", backward=True, statistics=True)
    assert shapes(result.outputs) == {"x": (4, 3), "cache.keys.0": (4, 2), "cache.keys.1": (4, 2)}
    layers = [call for call in result.calls if call.type == "Layer"]
    assert [shapes(call.inputs) for call in layers] == [{"0": (4, 3)}] * 2
    unused = [f"layers.{index}.key.{name}" for index in (0, 1) for name in ("weight", "bias")]
    assert list(result.unused) == unused


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda x: dist.Normal(x, 1.0), {"loc": (2, 4), "scale": (2, 4)}),
        (lambda x: dist.Categorical(logits=x), {"logits": (2, 4)}),
        (
            lambda x: dist.OneHotCategorical(logits=x, validate_args=False),
            {"categorical.logits": (2, 4)},
        ),
        (lambda x: dist.LogNormal(x, 1.0), {"base_dist.loc": (2, 4), "base_dist.scale": (2, 4)}),
        (
            lambda x: dist.Independent(dist.MultivariateNormal(x, torch.eye(4)), 1),
            {"base_dist.loc": (2, 4), "base_dist.covariance_matrix": (2, 4, 4)},
        ),
        (lambda x: dist.Beta(x.exp(), x.exp()), {"dirichlet.concentration": (2, 4, 2)}),
        (
            lambda x: dist.MixtureSameFamily(dist.Categorical(logits=x), dist.Normal(x, 1.0)),
            {
                "mixture_distribution.logits": (2, 4),
                "component_distribution.loc": (2, 4),
                "component_distribution.scale": (2, 4),
            },
        ),
    ],
)
def test_what_a_distribution_was_made_of(
    make: Callable[[torch.Tensor], dist.Distribution], expected: dict[str, tuple[int, ...]]
) -> None:
    class Head(nn.Module):
        def forward(self, x: torch.Tensor) -> dist.Distribution:
            return make(x)

    result = run(Head(), "2,4")
    assert result.error is None
    assert shapes(result.outputs) == expected


class Branch(nn.Module):
    def __init__(self, ask: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.one = nn.Linear(3, 3)
        self.ask = ask

    def forward(self, x: torch.Tensor) -> object:
        x = self.one(x)
        return x if self.ask(x) is not None else -x


@pytest.mark.parametrize(
    ("ask", "operator"),
    [
        (lambda x: bool(x.sum() > 0), "aten._local_scalar_dense.default"),
        (lambda x: x.max().item(), "aten._local_scalar_dense.default"),
        (lambda x: x[x > 0], "aten.nonzero.default"),
        (lambda x: x.numpy(), "numpy"),
        (lambda x: x.tolist(), "aten._local_scalar_dense.default"),
    ],
)
def test_a_pass_that_needs_values_runs_for_real_and_says_why(
    ask: Callable[[torch.Tensor], object], operator: str
) -> None:
    result = run(Branch(ask), "2,3")
    assert (result.executed, result.error, result.macs) == ("real", None, 18)
    (found,) = result.notes
    assert (found.code, found.level, found.where) == ("ran-for-real", "note", "")
    assert "needs values at tests/live/test_trace.py:" in found.message
    assert operator in found.message


def test_a_hollow_model_is_built_again_for_a_real_pass() -> None:
    def build() -> nn.Module:
        return Branch(lambda x: x.sum().item())

    with fake_mode():
        model = build()
    result = run(model, "2,3", rebuild=build)
    assert (result.executed, result.error, result.parameters) == ("real", None, 12)
    with pytest.raises(UsageError, match=r"needs values .* and the model's tensors have none"):
        run(model, "2,3")


def test_no_real_pass_that_needs_more_memory_than_there_is() -> None:
    def build() -> nn.Module:
        model = Branch(lambda x: x.sum().item())
        model.big = nn.Linear(10**6, 10**6)
        return model

    with fake_mode():
        model = build()
    with pytest.raises(UsageError, match=r"that takes 4\.0 TB of memory or more"):
        run(model, "2,3", rebuild=build)


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")
def test_a_lazy_model_is_given_no_inputs_that_do_not_fit_in_memory() -> None:
    message = r"lazy modules take their shapes from real inputs; that takes 4\.0 TB of memory"
    with pytest.raises(UsageError, match=message):
        run(nn.LazyLinear(2), "1000000,1000000")


def test_a_model_on_the_meta_device() -> None:
    result = run(mlp().to("meta"), "32,784", backward=True)
    assert (result.executed, result.error, result.macs) == ("fake", None, 6_504_448)


def test_a_model_larger_than_memory() -> None:
    with fake_mode():
        model = nn.Sequential(nn.Linear(10**6, 10**6), nn.Linear(10**6, 10**6))
    result = run(model, "10,1000000")
    assert (result.executed, result.macs) == ("fake", 2 * 10**13)


class Wrong(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(8, 6), nn.ReLU())
        self.head = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> object:
        return self.head(self.stem(x) * 2)


@pytest.mark.parametrize("backward", [False, True])
def test_a_failure_is_a_report(backward: bool) -> None:
    result = run(Wrong(), "4,8", backward=backward)
    assert [each.path for each in result.calls] == ["stem", "stem.0", "stem.1"]
    assert result.error is not None
    assert (result.error.path, result.error.type, result.error.call) == ("head", "Linear", 1)
    assert result.error.settings == "in_features=5, out_features=2, bias=True"
    assert result.error.message.startswith(
        "RuntimeError: mat1 and mat2 shapes cannot be multiplied (4x6 and 5x2)"
    )
    assert shapes(result.error.inputs) == {"0": (4, 6)}
    assert result.error.produced_by == "stem.1"
    assert result.macs == 4 * 8 * 6


def test_a_failure_between_modules_names_what_was_multiplied() -> None:
    class Between(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.one(x).t() @ x.t()
            return result

    result = run(Between(), "2,3")
    assert result.error is not None
    assert (result.error.path, result.error.produced_by) == ("", "one")
    assert "(4x2 and 3x2)" in result.error.message
    assert "tests/live/test_trace.py:" in result.error.message


def test_a_failure_that_the_model_catches_is_none() -> None:
    class Careful(Wrong):
        def forward(self, x: torch.Tensor) -> object:
            try:
                return self.head(self.stem(x))
            except RuntimeError:
                return self.stem(x)

    result = run(Careful(), "4,8")
    assert result.error is None
    assert [(each.path, each.call) for each in result.calls if each.depth == 1] == [
        ("stem", 1),
        ("stem", 2),
    ]


def test_a_python_error_in_forward_is_a_report_too() -> None:
    class Typo(nn.Module):
        def forward(self, x: torch.Tensor) -> object:
            return self.liner(x)  # type: ignore[operator]

    result = run(Typo(), "4,8")
    assert result.error is not None
    assert result.error.message.startswith("AttributeError: 'Typo' object has no attribute 'liner'")


def test_modules_that_never_ran() -> None:
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
            self.attention = nn.MultiheadAttention(4, 2)

        def forward(self, x: torch.Tensor) -> object:
            return self.layers[0](x)

    result = run(Partly(), "1,2")
    assert result.never_called == ("layers.1", "attention", "attention.out_proj")
    assert (result.parameters, result.macs) == (12 + 80, 4)


def test_attention_uses_its_output_projection_without_calling_it() -> None:
    model = nn.MultiheadAttention(4, 2)
    assert run(model, "3,1,4", "3,1,4", "3,1,4").never_called == ()


def test_gradient_shapes() -> None:
    result = run(mlp(), "32,784", backward=True)
    assert [shapes(each.gradients) for each in result.calls] == [
        {"": (32, 256)},
        {"": (32, 256)},
        {"": (32, 10)},
    ]
    assert result.parameter_gradients == {
        "0.weight": (256, 784),
        "0.bias": (256,),
        "2.weight": (10, 256),
        "2.bias": (10,),
    }
    assert result.macs == 6_504_448


class Awkward(nn.Module):
    """A frozen first layer, a ReLU in place, a dict as output, a branch that is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(8, 6).requires_grad_(False)
        self.relu = nn.ReLU(inplace=True)
        self.middle = nn.Linear(6, 6)
        self.unused = nn.Linear(6, 6)
        self.head = Head()

    def forward(self, x: torch.Tensor) -> object:
        self.unused(x[:, :6])
        return self.head(self.relu(self.middle(self.relu(self.frozen(x)))))


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.linear(x), "classes": x.argmax(-1)}


@pytest.mark.parametrize("real", [False, True])
def test_gradients_where_full_backward_hooks_raise(real: bool) -> None:
    model: nn.Module = Awkward()
    if real:
        model.register_forward_pre_hook(lambda module, args: args[0].sum().item() and None)
    else:
        model.to("meta")
    result = run(model, "4,8", backward=True)
    assert (result.error, result.executed) == (None, "real" if real else "fake")
    assert {each.path: shapes(each.gradients) for each in result.calls if each.call == 1} == {
        "unused": {},
        "frozen": {},
        "relu": {},
        "middle": {"": (4, 6)},
        "head": {"logits": (4, 3)},
        "head.linear": {"": (4, 3)},
    }
    assert result.parameter_gradients == {
        "frozen.weight": None,
        "frozen.bias": None,
        "middle.weight": (6, 6),
        "middle.bias": (6,),
        "unused.weight": None,
        "unused.bias": None,
        "head.linear.weight": (3, 6),
        "head.linear.bias": (3,),
    }
    assert (result.parameters, result.trainable) == (54 + 42 + 42 + 21, 42 + 42 + 21)


def test_no_gradient_is_noted() -> None:
    result = run(nn.Linear(2, 2).requires_grad_(False), "1,2", backward=True)
    assert [each.code for each in result.notes] == ["no-gradient"]
    assert result.parameter_gradients == {"weight": None, "bias": None}


def test_a_forward_that_differentiates_itself() -> None:
    class Slope(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.requires_grad_()
            (slope,) = torch.autograd.grad(self.linear(x).sum(), x)
            return slope

    result = run(Slope(), "3,2")
    assert (result.error, shapes(result.outputs)) == (None, {"": (3, 2)})


def test_what_forward_prints_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    class Loud(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            print("shape", tuple(x.shape))
            return x

    run(Loud(), "3,2")
    assert capsys.readouterr() == ("", "shape (3, 2)\n")


def test_inputs_may_be_values_of_any_kind() -> None:
    class Scaled(nn.Module):
        def forward(self, batch: dict[str, torch.Tensor], factor: float) -> torch.Tensor:
            return batch["x"] * factor

    inputs = Inputs(({"x": InputSpec((2, 3), torch.float16)},), {"factor": 0.5})
    result = trace(Scaled(), inputs)
    assert shapes(result.inputs) == {"batch.x": (2, 3)}
    assert result.outputs == (TracedTensor("", (2, 3), "float16", 12),)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2, 100), 2 * 100 * 100 * 4 * 16),  # a score for each two positions in sixteen heads
        ((2, 50, 100), 2 * 50 * 100 * 100 * 4 * 16),
        ((8, 3, 224, 224), 8 * 3 * 224 * 224 * 4 * 64),
        ((), 4 * 16),
    ],
)
def test_activations_are_guessed_from_inputs(shape: tuple[int, ...], expected: int) -> None:
    assert guess(shape) == expected


def test_what_does_not_fit_in_memory_is_not_run_for_real() -> None:
    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(10, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.embed(x)
            return y @ y.transpose(-1, -2)

    model = Scores()
    with pytest.raises(UsageError, match=r"needs values; that takes 4\.0 TB of memory or more"):
        trace(model, parse_inputs(["1,1000000"], model), statistics=True)
