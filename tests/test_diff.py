"""What differs beside values: names, shapes, types, flags, ties, plain values."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file, save_model
from torch import nn

from modtool.api.diffing import diff
from modtool.diffs import (
    Differences,
    ModuleChange,
    Options,
    Renaming,
    Tie,
    ValueChange,
    compare_structure,
    likely_renamings,
)
from modtool.errors import UsageError
from modtool.pickles.values import REST, TOO_MUCH
from modtool.records import Checkpoint
from modtool.report.differences import structure_rows


def saved(folder: Path, a: object, b: object) -> tuple[str, str]:
    torch.save(a, folder / "a.pth")
    torch.save(b, folder / "b.pth")
    return str(folder / "a.pth"), str(folder / "b.pth")


def fields(found: Differences) -> dict[str, tuple[str, ...]]:
    return {pair.name: pair.differs for pair in found.pairs if pair.differs}


def test_names_shapes_and_types(tmp_path: Path) -> None:
    a = {"x": torch.ones(2), "y": torch.ones(2, 3), "z": torch.ones(1), "gone": torch.ones(4)}
    b = {"x": torch.ones(2).half(), "y": torch.ones(3, 2), "new": torch.ones(5), "z": torch.ones(1)}
    found = diff(*saved(tmp_path, a, b), structure=True)
    assert fields(found) == {"x": ("dtype",), "y": ("shape",)}
    assert [(each.name, each.side) for each in found.singles] == [("gone", "a"), ("new", "b")]
    assert not found.same
    assert not found.compared


def test_structure_does_not_look_at_values(tmp_path: Path) -> None:
    paths = saved(tmp_path, {"x": torch.ones(2)}, {"x": torch.zeros(2)})
    assert diff(*paths, structure=True).same
    assert not diff(*paths).same


def test_flags_of_parameters(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    torch.save(model, tmp_path / "a.pth")
    model.bias.requires_grad_(False)
    torch.save(model, tmp_path / "b.pth")
    torch.save(model.state_dict(), tmp_path / "plain.pth")
    found = diff(tmp_path / "a.pth", tmp_path / "b.pth")
    assert fields(found) == {"bias": ("requires_grad",)}
    assert diff(tmp_path / "a.pth", tmp_path / "b.pth", ignore=["requires_grad"]).same
    assert diff(tmp_path / "b.pth", tmp_path / "plain.pth").same  # which does not record them


def test_devices_differ_where_the_container_has_any(tmp_path: Path) -> None:
    state = {"x": torch.ones(2)}
    torch.save(state, tmp_path / "cpu.pth")
    torch.save({"x": torch.ones(2, device="meta")}, tmp_path / "meta.pth")
    found = diff(tmp_path / "cpu.pth", tmp_path / "meta.pth", structure=True)
    assert fields(found) == {"x": ("device",)}
    paths = tmp_path / "cpu.pth", tmp_path / "meta.pth"
    assert diff(*paths, structure=True, ignore=["device"]).same
    save_file(state, tmp_path / "x.safetensors")
    assert diff(tmp_path / "meta.pth", tmp_path / "x.safetensors", structure=True).same


def test_ties(tmp_path: Path) -> None:
    x = torch.ones(2, 2)
    tied, apart = {"x": x, "y": x, "z": x.clone()}, {"x": x, "y": x.clone(), "z": x.clone()}
    found = diff(*saved(tmp_path, tied, apart))
    assert found.ties == (Tie(("x", "y"), "a"),)
    assert diff(*saved(tmp_path, apart, tied)).ties == (Tie(("x", "y"), "b"),)
    assert diff(*saved(tmp_path, tied, apart), ignore=["ties"]).same
    assert diff(*saved(tmp_path, tied, dict(reversed(tied.items())))).same


def test_safetensors_that_stored_tied_tensors_once_is_the_same(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    torch.save(model.state_dict(), tmp_path / "a.pth")
    save_model(model, str(tmp_path / "b.safetensors"))
    assert diff(tmp_path / "a.pth", tmp_path / "b.safetensors").same


def test_plain_values(tmp_path: Path) -> None:
    a = {"model": {"x": torch.ones(1)}, "epoch": 1, "lr": 0.5, "nan": math.nan, "flag": 1}
    b = {"model": {"x": torch.ones(1)}, "epoch": 2, "loss": 0.5, "nan": math.nan, "flag": True}
    found = diff(*saved(tmp_path, a, b))
    assert found.values == (
        ValueChange("epoch", ("a", "b"), 1, 2),
        ValueChange("lr", ("a",), 0.5, None),
        ValueChange("flag", ("a", "b"), 1, True),
        ValueChange("loss", ("b",), None, 0.5),
    )
    assert diff(*saved(tmp_path, a, b), ignore=["values"]).same
    assert diff(*saved(tmp_path, a, b), only=["x"]).same


def test_text_of_the_container_counts_where_both_have_it(tmp_path: Path) -> None:
    state = {"x": torch.ones(1)}
    save_file(state, tmp_path / "a.safetensors", {"format": "pt", "step": "1"})
    save_file(state, tmp_path / "b.safetensors", {"step": "2"})
    found = diff(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert found.values == (ValueChange("__metadata__.step", ("a", "b"), "1", "2"),)


def test_modules(tmp_path: Path) -> None:
    a = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1), nn.ReLU())
    b = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.2), nn.GELU()).eval()
    b.load_state_dict(a.state_dict())
    found = diff(*saved(tmp_path, a, b))
    assert found.modules == (
        ModuleChange(
            "1",
            "Dropout(p=0.1, inplace=False) in train mode",
            "Dropout(p=0.2, inplace=False) in eval mode",
        ),
        ModuleChange("2", "ReLU()", "GELU(approximate='none')"),
    )


def test_sections_are_matched_by_their_role(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    state = model.state_dict()
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    whole = {"model_state_dict": state, "optimizer": optimizer.state_dict(), "step": 3}
    paths = saved(tmp_path, whole, state)
    found = diff(*paths)
    assert [pair.name for pair in found.pairs] == ["weight", "bias"]
    assert {single.name.partition(".")[0] for single in found.singles} == {"optimizer"}
    assert diff(*paths, section="model_state_dict").same
    assert diff(*reversed(paths), section="model_state_dict").same
    other = saved(tmp_path, whole, {"net": state, "optimizer": optimizer.state_dict(), "step": 3})
    assert diff(*other).same


# -- names -------------------------------------------------------------------------------------


def test_renamed_and_stripped_names_are_the_same(tmp_path: Path) -> None:
    x, y = torch.ones(2), torch.ones(3)
    old = {"module.enc.0.gamma": x, "module.enc.0.w": y}
    new = {"backbone.0.weight": x, "backbone.0.w": y}
    paths = saved(tmp_path, old, new)
    names = ["enc=backbone", "*.gamma=*.weight"]
    assert diff(*paths, strip_prefix=["module."], rename=names).same
    assert diff(*paths, strip_prefix=["auto"], rename=names).same
    assert diff(
        *reversed(paths), strip_prefix=["module"], rename=["backbone=enc", "re:weight$=gamma"]
    ).same


def test_only_takes_what_patterns_select_on_either_side(tmp_path: Path) -> None:
    a = {"x.w": torch.ones(1), "y.w": torch.ones(1), "y.old": torch.ones(1)}
    b = {"x.w": torch.zeros(1), "y.w": torch.ones(1), "y.new": torch.ones(1)}
    paths = saved(tmp_path, a, b)
    assert diff(*paths, only=["y.w"]).same
    assert [each.name for each in diff(*paths, only=["y"]).singles] == ["y.old", "y.new"]
    with pytest.raises(UsageError, match="no name matches 'z'"):
        diff(*paths, only=["z"])


def test_names_that_are_not_there_are_errors(tmp_path: Path) -> None:
    paths = saved(tmp_path, {"x.w": torch.ones(1), "y.w": torch.ones(1)}, {"x.w": torch.ones(1)})
    with pytest.raises(UsageError, match="--rename q=z changes no name"):
        diff(*paths, rename=["q=z"])
    with pytest.raises(UsageError, match=r"no name begins with 'module\.'"):
        diff(*paths, strip_prefix=["module."])
    with pytest.raises(UsageError, match=r"x\.w and y\.w would both be named y\.w"):
        diff(*paths, rename=["x=y"])


Shapes = Mapping[str, tuple[int, ...]]
STACK = {f"layers.{i}.{part}": (4, i + 2) for i in range(3) for part in ("attn.q", "mlp.up")}
SUGGESTED: list[tuple[Shapes, Shapes, list[tuple[str, str]]]] = [
    ({"module.a": (1,)}, {"a": (1,)}, [("--strip-prefix", "module.")]),
    ({"a": (1,), "b": (2,)}, {"net.a": (1,), "net.b": (2,)}, [("--strip-prefix", "net.")]),
    ({"e._orig_mod.a": (1,)}, {"e.a": (1,)}, [("--strip-prefix", "auto")]),
    (
        STACK,
        {name.replace("layers", "h"): shape for name, shape in STACK.items()},
        [("--rename", "layers=h")],
    ),
    (
        STACK,
        {name.replace("attn.q", "self.query"): shape for name, shape in STACK.items()},
        [("--rename", "*.attn.q=*.self.query")],
    ),
    (
        {"norm.gamma": (3,), "norm.beta": (3,)},
        {"norm.weight": (3,), "norm.bias": (3,)},
        [("--rename", "*.beta=*.bias"), ("--rename", "*.gamma=*.weight")],
    ),
    (
        {f"enc.{i}.att.w": (2, i) for i in range(4)},
        {f"model.layer.{i}.w": (2, i) for i in range(4)},
        [("--rename", "enc.*.att=model.layer.*")],
    ),
    ({"a": (1,)}, {"b": (2,)}, []),
    ({"a": (1,), "b": (1,)}, {"c": (1,)}, []),
    (
        {"body.w": (8,), "head.weight": (3, 8)},
        {"body.w": (8,), "classifier.weight": (3, 8)},
        [("--rename", "head=classifier")],
    ),
    ({"norm.gamma": (8,)}, {"norm.weight": (8,)}, [("--rename", "*.gamma=*.weight")]),
    (
        {f"fc{i}.{leaf}": (8,) for i in (1, 2) for leaf in ("weight", "bias")},
        {f"{i}.{leaf}": (8,) for i in (0, 2) for leaf in ("weight", "bias")},
        [("--rename", "fc1=0"), ("--rename", "fc2=2")],
    ),
    # Sorted names stand in another order; likeness tells which is which.
    (
        {f"{i}.self.{each}.weight": (8, 8) for i in range(2) for each in ("query", "key", "value")},
        {f"{i}.attn.{each}.weight": (8, 8) for i in range(2) for each in "kqv"},
        [
            ("--rename", "*.self.key=*.attn.k"),
            ("--rename", "*.self.query=*.attn.q"),
            ("--rename", "*.self.value=*.attn.v"),
        ],
    ),
    # A shape alone proves nothing, and neither does a place in the order.
    ({"pos": (1, 8)}, {"cls": (1, 8)}, []),
    ({"scale": (8,)}, {"norm.bias": (8,), "fc.weight": (8, 8)}, []),
    ({"foo.w": (8,), "bar.v": (8,)}, {"x.p": (8,), "y.q": (8,)}, []),
    (
        {f"{each}.weight": (8, 8) for each in "abc"},
        {f"{each}.weight": (8, 8) for each in "xyz"},
        [],
    ),
    # Nor does it for another kind of tensor, or where another name fits better.
    (
        {f"a.{i}.running_mean": (8,) for i in range(3)},
        {f"b.{i}.weight": (8,) for i in range(3)},
        [],
    ),
    (
        {f"{i}.old.{each}.weight": (8, 8) for i in range(2) for each in "xyz"},
        {f"{i}.new.{each}.weight": (8, 8) for i in range(2) for each in ("yes", "zoo", "box")},
        [],
    ),
    # What explains few of many is chance.
    (
        {"a.weight": (1,), **{f"a.{i}.w": (i, 2) for i in range(4)}},
        {"b.weight": (1,), **{f"c.{i}.v": (i, 3) for i in range(4)}},
        [],
    ),
]


@pytest.mark.parametrize(("old", "new", "expected"), SUGGESTED)
def test_likely_renamings(old: Shapes, new: Shapes, expected: list[tuple[str, str]]) -> None:
    only_old = {name: shape for name, shape in old.items() if name not in new}
    only_new = {name: shape for name, shape in new.items() if name not in old}
    found = likely_renamings(only_old, only_new, [name for name in old if name in new])
    assert [(each.option, each.value) for each in found.renamings] == expected
    if expected:
        assert sorted(found.names) == sorted(only_old)
        assert sorted(found.names.values()) == sorted(only_new)


def test_what_is_right_already_is_not_spoilt() -> None:
    common = ["layers.0.norm.w"]
    found = likely_renamings({"layers.0.a.w": (1, 2)}, {"blocks.0.a.w": (1, 2)}, common)
    assert found.renamings == (Renaming("--rename", "layers.*.a=blocks.*.a", 1),)


def test_a_suggestion_is_what_to_type(tmp_path: Path) -> None:
    torch.manual_seed(0)
    old = {name: torch.randn(shape) for name, shape in STACK.items()}
    new = {name.replace("layers", "h").replace("q", "w"): value for name, value in old.items()}
    paths = saved(tmp_path, {f"module.{name}": value for name, value in old.items()}, new)
    found = diff(*paths)
    assert {each.option for each in found.renamings} == {"--rename"}
    assert diff(*paths, rename=[each.value for each in found.renamings]).same


# -- both ways ---------------------------------------------------------------------------------

Entries = dict[str, tuple[int, torch.dtype, int]]
STATES = st.dictionaries(
    st.sampled_from("abcdef"),
    st.tuples(st.integers(0, 3), st.sampled_from([torch.float32, torch.int64]), st.integers(0, 1)),
    max_size=5,
)


@settings(max_examples=40, deadline=None)
@given(a=STATES, b=STATES)
def test_a_comparison_is_the_same_from_both_sides(
    tmp_path_factory: pytest.TempPathFactory, a: Entries, b: Entries
) -> None:
    folder = tmp_path_factory.mktemp("both")
    states = [
        {name: torch.full((size,), value, dtype=dtype) for name, (size, dtype, value) in s.items()}
        for s in (a, b)
    ]
    paths = saved(folder, *states)
    found, back = diff(*paths), diff(*reversed(paths))
    assert found.same == back.same
    assert found.same == (
        states[0].keys() == states[1].keys()
        and all(
            x.dtype == states[1][name].dtype and torch.equal(x, states[1][name])
            for name, x in states[0].items()
        )
    )
    assert {(p.name, p.differs, p.verdict) for p in found.pairs} == {
        (p.name, p.differs, p.verdict) for p in back.pairs
    }
    sides = {"a": "b", "b": "a"}
    assert {(s.name, s.side) for s in found.singles} == {
        (s.name, sides[s.side]) for s in back.singles
    }


# -- names that are no names of one tensor alone ------------------------------------------------


def test_a_tensor_of_the_model_and_one_of_another_section_may_have_one_name(tmp_path: Path) -> None:
    def checkpoint(model: float, other: float) -> dict[str, dict[str, torch.Tensor]]:
        inner = {"ema.weight": torch.full((2,), model), "fc.weight": torch.ones(2)}
        return {"model": inner, "ema": {"weight": torch.full((2,), other)}}

    found = diff(*saved(tmp_path, checkpoint(1.0, 2.0), checkpoint(3.0, 2.0)))
    verdicts = {pair.name: pair.verdict for pair in found.pairs}
    assert verdicts == {"ema.weight": "different", "fc.weight": "equal", "ema:weight": "equal"}
    found = diff(*saved(tmp_path, checkpoint(1.0, 2.0), checkpoint(1.0, 4.0)))
    verdicts = {pair.name: pair.verdict for pair in found.pairs}
    assert verdicts == {"ema.weight": "equal", "fc.weight": "equal", "ema:weight": "different"}


def test_names_are_the_same_where_one_side_alone_has_such_a_pair(tmp_path: Path) -> None:
    ema = {"weight": torch.ones(2)}
    a = {"model": {"ema.weight": torch.zeros(2), "fc.weight": torch.ones(2)}, "ema": ema}
    b = {"model": {"fc.weight": torch.ones(2)}, "ema": ema}
    found = diff(*saved(tmp_path, a, b))
    assert {pair.name: pair.verdict for pair in found.pairs} == {
        "fc.weight": "equal",
        "ema:weight": "equal",
    }
    assert [(each.name, each.side) for each in found.singles] == [("ema.weight", "a")]


def test_keys_of_one_text_are_several_tensors(tmp_path: Path) -> None:
    a = {1: torch.ones(2), "1": torch.ones(2), "1 (2)": torch.ones(2)}
    b = {1: torch.ones(2), "1": torch.zeros(2), "1 (2)": torch.ones(2)}
    found = diff(*saved(tmp_path, a, b))
    verdicts = {pair.name: pair.verdict for pair in found.pairs}
    assert verdicts == {"1": "equal", "1 (2)": "different", "1 (2) (2)": "equal"}


def test_a_lone_tensor_of_a_section_is_called_as_the_section_is(tmp_path: Path) -> None:
    a = {"model": {"w": torch.ones(2)}, "rng": torch.zeros(3), "epoch": 1}
    b = {"model": {"w": torch.ones(2)}, "rng": torch.ones(3), "epoch": 1}
    found = diff(*saved(tmp_path, a, b))
    assert {pair.name: pair.verdict for pair in found.pairs} == {"w": "equal", "rng": "different"}


# -- plain values that are not shown whole -------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "kind"),
    [
        (b"abc", b"abd", "value beyond what is shown"),
        (bytearray(b"abc"), bytearray(b"abd"), "value beyond what is shown"),
        (np.arange(4), np.arange(4)[::-1].copy(), "value beyond what is shown"),
        (np.array(["cat", "dog"]), np.array(["cat", "cow"]), "value beyond what is shown"),
        (np.ones(2, "<i4"), np.ones(2, ">i4"), "value beyond what is shown"),
        (["x", np.zeros(3)], ["x", np.ones(3)], "value from item [1] on"),
        ("a" * 20_000, "a" * 19_999 + "b", "value beyond what is shown"),
        ("a" * 2000, "a" * 1999 + "b", "value from character [1,999] on"),
        (list(range(500)), [*range(499), -1], "value from item [499] on"),
    ],
    ids=["bytes", "bytearray", "array", "texts", "order", "nested", "cut", "text", "list"],
)
def test_values_that_look_the_same_are_compared_whole(
    tmp_path: Path, a: object, b: object, kind: str
) -> None:
    weights = {"w": torch.ones(2)}
    paths = saved(tmp_path, {"model": weights, "x": a}, {"model": weights, "x": b})
    found = diff(*paths)
    (row,) = structure_rows(found)
    assert row[:2] == ("x", kind)
    assert not found.same
    assert diff(paths[0], paths[0]).same


def test_more_plain_values_than_are_looked_at_are_not_called_the_same() -> None:
    def cut(target: str) -> Checkpoint:
        return Checkpoint(target, "torch-zip", "values", (), values={"x": 1, REST: TOO_MUCH})

    found = compare_structure(cut("a.pth"), cut("b.pth"), Options())
    assert [note.message for note in found.notes] == [
        "more plain values in A and B than are looked at: the rest could not be compared"
    ]
    assert not found.same
    assert compare_structure(cut("a.pth"), cut("b.pth"), Options(ignore=("values",))).same


def test_plain_values_of_one_path_are_all_compared(tmp_path: Path) -> None:
    a = {"w": torch.ones(2), "x": {1: "a", "1": "b"}, "y.z": 1, "y": {"z": 2}}
    b = {"w": torch.ones(2), "x": {1: "A", "1": "b"}, "y.z": 1, "y": {"z": 3}}
    found = diff(*saved(tmp_path, a, b))
    assert found.values == (
        ValueChange("x.1", ("a", "b"), "a", "A"),
        ValueChange("y.z (2)", ("a", "b"), 2, 3),
    )
