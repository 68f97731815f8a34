from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from modtool.errors import ModelError, UsageError
from modtool.live.fill import generator_for
from modtool.live.reset import reset, without_reset


def by_hand(module: Any, path: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """What a module's own method makes of it, from the random state that is its path's."""
    fresh = deepcopy(module)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator_for(path, seed).initial_seed())
        (getattr(fresh, "reset_parameters", None) or fresh._reset_parameters)()
    return dict(fresh.state_dict())


def values(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: each.clone() for name, each in model.state_dict().items()}


def changed(model: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {
        name for name, each in model.state_dict().items() if not torch.equal(each, before[name])
    }


def spoiled(model: nn.Module) -> nn.Module:
    """Every floating-point tensor moved away from where it began."""
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(1.25)
    return model


class Scaled(nn.Module):
    """Has a parameter of its own, and no way to reset it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.inner = nn.Linear(3, 3)


class Raises(nn.Linear):
    broken = False

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.broken:
            raise ValueError("no luck")


LAYERS: list[Callable[[], nn.Module]] = [
    lambda: nn.Linear(5, 3),
    lambda: nn.Conv2d(3, 4, 3),
    lambda: nn.ConvTranspose1d(3, 4, 3),
    lambda: nn.Embedding(7, 3, padding_idx=0),
    lambda: nn.LSTM(5, 4, num_layers=2, bidirectional=True),
    lambda: nn.GRUCell(5, 4),
    lambda: nn.LayerNorm(5),
    lambda: nn.BatchNorm1d(5),
    lambda: nn.Bilinear(3, 4, 5),
    lambda: nn.PReLU(3),
]


@pytest.mark.parametrize("build", LAYERS, ids=lambda build: type(build()).__name__)
def test_it_is_what_the_module_s_own_method_does(build: Callable[[], nn.Module]) -> None:
    model: Any = nn.Sequential(nn.ReLU(), spoiled(build()))
    before = values(model)
    reset(model, list(before), seed=3)
    assert changed(model, before)
    expected = by_hand(model[1], "1", seed=3)
    found = {name.removeprefix("1."): each for name, each in values(model).items()}
    assert found.keys() == expected.keys()
    assert all(torch.equal(each, expected[name]) for name, each in found.items())


def test_attention_has_a_private_method() -> None:
    model: Any = nn.Sequential(nn.MultiheadAttention(8, 2))
    spoiled(model)
    before = values(model)
    reset(model, ["0.in_proj_weight"])
    assert changed(model, before) == {"0.in_proj_weight"}
    assert torch.equal(model[0].in_proj_weight, by_hand(model[0], "0")["in_proj_weight"])


def test_only_the_named_tensors_change() -> None:
    model: Any = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    spoiled(model)
    before = values(model)
    reset(model, ["0.bias", "1.weight"])
    assert changed(model, before) == {"0.bias", "1.weight"}
    reset(model, ["1.running_mean"])
    assert changed(model, before) == {"0.bias", "1.weight", "1.running_mean"}
    assert model[1].running_mean.tolist() == [0.0] * 3


def test_order_and_company_do_not_matter() -> None:
    model: Any = nn.Sequential(nn.Linear(5, 3), nn.Linear(5, 3), nn.Conv1d(3, 3, 3))
    other = deepcopy(spoiled(model))
    reset(model, ["0.weight", "1.weight", "2.bias", "1.bias"], seed=9)
    for name in ("1.bias", "2.bias", "0.weight", "1.weight"):
        reset(other, [name], seed=9)
    assert not changed(model, values(other))
    assert not torch.equal(model[0].weight, model[1].weight)
    reset(other, ["0.weight"], seed=8)
    assert changed(model, values(other)) == {"0.weight"}


def test_the_global_random_state_is_put_back() -> None:
    model: Any = nn.Sequential(nn.Linear(5, 3))
    before = torch.get_rng_state()
    reset(model, ["0.weight"])
    assert torch.equal(torch.get_rng_state(), before)


def test_gradients_and_flags_stay() -> None:
    model: Any = nn.Sequential(nn.Linear(5, 3))
    model[0].weight.requires_grad_(False)
    identity = model[0].weight
    reset(model, ["0.weight", "0.bias"])
    assert model[0].weight is identity
    assert not model[0].weight.requires_grad
    assert model[0].bias.requires_grad
    assert model[0].bias.grad_fn is None


def test_tied_parameters_go_by_the_first_path_of_their_module() -> None:
    model: Any = nn.ModuleDict({"a": nn.Linear(4, 4), "c": nn.Linear(4, 4)})
    model["b"] = model["a"]
    spoiled(model)
    before = values(model)
    reset(model, ["b.weight"])
    assert changed(model, before) == {"a.weight", "b.weight"}
    assert torch.equal(model["b"].weight, by_hand(model["a"], "a")["weight"])


def test_what_cannot_reset_itself_is_listed_and_nothing_changes() -> None:
    model: Any = nn.Sequential(Scaled(), nn.Linear(3, 3))
    before = values(model)
    assert without_reset(model, list(before)) == ("0.scale",)
    with pytest.raises(UsageError, match=r"no reset_parameters: 0\.scale"):
        reset(model, list(before))
    assert not changed(model, before)
    reset(model, ["0.inner.weight"])
    assert changed(model, before) == {"0.inner.weight"}


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"no tensor '0\.wieght'"):
        reset(nn.Sequential(nn.Linear(3, 3)), ["0.wieght"])


def test_a_lazy_module_has_nothing_to_reset_yet() -> None:
    model: Any = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(UsageError, match="no shape before the first forward pass"):
        reset(model, ["0.weight"])


def test_an_error_of_the_module_s_own_is_told_and_the_rest_is_put_back() -> None:
    model: Any = nn.Sequential(Raises(3, 3))
    model[0].broken = True
    before = values(model)
    with pytest.raises(ModelError, match=r"0 \(Raises\): resetting it raised ValueError: no luck"):
        reset(model, ["0.weight"])
    assert changed(model, before) <= {"0.weight"}


class TestOriginals:
    """Parametrized parameters are reset through what is stored for them."""

    def test_weight_norm(self) -> None:
        model: Any = nn.Sequential(nn.Linear(5, 3))
        expected = by_hand(model[0], "0")
        parametrizations.weight_norm(spoiled(model[0]))
        reset(model, list(model.state_dict()))
        assert torch.allclose(model[0].weight, expected["weight"])
        assert torch.equal(model[0].bias, expected["bias"])
        stored = model[0].parametrizations.weight
        assert torch.equal(stored.original1, expected["weight"])
        assert torch.allclose(stored.original0, expected["weight"].norm(dim=1, keepdim=True))

    def test_only_the_chosen_original_changes(self) -> None:
        model: Any = nn.Sequential(nn.Linear(5, 3))
        parametrizations.weight_norm(spoiled(model[0]))
        before = values(model)
        reset(model, ["0.parametrizations.weight.original1"])
        assert changed(model, before) == {"0.parametrizations.weight.original1"}

    def test_spectral_norm(self) -> None:
        model: Any = nn.Sequential(nn.Linear(5, 3))
        expected = by_hand(model[0], "0")
        parametrizations.spectral_norm(spoiled(model[0]))
        before = values(model)
        reset(model, ["0.parametrizations.weight.original"])
        assert changed(model, before) == {"0.parametrizations.weight.original"}
        assert torch.equal(model[0].parametrizations.weight.original, expected["weight"])

    def test_orthogonal_stays_orthogonal(self) -> None:
        model: Any = nn.Sequential(nn.Linear(4, 4, bias=False))
        parametrizations.orthogonal(model[0])
        before = model[0].weight.clone()
        reset(model, ["0.parametrizations.weight.original"])
        weight = model[0].weight
        assert not torch.allclose(weight, before)
        assert torch.allclose(weight @ weight.T, torch.eye(4), atol=1e-6)

    def test_what_cannot_be_turned_round_takes_the_value_as_it_is(self) -> None:
        class Symmetric(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x.triu() + x.triu(1).T

        model: Any = nn.Sequential(nn.Linear(4, 4, bias=False))
        expected = by_hand(model[0], "0")["weight"]
        parametrize.register_parametrization(spoiled(model[0]), "weight", Symmetric())
        reset(model, ["0.parametrizations.weight.original"])
        assert torch.equal(model[0].parametrizations.weight.original, expected)
        assert torch.equal(model[0].weight, expected.triu() + expected.triu(1).T)

    def test_old_weight_norm(self) -> None:
        model: Any = nn.Sequential(nn.Conv1d(3, 4, 3))
        expected = by_hand(model[0], "0")
        with pytest.warns(FutureWarning, match="weight_norm"):
            nn.utils.weight_norm(spoiled(model[0]))
        reset(model, ["0.weight_g", "0.weight_v", "0.bias"])
        x = torch.ones(1, 3, 5)
        plain = nn.functional.conv1d(x, expected["weight"], expected["bias"])
        assert torch.allclose(model(x), plain, atol=1e-6)

    def test_old_spectral_norm_and_pruning(self) -> None:
        model: Any = nn.Sequential(nn.Linear(5, 3), nn.Linear(5, 3))
        expected = [by_hand(model[0], "0")["weight"], by_hand(model[1], "1")["weight"]]
        nn.utils.spectral_norm(spoiled(model[0]))
        prune.l1_unstructured(spoiled(model[1]), "weight", amount=4)  # type: ignore[no-untyped-call]
        before = values(model)
        reset(model, ["0.weight_orig", "1.weight_orig"])
        assert changed(model, before) == {"0.weight_orig", "1.weight_orig"}
        assert torch.equal(model[0].weight_orig, expected[0])
        assert torch.equal(model[1].weight_orig, expected[1])
        model[1](torch.zeros(1, 5))
        assert torch.equal(model[1].weight, expected[1] * model[1].weight_mask)
