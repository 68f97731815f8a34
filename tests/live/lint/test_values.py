"""What needs the values of a model's weights."""

import itertools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import pytest
import torch
from torch import nn

from modtool.live.inputs import parse_inputs
from modtool.live.lint import lint_model
from modtool.live.load import building
from modtool.records import Note

M = TypeVar("M", bound=nn.Module)


def told(model: nn.Module) -> list[tuple[str, str, str]]:
    return [(found.code, found.where, found.message) for found in lint_model(model)]


def filled(module: M, value: float) -> M:
    for each in module.parameters():
        nn.init.constant_(each, value)
    return module


def chain(*between: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), *between, nn.Linear(4, 2))


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_two_constant_layers_in_a_row_are_told(value: float) -> None:
    assert told(filled(chain(nn.ReLU()), value)) == [
        (
            "constant-weights",
            "0",
            f"its weight is {value:g} everywhere, and that of 2 {value:g}: "
            + (
                "all its units get the same gradient and stay equal"
                if value
                else "its gradient is zero, and its units stay equal"
            ),
        )
    ]


def test_units_that_begin_equal_do_stay_equal() -> None:
    model = filled(chain(nn.Tanh()), 0.5)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        optimizer.zero_grad()
        x, y = torch.randn(8, 3, generator=generator), torch.randn(8, 2, generator=generator)
        nn.functional.mse_loss(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    weight = model.get_parameter("0.weight")
    assert torch.equal(weight, weight[:1].expand_as(weight))
    assert not torch.equal(weight, torch.full_like(weight, 0.5))


def test_one_constant_layer_learns_and_is_not_told() -> None:
    model = chain(nn.ReLU())
    filled(model[2], 0.0)
    assert told(model) == []
    model = chain(nn.ReLU())
    filled(model[0], 0.5)
    assert told(model) == []
    assert told(filled(nn.Linear(3, 1), 0.0)) == []


def test_what_makes_units_differ_is_not_told() -> None:
    model = filled(chain(nn.ReLU()), 0.5)
    nn.init.normal_(model.get_parameter("0.bias"))
    assert told(model) == []
    assert told(filled(chain(nn.ReLU(), nn.Dropout(0.5)), 0.5)) == []
    grouped = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.ReLU(), nn.Conv2d(4, 4, 1))
    assert told(filled(grouped, 0.5)) == []
    assert told(filled(nn.Sequential(nn.Linear(3, 1), nn.Linear(1, 2)), 0.5)) == []


def test_a_frozen_layer_of_zeros_is_told() -> None:
    model = chain(nn.ReLU())
    filled(model[2], 0.0).requires_grad_(False)
    assert told(model) == [
        (
            "constant-weights",
            "2",
            "the weight of this Linear is zero and frozen: nothing passes through, and no gradient "
            "reaches what comes before",
        )
    ]


class Unset(nn.Module):
    def __init__(self, made: Callable[[int], torch.Tensor]) -> None:
        super().__init__()
        self.scale = nn.Parameter(made(3))


def built_without_values(made: Callable[[int], torch.Tensor]) -> tuple[Note, ...]:
    with building("fake"):
        model = Unset(made)
    return lint_model(model, rebuild=lambda: Unset(made))


def test_a_parameter_that_nothing_fills_is_told() -> None:
    for made in (torch.empty, torch.Tensor):
        (found,) = built_without_values(made)
        assert (found.code, found.where) == ("unset-parameter", "scale")
        assert found.message == (
            "this parameter is made by torch.empty() or torch.Tensor() and never filled: it holds "
            "what was in memory before"
        )
    assert built_without_values(torch.ones) == ()
    assert built_without_values(lambda size: torch.empty(size).normal_()) == ()
    assert built_without_values(lambda size: torch.full((size,), float("nan"))) == ()


def test_what_a_plain_list_hides_is_built_with_values_too() -> None:
    class Hiding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [nn.Linear(3, 3)]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers[0](x)  # type: ignore[no-any-return]

    with building("fake"):
        model = Hiding()
    found = lint_model(model, parse_inputs(["2,3"], model), rebuild=Hiding)
    assert [each.code for each in found] == ["unregistered-module"]


def test_a_model_too_large_to_be_built_says_what_is_left_out() -> None:
    with building("meta"):
        model = nn.Linear(50_000, 50_000)

    def refused() -> nn.Module:
        raise AssertionError("built for real")

    (found,) = lint_model(model, rebuild=refused)
    assert (found.code, found.level, found.message) == (
        "checks-left-out",
        "note",
        "built without values, as they would take 2 GB or more: constant-weights, unset-parameter "
        "and varying-output were not checked",
    )


class Two(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.a = nn.Linear(3, 4)
        self.b = nn.Linear(4, 2)
        self.kind = kind

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        hidden: torch.Tensor = self.a(x)
        if self.kind == "dropped":
            hidden = nn.functional.dropout(hidden, 0.5, self.training)
        if self.kind == "viewed":
            hidden = hidden.view(len(hidden), -1).reshape(len(hidden), 4)
        if self.kind == "split":
            hidden = hidden.view(2, 2, 4)
        result: torch.Tensor = self.b(torch.relu(hidden))
        if self.kind == "returned":
            return result, hidden
        if self.kind == "used":
            return result + hidden[:, :2]
        return result


@pytest.mark.parametrize("kind", ["chained", "viewed", "split", "dropped", "returned", "used"])
def test_a_pass_shows_which_constant_layers_follow_each_other(kind: str) -> None:
    model = filled(Two(kind), 0.0)
    found = lint_model(model, parse_inputs(["4,3"], model))
    assert [(each.code, each.where) for each in found] == (
        [("constant-weights", "a")] if kind in ("chained", "viewed") else []
    )


def test_a_parameter_in_a_plain_list_is_a_parameter() -> None:
    class Hiding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p = [nn.Parameter(torch.zeros(3))]

    with building("fake"):
        model = Hiding()
    for each in (model, Hiding()):
        (found,) = lint_model(each)
        assert "that holds 1 parameter (Parameter)" in found.message


ATTENTION: dict[str, dict[str, Any]] = {
    "packed": {},
    "without biases": {"bias": False},
    "separate": {"kdim": 3, "vdim": 5},
    "with items put behind": {"add_bias_kv": True, "add_zero_attn": True},
}
INTO = ("query", "key", "value")
STUCK = "are zero, and so are the gradients of their weights, in every step"


def parts(model: nn.MultiheadAttention, name: str) -> list[torch.Tensor]:
    """What makes queries, keys or values: a weight, and a bias and an item put behind if any."""
    index = INTO.index(name)
    packed = [model.in_proj_weight, model.in_proj_bias]
    own = [getattr(model, f"{name[0]}_proj_weight"), getattr(model, f"bias_{name[0]}", None)]
    found = [whole.chunk(3)[index] for whole in packed if whole is not None]
    return found + [each for each in own if each is not None]


def attention(kind: str, zero: Iterable[str]) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    model = nn.MultiheadAttention(4, 2, batch_first=True, **ATTENTION[kind])
    with torch.no_grad():
        for each in model.parameters():
            each.normal_()
        for name in zero:
            for part in [model.out_proj.weight] if name == "out" else parts(model, name):
                part.zero_()
    return model


def learned(model: nn.MultiheadAttention) -> bool:
    """Whether no projection is zero after some steps."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        given = [torch.randn(2, 3, size) for size in (4, model.kdim, model.vdim)]
        out, _ = model(*given)
        nn.functional.mse_loss(out, torch.randn(2, 3, 4)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    weights = [part for name in INTO for part in parts(model, name) if part.dim() == 2]
    return all(bool(weight.any()) for weight in (*weights, model.out_proj.weight))


@pytest.mark.parametrize("kind", ATTENTION)
@pytest.mark.parametrize("count", range(5))
def test_attention_of_zeros_is_told_where_it_does_not_learn(kind: str, count: int) -> None:
    for zero in itertools.combinations((*INTO, "out"), count):
        model = attention(kind, zero)
        expected = []
        if {"value", "out"} <= set(zero):
            expected = [f"its value and output projections {STUCK}"]
        elif {"query", "key"} <= set(zero):
            alike = "it attends to every position alike"
            expected = [f"its query and key projections {STUCK}: {alike}"]
        assert told(model) == [("constant-weights", "", message) for message in expected]
        assert learned(model) == (not expected)


def test_attention_of_zeros_that_is_frozen_or_another_is_not_told() -> None:
    class Own(nn.MultiheadAttention):
        def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return x

    assert told(filled(Own(4, 2), 0.0)) == []
    model = attention("packed", ["query", "key"])
    assert told(model.requires_grad_(False)) == []
    model.requires_grad_(True)
    with torch.no_grad():
        model.in_proj_bias[0] = 1
    assert told(model) == []
