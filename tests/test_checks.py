"""What each check of a checkpoint finds, in files that torch and safetensors wrote."""

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import save_file
from torch import nn

from modtool.api.checking import check
from modtool.records import Note

OPTIMIZERS: list[Callable[..., torch.optim.Optimizer]] = [
    torch.optim.Adam,
    lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    torch.optim.RMSprop,
    torch.optim.Adagrad,
    torch.optim.Adadelta,
    torch.optim.Adamax,
    torch.optim.Rprop,
    torch.optim.ASGD,
    torch.optim.Adafactor,
]


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(tmp_path / "x.pth")


def found(path: str, **asked: object) -> list[Note]:
    return list(check(path, **asked).findings)  # type: ignore[arg-type]


def told(path: str, **asked: object) -> list[tuple[str, str, str]]:
    return [(note.code, note.where, note.message) for note in found(path, **asked)]


def trained(model: nn.Module, make: Callable[..., torch.optim.Optimizer]) -> torch.optim.Optimizer:
    optimizer = make(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


# -- optimizer ---------------------------------------------------------------------------------


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_an_optimizer_of_the_model_fits(
    file: str, make: Callable[..., torch.optim.Optimizer]
) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 4))
    state = {"model": model.state_dict(), "optimizer": trained(model, make).state_dict()}
    torch.save(state, file)
    assert told(file) == []


def test_groups_in_another_order_and_frozen_parameters_fit(file: str) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 4))
    model[0].bias.requires_grad_(False)
    groups = [{"params": [model[1].bias]}, {"params": [model[1].weight, model[0].weight]}]
    optimizer = torch.optim.Adam(groups)
    torch.autograd.backward(model(torch.ones(2, 4)).sum())
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    assert told(file) == []


def test_an_optimizer_that_keeps_lists_fits(file: str) -> None:
    model = nn.Linear(4, 3)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=8)

    def closure() -> float:
        optimizer.zero_grad()
        loss = (model(torch.eye(4)) - torch.eye(4, 3)).pow(2).sum()
        torch.autograd.backward(loss)
        return float(loss.item())

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    state = optimizer.state_dict()
    assert len(state["state"][0]["old_dirs"]) > 2
    torch.save({"model": model.state_dict(), "optimizer": state}, file)
    assert told(file) == []


def test_tied_weights_are_one_parameter_of_the_optimizer(file: str) -> None:
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False))
    model[1].weight = model[0].weight
    state = {
        "model": model.state_dict(),
        "optimizer": trained(model, torch.optim.Adam).state_dict(),
    }
    torch.save(state, file)
    assert told(file) == []


@pytest.mark.parametrize("make", OPTIMIZERS[:-1])
def test_an_optimizer_of_other_shapes_does_not_fit(
    file: str, make: Callable[..., torch.optim.Optimizer]
) -> None:
    model, wider = nn.Linear(4, 3), nn.Linear(5, 3)
    torch.save({"model": model.state_dict(), "optimizer": trained(wider, make).state_dict()}, file)
    message = "state of shape [3, 5] for 1 parameter (number 0 first), and the model has 0 of "
    assert told(file) == [("optimizer-mismatch", "optimizer", f"{message}that shape")]


def test_an_optimizer_may_be_of_one_of_two_models_or_of_both(file: str) -> None:
    g, d = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), nn.Sequential(nn.Linear(7, 4))
    both = trained(nn.ModuleList([g, d]), torch.optim.Adam).state_dict()
    of_g, of_d = (trained(each, torch.optim.Adam).state_dict() for each in (g, d))
    state_g, state_d = g.state_dict(), d.state_dict()
    optimizers = {"opt_g": of_g, "opt_d": of_d, "opt_both": both}
    torch.save({"netG": state_g, "netD": state_d, **optimizers}, file)
    assert told(file) == []
    nested = {"model": state_g, "optimizer": of_g}, {"model": state_d, "optimizer": of_d}
    torch.save({"generator": nested[0], "discriminator": nested[1]}, file)
    assert told(file) == []
    torch.save({"model": state_g, "criterion": state_d, "optimizer": both}, file)
    assert told(file) == []
    of_other = trained(nn.Linear(5, 3), torch.optim.Adam).state_dict()
    torch.save({"netG": state_g, "netD": state_d, "opt_g": of_g, "opt_d": of_other}, file)
    message = "state of shape [3, 5] for 1 parameter (number 0 first), and the model has 0 of "
    assert told(file) == [("optimizer-mismatch", "opt_d", f"{message}that shape")]


def test_states_by_name_may_be_of_one_of_two_models(file: str) -> None:
    g, d = nn.Linear(3, 4), nn.Linear(7, 4)
    states = [
        {"state": {name: {"exp_avg": torch.zeros_like(each)} for name, each in state.items()}}
        for state in (g.state_dict(), d.state_dict())
    ]
    models = {"netG": g.state_dict(), "netD": d.state_dict()}
    torch.save({**models, "opt_g": states[0], "opt_d": states[1]}, file)
    assert told(file) == []


def test_groups_that_list_too_many(file: str) -> None:
    model, deeper = nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = torch.optim.Adam(deeper.parameters())
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    message = "its groups list 4 parameters, and the model has 2"
    assert told(file) == [("optimizer-mismatch", "optimizer", message)]


def test_states_by_name_are_compared_by_name(file: str) -> None:
    model = nn.Linear(4, 3)
    moments = {"weight": torch.zeros(4, 3), "bias": torch.zeros(3), "gone": torch.zeros(3)}
    del moments["bias"]
    state = {name: {"exp_avg": moment} for name, moment in moments.items()}
    torch.save({"model": model.state_dict(), "optimizer": {"state": state}}, file)
    assert [message for _, _, message in told(file)] == [
        "state for gone, which the model does not have",
        "state of shape [4, 3] for weight, which has shape [3, 4]",
    ]


# -- structure ---------------------------------------------------------------------------------


def test_a_model_that_was_saved_in_train_mode(file: str) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(), nn.ReLU())
    torch.save(model, file)
    message = "BatchNorm1d, Dropout saved in train mode: 1, 2"
    assert told(file) == [("saved-in-train-mode", "1", message)]
    torch.save(model.eval(), file)
    assert told(file) == []
    torch.save(nn.Linear(2, 2), file)  # does the same in both modes
    assert told(file) == []


def test_a_prefix_counts_where_a_name_part_begins(file: str) -> None:
    torch.save({"submodule.w": torch.zeros(1), "a._orig_mod.w": torch.zeros(1)}, file)
    message = "1 of 2 names contains '_orig_mod.', which torch.compile puts there"
    assert told(file) == [("wrapped-names", "a._orig_mod.w", message)]


def keep_output(module: nn.Module, given: object, result: torch.Tensor) -> None:
    module.kept = result


class Watching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.utils.spectral_norm(nn.Linear(2, 2))
        self.layer.register_forward_hook(self.look)
        self.layer.register_forward_hook(Watching.glance)

    def look(self, *given: object) -> None: ...

    @staticmethod
    def glance(*given: object) -> None: ...


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hook_that_was_saved_with_a_model(file: str, zipped: bool) -> None:
    model = nn.Sequential(Watching(), nn.Linear(2, 2)).eval()

    def hooks() -> list[tuple[str, str, str]]:
        torch.save(model, file, _use_new_zipfile_serialization=zipped)
        return [each for each in told(file) if each[0] == "leftover-hook"]

    assert hooks() == []
    model[1].register_forward_hook(keep_output)
    model[1].register_full_backward_pre_hook(partial(keep_output, result=torch.zeros(1)))
    message = "was saved with it (tests.test_checks.keep_output), and runs in every pass"
    assert hooks() == [
        ("leftover-hook", "1", f"a forward hook {message}"),
        ("leftover-hook", "1", f"a backward pre-hook {message}"),
    ]


def test_safetensors_without_a_framework(tmp_path: Path) -> None:
    path = str(tmp_path / "x.safetensors")
    save_file({"w": torch.zeros(1)}, path)
    assert [note.code for note in found(path)] == ["missing-metadata"]
    save_file({"w": torch.zeros(1)}, path, metadata={"format": "pt"})
    assert found(path) == []


def shards(folder: Path, weight_map: dict[str, str], files: dict[str, list[str]]) -> str:
    for file, names in files.items():
        save_file({name: torch.zeros(2) for name in names}, folder / file, {"format": "pt"})
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    return str(index)


def test_a_set_with_missing_extra_and_doubled_tensors(tmp_path: Path) -> None:
    one, two, three = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2, 3))
    index = shards(
        tmp_path,
        {"a": one, "b": two, "lost": two},
        {one: ["a", "b"], two: ["b", "more"], three: ["old"]},
    )
    assert told(index) == [
        ("repeated-tensor", two, f"{two} has once more: b"),
        ("missing-tensor", two, f"the index lists lost in {two}, which lacks it"),
        ("unlisted-shard", three, f"{three}: beside a set of 2, and not of it"),
        ("unlisted-tensor", two, f"{two} has more, which the index does not list"),
    ]


@pytest.mark.parametrize(
    ("total", "told_as"),
    [(16, None), (16.0, None), ("16", None), (99, "99"), (0, "0"), ("x" * 99, "x" * 40)],
)
def test_an_index_of_another_size(tmp_path: Path, total: object, told_as: str | None) -> None:
    one, two = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
    index = Path(shards(tmp_path, {"a": one, "b": two}, {one: ["a"], two: ["b"]}))
    assert told(str(index)) == []
    text = json.loads(index.read_text())
    index.write_text(json.dumps({**text, "metadata": {"total_size": total}}))
    message = f"the index says total_size {told_as}, and its tensors take 16 bytes"
    expected = [("wrong-total-size", index.name, message)] if told_as else []
    assert told(str(index)) == expected
    (tmp_path / two).unlink()  # what is missing is told alone
    assert [code for code, _, _ in told(str(index))] == ["missing-shard"]


@pytest.mark.parametrize("safe", [True, False])
def test_the_size_that_others_write_is_right(tmp_path: Path, safe: bool) -> None:
    embedding = torch.randn(50, 4)
    state = {"in": embedding, "w": torch.randn(40, 4), "out": embedding, "h": torch.ones(9).half()}
    save_torch_state_dict(state, tmp_path, max_shard_size=700, safe_serialization=safe)
    (index,) = tmp_path.glob("*.index.json")
    assert json.loads(index.read_text())["metadata"]["total_size"] == 1458
    assert [code for code, _, _ in told(str(index))] == []


def test_a_tensor_in_another_file_than_the_index_says(tmp_path: Path) -> None:
    one, two = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
    index = shards(tmp_path, {"a": one, "b": two, "c": two}, {one: ["a", "b"], two: ["c"]})
    message = f"the index lists b in {two}, which lacks it: {one} has it"
    assert told(index) == [("missing-tensor", two, message)]


def test_a_set_that_is_whole(tmp_path: Path) -> None:
    one, two = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
    assert told(shards(tmp_path, {"a": one, "b": two}, {one: ["a"], two: ["b"]})) == []


# -- --model -----------------------------------------------------------------------------------


def test_whether_a_definition_loads_it(tmp_path: Path, file: str) -> None:
    model = nn.Linear(4, 3)
    torch.save(model.state_dict(), file)
    assert told(file, model=model) == []
    torch.save({f"module.{name}": value for name, value in model.state_dict().items()}, file)
    refusal = next(note for note in found(file, model=model) if note.code == "does-not-load")
    assert (refusal.level, refusal.message) == (
        "error",
        "load_state_dict of Linear would refuse it: 2 missing (weight, bias); "
        "2 unexpected (module.weight, module.bias)",
    )
    assert refusal.remedy == (
        f"modtool convert {file} --strip-prefix module. -o {tmp_path}/x_fixed.pth"
    )
    assert told(file, model=nn.Linear(4, 3), select=["cast"]) == []


def test_a_definition_of_another_shape(file: str) -> None:
    torch.save(nn.Linear(4, 5).state_dict(), file)
    assert [message for _, _, message in told(file, model=nn.Linear(4, 3))] == [
        "load_state_dict of Linear would refuse it: "
        "2 mismatched (weight [5, 4] for [3, 4], bias [5] for [3])"
    ]


def test_a_definition_of_another_dtype(file: str) -> None:
    torch.save(nn.Linear(4, 3).bfloat16().state_dict(), file)
    message = "load_state_dict would cast 2 to the model's dtype: weight, bias"
    assert told(file, model=nn.Linear(4, 3)) == [("cast-on-load", "", message)]


# -- --values ----------------------------------------------------------------------------------


def values(file: str, **tensors: torch.Tensor) -> list[tuple[str, str, str]]:
    torch.save(tensors, file)
    return told(file, values=True)


def test_odd_values_are_counted(file: str) -> None:
    odd = torch.tensor([1.0, math.nan, math.inf, -math.inf, math.nan])
    assert values(file, fine=torch.arange(5.0), odd=odd) == [
        ("nan-values", "odd", "2 of 5 elements are NaN"),
        ("infinite-values", "odd", "2 of 5 elements are infinite"),
    ]


def test_zero_constant_and_subnormal(file: str) -> None:
    tiny = torch.tensor([1.0, 1e-40, 0.0])
    assert values(file, z=torch.zeros(3), one=torch.ones(2, 2), tiny=tiny, s=torch.zeros(())) == [
        ("zero-tensors", "z", "zero everywhere: z"),
        ("constant-tensors", "one", "one value everywhere: one (1)"),
        ("subnormal-values", "tiny", "1 subnormal number: tiny (1)"),
    ]


def test_what_repeats_is_counted_as_often_as_it_repeats(file: str) -> None:
    row = torch.tensor([1.0, math.nan])
    found = values(
        file,
        ones=torch.ones(1).expand(100),
        rows=row.expand(50, 2),
        zero=torch.zeros(()).expand(3, 3),
        none=torch.ones(1).expand(0),
        one=torch.ones(1).expand(1),
        tiny=torch.tensor([1e-40, 1.0]).expand(3, 2),
        steps=torch.arange(3.0).expand(4, 3),
    )
    assert found == [
        ("nan-values", "rows", "50 of 100 elements are NaN"),
        ("zero-tensors", "zero", "zero everywhere: zero"),
        ("constant-tensors", "ones", "one value everywhere: ones (1)"),
        ("subnormal-values", "tiny", "3 subnormal numbers: tiny (3)"),
    ]


def test_copies_are_told_and_ties_are_not(file: str) -> None:
    weight = torch.randn(40, 50)
    other = weight.clone()
    other[0, 0], other[0, 1] = weight[0, 1], weight[0, 0]  # the same numbers elsewhere
    assert values(file, a=weight, tied=weight, copy=weight.clone(), other=other) == [
        ("equal-copies", "copy", "the same 8,000 bytes as a, stored once more")
    ]
    rows = {name: torch.arange(2000.0).expand(3, 2000) for name in "ab"}
    assert values(file, **rows) == [
        ("equal-copies", "b", "the same 8,000 bytes as a, stored once more")
    ]
    assert values(file, **{name: torch.arange(9.0).expand(999, 9) for name in "ab"}) == []
    turned = weight.t().contiguous().t()
    assert values(file, a=weight, turned=turned) == []  # other bytes
    small = torch.randn(10)
    assert values(file, a=small, b=small.clone()) == []
    assert [code for code, _, _ in values(file, a=torch.ones(2000), b=torch.ones(2000))] == [
        "constant-tensors"
    ]


@pytest.mark.parametrize("number", [65519.0, 65520.0, 1e5, 3.38e38, 3.3961775e38, 3.4e38])
def test_what_overflows_is_what_torch_makes_infinite(file: str, number: float) -> None:
    value = torch.tensor([number, 1.0])
    codes = {code for code, _, _ in values(file, w=value)}
    expected = {"fp16": value.half(), "bf16": value.bfloat16()}
    assert codes == {f"overflows-{name}" for name, cast in expected.items() if cast.isinf().any()}


def test_the_state_of_an_optimizer_may_be_large(file: str) -> None:
    state = {0: {"step": torch.tensor([1e6, 1.0])}}
    torch.save({"model": {"w": torch.randn(3)}, "optimizer": {"state": state}}, file)
    assert told(file, values=True) == []


def test_what_cannot_be_looked_at_is_named(file: str) -> None:
    sparse = torch.eye(3).to_sparse()
    assert values(file, s=sparse) == [
        ("values-not-read", "s", "elements that were not looked at: s")
    ]
