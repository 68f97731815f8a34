"""Objects in a checkpoint become what `weights_only=True` accepts, and nothing changes silently."""

import argparse
import dataclasses
import datetime
import decimal
import enum
import json
import pathlib
import sys
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from pkgutil import walk_packages
from typing import Any

import numpy as np
import pytest
import torch
import torch.ao.nn.intrinsic
import torch.ao.nn.quantized
import torch.ao.quantization
from torch import nn

from modtool.pickles.optimizers import saved_optimizer
from modtool.pickles.symbols import Call, Global
from modtool.plan.versions import version_of
from tests.conftest import Ran

Modtool = Callable[..., Ran]
NO_GROUP = "it has state of parameters that are in none of its groups, for which there is no number"
BY_NUMBER = "itself; its state_dict() takes its place, with its parameters by number"


def document(modtool: Modtool, saved: object, protocol: int = 2) -> dict[str, Any]:
    """What is said of a checkpoint that is converted to out.pth and read back."""
    torch.save(saved, "in.pth", pickle_protocol=protocol)
    options = ("--to", "checkpoint", "-o", "out.pth", "--verify", "--force", "--json")
    ran = modtool("convert", "in.pth", *options)
    assert (ran.code, ran.err) == (0, "")
    found: dict[str, Any] = json.loads(ran.out)
    return found


def converted(modtool: Modtool, saved: object) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """What a checkpoint loads as after a conversion that is read back, and what was left out."""
    dropped = [(item["name"], item["why"]) for item in document(modtool, saved)["dropped"]]
    return torch.load("out.pth", weights_only=True), dropped


# -- optimizers ----------------------------------------------------------------------------------


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


def groups(model: nn.Sequential) -> list[dict[str, object]]:
    """The last layer first, so that the order is not the model's."""
    rest = [*model[0].parameters(), *model[1].parameters()]
    return [{"params": model[2].parameters(), "lr": 0.5}, {"params": rest}]


def stepped(optimizer: torch.optim.Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    def loss() -> float:
        optimizer.zero_grad()
        found = model(torch.arange(20.0).view(5, 4)).square().mean()
        found.backward()
        return float(found.item())

    optimizer.step(loss)
    return optimizer


OPTIMIZERS: dict[str, Callable[[nn.Sequential], torch.optim.Optimizer]] = {
    "AdamW, two groups": lambda model: torch.optim.AdamW(groups(model), lr=1e-3),
    "SGD by name": lambda model: torch.optim.SGD(model.named_parameters(), lr=0.1, momentum=0.9),
    "SGD without state": lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    "LBFGS": lambda model: torch.optim.LBFGS(model.parameters()),
    "Adafactor": lambda model: torch.optim.Adafactor(model.parameters()),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("whole", [False, True])
def test_an_optimizer_becomes_its_state_dict(modtool: Modtool, name: str, whole: bool) -> None:
    model = net()
    optimizer = stepped(OPTIMIZERS[name](model), model)
    part = model if whole else model.state_dict()
    found, dropped = converted(modtool, {"model": part, "optimizer": optimizer})
    assert repr(found["optimizer"]) == repr(optimizer.state_dict())
    kind = f"{type(optimizer).__module__}.{type(optimizer).__name__}"
    assert dropped[-1] == ("optimizer", f"an object of {kind} {BY_NUMBER}")
    fresh = OPTIMIZERS[name](net())
    fresh.load_state_dict(found["optimizer"])


def test_an_optimizer_by_itself_and_twice(modtool: Modtool) -> None:
    model = net()
    optimizer = stepped(torch.optim.Adam(model.parameters()), model)
    found, dropped = converted(modtool, optimizer)
    assert repr(found) == repr(optimizer.state_dict())
    assert dropped == [("the whole object", f"an object of torch.optim.adam.Adam {BY_NUMBER}")]
    found, _ = converted(modtool, {"model": model.state_dict(), "a": optimizer, "b": [optimizer]})
    assert repr(found["b"]) == repr([optimizer.state_dict()])
    assert found["a"] is found["b"][0]


def test_an_optimizer_whose_parameter_is_in_no_group_is_left_out(modtool: Modtool) -> None:
    model = net()
    optimizer = stepped(torch.optim.Adam(model.parameters()), model)
    optimizer.param_groups[0]["params"].pop()
    found, dropped = converted(modtool, {"model": model.state_dict(), "optimizer": optimizer})
    assert list(found) == ["model"]
    reason = (
        "it has state of parameters that are in none of its groups, for which there is no number"
    )
    assert dropped == [("optimizer", f"an object of torch.optim.adam.Adam: {reason}")]


def test_what_only_looks_like_an_optimizer_is_not_taken_for_one() -> None:
    tensor = Call(Global("torch._utils", "_rebuild_parameter"), ())
    group: dict[object, object] = {"params": [tensor], "lr": 0.1}

    def optimizer(state: object) -> Call:
        return Call(Global("torch.optim", "SGD"), (), how="new", state=state)

    found = saved_optimizer(optimizer({"state": {}, "param_groups": [group]}))
    assert found is not None
    assert (found.groups, found.numbers) == ([{"lr": 0.1}], {id(tensor): 0})
    others: list[dict[str, object]] = [
        {"state": {}, "param_groups": [group, group]},  # one list for two groups
        {"state": {}, "param_groups": [{"params": [1]}]},
        {"state": {}, "param_groups": [{"lr": 0.1}]},
        {"state": {}, "param_groups": []},
        {"state": {}, "param_groups": [group], "more": 1},
        {"param_groups": [group]},
    ]
    for state in others:
        assert saved_optimizer(optimizer(state)) is None


# -- values --------------------------------------------------------------------------------------

MODEL = {"w": torch.ones(2), "b": torch.zeros(3)}
Point = namedtuple("Point", "x y")
KINDS = [
    "?",
    "i1",
    "i2",
    "i4",
    "i8",
    "u1",
    "u2",
    "u4",
    "u8",
    "f2",
    "f4",
    "f8",
    "c8",
    "c16",
    ">i4",
    ">u2",
    ">f8",
    ">c16",
]


class Array(np.ndarray[Any, Any]):
    """An array of its own kind."""


@dataclasses.dataclass
class Arguments:
    """What a training was given."""

    lr: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    more: object = None


class Color(enum.Enum):
    """A choice."""

    RED = "red"


class Level(enum.IntEnum):
    """A number with a name."""

    LOW = 1


class Count(int):
    """A number of its own kind."""


class Settings(dict[str, int]):
    """A dict of its own kind."""


@pytest.mark.parametrize("protocol", [2, 5])
def test_numpy_arrays_become_tensors_of_the_same_type(modtool: Modtool, protocol: int) -> None:
    arrays = {kind: np.arange(6).reshape(2, 3).astype(kind) for kind in KINDS}
    arrays |= {"columns": np.arange(6.0).reshape(2, 3).T, "0-d": np.array(2.5)}
    arrays |= {"empty": np.zeros((0, 2)), "every second": np.arange(10)[::2]}
    said = document(modtool, {"model": MODEL, "arrays": arrays, "first": arrays["i8"]}, protocol)
    assert said["dropped"] == []
    assert said["tensors"] == len(MODEL) + len(arrays)
    message = (
        f"NumPy array becomes tensor: arrays.?, arrays.i1, arrays.i2 and {len(arrays) - 3} more"
    )
    assert [(each["code"], each["message"]) for each in said["notes"]] == [
        ("becomes-plain", message)
    ]
    found = torch.load("out.pth", weights_only=True)
    for name, array in arrays.items():
        expected = torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))
        assert found["arrays"][name].dtype == expected.dtype, name
        assert torch.equal(found["arrays"][name], expected), name
    assert found["first"].data_ptr() == found["arrays"]["i8"].data_ptr()


def test_types_that_change_are_named_once(modtool: Modtool) -> None:
    saved = {
        "model": MODEL,
        "args": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("a/b")),
        "best": [np.float32(1.5), np.int64(3), np.bool_(True), np.complex64(1 + 2j), np.str_("é")],
        "point": Point(torch.ones(2), Point(1, 2)),
        "last": deque([1, 2, 3], maxlen=2),
        "by name": defaultdict(list, a=[1]),
        "seen": frozenset([1]),
        "set": {np.int64(1), 2},
        "settings": Settings(a=1),
        "steps": range(0, 6, 2),
        "when": datetime.datetime(2020, 1, 2, 3, tzinfo=datetime.UTC),
        "torch": torch.torch_version.TorchVersion("2.13.0+cpu"),
        np.int64(7): None,
    }
    said = document(modtool, saved)
    assert said["dropped"] == []
    assert [each["message"] for each in said["notes"]] == [
        "argparse.Namespace becomes dict: args",
        "pathlib.PurePosixPath becomes str: args.out",
        "NumPy scalar becomes Python scalar: best.0, best.1, best.2 and 4 more",
        "tests.test_convert_objects.Point becomes tuple: point.1, point",
        "collections.deque becomes list: last",
        "collections.defaultdict becomes dict: by name",
        "frozenset becomes set: seen",
        "tests.test_convert_objects.Settings becomes dict: settings",
        "range becomes list: steps",
        "datetime.datetime becomes str: when",
        "torch.torch_version.TorchVersion becomes str: torch",
    ]
    found = torch.load("out.pth", weights_only=True)
    assert repr(found) == repr(
        {
            "model": MODEL,
            "args": {"lr": 0.1, "out": "a/b"},
            "best": [1.5, 3, True, 1 + 2j, "é"],
            "point": (torch.ones(2), (1, 2)),
            "last": [2, 3],
            "by name": {"a": [1]},
            "seen": {1},
            "set": {1, 2},
            "settings": {"a": 1},
            "steps": [0, 2, 4],
            "when": "2020-01-02T03:00:00+00:00",
            "torch": "2.13.0+cpu",
            7: None,
        }
    )


def test_what_weights_only_accepts_stays_as_it_is(modtool: Modtool) -> None:
    saved = {
        "model": MODEL,
        "counts": Counter("abca"),
        "ordered": OrderedDict(a=1),
        "plain": [None, True, 3, 0.5, 1j, "text", b"bytes", bytearray(b"array"), (1, [2]), {3}],
        "torch": [torch.Size([1, 2]), torch.device("cuda", 1), torch.bfloat16],
        "schemes": [torch.per_tensor_affine, torch.per_channel_affine_float_qparams],
    }
    said = document(modtool, saved)
    assert (said["dropped"], said["notes"]) == ([], [])
    assert repr(torch.load("out.pth", weights_only=True)) == repr(saved)


def test_what_is_left_out_is_called_what_its_user_calls_it(modtool: Modtool) -> None:
    saved = {
        "model": MODEL,
        "objects": np.array([1, "a"], dtype=object),
        "text": np.array(["ab"]),
        "own": np.zeros(2).view(Array),
        "masked": np.ma.array([1, 2], mask=[False, True]),
        "steps": range(10**9),
        "slice": slice(1),
        "dtype": np.dtype("f4"),
        "class": nn.Linear,
        "sets": {frozenset([1])},
        "delta": datetime.timedelta(1),
        "long": np.longdouble(1.5),
        "dots": ...,
        "function": len,
    }
    torch.save(saved, "in.pth")
    found, dropped = converted(modtool, saved)
    assert list(found) == ["model"]
    assert {name: why.partition(": ")[0] for name, why in dropped} == {
        "objects": "a NumPy array of Python objects",
        "text": "a NumPy array of text",
        "own": "an object of tests.test_convert_objects.Array",
        "masked": "a NumPy masked array",
        "steps": "a range of more than 10,000 numbers",
        "slice": "a slice",
        "dtype": "a NumPy dtype",
        "class": "the class or function torch.nn.modules.linear.Linear",
        "sets": "a set of what is no plain value",
        "delta": "an object of datetime.timedelta",
        "long": "a NumPy scalar of a type that torch has not",
        "dots": "Ellipsis",
        "function": "the class or function len",
    }


def test_an_object_becomes_a_dict_of_its_attributes(modtool: Modtool) -> None:
    arguments = Arguments(more=Arguments(lr=0.5, more=torch.ones(2)))
    found, dropped = converted(modtool, {"model": MODEL, "args": arguments, "again": [arguments]})
    inner = {"lr": 0.5, "betas": (0.9, 0.99), "more": torch.ones(2)}
    assert repr(found["args"]) == repr({"lr": 0.1, "betas": (0.9, 0.99), "more": inner})
    assert found["again"][0] is found["args"]
    kind = "an object of tests.test_convert_objects.Arguments"
    why = f"{kind} itself; a dict of its attributes takes its place"
    assert dropped == [("args", why), ("args.more", why)]


def test_a_long_chain_of_objects_ends_where_it_is_said_to(modtool: Modtool) -> None:
    chain = None
    for _ in range(60):
        chain = Arguments(more=chain)
    found, dropped = converted(modtool, {"model": MODEL, "chain": chain})
    kind = "an object of tests.test_convert_objects.Arguments"
    assert dropped[-1] == ("chain" + ".more" * 50, f"{kind}: objects in objects, 50 deep")
    depth, link = 0, found["chain"]
    while link:
        depth, link = depth + 1, link.get("more")
    assert depth == 50


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_an_object_made_of_one_value_becomes_that(modtool: Modtool, protocol: int) -> None:
    saved = {
        "model": MODEL,
        "color": Color.RED,
        "colors": [Color.RED, Level.LOW],
        "count": Count(7),
        "price": decimal.Decimal("1.50"),
        "args": Arguments(more=Level.LOW),
    }
    said = document(modtool, saved, protocol)
    kinds = {item["name"]: item["why"].partition(" itself; ")[0] for item in said["dropped"]}
    assert kinds == {
        "color": "an object of tests.test_convert_objects.Color",
        "colors.1": "an object of tests.test_convert_objects.Level",
        "count": "an object of tests.test_convert_objects.Count",
        "price": "an object of decimal.Decimal",
        "args": "an object of tests.test_convert_objects.Arguments",
    }
    found = torch.load("out.pth", weights_only=True)
    assert [found["color"], found["colors"], found["count"]] == ["red", ["red", 1], 7]
    assert [found["price"], found["args"]["more"]] == ["1.50", 1]


def test_what_is_left_out_is_named_at_every_place(modtool: Modtool) -> None:
    delta = datetime.timedelta(1)
    found, dropped = converted(modtool, {"model": MODEL, "delta": delta, "deltas": [delta, 1]})
    assert [name for name, _ in dropped] == ["delta", "deltas.0"]
    assert found["deltas"] == [None, 1]


def test_an_array_beside_the_weights_is_none_of_them(modtool: Modtool) -> None:
    torch.save({**MODEL, "mean": np.arange(3.0), "more": {"std": np.ones(2)}}, "in.pth")
    ran = modtool("convert", "in.pth", "-o", "out.pth", "--dtype", "bf16", "--verify", "--json")
    assert (ran.code, json.loads(ran.out)["dropped"]) == (0, [])
    found = torch.load("out.pth", weights_only=True)
    assert [found["w"].dtype, found["mean"].dtype] == [torch.bfloat16, torch.float64]
    assert repr(found["more"]) == repr({"std": torch.ones(2, dtype=torch.float64)})


# -- modules -------------------------------------------------------------------------------------


def test_the_versions_of_torchs_classes_are_what_torch_says() -> None:
    packages = (torch.nn, torch.ao.nn.quantized, torch.ao.nn.intrinsic, torch.ao.quantization)
    for package in packages:
        for found in walk_packages(package.__path__, f"{package.__name__}."):
            if found.name in sys.modules:
                for kind in vars(sys.modules[found.name]).values():
                    if isinstance(kind, type) and issubclass(kind, nn.Module):
                        check_version(kind)


def check_version(kind: type[nn.Module]) -> None:
    name = f"{kind.__module__}.{kind.__qualname__}"
    abstract = kind.__name__.startswith("_") or kind.__name__.endswith("Base")
    if name.startswith("torch.") and not abstract:
        assert version_of(name) == kind._version, name


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")
def test_what_a_lazy_module_needs_to_be_loaded_is_said(modtool: Modtool) -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(3), nn.LazyBatchNorm1d())
    torch.save(net, "in.pth")
    ran = modtool("convert", "in.pth", "-o", "out.pth", "--json")
    kinds: list[Any] = [
        torch.nn.parameter.UninitializedParameter,
        torch.nn.parameter.UninitializedBuffer,
    ]
    line = (
        f"add_safe_globals([{', '.join(f'torch.nn.parameter.{each.__name__}' for each in kinds)}])"
    )
    assert [(each["code"], each["message"]) for each in json.loads(ran.out)["notes"]] == [
        (
            "uninitialized-parameter",
            "lazy, without a shape, which weights_only=True takes only after "
            f"torch.serialization.{line}: 1.weight, 1.bias, 2.weight and 3 more",
        )
    ]
    with torch.serialization.safe_globals(kinds):
        made = torch.load("out.pth", weights_only=True)
    assert list(made) == list(net.state_dict())
    net.load_state_dict(made)


def test_the_versions_of_torchs_classes_in_their_old_places() -> None:
    assert version_of("torch.nn.quantized.modules.linear.Linear") == 3
    assert version_of("torch.nn.quantized.dynamic.modules.linear.Linear") == 4
    assert version_of("torch.quantization.observer.MinMaxObserver") == 3
    assert version_of("torch.nn.modules.linear.Linear") == 1


# -- a list of parts ------------------------------------------------------------------------------


def parts() -> list[object]:
    """What `torch.save([model, optimizer], FILE)` was given in many an old training script."""
    model = net()
    return [model, stepped(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), model), 7]


def test_a_list_of_a_model_and_its_optimizer(modtool: Modtool) -> None:
    torch.save(parts(), "in.pth")
    counted = json.loads(modtool("count", "in.pth", "--json").out)
    assert (counted["total"], counted["trainable"], counted["buffers"]) == (29, 29, 7)
    assert [(part["name"], part["role"]) for part in counted["sections"]] == [
        ("0", "model"),
        ("1", "optimizer"),
    ]
    shown = json.loads(modtool("summary", "in.pth", "--json").out)
    assert [module["type"] for module in shown["modules"]] == [
        "Sequential",
        "Linear",
        "BatchNorm1d",
        "Linear",
    ]
    assert shown["values"]["2"] == 7
    assert modtool("convert", "in.pth", "-o", "out.pth").code == 0
    found, expected = torch.load("out.pth"), net().state_dict()
    assert [(name, each.shape) for name, each in found.items()] == [
        (name, each.shape) for name, each in expected.items()
    ]


def test_what_is_left_out_of_a_list_leaves_its_place(modtool: Modtool) -> None:
    torch.save(tuple(parts()), "in.pth")
    options = ("--to", "checkpoint", "--drop-optimizer", "-o", "out.pth")
    assert modtool("convert", "in.pth", *options).code == 0
    model, optimizer, epoch = torch.load("out.pth")
    assert (list(model), optimizer, epoch) == (list(net().state_dict()), None, 7)


def test_a_list_has_no_place_for_flags(modtool: Modtool) -> None:
    model, optimizer, epoch = parts()
    assert isinstance(model, nn.Module)
    assert isinstance(optimizer, torch.optim.Optimizer)
    torch.save([model.state_dict(), optimizer.state_dict(), epoch], "in.pth")
    ran = modtool("freeze", "in.pth", "0", "-o", "out.pth")
    assert (ran.code, ran.err) == (
        2,
        "error: in.pth has no place for what is trainable\n"
        "  write the plan alone with -o plan.json, and give it to modtool.apply_freeze\n",
    )


def test_a_list_as_a_distributed_checkpoint(modtool: Modtool) -> None:
    torch.save(parts(), "in.pth")
    ran = modtool("convert", "in.pth", "--to", "dcp", "-o", "out", "--json")
    assert ran.code == 0
    notes = {note["code"]: note["message"] for note in json.loads(ran.out)["notes"]}
    assert notes["keys-become-text"].startswith("keys that are no text: 0, 1, ")
    assert modtool("count", "out", "--total").out == "29\n"


def test_a_list_of_two_nets_is_equal_to_itself(modtool: Modtool) -> None:
    torch.save([nn.Linear(2, 3), nn.Sequential(nn.ReLU())], "in.pth")
    assert modtool("diff", "in.pth", "in.pth").code == 0


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_of_a_state_dict_and_values_is_a_checkpoint(
    modtool: Modtool, kind: Callable[[list[object]], object]
) -> None:
    state = net().state_dict()
    saved = kind([state, {"lr": 0.1}, 5, "done"])
    said = document(modtool, saved)
    assert (said["dropped"], said["tensors"]) == ([], 9)
    assert repr(torch.load("out.pth", weights_only=True)) == repr(saved)
    shown = json.loads(modtool("summary", "in.pth", "--json").out)
    assert (shown["kind"], shown["values"]) == ("checkpoint", {"1.lr": 0.1, "2": 5, "3": "done"})
    assert [each["name"] for each in shown["tensors"]] == list(state)
    assert modtool("convert", "in.pth", "-o", "weights.pth").code == 0
    net().load_state_dict(torch.load("weights.pth", weights_only=True))


@pytest.mark.parametrize(
    "saved",
    [
        [torch.ones(2), 5, None],
        (torch.ones(2), [torch.zeros(1), "text"]),
        {0: torch.ones(2), "k": 5},
        [{"weight": torch.ones(2)}, {"weight": torch.zeros(2)}],
    ],
)
def test_what_is_no_checkpoint_stays_as_it_was_too(modtool: Modtool, saved: object) -> None:
    assert document(modtool, saved)["dropped"] == []
    assert repr(torch.load("out.pth", weights_only=True)) == repr(saved)
    assert json.loads(modtool("summary", "in.pth", "--json").out)["kind"] == "tensors"


def test_values_nested_past_reason_are_refused_in_two_lines(modtool: Modtool) -> None:
    deep: object = 1
    for _ in range(300):
        deep = {"a": deep}
    torch.save({"model": {"w": torch.ones(2)}, "deep": deep}, "a.pth")
    ran = modtool("convert", "a.pth", "--to", "checkpoint", "-o", "b.pth")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        "error: a.pth: its values are nested too deeply to be written again\n"
        "  take its tensors alone: --to state_dict or --to safetensors\n"
    )
    assert modtool("convert", "a.pth", "-o", "b.safetensors").code == 0
