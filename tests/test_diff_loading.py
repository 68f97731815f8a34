"""A model and a checkpoint: what is said of load_state_dict, against load_state_dict itself."""

import shlex
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from modtool.api.checking import check
from modtool.api.diffing import diff
from modtool.cli import run
from modtool.diffs import Fit
from modtool.errors import UsageError
from modtool.formats import open_checkpoint
from modtool.live.weights import load_weights

State = dict[str, torch.Tensor]


SPARSE = "not copied into a plain tensor: save its to_dense()"
FITS = Fit("a", 0, 0, 0, fixed=True)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 6))
        self.head = nn.Linear(6, 3)
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("scratch", torch.ones(2), persistent=False)


def state() -> State:
    torch.manual_seed(0)
    return Net().state_dict()


def fit_of(path: Path | str) -> Fit:
    found = diff(Net(), path)
    assert found.fit is not None
    assert found.fit == replaced_side(diff(path, Net()).fit)
    return found.fit


def replaced_side(fit: Fit | None) -> Fit:
    assert fit is not None
    assert fit.model == "b"
    return replace(fit, model="a")


def loads(state: State) -> bool:
    try:
        Net().load_state_dict(state)
    except RuntimeError:
        return False
    return True


def test_what_fits(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "x.pth")
    assert fit_of(tmp_path / "x.pth") == FITS
    assert diff(Net(), tmp_path / "x.pth").same
    assert not diff(Net(), tmp_path / "x.pth").compared


def test_another_dtype_is_cast_and_told(tmp_path: Path) -> None:
    save_file({name: value.half() for name, value in state().items()}, tmp_path / "x.safetensors")
    found = diff(Net(), tmp_path / "x.safetensors")
    assert found.same
    assert [note.code for note in found.notes] == ["cast-on-load"]


BROKEN: dict[str, Callable[[State], object]] = {
    "DataParallel": lambda s: {f"module.{name}": value for name, value in s.items()},
    "compiled": lambda s: {f"module._orig_mod.{name}": value for name, value in s.items()},
    "compiled inside": lambda s: {
        name.replace("encoder.", "encoder._orig_mod."): value for name, value in s.items()
    },
    "a prefix too few": lambda s: (
        {name.removeprefix("encoder."): value for name, value in s.items() if "encoder" in name}
        | {name: value for name, value in s.items() if "encoder" not in name}
    ),
    "renamed": lambda s: {
        name.replace("encoder", "backbone").replace("head", "classifier"): value
        for name, value in s.items()
    },
    "old norms": lambda s: {
        name.replace("1.weight", "1.gamma").replace("1.bias", "1.beta"): value
        for name, value in s.items()
    },
    "profiled": lambda s: {**s, "total_ops": torch.zeros(1), "head.total_params": torch.zeros(1)},
    "nested": lambda s: {"state_dict": {f"model.{n}": v for n, v in s.items()}, "epoch": 2},
    "nested and right": lambda s: {"model": s, "epoch": 2},
}


@pytest.mark.parametrize("how", BROKEN)
def test_the_command_that_is_suggested_makes_it_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.chdir(tmp_path)
    right = state()
    broken = BROKEN[how](dict(right))
    torch.save(broken, "my ckpt.pth")
    fit = fit_of("my ckpt.pth")
    assert fit.fixed
    assert fit.fix is not None
    assert fit.loads == (how == "nested and right")
    words = shlex.split(fit.fix)
    assert words[:3] == ["modtool", "convert", "my ckpt.pth"]
    assert run(words[1:]) == 0
    fixed = torch.load("my ckpt_fixed.pth")
    Net().load_state_dict(fixed)
    assert all(torch.equal(fixed[name], value) for name, value in right.items())
    assert fit_of("my ckpt_fixed.pth") == FITS


def test_a_model_in_a_wrapper_gets_the_prefix_that_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(state(), "x.pth")
    wrapped = nn.ModuleDict({"net": Net()})
    found = diff(wrapped, "x.pth")
    assert found.fit is not None
    assert found.fit.fix == "modtool convert x.pth --add-prefix net. -o x_fixed.pth"
    assert run(shlex.split(found.fit.fix)[1:]) == 0
    wrapped.load_state_dict(torch.load("x_fixed.pth"))


def test_reasons(tmp_path: Path) -> None:
    broken = state()
    broken["encoder.0.weight"] = broken["encoder.0.weight"].t().contiguous()
    broken["head.weight"] = torch.zeros(5, 6)
    broken["head.bias"] = torch.zeros(1, 3)
    del broken["scale"]
    torch.save(broken, tmp_path / "x.pth")
    found = diff(Net(), tmp_path / "x.pth")
    assert {pair.name: pair.reason for pair in found.pairs if pair.differs} == {
        "encoder.0.weight": "transposed, as Conv1D and TensorFlow keep it: "
        "no option turns it round",
        "head.weight": "other classes, another vocabulary or width: dimension 0",
        "head.bias": "the same elements in another shape",
    }
    fix = "--drop encoder.0.weight --drop head.weight --drop head.bias"
    place = tmp_path / "x"
    assert found.fit == Fit(
        "a", 1, 0, 3, fix=f"modtool convert {place}.pth {fix} -o {place}_fixed.pth"
    )


REFUSED: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str, str]] = {
    "meta": (lambda full: full.to("meta"), "device", "without values: saved from the meta device"),
    **{
        layout: (partial(torch.Tensor.to_sparse, layout=getattr(torch, layout)), "dtype", SPARSE)
        for layout in ("sparse_coo", "sparse_csr", "sparse_csc")
    },
    "sparse_bsr": (lambda full: full.to_sparse_bsr((1, 1)), "dtype", SPARSE),
    "sparse_bsc": (lambda full: full.to_sparse_bsc((1, 1)), "dtype", SPARSE),
    "quantized": (
        lambda full: torch.quantize_per_tensor(full, 0.1, 0, torch.qint8),
        "dtype",
        "not copied into a plain tensor: save its dequantize()",
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # of what torch calls a prototype or deprecated
@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_copied_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    make, field, reason = REFUSED[kind]
    broken = {**state(), "head.weight": make(torch.eye(3, 6))}
    assert not loads(broken)
    torch.save(broken, tmp_path / "x.pth")
    found = diff(Net(), tmp_path / "x.pth")
    told = [(pair.name, pair.differs, pair.reason) for pair in found.pairs if pair.differs]
    assert told == [("head.weight", (field,), reason)]
    assert found.notes == ()
    fix = f"modtool convert {tmp_path}/x.pth --drop head.weight -o {tmp_path}/x_fixed.pth"
    assert found.fit == Fit("a", 0, 0, 1, fix=fix)
    (finding,) = check(tmp_path / "x.pth", model=Net(), select=["does-not-load"]).findings
    assert finding.message == (
        f"load_state_dict of Net would refuse it: 1 mismatched (head.weight, {reason})"
    )


def test_one_element_of_old_is_taken_for_a_number(tmp_path: Path) -> None:
    model = Net()
    broken = {**model.state_dict(), "scale": torch.ones(1)}
    assert loads(broken)
    torch.save(broken, tmp_path / "x.pth")
    assert fit_of(tmp_path / "x.pth") == FITS
    assert diff(model, tmp_path / "x.pth", values=True).same
    torch.save({**broken, "scale": torch.full((1,), 3.0)}, tmp_path / "y.pth")
    found = diff(model, tmp_path / "y.pth", values=True)
    assert [
        (pair.name, pair.measure and pair.measure.max_abs)
        for pair in found.pairs
        if not pair.is_same
    ] == [("scale", 2.0)]
    load_weights(model, open_checkpoint(str(tmp_path / "y.pth")))
    assert model.get_buffer("scale").item() == 3.0


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d())


def test_a_lazy_model_takes_any_shape(tmp_path: Path) -> None:
    model = lazy()
    torch.save(model.state_dict(), tmp_path / "lazy.pth")
    model(torch.ones(3, 5))
    torch.save(model.state_dict(), tmp_path / "x.pth")
    for name in ("lazy.pth", "x.pth"):
        lazy().load_state_dict(torch.load(tmp_path / name, weights_only=False))
        assert diff(lazy(), tmp_path / name).fit == FITS
        assert check(tmp_path / name, model=lazy(), select=["does-not-load"]).findings == ()
    torch.save({"0.weight": torch.ones(4, 5)}, tmp_path / "y.pth")
    assert [each.name for each in diff(lazy(), tmp_path / "y.pth").singles] == [
        "0.bias",
        "1.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
    ]


def test_a_lazy_model_takes_its_shapes_from_weights(tmp_path: Path) -> None:
    model = lazy()
    x = torch.randn(3, 5)
    model(x)
    torch.save(model.state_dict(), tmp_path / "x.pth")
    filled = lazy()
    assert load_weights(filled, open_checkpoint(str(tmp_path / "x.pth"))) == ()
    assert torch.equal(filled.eval()(x), model.eval()(x))
    torch.save({**lazy().state_dict(), "0.bias": torch.ones(4)}, tmp_path / "y.pth")
    notes = load_weights(lazy(), open_checkpoint(str(tmp_path / "y.pth")))
    assert [each.message for each in notes] == [
        "5 names of the model are not in it and keep their initial values: "
        "0.weight, 1.weight, 1.bias, 1.running_mean, …"
    ]


def test_a_lazy_file_has_no_shapes_for_a_model(tmp_path: Path) -> None:
    torch.save(lazy().state_dict(), tmp_path / "x.pth")
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4))
    found = diff(model, tmp_path / "x.pth")
    reason = "lazy, and without a shape before the first forward pass"
    assert [pair.reason for pair in found.pairs] == [*[reason] * 6, ""]
    assert found.fit is not None
    assert (found.fit.mismatched, found.fit.loads) == (6, False)


def test_what_has_no_values_cannot_be_put_in_a_model(tmp_path: Path) -> None:
    torch.save({**state(), "scale": torch.ones((), device="meta")}, tmp_path / "x.pth")
    with pytest.raises(UsageError) as caught:
        load_weights(Net(), open_checkpoint(str(tmp_path / "x.pth")))
    assert str(caught.value) == "scale: saved from the meta device, without values to load"


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("section", [None, "model"])
def test_what_no_renaming_helps_is_dropped_by_its_name_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str, section: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    broken = {**state(), "head.bias": torch.zeros(9), "extra": torch.zeros(7, 7)}
    broken = {f"{prefix}{name}": value for name, value in broken.items()}
    torch.save(broken if section is None else {section: broken, "epoch": 1}, "x.pth")
    fit = fit_of("x.pth")
    assert not fit.fixed
    assert fit.fix is not None
    assert run(shlex.split(fit.fix)[1:]) == 0
    keys = Net().load_state_dict(torch.load("x_fixed.pth"), strict=False)
    assert (keys.missing_keys, keys.unexpected_keys) == (["head.bias"], [])


def test_a_whole_model_is_no_state_dict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(nn.Linear(4, 3), "full.pth")
    fit = diff(nn.Linear(4, 3), "full.pth").fit
    assert fit is not None
    assert (fit.loads, fit.whole) == (True, True)
    assert fit.fix == "modtool convert full.pth -o full_fixed.pth"
    assert run(shlex.split(fit.fix)[1:]) == 0
    nn.Linear(4, 3).load_state_dict(torch.load("full_fixed.pth"))


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))


def versioned(version: int | None) -> State:
    found = Normed().state_dict()
    if version is not None:
        found._metadata["body.1"]["version"] = version  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("version", [1, 2, None, "plain", "safetensors"])
def test_counters_that_loading_fills_in(
    tmp_path: Path, version: int | str | None, nested: bool
) -> None:
    saved = versioned(version if isinstance(version, int) else None)
    del saved["body.1.num_batches_tracked"]
    path = tmp_path / "x.pth"
    if version == "safetensors":
        save_file(saved, path)
    else:
        kept = dict(saved) if version == "plain" else saved
        torch.save({"model": kept, "epoch": 1} if nested else kept, path)
    if version in (1, "plain", "safetensors"):
        Normed().load_state_dict(dict(saved) if version != 1 else saved)
        found = diff(Normed(), path)
        assert found.fit is not None
        assert found.fit.loads
        assert [note.code for note in found.notes] == ["filled-on-load"]
    else:
        with pytest.raises(RuntimeError, match="num_batches_tracked"):
            Normed().load_state_dict(saved)
        found = diff(Normed(), path)
        assert found.fit is not None
        assert (found.fit.loads, found.fit.missing) == (False, 1)


def test_a_missing_twin_of_what_is_there_is_told(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    kept = {name: value for name, value in model.state_dict().items() if name != "1.weight"}
    torch.save(kept, tmp_path / "x.pth")
    (single,) = diff(model, tmp_path / "x.pth").singles
    assert (single.name, single.reason) == ("1.weight", "tied to 0.weight, which is there")


def test_values_of_a_model_are_compared_when_asked_for(tmp_path: Path) -> None:
    model = Net()
    torch.save(model.state_dict(), tmp_path / "x.pth")
    assert diff(model, tmp_path / "x.pth", values=True).same
    with torch.no_grad():
        model.head.bias.add_(1)
    found = diff(model, tmp_path / "x.pth", values=True)
    assert [pair.name for pair in found.pairs if pair.verdict == "different"] == ["head.bias"]
    assert found.fit is not None
    assert found.fit.loads


def test_nothing_is_suggested_where_nothing_helps(tmp_path: Path) -> None:
    other = {f"y{index}": torch.zeros(index) for index in range(9)}
    torch.save({"x": torch.zeros(77), **other}, tmp_path / "x")
    fit = fit_of(tmp_path / "x")
    assert (fit.fix, fit.fixed, fit.unexpected) == (None, False, 10)


class Extra(nn.Linear):
    """Has an entry of its own beside its tensors."""

    def get_extra_state(self) -> object:
        return {"version": 1}

    def set_extra_state(self, state: object) -> None:
        pass


PLAIN: dict[str, tuple[Callable[[], nn.Module], Callable[[State], object], dict[str, object]]] = {
    "values": (
        lambda: nn.Linear(2, 2),
        lambda s: {**s, "epoch": 3, "args": {"lr": 0.1, "sizes": [1, 2]}},
        {"epoch": 3, "args": {"lr": 0.1, "sizes": [1, 2]}},
    ),
    "its own": (lambda: Extra(2, 2), lambda s: s, {}),
    "another's": (
        lambda: nn.Linear(2, 2),
        lambda s: Extra(2, 2).state_dict(),
        {"_extra_state": {"version": 1}},
    ),
}


class Getting(nn.Linear):
    kept: object = "told"

    def get_extra_state(self) -> object:
        return self.kept


class Setting(nn.Linear):
    def set_extra_state(self, state: object) -> None:
        pass


class Both(Getting, Setting):
    pass


STATES: dict[str, object] = {
    "text": "told",
    "tensor": torch.zeros(3),
    "another shape": torch.zeros(5, 5),
    "tensors": {"a": torch.zeros(2), "b": 1},
}


@pytest.mark.parametrize("own", ["text", "tensor", "tensors"])
@pytest.mark.parametrize("state", [None, *STATES])
@pytest.mark.parametrize("kind", [nn.Linear, Getting, Setting, Both])
def test_an_extra_state_fits_where_load_state_dict_takes_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[nn.Linear],
    state: str | None,
    own: str,
) -> None:
    monkeypatch.setattr(Getting, "kept", STATES[own])
    model = nn.Sequential(kind(2, 2))
    saved: dict[str, object] = {f"0.{key}": x for key, x in nn.Linear(2, 2).state_dict().items()}
    if state is not None:
        saved["0._extra_state"] = STATES[state]
    takes = True
    try:
        model.load_state_dict(saved)
    except RuntimeError:
        takes = False
    torch.save(saved, tmp_path / "x.pth")
    found = diff(model, tmp_path / "x.pth")
    assert found.fit is not None
    assert found.fit.loads == found.same == takes
    told = check(tmp_path / "x.pth", model=model, select=["does-not-load"]).findings
    assert [each.code for each in told] == ([] if takes else ["does-not-load"])
    assert [change.name for change in found.values] == ([] if takes else ["0._extra_state"])


def test_an_extra_state_in_a_wrapper_comes_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = nn.Sequential(Both(2, 2), nn.Linear(2, 2))
    torch.save(nn.DataParallel(model).state_dict(), "x.pth")
    found = diff(model, "x.pth")
    fix = "modtool convert x.pth --strip-prefix module. -o x_fixed.pth"
    assert found.fit == Fit("a", 5, 5, 0, fix=fix, fixed=True)
    assert run(shlex.split(fix)[1:]) == 0
    model.load_state_dict(torch.load("x_fixed.pth"))
    assert diff(model, "x.pth", strip_prefix=["auto"]).same


def test_a_row_for_a_missing_extra_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Linear):\n"
        "    def set_extra_state(self, state):\n        pass\n\n\nnet = Net(2, 2)\n"
    )
    torch.save(nn.Linear(2, 2).state_dict(), "x.pth")
    assert run(["diff", "model.py", "x.pth"]) == 1
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines() if line][
        2:
    ] == [
        "_extra_state missing an extra state –",
        "load_state_dict would refuse it",
        "in both 2 missing 1 unexpected 0 mismatched 0",
    ]


@pytest.mark.parametrize("section", [None, "model"])
@pytest.mark.parametrize("kind", PLAIN)
def test_what_is_no_tensor_is_unexpected(tmp_path: Path, kind: str, section: str | None) -> None:
    make, change, unexpected = PLAIN[kind]
    broken = change(make().state_dict())
    torch.save({section: broken, "epoch": 5} if section else broken, tmp_path / "x.pth")
    if unexpected:
        with pytest.raises(RuntimeError, match="Unexpected key"):
            make().load_state_dict(broken)  # type: ignore[arg-type]
    else:
        make().load_state_dict(broken)  # type: ignore[arg-type]
    found = diff(make(), tmp_path / "x.pth")
    assert {change.name: change.b for change in found.values} == unexpected
    assert found.fit is not None
    assert (found.fit.unexpected, found.fit.loads) == (len(unexpected), not unexpected)
    assert found.same == (not unexpected)
    told = check(tmp_path / "x.pth", model=make(), select=["does-not-load"]).findings
    assert [each.message.partition("it: ")[2] for each in told] == (
        [f"{len(unexpected)} unexpected ({', '.join(unexpected)})"] if unexpected else []
    )


def test_a_row_for_what_is_no_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text("from torch import nn\nnet = nn.Linear(2, 2)\n")
    torch.save({**nn.Linear(2, 2).state_dict(), "epoch": 3}, "x.pth")
    assert run(["diff", "model.py", "x.pth"]) == 1
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines() if line][
        2:
    ] == [
        "epoch unexpected – 3 a plain value among the tensors",
        "load_state_dict would refuse it",
        "what fits: modtool convert x.pth --drop epoch -o x_fixed.pth",
        "in both 2 missing 0 unexpected 1 mismatched 0",
    ]


AROUND: dict[str, tuple[Callable[[State], object], str]] = {
    "a value": (lambda s: {**s, "epoch": 3}, " --drop epoch"),
    "an optimizer without tensors": (
        lambda s: {**s, "optimizer": {"state": {}, "param_groups": []}, "epoch": 3},
        " --drop optimizer --drop epoch",
    ),
    "an optimizer": (
        lambda s: {**s, "optimizer": {"state": {0: {"step": torch.ones(())}}}, "epoch": 1},
        "",
    ),
    "a module": (lambda s: {**s, "loss": nn.Linear(2, 2)}, ""),
    "a section with a value": (lambda s: {"model": {**s, "epoch": 3}}, " --drop epoch"),
}


@pytest.mark.parametrize("kind", AROUND)
def test_what_stands_among_the_weights_is_left_out_as_suggested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    change, options = AROUND[kind]
    model = nn.Linear(2, 2)
    saved = change(model.state_dict())
    torch.save(saved, "x.pth")
    with pytest.raises(RuntimeError, match="Unexpected key"):
        model.load_state_dict(torch.load("x.pth", weights_only=False))
    fit = diff(model, "x.pth").fit
    assert fit is not None
    assert (fit.loads, fit.fixed) == (False, True)
    assert fit.fix == f"modtool convert x.pth{options} -o x_fixed.pth"
    assert run(shlex.split(fit.fix)[1:]) == 0
    model.load_state_dict(torch.load("x_fixed.pth"))
    assert diff(model, "x_fixed.pth").same


def test_a_chosen_root_is_its_weights_alone(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    torch.save({**model.state_dict(), "loss": nn.Linear(2, 2)}, tmp_path / "x.pth")
    assert diff(model, tmp_path / "x.pth", section="").same


def test_statistics_that_a_model_does_not_keep_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(nn.BatchNorm1d(3).state_dict(), "x.pth")
    model = nn.BatchNorm1d(3, track_running_stats=False)
    fit = diff(model, "x.pth").fit
    assert fit is not None
    assert fit.fixed
    assert fit.fix is not None
    assert run(shlex.split(fit.fix)[1:]) == 0
    model.load_state_dict(torch.load("x_fixed.pth"))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of the old weight_norm, which is deprecated
@pytest.mark.parametrize("lone", [False, True])
@pytest.mark.parametrize("left_out", [None, "weight_g", "weight_v"])
def test_the_new_weight_norm_takes_files_of_the_old(
    tmp_path: Path, lone: bool, left_out: str | None
) -> None:
    old: nn.Module = nn.utils.weight_norm(nn.Conv1d(4, 2, 3))
    new = nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 2, 3))
    if not lone:
        old, new = nn.Sequential(nn.Linear(2, 2), old), nn.Sequential(nn.Linear(2, 2), new)
    saved = {name: x for name, x in old.state_dict().items() if name.split(".")[-1] != left_out}
    torch.save(saved, tmp_path / "x.pth")
    takes = True
    try:
        new.load_state_dict(dict(saved))
    except RuntimeError:
        takes = False
    assert takes == (left_out is None)
    filled = deepcopy(new)
    with torch.no_grad():
        for parameter in filled.parameters():
            parameter.zero_()
    notes = load_weights(filled, open_checkpoint(str(tmp_path / "x.pth")))
    assert (notes == ()) == takes
    if takes:
        assert all(map(torch.equal, filled.parameters(), new.parameters()))
    for found in (diff(new, tmp_path / "x.pth"), diff(tmp_path / "x.pth", new)):
        assert found.fit is not None
        assert found.fit.loads == found.same == takes
    told = check(tmp_path / "x.pth", model=new, select=["does-not-load"]).findings
    assert [each.code for each in told] == ([] if takes else ["does-not-load"])


def test_statistics_of_many_norms_are_dropped_by_what_they_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(nn.Sequential(*map(nn.BatchNorm1d, range(2, 7))).state_dict(), "x.pth")
    model = nn.Sequential(
        *(nn.BatchNorm1d(size, track_running_stats=False) for size in range(2, 7))
    )
    fit = diff(model, "x.pth").fit
    assert fit is not None
    drops = " --drop '*.running_mean' --drop '*.running_var' --drop '*.num_batches_tracked'"
    fix = f"modtool convert x.pth{drops} -o x_fixed.pth"
    assert fit == Fit("a", 0, 15, 0, fix=fix, fixed=True)
    assert run(shlex.split(fix)[1:]) == 0
    model.load_state_dict(torch.load("x_fixed.pth"))


@pytest.mark.parametrize("versions", [False, True])
def test_a_counter_of_another_shape_is_filled_in_once_it_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, versions: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    saved = Normed().state_dict()
    saved["body.1.num_batches_tracked"] = torch.zeros(3, dtype=torch.int64)
    torch.save(saved if versions else dict(saved), "x.pth")
    fit = diff(Normed(), "x.pth").fit
    assert fit is not None
    fix = "modtool convert x.pth --drop body.1.num_batches_tracked -o x_fixed.pth"
    assert fit == Fit("a", 0, 0, 1, fix=fix, fixed=not versions)
    assert run(shlex.split(fix)[1:]) == 0
    keys = Normed().load_state_dict(torch.load("x_fixed.pth"), strict=False)
    assert (keys.missing_keys == []) == fit.fixed


def test_a_lone_old_batchnorm_is_filled_in(tmp_path: Path) -> None:
    old = dict(nn.BatchNorm1d(2).state_dict())
    del old["num_batches_tracked"]
    nn.BatchNorm1d(2).load_state_dict(old)
    torch.save(old, tmp_path / "x.pth")
    found = diff(nn.BatchNorm1d(2), tmp_path / "x.pth")
    assert [each.code for each in found.notes] == ["filled-on-load"]
    assert found.same


KINDS = ["drop", "add", "reshape", "flatten", "cast", "meta", "sparse", "value"]
EDITS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 8)), max_size=3)


@settings(max_examples=40, deadline=None)
@given(edits=EDITS)
def test_it_agrees_with_load_state_dict(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[str, int]]
) -> None:
    broken = state()
    for what, index in edits:
        name = list(broken)[index % len(broken)]
        if what == "drop":
            del broken[name]
        elif what == "add":
            broken[f"{name}_{index}"] = torch.zeros(2)
        elif what == "reshape":
            broken[name] = torch.zeros(3, 1, 2)
        elif what == "flatten":
            broken[name] = torch.zeros(broken[name].numel())
        elif what == "meta":
            broken[name] = broken[name].to("meta")
        elif what == "value":
            broken[f"{name}_{index}"] = torch.Size([index])  # type: ignore[assignment]
        elif what == "sparse":
            broken[name] = torch.ones(broken[name].shape).to_sparse()
        else:
            broken[name] = broken[name].double()
    path = tmp_path_factory.mktemp("load") / "x.pth"
    torch.save(broken, path)
    assert fit_of(path).loads == diff(Net(), path).same == loads(broken)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((5, 4, 3), "other classes, another vocabulary or width: dimension 0"),
        ((3, 4, 9), "another width: dimension 2"),
        ((6, 8, 3), "another width: dimensions 0 and 1"),
        ((3, 4), "another kind of layer: 3 dimensions and 2"),
        ((4, 3, 3), "the same elements in another shape"),
    ],
)
def test_why_shapes_differ(shape: tuple[int, ...], reason: str) -> None:
    one, other = nn.Module(), nn.Module()
    one.weight = nn.Parameter(torch.zeros(3, 4, 3))
    other.weight = nn.Parameter(torch.zeros(shape))
    (pair,) = diff(one, other, structure=True).pairs
    assert pair.reason == reason


class Overrides(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def _load_from_state_dict(self, state_dict: State, prefix: str, *rest: object) -> None:
        state_dict[prefix + "weight"] = state_dict.pop(prefix + "gamma")
        super()._load_from_state_dict(state_dict, prefix, *rest)


class Hooked(nn.Linear):
    def __init__(self) -> None:
        super().__init__(2, 2)
        self._register_load_state_dict_pre_hook(partial(self.rename, "w"))  # type: ignore[no-untyped-call]

    def rename(self, old: str, state_dict: State, prefix: str, *rest: object) -> None:
        state_dict[prefix + "weight"] = state_dict.pop(prefix + old)


def test_code_that_takes_part_in_loading_is_named(tmp_path: Path) -> None:
    norm = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))  # torch's own hook
    model = nn.Sequential(Overrides(), Hooked(), nn.BatchNorm1d(2), norm, nn.Bilinear(2, 2, 2))
    saved = dict(model.state_dict())
    saved["0.gamma"], saved["1.w"] = saved.pop("0.weight"), saved.pop("1.weight")
    torch.save(saved, tmp_path / "old.pth")
    model.load_state_dict(saved)
    told = [note for note in diff(model, tmp_path / "old.pth").notes if note.level == "note"]
    assert [(note.code, note.message) for note in told] == [
        ("own-loading", "code of its own takes part in load_state_dict, and is not run here: 0, 1")
    ]
    assert not diff(nn.Sequential(norm, nn.GRU(2, 2), nn.LazyLinear(2)), tmp_path / "old.pth").notes
