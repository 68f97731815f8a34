"""Plans: what is chosen, dropped and recorded, from hand-made checkpoints."""

from dataclasses import replace

import pytest

from modtool.errors import UsageError
from modtool.notes import note
from modtool.pickles.symbols import Call, Global
from modtool.plan import (
    Dropped,
    Fill,
    Rule,
    cast,
    check,
    drop,
    drop_optimizer,
    flags_of,
    freeze,
    keep,
    map_location,
    notes_of,
    plan_conversion,
    plan_rewrite,
    reinit,
    set_value,
    stored_once,
    strip_prefix,
    tied,
    unfreeze,
)
from modtool.plan.plain_tree import plain_tree
from modtool.plan.tree import put, without
from modtool.records import Checkpoint, ModuleNode, Section, Storage, TensorInfo

CPU = memoryview(bytes(1000))


def tensor(name: str, key: str, **changes: object) -> TensorInfo:
    made = TensorInfo(name, "float32", (2, 2), Storage(key, 16, data=CPU[:16]))
    return replace(made, **changes)  # type: ignore[arg-type]


STATE = Checkpoint(
    "x.pth",
    "torch-zip",
    "state_dict",
    (
        tensor("body.weight", "0"),
        tensor("body.bias", "1"),
        tensor("head.weight", "0"),
        tensor("steps", "2", dtype="int64", shape=(2,), role="buffer"),
    ),
)
MODEL = Checkpoint(
    "model.py",
    "python",
    "model",
    (
        *(replace(tensor, requires_grad=True) for tensor in STATE.tensors[:3]),
        tensor("mask", "3", role="buffer", persistent=False),
    ),
    (ModuleNode("", "Net"), ModuleNode("body", "Linear"), ModuleNode("head", "Conv2d")),
)
TRAINING = Checkpoint(
    "c.pth",
    "torch-zip",
    "checkpoint",
    (
        tensor("w", "0", section="model"),
        tensor("w", "1", section="ema"),
        tensor("state.0.exp_avg", "2", section="optimizer", role="state"),
    ),
    sections=(Section("model", "model"), Section("ema", "ema"), Section("optimizer", "optimizer")),
    values={"epoch": 3, "optimizer.param_groups.0.lr": 0.1},
)


def test_a_model_to_a_state_dict_names_what_it_drops() -> None:
    plan = plan_conversion(MODEL, to="state_dict")
    assert [item.name for item in plan.tensors] == ["body.weight", "body.bias", "head.weight"]
    why = "a non-persistent buffer, which state_dict() leaves out"
    assert plan.dropped == (Dropped("mask", why),)


def test_a_checkpoint_to_its_model_names_what_it_drops() -> None:
    plan = plan_conversion(TRAINING, to="state_dict")
    assert [(item.name, item.section, item.source.section) for item in plan.tensors] == [
        ("w", None, "model")
    ]
    assert plan.dropped == (
        Dropped("ema", "not part of the model (ema)"),
        Dropped("optimizer", "not part of the model (optimizer)"),
        Dropped("epoch", "a value, not a tensor"),
    )
    other = plan_conversion(TRAINING, to="safetensors", section="ema")
    assert other.tensors[0].source.section == "ema"


def test_which_part_is_meant_has_to_be_clear() -> None:
    with pytest.raises(UsageError, match="has no section 'x'\nsections: model, ema, optimizer"):
        plan_conversion(TRAINING, to="state_dict", section="x")
    two = replace(TRAINING, sections=(Section("model", "model"), Section("ema", "model")))
    with pytest.raises(UsageError, match=r"more than one part could be the model\n.*model, ema"):
        plan_conversion(two, to="safetensors")
    with pytest.raises(UsageError, match="holds no tensor"):
        plan_conversion(replace(STATE, tensors=(), kind="values"), to="state_dict")


def test_safetensors_stores_ties_once() -> None:
    plan = plan_conversion(STATE, to="safetensors")
    assert stored_once(plan) == {"head.weight": "body.weight"}
    assert [note.where for note in notes_of(plan)] == ["head.weight"]
    assert stored_once(tied(plan, "clone")) == {}
    assert stored_once(drop(plan, ["body.weight"])) == {}
    with pytest.raises(UsageError, match="kept or cloned"):
        tied(plan, "no")


def test_safetensors_refuses_what_it_cannot_hold() -> None:
    z = tensor("z", "0", dtype="complex128", shape=(1,))
    odd = replace(STATE, tensors=(*STATE.tensors, z))
    with pytest.raises(UsageError, match="z: safetensors has no complex128 tensors"):
        check(plan_conversion(odd, to="safetensors"))
    check(drop(plan_conversion(odd, to="safetensors"), ["z"]))
    meta = replace(STATE, tensors=(*STATE.tensors, tensor("m", "9", storage=None, layout="meta")))
    dropped = plan_conversion(meta, to="safetensors").dropped
    assert dropped == (Dropped("m", "meta: the file holds no data for it"),)
    saved = replace(STATE, tensors=(tensor("m", "9", storage=None), *STATE.tensors))
    assert plan_conversion(saved, to="safetensors").dropped == dropped


def test_keep_and_drop() -> None:
    plan = plan_conversion(STATE, to="state_dict")
    assert [item.name for item in keep(plan, ["body"]).tensors] == ["body.weight", "body.bias"]
    assert [item.name for item in drop(plan, ["*.weight"]).tensors] == ["body.bias", "steps"]
    assert drop(plan, ["steps"]).dropped == (Dropped("steps", "dropped as asked"),)
    with pytest.raises(UsageError, match="no name matches 'nose'"):
        drop(plan, ["nose"])
    with pytest.raises(UsageError, match="nothing is left"):
        drop(plan, ["*"])
    with pytest.raises(UsageError, match="no torch file"):
        plan_rewrite(STATE)
    with pytest.raises(UsageError, match="written back as it is"):
        keep(plan_rewrite(replace(STATE, root={"x": 1})), ["body"])


def test_freeze_records_a_map_and_takes_ties_along() -> None:
    plan = freeze(plan_conversion(STATE, to="state_dict"), ["body"])
    assert plan.form == "checkpoint"
    assert plan.requires_grad == {"body.weight": False, "body.bias": False, "head.weight": False}
    assert [(note.code, note.where, note.message) for note in plan.notes] == [
        ("tied-together", "head.weight", "frozen with body.weight, which is the same tensor")
    ]
    again = unfreeze(plan, ["*.bias"])
    assert flags_of(again) == {"body.weight": False, "body.bias": True, "head.weight": False}
    with pytest.raises(UsageError, match="can be frozen or unfrozen: steps is of type int64"):
        freeze(plan, ["steps"])
    safe = freeze(plan_conversion(STATE, to="safetensors"), ["*.bias"])
    assert safe.form == "safetensors"
    assert safe.requires_grad == {"body.weight": True, "body.bias": False, "head.weight": True}


def test_freeze_by_type() -> None:
    plan = freeze(plan_conversion(MODEL, to="checkpoint"), ["type:Linear"])
    assert plan.requires_grad == {"body.weight": False, "body.bias": False, "head.weight": False}
    with pytest.raises(UsageError, match="does not record the types"):
        freeze(plan_conversion(STATE, to="checkpoint"), ["type:Linear"])


def test_what_is_frozen_already_goes_along() -> None:
    frozen = replace(MODEL, tensors=(replace(MODEL.tensors[0], requires_grad=False),))
    assert plan_conversion(frozen, to="checkpoint").requires_grad == {"body.weight": False}
    assert plan_conversion(frozen, to="safetensors").requires_grad == {"body.weight": False}
    lost = plan_conversion(frozen, to="state_dict")
    assert lost.requires_grad is None
    assert [item.name for item in lost.dropped] == ["requires_grad"]


def test_reinit_fills_ties_alike_under_the_first_name() -> None:
    plan = plan_conversion(MODEL, to="state_dict")
    rules = [Rule(("*",), "normal", {"std": 0.1}), Rule(("*.bias",), "zeros")]
    filled = {item.name: item.fill for item in reinit(plan, rules, 7).tensors}
    weight = Fill("normal", {"std": 0.1}, 7, "body.weight", "Linear")
    assert filled == {
        "body.weight": weight,
        "body.bias": Fill("zeros", {}, 7, "body.bias", "Linear"),
        "head.weight": weight,
    }
    only = reinit(plan, [Rule(("head",), "normal", {"std": 0.1})], 7)
    assert [item.fill for item in only.tensors] == [weight, None, weight]


def test_cast_leaves_whole_numbers_alone() -> None:
    plan = cast(plan_conversion(STATE, to="state_dict"), "bf16", {"*.bias": "float8_e4m3fn"})
    assert [item.dtype for item in plan.tensors] == [
        *("bfloat16", "float8_e4m3fn", "bfloat16", "int64")
    ]
    for name in ("int8", "nonsense"):
        with pytest.raises(UsageError, match="no floating-point dtype"):
            cast(plan, name)


def test_locations() -> None:
    plan = map_location(plan_conversion(STATE, to="state_dict"), {"cpu": "cuda:1"})
    assert {item.location for item in plan.tensors} == {"cuda:1"}
    assert {item.location for item in map_location(plan, "cpu").tensors} == {"cpu"}
    with pytest.raises(UsageError, match=r"no tensor is on cuda:0\nthey are on cuda:1"):
        map_location(plan, {"cuda:0": "cpu"})


def test_values() -> None:
    plan = plan_conversion(STATE, to="checkpoint")
    made = set_value(set_value(plan, "epoch", 3), "model_args.width", 4)
    assert isinstance(made.tree, dict)
    assert made.tree["epoch"] == 3
    assert made.tree["model_args.width"] == 4
    with pytest.raises(UsageError, match="holds tensors"):
        set_value(plan, "model_state_dict", 3)
    with pytest.raises(UsageError, match="no place for 'epoch'\nvalues need --to checkpoint"):
        set_value(plan_conversion(STATE, to="state_dict"), "epoch", 3)
    safe = plan_conversion(STATE, to="safetensors")
    assert set_value(safe, "author", "me").metadata == {"format": "pt", "author": "me"}
    with pytest.raises(UsageError, match="holds text, not 3"):
        set_value(safe, "epoch", 3)


def test_drop_optimizer_elsewhere_changes_nothing_and_says_so() -> None:
    plan = plan_conversion(STATE, to="checkpoint")
    message = "--drop-optimizer: nothing here is known to be an optimizer's state; all is kept"
    said = note("no-optimizer", "", message)
    assert drop_optimizer(plan) == replace(plan, notes=(said,))
    bare = plan_conversion(STATE, to="state_dict")  # which never holds any
    assert drop_optimizer(bare) == bare


# -- trees -------------------------------------------------------------------------------------


def tree_of(root: object) -> tuple[object, list[str]]:
    found = plain_tree(Checkpoint("x", "torch-zip", "values", root=root))
    return found.tree, [item.name for item in found.dropped]


def call(name: str, *arguments: object, **changes: object) -> Call:
    module, _, last = name.rpartition(".")
    made = Call(Global(module, last), arguments)
    for field, value in changes.items():
        setattr(made, field, value)
    return made


def test_exact_plain_equivalents() -> None:
    root = {
        "namespace": call(
            "argparse.Namespace", state={"lr": 0.1, "path": call("pathlib.Path", "a")}
        ),
        "default": call("collections.defaultdict", Global("builtins", "list"), items={"k": [1]}),
        "frozen": frozenset({1}),
        "tuple": (1, [2], {"x": None}),
    }
    assert tree_of(root) == (
        {
            "namespace": {"lr": 0.1, "path": "a"},
            "default": {"k": [1]},
            "frozen": {1},
            "tuple": (1, [2], {"x": None}),
        },
        [],
    )


def test_what_has_no_equivalent_is_named() -> None:
    root = {
        "epoch": 3,
        "object": call("mine.Thing", state={"a": 1}),
        "list": [1, call("mine.Thing"), 3],
        "class": Global("mine", "Thing"),
        call("mine.Key"): 1,
        "dtype": (dtype := Global("torch", "float32")),
        "size": (size := call("torch.Size", (1, 2))),
    }
    tree, dropped = tree_of(root)
    assert tree == {
        "epoch": 3,
        "object": {"a": 1},
        "list": [1, None, 3],
        "dtype": dtype,
        "size": size,
    }
    assert dropped == ["object", "list.1", "class", "?"]


def test_shared_and_circular_containers_stay_so() -> None:
    shared: list[object] = [1]
    root: dict[str, object] = {"a": shared, "b": shared}
    root["me"] = root
    tree, _ = tree_of(root)
    assert isinstance(tree, dict)
    assert tree["a"] is tree["b"]
    assert tree["me"] is tree


def test_put_and_without() -> None:
    tree = {"a": {"b.c": 1, "d": [1, {"e": 2}]}, "x": 1}
    assert put(tree, "a.b.c", 5) == {"a": {"b.c": 5, "d": [1, {"e": 2}]}, "x": 1}
    assert put(tree, "a.d.1.e", 5) == {"a": {"b.c": 1, "d": [1, {"e": 5}]}, "x": 1}
    assert put(tree, "new", 5) == {**tree, "new": 5}
    assert without(tree, "a.d") == {"a": {"b.c": 1}, "x": 1}
    assert without(tree, "a") == {"x": 1}
    assert without(tree, "nowhere") is tree
    assert tree == {"a": {"b.c": 1, "d": [1, {"e": 2}]}, "x": 1}


def test_clones_count_each() -> None:
    shared = replace(STATE, tensors=(tensor("a", "0"), tensor("b", "0")))
    plan = plan_conversion(shared, to="safetensors")
    assert plan.nbytes == 16
    assert tied(plan, "clone").nbytes == 32
    assert plan_conversion(shared, to="dcp").nbytes == 32


@pytest.mark.parametrize(
    ("names", "prefixes", "expected"),
    [
        (["_orig_mod.module.w"], ["module.", "_orig_mod."], ["w"]),
        (["_orig_mod.module.w"], ["module.", "auto"], ["w"]),
        (["model.module.w", "model.v"], ["auto", "module"], ["w", "v"]),
        (["layers.0.w", "head.layers.w"], ["layers."], ["0.w", "head.layers.w"]),
    ],
)
def test_prefixes_are_taken_off(names: list[str], prefixes: list[str], expected: list[str]) -> None:
    tensors = tuple(tensor(name, str(index)) for index, name in enumerate(names))
    plan = plan_conversion(replace(STATE, tensors=tensors), to="safetensors")
    assert [each.name for each in strip_prefix(plan, prefixes).tensors] == expected


@pytest.mark.parametrize("prefixes", [["layers."], ["model.", "layers.1."], ["auto", "layers.1"]])
def test_a_prefix_in_the_middle_is_none(prefixes: list[str]) -> None:
    names = ["model.layers.0.w", "model.head.layers.1.w"]
    tensors = tuple(tensor(name, name) for name in names)
    plan = plan_conversion(replace(STATE, tensors=tensors), to="safetensors")
    with pytest.raises(UsageError, match=r"^no name begins with 'layers\."):
        strip_prefix(plan, prefixes)


def test_two_tensors_of_one_name() -> None:
    twice = replace(STATE, tensors=(tensor("0", "0"), tensor("0", "1")))
    with pytest.raises(UsageError, match=r"^0: two tensors have this name"):
        check(plan_conversion(twice, to="safetensors"))
