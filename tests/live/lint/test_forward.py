"""What forward passes show: each fault, and the nearest model without it."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from modtool.live.inputs import parse_inputs
from modtool.live.lint import lint_model

HERE = "tests/live/lint/test_forward.py"


def told(model: nn.Module, *shapes: str) -> list[tuple[str, str, str]]:
    inputs = parse_inputs(shapes, model)
    return [(found.code, found.where, found.message) for found in lint_model(model, inputs)]


class Unused(nn.Module):
    def __init__(self, calls: bool) -> None:
        super().__init__()
        self.used = nn.Linear(4, 4)
        self.head = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.drop = nn.Dropout(0.5)
        self.calls = calls

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.used(x)
        return self.drop(self.head(x)) if self.calls else x


def test_modules_that_are_never_called_are_told() -> None:
    assert told(Unused(calls=False), "2,4") == [
        (
            "never-called",
            "head",
            "no pass on these inputs called it or read it, in train mode or in eval mode (1 more "
            "like it: drop)",
        )
    ]
    assert told(Unused(calls=True), "2,4") == []


class WithLabels(nn.Module):
    """Computes its own loss where it is given labels, as models of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.criterion = nn.CrossEntropyLoss(weight=torch.ones(4))

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        x = self.layer(x)
        return x if labels is None else self.criterion(x, labels)


def test_a_loss_may_wait_for_labels() -> None:
    assert told(WithLabels(), "2,4") == []
    assert told(WithLabels(), "2,4", "2:int64") == []


class InTraining(nn.Module):
    """Calls one module in train mode alone, reads another, and uses the weight of a third."""

    def __init__(self) -> None:
        super().__init__()
        self.auxiliary = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.5)
        self.tied = nn.Linear(4, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.dropout(functional.linear(x, self.tied.weight), self.drop.p, self.training)
        return self.auxiliary(x) if self.training else x


def test_modules_that_are_used_otherwise_are_not_told() -> None:
    assert told(InTraining(), "2,4") == []


class Detached(nn.Module):
    def __init__(self, detaches: bool) -> None:
        super().__init__()
        self.body = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)
        self.temperature = nn.Parameter(torch.ones(1))
        self.detaches = detaches

    def forward(self, x: torch.Tensor) -> Any:
        x = self.body(x)
        if self.detaches:
            return self.head(x.detach()) / self.temperature.detach()
        return self.head(x) / self.temperature


def test_parameters_that_no_gradient_reaches_are_told() -> None:
    assert told(Detached(detaches=True), "2,4") == [
        (
            "unused-parameters",
            "body",
            "no gradient reaches body.weight, body.bias: an optimizer leaves it as it is, and "
            "DistributedDataParallel refuses it",
        ),
        (
            "unused-parameters",
            "temperature",
            "no gradient reaches this parameter: an optimizer leaves it as it is, and "
            "DistributedDataParallel refuses it",
        ),
    ]
    assert told(Detached(detaches=False), "2,4") == []


class Arguing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(x).argmax(-1)


def test_an_output_without_any_gradient_is_told() -> None:
    assert told(Arguing(), "2,4") == [
        (
            "no-gradient",
            "",
            "no output depends on a trainable parameter",
        )
    ]
    assert told(Arguing().requires_grad_(False), "2,4") == []
    assert told(nn.ReLU(), "2,4") == []


class Dropping(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.how = how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(x)
        if self.how == "default":
            return functional.dropout(x, 0.3)
        if self.how == "zero":
            return functional.dropout(x, 0.0)
        if self.how == "heeds":
            return functional.dropout(x, 0.3, self.training)
        if self.how == "torch":
            return torch.dropout(x, 0.3, train=True)
        probability = 0.3 if self.how == "attention" or self.training else 0.0
        return functional.scaled_dot_product_attention(x, x, x, dropout_p=probability)


def line_of(text: str) -> int:
    lines = Path(__file__).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def test_functional_dropout_that_ignores_the_mode_is_told() -> None:
    line = line_of("functional.dropout(x, 0.3)")
    assert told(nn.Sequential(Dropping("default")), "2,4") == [
        (
            "dropout-in-eval",
            "0",
            f"dropout at {HERE}:{line} drops elements with probability 0.3 in eval mode too",
        )
    ]
    assert told(nn.Sequential(Dropping("heeds")), "2,4") == []
    assert told(nn.Sequential(Dropping("zero")), "2,4") == []
    assert told(Dropping("torch"), "2,4")[0][:2] == ("dropout-in-eval", "")


def test_attention_that_drops_in_eval_mode_is_told() -> None:
    ((code, where, message),) = told(Dropping("attention"), "1,2,4")
    assert (code, where) == ("dropout-in-eval", "")
    assert message.endswith("drops elements with probability 0.3 in eval mode too")
    assert told(Dropping("heeding attention"), "1,2,4") == []


class Noisy(nn.Module):
    def __init__(self, noisy: bool) -> None:
        super().__init__()
        self.noisy = noisy

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.randn_like(x) if self.noisy or self.training else x


class NoisyItself(nn.Module):
    """Adds noise in its own forward, before a layer that gives each time the same for the same."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> Any:
        return self.layer(x + torch.randn_like(x))


class Counting(nn.Module):
    steps: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        return x * self.steps


def test_a_forward_that_varies_in_eval_mode_is_told_where_it_begins() -> None:
    model = nn.Sequential(nn.Linear(4, 4), Noisy(noisy=True), nn.ReLU())
    ((code, where, message),) = told(model, "2,4")
    assert (code, where) == ("varying-output", "1")
    assert message.startswith("in eval mode, on the same inputs, its outputs differ by up to ")
    assert message.endswith(" of the largest element")
    assert told(nn.Sequential(nn.Linear(4, 4), Noisy(noisy=False), nn.ReLU()), "2,4") == []
    ((_, where, _),) = told(nn.Sequential(nn.ReLU(), NoisyItself()), "2,4")
    assert where == "1"


def test_a_forward_that_keeps_state_is_told_and_its_state_is_put_back() -> None:
    model = nn.Sequential(Counting())
    assert [(code, where) for code, where, _ in told(model, "2,4")] == [("varying-output", "0")]
    assert model[0].steps == 0


class Normed(nn.Module):
    def __init__(self, bias: bool, twice: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=bias)
        self.norm = nn.BatchNorm2d(4)
        self.twice = twice

    def forward(self, x: torch.Tensor) -> Any:
        x = self.conv(x)
        return self.norm(x) + x if self.twice else self.norm(x)


BIAS = "norm subtracts the mean of what it is given, this bias with it"


def test_a_bias_before_batch_norm_is_told() -> None:
    assert told(Normed(bias=True), "2,3,8,8") == [("bias-before-batchnorm", "conv.bias", BIAS)]
    assert told(Normed(bias=False), "2,3,8,8") == []
    assert told(Normed(bias=True, twice=True), "2,3,8,8") == []


def test_a_bias_before_batch_norm_in_a_sequence_is_told_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    expected = [("bias-before-batchnorm", "0.bias", BIAS.replace("norm", "1", 1))]
    assert [(each.code, each.where, each.message) for each in lint_model(model)] == expected
    assert told(model, "2,4") == expected
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.BatchNorm1d(4))
    assert told(model, "2,4") == []


class KeptInEval(Normed):
    """Frozen batch normalisation, whose running mean does not follow the bias before it."""

    def __init__(self, **settings: bool) -> None:
        super().__init__(bias=True)
        self.norm.requires_grad_(False)
        self.pair = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, **settings))

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        for norm in (self.norm, self.pair[1]):
            norm.eval()
        return self

    def forward(self, x: torch.Tensor) -> Any:
        return self.pair(super().forward(x))


def test_a_bias_before_a_batch_norm_that_stays_in_eval_mode_has_its_use() -> None:
    assert told(KeptInEval(), "2,3,8,8") == []
    message = BIAS.replace("norm", "pair.1", 1)
    expected = [("bias-before-batchnorm", "pair.0.bias", message)]
    assert told(KeptInEval(track_running_stats=False), "2,3,8,8") == expected


def test_a_batch_norm_that_is_given_one_value_is_told() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4), nn.ReLU())
    assert told(model, "1,4") == [
        (
            "single-value-batchnorm",
            "1",
            "given [1, 4], one value of each channel, it raises in train mode",
        )
    ]
    assert told(model, "2,4") == []
    assert told(nn.Sequential(nn.BatchNorm2d(3)), "1,3,8,8") == []


def test_a_forward_that_fails_is_told_with_its_place() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(5, 4), nn.Linear(4, 4))
    ((code, where, message),) = told(model, "2,4")
    assert (code, where) == ("forward-failed", "1")
    assert message.startswith("was given [2, 4] and failed in eval mode: RuntimeError: ")
    assert "mat1 and mat2 shapes cannot be multiplied" in message


def test_what_only_a_kernel_refuses_is_told() -> None:
    model = nn.LayerNorm(4, dtype=torch.float16)
    codes = [code for code, *_ in told(nn.Sequential(model), "2,4:float64")]
    assert codes == ["forward-failed"]


def test_some_of_a_list_that_are_never_called_are_told_once() -> None:
    class Experts(nn.Module):
        def __init__(self, used: int) -> None:
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))
            self.used = used

        def forward(self, x: torch.Tensor) -> Any:
            return sum(each(x) for each in self.experts[: self.used])

    found = told(Experts(2), "2,4")
    assert [(code, where) for code, where, _ in found] == [("never-called", "experts.2")]
    assert found[0][2].endswith("(1 more like it: experts.3)")
    assert told(Experts(4), "2,4") == []


class FailsInTraining(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            raise ValueError("no labels")
        return x


def test_a_forward_that_fails_in_train_mode_is_told() -> None:
    ((code, where, message),) = told(nn.Sequential(FailsInTraining()), "2,4")
    assert (code, where) == ("forward-failed", "0")
    assert message.startswith("was given [2, 4] and failed in train mode: ValueError: no labels")


def test_a_pass_that_reads_values_is_run_for_real() -> None:
    class Branching(Unused):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) if x.sum() > -1e9 else x

    assert [code for code, *_ in told(Branching(calls=False), "2,4")] == ["never-called"]
    assert told(Branching(calls=True), "2,4") == []


class DroppingTwice(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.dropout(x, 0.4)
        return functional.dropout(x, 0.2)


def test_a_second_dropout_of_a_module_is_told_with_its_line() -> None:
    first, second = (line_of(f"functional.dropout(x, {p})") for p in ("0.4", "0.2"))
    expected = (
        f"dropout at {HERE}:{first} drops elements with probability 0.4 in eval mode too, and 1 "
        f"more: {HERE}:{second}"
    )
    assert told(DroppingTwice(), "2,4") == [("dropout-in-eval", "", expected)]
    ((_, where, message),) = told(nn.Sequential(DroppingTwice(), DroppingTwice()), "2,4")
    assert (where, message) == ("0", f"{expected} (1 more like it: 1)")


def test_a_pass_that_takes_long_is_not_repeated_and_that_is_told() -> None:
    class Wide(Noisy):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x @ x)

    assert told(Wide(noisy=True), "5000,5000") == [
        (
            "checks-left-out",
            "",
            "varying-output was not checked: one pass takes 125,000,000,000 multiply-accumulates, "
            "more than 100,000,000,000",
        )
    ]


def test_a_lazy_model_that_cannot_be_copied_is_not_run() -> None:
    class Lonely(nn.LazyLinear):
        def __deepcopy__(self, memo: object) -> Any:
            raise RuntimeError("there is but one")

    assert told(nn.Sequential(Lonely(3)), "2,4") == [
        (
            "checks-left-out",
            "",
            "no forward pass was run: the first pass of a lazy model is run on a copy, and it "
            "cannot be copied: there is but one",
        )
    ]


class Rectified(nn.Module):
    """A layer of zeros and a ReLU; `around` is what else is made of what the layer gives."""

    def __init__(self, around: float = 0.0, bias: float = 0.0, *, inplace: bool = False) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 2)
        nn.init.zeros_(self.first.weight)
        nn.init.constant_(self.first.bias, bias)
        self.around, self.inplace = around, inplace

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        rest = self.around * x if self.around else 0
        result: torch.Tensor = self.last(functional.relu(x, inplace=self.inplace) + rest)
        return result


def test_a_layer_of_zeros_in_front_of_a_relu_never_learns() -> None:
    message = (
        "the weight of this Linear is zero, and a ReLU follows: it gives zero for every input, and "
        "no gradient reaches it, in any step"
    )
    silent = [("constant-weights", "first", message)]
    for model in (Rectified(), Rectified(bias=-1.0), Rectified(inplace=True)):
        assert told(model, "3,4") == silent
        output = model(torch.randn(3, 4)).sum()
        gradients = torch.autograd.grad(output, list(model.first.parameters()))
        assert [each.any().item() for each in gradients] == [False, False]
    zeros = Rectified().first
    assert told(nn.Sequential(zeros, nn.ReLU()), "3,4") == [("constant-weights", "0", message)]


def test_a_layer_of_zeros_may_learn_past_a_relu() -> None:
    assert told(Rectified(around=0.1), "3,4") == []
    assert told(Rectified(bias=1.0), "3,4") == []
    random = Rectified()
    nn.init.normal_(random.first.weight)
    assert told(random, "3,4") == []
