"""What is told of a model without a forward pass: each fault, and the nearest model without it."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from modtool.live.lint import lint_model
from modtool.live.load import building


def told(model: nn.Module) -> list[tuple[str, str, str]]:
    return [(found.code, found.where, found.message) for found in lint_model(model)]


class Holder(nn.Module):
    """A module with whatever attributes it is given."""

    def __init__(self, **attributes: object) -> None:
        super().__init__()
        for name, value in attributes.items():
            setattr(self, name, value)


def test_a_list_of_modules_is_told_and_a_module_list_is_not() -> None:
    assert told(Holder(layers=[nn.Linear(2, 2), nn.Linear(2, 2)])) == [
        (
            "unregistered-module",
            "layers",
            "`layers` is a plain list that holds 2 modules (Linear): parameters(), state_dict() "
            "and to() do not see what is in it",
        )
    ]
    assert told(Holder(layers=nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)]))) == []


def test_a_plain_tensor_is_told_and_a_buffer_is_not() -> None:
    assert told(nn.Sequential(Holder(mean=torch.zeros(3)))) == [
        (
            "plain-tensor",
            "0.mean",
            "`mean` is a plain tensor of shape [3]: to() does not move it, and state_dict() does "
            "not save it",
        )
    ]
    (found,) = lint_model(Holder(mean=torch.zeros(3)))
    assert found.remedy == "self.register_buffer('mean', …)"
    assert told(nn.Sequential(Holder(mean=nn.Buffer(torch.zeros(3))))) == []


def test_a_plain_tensor_with_a_gradient_is_told_and_a_parameter_is_not() -> None:
    assert told(Holder(scale=torch.ones((), requires_grad=True))) == [
        (
            "plain-tensor",
            "scale",
            "`scale` is a plain tensor of shape []: requires a gradient, and parameters() does not "
            "have it: no optimizer trains it",
        )
    ]
    (found,) = lint_model(Holder(scale=torch.ones((), requires_grad=True)))
    assert found.remedy == "self.scale = nn.Parameter(…)"
    assert told(Holder(scale=nn.Parameter(torch.ones(())))) == []


def test_tensors_in_a_list_are_told_once_for_the_list() -> None:
    assert told(Holder(anchors=[torch.zeros(2), torch.zeros(2)])) == [
        (
            "plain-tensor",
            "anchors",
            "`anchors` is a plain container of 2 tensors: to() does not move it, and state_dict() "
            "does not save it",
        )
    ]


@pytest.mark.parametrize(
    "value",
    [
        torch.tensor(8.0),
        torch.ones(3, requires_grad=True) * 2,
        torch.device("cpu"),
        [1, 2],
        {"depth": 3},
        None,
    ],
    ids=["number", "result", "device", "list", "dict", "none"],
)
def test_what_needs_no_registration_is_not_told(value: object) -> None:
    assert told(Holder(value=value)) == []


def test_another_name_for_a_buffer_is_not_told() -> None:
    model = Holder(angles=nn.Buffer(torch.zeros(4)))
    model.first = model.angles  # registered, so that both are
    vars(model)["kept"] = model.angles
    assert [code for code, *_ in told(model)] == ["shared-tensor"]


class HiddenByClass(nn.Module):
    head: nn.Module | None = None

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 2)


class Annotated(nn.Module):
    head: nn.Module | None

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 2)


class WithProperty(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.add_module("_head", nn.Linear(2, 2))

    @property
    def head(self) -> nn.Module:
        return self._modules["_head"] or self


def test_a_class_attribute_that_hides_a_child_is_told() -> None:
    assert HiddenByClass().head is None  # torch registers it, and Python finds the class's first
    assert told(HiddenByClass()) == [
        (
            "shadowed-name",
            "head",
            "an attribute of the class HiddenByClass hides the child `head`: `self.head` does not "
            "give what is registered, and what state_dict() saves",
        )
    ]
    assert told(Annotated()) == []
    assert told(WithProperty()) == []


def test_an_instance_attribute_that_hides_a_parameter_is_told() -> None:
    model = nn.Linear(2, 2)
    vars(model)["weight"] = torch.ones(2, 2, requires_grad=True) * 1
    assert [(code, where) for code, where, _ in told(model)] == [("shadowed-name", "weight")]


def test_a_method_that_a_child_is_named_like_is_told() -> None:
    ((code, where, message),) = told(Holder(train=nn.Linear(2, 2)))
    assert (code, where) == ("shadowed-name", "train")
    assert message.startswith("a method of the class Module hides the child `train`")


def test_a_module_under_two_names_is_told_and_a_copy_is_not() -> None:
    layer = nn.Sequential(nn.Linear(2, 2))
    assert told(nn.Sequential(layer, nn.ReLU(), layer)) == [
        (
            "shared-module",
            "2",
            "is the same Sequential as 0: both names train and save one set of parameters",
        )
    ]
    assert told(nn.Sequential(layer, nn.ReLU(), copy.deepcopy(layer))) == []


def test_an_activation_under_two_names_is_not_told() -> None:
    activation = nn.ReLU()
    model = nn.Sequential(nn.Linear(2, 2), activation, nn.Linear(2, 2), activation)
    assert told(model) == []


def test_a_tied_weight_is_told_and_an_equal_one_is_not() -> None:
    model = Holder(embed=nn.Embedding(5, 3), head=nn.Linear(3, 5, bias=False))
    model.head.weight = model.embed.weight  # type: ignore[union-attr]
    assert told(model) == [
        (
            "shared-tensor",
            "head.weight",
            "is the same tensor as embed.weight: to train, freeze or fill one does so to both",
        )
    ]
    with torch.no_grad():
        model.head.weight = nn.Parameter(model.embed.weight.clone())  # type: ignore[union-attr, operator]
    assert told(model) == []


def test_a_child_in_train_mode_inside_a_model_in_eval_mode_is_told() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5), nn.ReLU()).eval()
    assert told(model) == []
    model[2].train()  # computes the same in both
    assert told(model) == []
    model[1].train()
    assert told(model) == [
        (
            "train-mode-child",
            "1",
            "stays in train mode while the model is in eval mode, and computes as in training",
        )
    ]


class Deaf(nn.Dropout):
    def train(self, mode: bool = True) -> "Deaf":
        return self


def test_a_child_that_eval_does_not_reach_is_told() -> None:
    (found,) = lint_model(nn.Sequential(nn.Linear(2, 2), Deaf(0.5)))
    assert (found.code, found.where) == ("train-mode-child", "1")
    assert found.remedy == "have train(mode) of the modules above pass it on"


class KeptInEval(nn.Module):
    def __init__(self, keeps: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.drop = nn.Dropout(0.5)
        self.keeps = keeps
        self.norm.eval()

    def train(self, mode: bool = True) -> "KeptInEval":
        super().train(mode)
        if self.keeps:
            self.norm.eval()
        return self


def test_a_child_in_eval_mode_that_train_undoes_is_told() -> None:
    assert told(KeptInEval(keeps=False)) == [
        (
            "eval-mode-child",
            "norm",
            "is in eval mode, and the next model.train() undoes that",
        )
    ]
    assert told(KeptInEval(keeps=True)) == []


def test_a_frozen_batch_norm_that_updates_is_told() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.ReLU(), nn.BatchNorm1d(3), nn.Linear(3, 3))
    assert told(model) == []
    model.requires_grad_(False)
    model[3].requires_grad_(True)
    assert told(model) == [
        (
            "frozen-batchnorm",
            "0",
            "frozen, but in train mode it still updates its running statistics (1 more like it: 2)",
        )
    ]
    assert told(model.eval()) == []


def test_a_parameter_of_another_type_is_told() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].bias = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    assert told(model) == [
        (
            "mixed-dtypes",
            "1.bias",
            "this tensor is float64 where 3 are float32",
        )
    ]
    assert told(model.half()) == []


def test_a_parameter_that_was_left_without_values_is_told() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, device="meta"))
    assert told(model) == [
        (
            "mixed-devices",
            "1.weight",
            "this and 1 other tensor are on the meta device: without values",
        )
    ]
    assert told(nn.Linear(2, 2, device="meta")) == []


def ignore(*_: object) -> None:
    return None


def test_a_deprecated_hook_is_told_and_a_full_one_is_not() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].register_backward_hook(ignore)
    assert "deprecated-hook" in [code for code, *_ in told(model)]
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].register_full_backward_hook(ignore)
    assert "deprecated-hook" not in [code for code, *_ in told(model)]


def test_a_hook_from_outside_is_told_and_one_of_the_models_own_is_not() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    handle = model[0].register_forward_hook(ignore)
    line = ignore.__code__.co_firstlineno
    ((code, where, message),) = told(model)
    assert (code, where) == ("leftover-hook", "0")
    assert message == (
        f"a forward hook is on it (ignore, tests/live/lint/test_structure.py:{line}), and runs in "
        "every pass"
    )
    handle.remove()
    assert told(model) == []
    assert told(WithOwnHook()) == []


class WithOwnHook(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.layer.register_forward_hook(lambda *_: None)
        self.layer.register_forward_pre_hook(self.look)

    def look(self, *_: object) -> None:
        return None


@pytest.mark.parametrize(
    "norm",
    [
        torch.nn.utils.parametrizations.weight_norm,
        torch.nn.utils.parametrizations.spectral_norm,
        torch.nn.utils.parametrizations.orthogonal,
        torch.nn.utils.spectral_norm,
        lambda layer: prune.l1_unstructured(layer, "weight", 0.5),  # type: ignore[no-untyped-call]
    ],
)
def test_reparametrised_layers_are_sound(norm: Callable[[nn.Module], nn.Module]) -> None:
    assert told(nn.Sequential(norm(nn.Linear(4, 4)))) == []


def on_two_devices() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3, device="meta"))


def test_a_layer_that_the_models_own_code_leaves_on_meta_is_told() -> None:
    with building("fake"):
        model = on_two_devices()
    found = {each.code: each for each in lint_model(model, rebuild=on_two_devices)}
    assert set(found) == {"mixed-devices", "checks-left-out"}
    assert found["mixed-devices"].where == "1.weight"
    assert found["checks-left-out"].message == (
        "the model's own code puts tensors on the meta device, without values: constant-weights "
        "passed over these, and varying-output was not checked"
    )


def test_a_layer_on_meta_is_told_of_a_model_that_is_not_built_with_values() -> None:
    def built() -> nn.Module:
        return nn.Sequential(nn.Linear(30_000, 30_000), nn.Linear(3, 3, device="meta"))

    with building("fake"):
        model = built()
    found = [(each.code, each.where) for each in lint_model(model, rebuild=built)]
    assert found == [("mixed-devices", "1.weight"), ("checks-left-out", "")]
    with building("fake"):
        model = nn.Linear(30_000, 30_000)
    found = [(each.code, each.where) for each in lint_model(model, rebuild=built)]
    assert found == [("checks-left-out", "")]


def test_a_hook_left_on_a_parameter_is_told() -> None:
    def double(gradient: torch.Tensor) -> torch.Tensor:
        return gradient * 2

    def step(parameter: torch.Tensor) -> None:
        parameter.grad = None

    layer = nn.Linear(2, 2)
    model = nn.Sequential(layer)
    handle = layer.weight.register_hook(double)  # type: ignore[no-untyped-call]
    here = "tests/live/lint/test_structure.py"
    line = double.__code__.co_firstlineno
    assert told(model) == [
        (
            "leftover-hook",
            "0.weight",
            f"a gradient hook is on it (double, {here}:{line}), and runs in every backward pass",
        )
    ]
    handle.remove()
    assert told(model) == []
    layer.bias.register_post_accumulate_grad_hook(step)  # type: ignore[no-untyped-call]
    line = step.__code__.co_firstlineno
    assert told(model) == [
        (
            "leftover-hook",
            "0.bias",
            f"a hook behind the sum of gradients is on it (step, {here}:{line}), and runs in "
            "every backward pass",
        )
    ]
