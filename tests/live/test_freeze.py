import copy
import io
import json
import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from modtool.errors import CorruptFileError, TargetError, UsageError
from modtool.live.freeze import (
    Applied,
    FreezePlan,
    KeepEval,
    apply_freeze,
    keep_in_eval,
    param_groups,
    plan_of,
    read_plan,
    release_from_eval,
)
from modtool.records import Checkpoint, Section, TensorInfo


class Net(nn.Module):
    """Parameters: backbone 0 (15 + 5), 1 (5 + 5), head (10, tied to `twin`; bias 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))
        self.head = nn.Linear(5, 2)
        self.twin = nn.Linear(5, 2, bias=False)
        self.twin.weight = self.head.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.backbone(x))
        return out


NAMES = [
    "backbone.0.weight",
    "backbone.0.bias",
    "backbone.1.weight",
    "backbone.1.bias",
    "head.weight",
    "head.bias",
]
BACKBONE = NAMES[:4]
PLAN = {name: name not in BACKBONE for name in NAMES}


def flags(model: nn.Module) -> dict[str, bool]:
    return {name: each.requires_grad for name, each in model.named_parameters()}


class TestApplyFreeze:
    def test_it_sets_the_flags_and_returns_what_changed(self) -> None:
        model = Net()
        assert apply_freeze(model, PLAN) == Applied(
            frozen=tuple(BACKBONE),
            tied=(("head.weight", "twin.weight"),),
            trainable=12,
            total=42,
        )
        assert flags(model) == PLAN
        again = apply_freeze(model, PLAN)
        assert (again.frozen, again.unfrozen) == ((), ())
        back = apply_freeze(model, dict.fromkeys(NAMES, True))
        assert back.unfrozen == tuple(BACKBONE)
        assert back.trainable == 42

    @given(st.lists(st.booleans(), min_size=6, max_size=6))
    def test_any_plan_is_what_the_model_has_afterwards(self, wanted: list[bool]) -> None:
        model = Net()
        plan = dict(zip(NAMES, wanted, strict=True))
        applied = apply_freeze(model, plan)
        assert flags(model) == plan
        assert set(applied.frozen) == {name for name in NAMES if not plan[name]}
        assert apply_freeze(model, dict.fromkeys(NAMES, True)).unfrozen == applied.frozen

    def test_frozen_weights_do_not_move_by_a_bit(self) -> None:
        torch.manual_seed(0)
        model = Net()
        apply_freeze(model, FreezePlan(PLAN, ("backbone.1",)))
        before = {name: each.clone() for name, each in model.state_dict().items()}
        groups = param_groups(model, {"backbone": {"lr": 1e-5}, "*": {"lr": 0.1}})
        optimizer = torch.optim.AdamW(groups, weight_decay=0.1)
        for _ in range(3):
            model.train()
            optimizer.zero_grad()
            torch.autograd.backward(model(torch.randn(4, 3)).square().sum())
            optimizer.step()
        after = model.state_dict()
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved == {"head.weight", "head.bias", "twin.weight"}

    def test_one_name_of_a_tied_parameter_is_enough(self) -> None:
        model = Net()
        plan = {name: True for name in NAMES if name != "head.weight"} | {"twin.weight": False}
        applied = apply_freeze(model, plan)
        assert applied.frozen == ("head.weight",)
        assert applied.tied == (("head.weight", "twin.weight"),)
        assert not model.twin.weight.requires_grad

    def test_tied_names_that_disagree_are_an_error(self) -> None:
        model = Net()
        with pytest.raises(UsageError, match=r"head\.weight and twin\.weight are one tied"):
            apply_freeze(model, {**PLAN, "twin.weight": False})
        assert all(flags(model).values())

    def test_unknown_names_are_an_error_with_the_nearest(self) -> None:
        model = Net()
        with pytest.raises(UsageError, match=r"the model has no heed\.bias") as caught:
            apply_freeze(model, {**PLAN, "heed.bias": False})
        assert caught.value.hint.startswith("nearest: head.bias")
        assert all(flags(model).values())

    def test_missing_names_are_an_error(self) -> None:
        model = Net()
        with pytest.raises(
            UsageError, match=r"the plan says nothing of head\.weight, head\.bias\n"
        ):
            apply_freeze(model, dict.fromkeys(BACKBONE, False))
        assert all(flags(model).values())

    def test_both_can_be_allowed(self) -> None:
        model = Net()
        plan = FreezePlan({"head.bias": False, "x.weight": False, "y": True}, ("backbone.9",))
        applied = apply_freeze(model, plan, strict=False)
        assert applied.frozen == ("head.bias",)
        assert applied.unknown == ("x.weight", "y", "backbone.9")
        assert applied.missing == tuple(NAMES[:5])
        assert applied.bn_eval == ()

    def test_long_lists_are_cut(self) -> None:
        with pytest.raises(UsageError, match=r"no x0, x1, x2, x3, x4 and 3 more\n"):
            apply_freeze(Net(), {f"x{index}": False for index in range(8)})

    def test_a_buffer_may_be_in_a_plan(self) -> None:
        model: Any = Net()
        for flag in (False, True):
            apply_freeze(model, {**PLAN, "backbone.1.running_mean": flag})
            assert flags(model) == PLAN
            assert not model.backbone[1].running_mean.requires_grad

    def test_integers_cannot_train(self) -> None:
        model = nn.Linear(2, 2)
        model.codes = nn.Parameter(torch.zeros(2, dtype=torch.int8), requires_grad=False)
        with pytest.raises(UsageError, match=r"codes is of type torch\.int8"):
            apply_freeze(model, {"weight": False, "bias": True, "codes": True})
        assert model.weight.requires_grad
        assert apply_freeze(model, {"weight": False, "bias": True, "codes": False}).trainable == 2

    @pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
    def test_a_wrapper_on_one_side_is_seen_through(self, prefix: str) -> None:
        model: nn.Module = Net()
        plan = FreezePlan({f"{prefix}{name}": flag for name, flag in PLAN.items()})
        plan = replace(plan, bn_eval=(f"{prefix}backbone.1", prefix.removesuffix(".")))
        applied = apply_freeze(model, plan)
        assert applied.frozen == tuple(BACKBONE)
        assert applied.bn_eval == ("backbone.1", "")
        assert not model.train().training

        for part in reversed(prefix.removesuffix(".").split(".")):
            model = nn.ModuleDict({part: model})
        assert apply_freeze(model, dict.fromkeys(NAMES, True)).unfrozen == tuple(
            f"{prefix}{name}" for name in BACKBONE
        )
        plan = FreezePlan(PLAN, ("backbone.1", ""))
        applied = apply_freeze(model, plan)
        assert applied.frozen == tuple(f"{prefix}{name}" for name in BACKBONE)
        assert applied.bn_eval == (f"{prefix}backbone.1", prefix.removesuffix("."))

    def test_names_of_which_one_fits_are_left_as_they_are(self) -> None:
        model = nn.ModuleDict({"module": nn.Linear(3, 2), "fc": nn.Linear(3, 2)})
        plan = {"module.weight": False, "module.bias": False}
        with pytest.raises(UsageError, match=r"says nothing of fc\.weight, fc\.bias"):
            apply_freeze(model, plan)


class TestPlans:
    def test_a_plan_file(self, tmp_path: Path) -> None:
        path = tmp_path / "plan.json"
        plan = {"schema": 1, "requires_grad": PLAN, "bn_eval": ["backbone.1"], "later": 1}
        path.write_text(json.dumps(plan))
        assert read_plan(path) == FreezePlan(PLAN, ("backbone.1",))
        model = Net()
        assert apply_freeze(model, str(path)).bn_eval == ("backbone.1",)
        assert flags(model) == PLAN

    def test_bn_eval_may_be_left_out(self, tmp_path: Path) -> None:
        path = tmp_path / "plan.json"
        path.write_text('{"schema": 1, "requires_grad": {}}')
        assert read_plan(path) == FreezePlan({})

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "is no JSON"),
            ("{", "is no JSON"),
            ("\x80", "is no JSON"),
            ("[" * 100_000, "is no JSON"),
            ("[]", "is no freeze plan"),
            ('{"schema": 1}', "is no freeze plan"),
            ('{"schema": 1, "requires_grad": []}', "is no freeze plan"),
            ('{"schema": 1, "requires_grad": {"a": 0}}', "is no freeze plan"),
            ('{"schema": 2, "requires_grad": {}}', "schema 2 is not known"),
            ('{"requires_grad": {}}', "schema None is not known"),
            ('{"schema": 1, "requires_grad": {}, "bn_eval": "bn"}', "no paths in 'bn_eval'"),
            ('{"schema": 1, "requires_grad": {}, "bn_eval": [1]}', "no paths in 'bn_eval'"),
        ],
        ids=range(12),
    )
    def test_what_is_no_plan(self, tmp_path: Path, text: str, message: str) -> None:
        path = tmp_path / "plan.json"
        path.write_text(text, encoding="latin-1")
        with pytest.raises(CorruptFileError, match=message):
            read_plan(path)

    def test_no_such_file(self, tmp_path: Path) -> None:
        with pytest.raises(TargetError, match="No such file"):
            read_plan(tmp_path / "plan.json")
        with pytest.raises(TargetError, match="directory"):
            read_plan(tmp_path)

    def test_the_plan_of_a_checkpoint_is_its_model_s(self) -> None:
        tensors = (
            TensorInfo("fc.weight", "float32", (2, 3), requires_grad=False, section="model"),
            TensorInfo("fc.bias", "float32", (2,), requires_grad=True, section="model"),
            TensorInfo("m", "float32", (2,), requires_grad=False, role="buffer", section="model"),
            TensorInfo("other", "float32", (2,), section="model"),
            TensorInfo("fc.bias", "float32", (2,), requires_grad=False, section="ema"),
        )
        sections = (Section("model", "model"), Section("ema", "ema"))
        checkpoint = Checkpoint("a.pth", "torch-zip", "checkpoint", tensors, sections=sections)
        recorded = replace(checkpoint, root={"bn_eval": ["bn"]})
        plan = plan_of(recorded)
        assert plan == FreezePlan({"fc.weight": False, "fc.bias": True}, ("bn",))

    def test_a_plain_state_dict_records_nothing(self) -> None:
        tensors = (TensorInfo("fc.weight", "float32", (2, 3)),)
        with pytest.raises(TargetError, match=r"a\.pth does not record what is frozen"):
            plan_of(Checkpoint("a.pth", "torch-zip", "state_dict", tensors))


class TestKeepEval:
    def test_it_outlasts_train(self) -> None:
        model: Any = Net()
        applied = apply_freeze(model, FreezePlan(PLAN, ("backbone.1",)))
        assert applied.bn_eval == ("backbone.1",)
        assert not model.backbone[1].training
        assert model.train() is model
        assert [each.training for each in model.modules()] == [True, True, True, False, True, True]
        model.backbone.train()
        assert model.backbone[1].train() is model.backbone[1]
        assert not model.backbone[1].training
        before = model.backbone[1].running_mean.clone()
        model(torch.randn(8, 3))
        assert torch.equal(model.backbone[1].running_mean, before)
        assert not any(each.training for each in model.eval().modules())

    def test_it_holds_everything_below(self) -> None:
        model = Net()
        keep_in_eval(model, ["backbone"])
        model.train()
        assert [each.training for each in model.modules()] == [
            True,
            False,
            False,
            False,
            True,
            True,
        ]

    def test_a_class_s_own_train_is_respected(self) -> None:
        class Counting(nn.BatchNorm1d):
            modes: list[bool]

            def train(self, mode: bool = True) -> "Counting":
                self.modes = [*getattr(self, "modes", []), mode]
                return super().train(mode)

        model = nn.Sequential(Counting(3))
        keep_in_eval(model, ["0"])
        model.train()
        assert model[0].modes == [False, False]

    @pytest.mark.parametrize("how", ["deepcopy", "pickle", "torch.save"])
    def test_copies_keep_it_for_themselves(self, how: str) -> None:
        model = Net()
        keep_in_eval(model, ["backbone.1"])
        twin = copied(model, how)
        assert twin.backbone[1].train.module is twin.backbone[1]
        twin.train()
        assert not twin.backbone[1].training
        assert twin.backbone[0].training
        assert release_from_eval(twin) == ("backbone.1",)
        twin.train()
        assert twin.backbone[1].training
        assert not model.train().backbone[1].training

    def test_the_state_dict_knows_nothing_of_it(self) -> None:
        model = Net()
        keys = list(model.state_dict())
        keep_in_eval(model, ["backbone.1"])
        assert list(model.state_dict()) == keys
        assert repr(model) == repr(Net())

    def test_twice_is_once(self) -> None:
        model = Net()
        keep_in_eval(model, ["backbone.1", "backbone.1"])
        assert isinstance(vars(model.backbone[1])["train"], KeepEval)
        assert release_from_eval(model) == ("backbone.1",)
        assert release_from_eval(model) == ()

    def test_release_by_path(self) -> None:
        model = Net()
        keep_in_eval(model, ["backbone.1", "head"])
        assert release_from_eval(model, ["head"]) == ("head",)
        model.train()
        assert model.head.training
        assert not model.backbone[1].training


def copied(model: nn.Module, how: str) -> Any:
    if how == "deepcopy":
        return copy.deepcopy(model)
    if how == "pickle":
        return pickle.loads(pickle.dumps(model))
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def named(model: nn.Module, groups: list[dict[str, Any]]) -> list[list[str]]:
    names = {id(each): name for name, each in model.named_parameters()}
    return [[names[id(each)] for each in group["params"]] for group in groups]


class TestParamGroups:
    def test_the_first_group_that_matches_has_it(self) -> None:
        model = Net()
        groups = param_groups(model, {"backbone": {"lr": 1e-5}, "*": {"lr": 1e-3}})
        assert named(model, groups) == [BACKBONE, ["head.weight", "head.bias"]]
        assert [set(group) for group in groups] == [{"params", "lr"}] * 2
        assert [group["lr"] for group in groups] == [1e-5, 1e-3]
        optimizer = torch.optim.SGD(groups)
        assert [len(group["params"]) for group in optimizer.param_groups] == [4, 2]

    def test_the_order_of_the_groups_decides(self) -> None:
        model = Net()
        bias, head = {"*.bias": {"lr": 1e-3}}, {"head": {"lr": 1e-5}}
        rest: dict[str, Any] = {"*": {}}
        assert named(model, param_groups(model, bias | head | rest))[1] == ["head.weight"]
        assert named(model, param_groups(model, head | bias | rest))[0] == [
            "head.weight",
            "head.bias",
        ]

    def test_frozen_parameters_and_empty_groups_are_left_out(self) -> None:
        model = Net()
        apply_freeze(model, PLAN)
        groups = param_groups(model, {"backbone": {"lr": 1e-5}, "*": {"lr": 1e-3}})
        assert named(model, groups) == [["head.weight", "head.bias"]]

    def test_the_whole_grammar(self) -> None:
        model = Net()
        groups = param_groups(
            model,
            {
                "type:BatchNorm1d": {"weight_decay": 0.0},
                "re:\\.bias$": {"lr": 1.0},
                ("*", "!head"): {"lr": 2.0},
                "head": {"lr": 3.0},
            },
        )
        assert named(model, groups) == [
            ["backbone.1.weight", "backbone.1.bias"],
            ["backbone.0.bias", "head.bias"],
            # A tied parameter is matched by any of its names: by `twin.weight` here.
            ["backbone.0.weight", "head.weight"],
        ]

    def test_types_are_those_of_the_layer_that_is_parametrized(self) -> None:
        model = nn.Sequential(nn.Linear(3, 4), nn.Conv1d(1, 2, 3))
        nn.utils.parametrizations.weight_norm(model[0])
        groups = param_groups(model, {"type:Linear": {"lr": 1.0}, "type:Conv1d": {"lr": 2.0}})
        assert named(model, groups) == [
            [
                "0.bias",
                "0.parametrizations.weight.original0",
                "0.parametrizations.weight.original1",
            ],
            ["1.weight", "1.bias"],
        ]

    @given(st.lists(st.sampled_from(["backbone", "head", "*.bias", "backbone.*"]), unique=True))
    def test_each_parameter_is_in_exactly_one_group(self, patterns: list[str]) -> None:
        model = Net()
        groups = param_groups(model, {**{pattern: {} for pattern in patterns}, "*": {}})
        assert sorted(name for group in named(model, groups) for name in group) == sorted(NAMES)
        assert sum(math.prod(each.shape) for group in groups for each in group["params"]) == 42

    def test_a_pattern_that_matches_nothing_is_an_error(self) -> None:
        with pytest.raises(UsageError, match="no name matches 'bakbone'") as caught:
            param_groups(Net(), {"bakbone": {"lr": 1e-5}, "*": {"lr": 1e-3}})
        assert "backbone" in caught.value.hint

    def test_parameters_in_no_group_are_an_error(self) -> None:
        with pytest.raises(UsageError, match=r"in no group: head\.weight, head\.bias\n"):
            param_groups(Net(), {"backbone": {"lr": 1e-5}})

    def test_nothing_to_train_is_an_error(self) -> None:
        with pytest.raises(UsageError, match="no parameter of the model trains"):
            param_groups(Net().requires_grad_(False), {"*": {}})

    def test_params_cannot_be_an_option(self) -> None:
        with pytest.raises(UsageError, match="cannot set 'params'"):
            param_groups(Net(), {"*": {"params": []}})


def normed() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.BatchNorm1d(2, affine=False))


def plan_for(model: nn.Module, *, train: bool, kept: tuple[str, ...] = ()) -> FreezePlan:
    return FreezePlan({name: train for name, _ in model.named_parameters()}, kept)


class TestLaterPlans:
    def test_it_lifts_eval_from_what_it_does_not_keep(self) -> None:
        model = normed()
        apply_freeze(model, plan_for(model, train=False, kept=("1", "2")))
        done = apply_freeze(model, plan_for(model, train=True, kept=("1",)))
        assert (done.bn_eval, done.released) == (("1",), ("2",))
        assert [each.training for each in model] == [True, False, True]
        assert apply_freeze(model, plan_for(model, train=True)).released == ("1",)
        assert all(each.training for each in model)
        assert not any("train" in vars(each) for each in model)

    def test_it_leaves_what_it_does_not_speak_of(self) -> None:
        model = nn.ModuleDict({"a": normed(), "b": normed()})
        apply_freeze(model, plan_for(model, train=False, kept=("a.1", "b.1", "a.2", "b.2")))
        part = {name: True for name, _ in model.named_parameters() if name.startswith("a.")}
        assert apply_freeze(model, part, strict=False).released == ("a.1", "a.2")
        model.train()
        assert [each.training for each in model["b"].children()] == [True, False, False]

    def test_a_released_module_stays_in_the_eval_mode_of_the_model(self) -> None:
        model = normed()
        apply_freeze(model, plan_for(model, train=False, kept=("1",)))
        model.eval()
        apply_freeze(model, plan_for(model, train=True))
        assert not model[1].training
        assert model.train()[1].training


class TestLoadedSources:
    def test_a_loaded_checkpoint_is_as_good_as_its_file(self) -> None:
        model = normed()
        flags = {"0.weight": True, "0.bias": True, "1.weight": False, "1.bias": False}
        loaded = {"model": model.state_dict(), "requires_grad": flags, "bn_eval": ["1"]}
        done = apply_freeze(model, loaded)
        assert (done.frozen, done.bn_eval) == (("1.weight", "1.bias"), ("1",))

    def test_a_state_dict_is_no_plan(self) -> None:
        model = normed()
        with pytest.raises(
            UsageError, match=r"'0\.weight' is no parameter name -> bool, but a Ten"
        ):
            apply_freeze(model, model.state_dict())

    @pytest.mark.filterwarnings("ignore")
    def test_torchscript_cannot_be_kept_in_eval(self) -> None:
        model = torch.jit.trace(normed(), torch.ones(3, 2), check_trace=False)  # type: ignore[no-untyped-call]
        with pytest.raises(UsageError, match="a TorchScript module cannot be kept in eval mode"):
            apply_freeze(model, plan_for(model, train=False, kept=("1",)))
        assert all(each.requires_grad for each in model.parameters())
        apply_freeze(model, plan_for(model, train=False))
        assert not any(each.requires_grad for each in model.parameters())


class TestRefusedGroups:
    def test_options_that_are_no_mapping(self) -> None:
        groups: Any = {"*": 1e-3}
        with pytest.raises(UsageError) as caught:
            param_groups(normed(), groups)
        assert str(caught.value).startswith("'*': a group's options are a dict, not 0.001")

    def test_a_group_inside_an_earlier_one(self) -> None:
        groups = {"*": {"lr": 1e-3}, "0": {"lr": 1e-5}}
        with pytest.raises(UsageError, match=r"'0' gets no parameter: '\*', which comes before"):
            param_groups(normed(), groups)

    def test_a_rest_of_nothing_is_left_out(self) -> None:
        groups = {"0": {"lr": 1e-5}, "1": {"lr": 1e-4}, "*": {"lr": 1e-3}}
        assert [group["lr"] for group in param_groups(normed(), groups)] == [1e-5, 1e-4]
