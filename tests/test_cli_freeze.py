"""freeze and unfreeze from the command line, on everything that can be frozen."""

import copy
import csv
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import modtool as api
from tests.conftest import Ran
from tests.gone import gone
from tests.nets import Net, net

Modtool = Callable[..., Ran]

DEFINITION = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.ReLU())
        self.head = nn.Linear(width, 2)
"""
NAMES = (
    "backbone.0.weight",
    "backbone.0.bias",
    "backbone.1.weight",
    "backbone.1.bias",
    "head.weight",
    "head.bias",
)
BACKBONE = {name: not name.startswith("backbone") for name in NAMES}
EVERY = dict.fromkeys(NAMES, True)


def flags_of(model: nn.Module) -> dict[str, bool]:
    return {name: each.requires_grad for name, each in model.named_parameters()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def records(path: str) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def trained(model: nn.Module, **options: Any) -> dict[str, Any]:
    """A training checkpoint after one step of Adam."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, **options)
    torch.autograd.backward(model(torch.randn(5, 3)).square().sum())
    optimizer.step()
    return {
        "epoch": 3,
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
    }


# -- what becomes of each kind of target -------------------------------------------------------


def test_a_definition_becomes_a_training_checkpoint_with_a_map(modtool: Modtool) -> None:
    Path("model.py").write_text(DEFINITION)
    ran = modtool("freeze", "model.py", "backbone", "-o", "start.pth")
    assert ran.code == 0
    assert ran.out == (
        "parameter          shape   elements  before     after\n"
        "─────────────────  ──────  ────────  ─────────  ─────\n"
        "backbone.0.weight  [4, 3]        12  trainable  frozen\n"
        "backbone.0.bias    [4]            4  trainable  frozen\n"
        "backbone.1.weight  [4]            4  trainable  frozen\n"
        "backbone.1.bias    [4]            4  trainable  frozen\n"
        "\n"
        "trainable before 34   frozen before 0   trainable 10   frozen 24\n"
        "\n"
        "start.pth\n"
    )
    loaded = torch.load("start.pth", weights_only=True)
    assert loaded.keys() == {"model_state_dict", "requires_grad"}
    assert loaded["requires_grad"] == BACKBONE
    assert loaded["model_state_dict"].keys() == net().state_dict().keys()
    assert modtool("count", "start.pth", "--trainable").out == "10\n"


def test_arguments_and_weights_go_into_the_definition_first(modtool: Modtool) -> None:
    Path("model.py").write_text(DEFINITION)
    state = net().state_dict()
    save_file(state, "w.safetensors")
    ran = modtool(
        "freeze",
        "model.py",
        "head",
        "--arg",
        "width=4",
        "--weights",
        "w.safetensors",
        "-o",
        "a.pth",
    )
    assert (ran.code, ran.err) == (0, "")
    assert same(torch.load("a.pth", weights_only=True)["model_state_dict"], state)
    ran = modtool(
        "freeze",
        "model.py",
        "head",
        "--arg",
        "width=5",
        "--weights",
        "w.safetensors",
        "-o",
        "b.pth",
    )
    assert ran.code == 0
    assert (
        "warning: mismatched-weights: w.safetensors: 7 names are in it in another shape" in ran.err
    )


def test_a_full_model_keeps_everything_but_its_flags(modtool: Modtool) -> None:
    model = net()
    torch.save(model, "net.pth")
    assert modtool("freeze", "net.pth", "backbone", "-o", "out/../frozen.pth").code == 2
    assert modtool("freeze", "net.pth", "backbone", "-o", "frozen.pth").code == 0
    loaded = torch.load("frozen.pth", weights_only=False)
    assert type(loaded) is Net
    assert flags_of(loaded) == BACKBONE
    assert same(loaded.state_dict(), model.state_dict())
    before, after = records("net.pth"), records("frozen.pth")
    data = [name for name in before if name.startswith("data/")]
    assert data
    assert [before[name] for name in data] == [after[name] for name in data]


def test_a_full_model_whose_classes_are_gone(modtool: Modtool) -> None:
    with gone("vanished", DEFINITION) as module:
        model = module.Net()
        torch.save(model, "net.pth")
    assert modtool("freeze", "net.pth", "type:Linear", "-o", "frozen.pth").code == 0
    assert modtool("count", "frozen.pth", "--frozen").out == "26\n"
    with gone("vanished", DEFINITION):
        loaded = torch.load("frozen.pth", weights_only=False)
    assert flags_of(loaded) == {name: "backbone.1" in name for name in NAMES}


def test_a_training_checkpoint_keeps_its_other_parts(modtool: Modtool) -> None:
    checkpoint = trained(net())
    torch.save(checkpoint, "ckpt.pth")
    assert modtool("freeze", "ckpt.pth", "backbone", "-o", "out.pth").code == 0
    loaded = torch.load("out.pth", weights_only=True)
    assert loaded["requires_grad"] == BACKBONE
    assert loaded["epoch"] == 3
    assert same(loaded["model_state_dict"], checkpoint["model_state_dict"])
    state = loaded["optimizer_state_dict"]["state"]
    assert same(state[0], checkpoint["optimizer_state_dict"]["state"][0])
    assert modtool("count", "out.pth", "--frozen").out == "24\n"


def test_a_state_dict_becomes_a_checkpoint(modtool: Modtool) -> None:
    torch.save(net().state_dict(), "state.pth")
    ran = modtool("freeze", "state.pth", "*.bias", "!head", "-o", "out.pth", "--json")
    report = json.loads(ran.out)
    assert report["changed"][0] == {
        "name": "backbone.0.bias",
        "shape": [4],
        "numel": 4,
        "before": None,
        "after": "frozen",
    }
    assert (report["trainable_before"], report["trainable"], report["frozen"]) == (None, 26, 8)
    assert report["written"] == ["out.pth"]
    loaded = torch.load("out.pth", weights_only=True)
    frozen = [name for name, flag in loaded["requires_grad"].items() if not flag]
    assert frozen == ["backbone.0.bias", "backbone.1.bias"]
    assert same(loaded["model_state_dict"], net().state_dict())


def test_a_file_without_types_says_so(modtool: Modtool) -> None:
    torch.save(net().state_dict(), "state.pth")
    ran = modtool("freeze", "state.pth", "type:Linear", "-o", "out.pth")
    assert ran.code == 2
    assert ran.err.startswith("error: 'type:Linear': this file does not record the types")


def test_safetensors_get_metadata(modtool: Modtool) -> None:
    save_file(net().state_dict(), "a.safetensors", {"author": "me"})
    assert modtool("freeze", "a.safetensors", "backbone", "-o", "b.safetensors").code == 0
    with safe_open("b.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["author"] == "me"
    assert json.loads(metadata["modtool.requires_grad"]) == BACKBONE
    assert same(load_file("b.safetensors"), net().state_dict())
    assert modtool("count", "b.safetensors", "--trainable").out == "10\n"


def test_the_suffix_decides_between_torch_and_safetensors(modtool: Modtool) -> None:
    torch.save(net(), "net.pth")
    assert modtool("freeze", "net.pth", "head", "-o", "a.safetensors").code == 0
    assert modtool("count", "a.safetensors", "--frozen").out == "10\n"
    assert modtool("unfreeze", "a.safetensors", "head.bias", "-o", "b.pth").code == 0
    flags = torch.load("b.pth", weights_only=True)["requires_grad"]
    assert [name for name, flag in flags.items() if not flag] == ["head.weight"]


def test_the_plan_alone(modtool: Modtool) -> None:
    Path("model.py").write_text(DEFINITION)
    ran = modtool("freeze", "model.py", "backbone", "--bn-eval", "-o", "plan.json")
    assert ran.out.endswith("plan.json\n")
    assert json.loads(Path("plan.json").read_text()) == {
        "schema": 1,
        "requires_grad": BACKBONE,
        "bn_eval": ["backbone.1"],
    }


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_state_dict_of_parameters_has_its_flags_changed_too(
    modtool: Modtool, suffix: str
) -> None:
    torch.save(dict(net().named_parameters()), "p.pth")
    assert modtool("freeze", "p.pth", "head", "-o", f"out{suffix}").code == 0
    assert modtool("count", f"out{suffix}", "--frozen").out == "10\n"
    if suffix == ".pth":
        loaded = torch.load("out.pth", weights_only=True)["model_state_dict"]
        assert {name: each.requires_grad for name, each in loaded.items()} == {
            name: "head" not in name for name in NAMES
        }


# -- properties --------------------------------------------------------------------------------


@pytest.fixture(params=["model", "checkpoint", "safetensors"])
def recorded(request: pytest.FixtureRequest, modtool: Modtool) -> Path:
    """A file that records flags, some frozen."""
    folder = Path("source")
    folder.mkdir()
    if request.param == "model":
        model = net()
        model.head.bias.requires_grad_(False)
        torch.save(model, "first.pth")
        path = folder / "net.pth"
        modtool("freeze", "first.pth", "backbone.0.bias", "-o", path)
    elif request.param == "checkpoint":
        torch.save(trained(net()), "first.pth")
        path = folder / "net.pth"
        modtool("freeze", "first.pth", "head", "-o", path)
    else:
        save_file(net().state_dict(), "first.safetensors", {"a": "b"})
        path = folder / "net.safetensors"
        modtool("freeze", "first.safetensors", "head", "-o", path)
    return path


@pytest.mark.parametrize("option", [(), ("--bn-eval",)])
def test_freeze_then_unfreeze_is_identity_to_the_byte(
    modtool: Modtool, recorded: Path, option: tuple[str, ...]
) -> None:
    for name in ("frozen", "back"):
        Path(name).mkdir()
    frozen, back = Path("frozen", recorded.name), Path("back", recorded.name)
    option = () if b"_rebuild_parameter" in recorded.read_bytes() else option
    assert modtool("freeze", recorded, "backbone.1", *option, "-o", frozen).code == 0
    assert frozen.read_bytes() != recorded.read_bytes()
    assert modtool("unfreeze", frozen, "backbone.1", "-o", back).code == 0
    assert back.read_bytes() == recorded.read_bytes()


def test_a_frozen_full_model_trains_exactly_what_was_left(modtool: Modtool) -> None:
    torch.save(net(), "net.pth")
    assert modtool("freeze", "net.pth", "backbone", "!backbone.1.bias", "-o", "out.pth").code == 0
    model = torch.load("out.pth", weights_only=False)
    before = {name: each.clone() for name, each in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        torch.autograd.backward(model(torch.randn(8, 3)).square().sum())
        optimizer.step()
    moved = {name for name, each in model.named_parameters() if not torch.equal(each, before[name])}
    assert moved == {"backbone.1.bias", "head.weight", "head.bias"}


# -- ties, batch norms, optimizers -------------------------------------------------------------


def test_tied_partners_are_frozen_together(modtool: Modtool) -> None:
    model = net()
    model.twin = nn.Linear(4, 2, bias=False)
    model.twin.weight = model.head.weight
    torch.save(model, "net.pth")
    ran = modtool("freeze", "net.pth", "head.weight", "-o", "out.pth")
    assert ran.err == (
        "note: tied-together: twin.weight: frozen with head.weight, which is the same tensor\n"
    )
    assert ran.out.splitlines()[-3] == (
        "trainable before 34   frozen before 0   trainable 26   frozen 8"
    )
    loaded = torch.load("out.pth", weights_only=False)
    assert loaded.twin.weight is loaded.head.weight
    assert not loaded.head.weight.requires_grad


@pytest.mark.parametrize("source", ["net.pth", "state.pth", "net.safetensors", "model.py"])
def test_a_frozen_batchnorm_is_noted(modtool: Modtool, source: str) -> None:
    Path("model.py").write_text(DEFINITION)
    torch.save(net(), "net.pth")
    torch.save(net().state_dict(), "state.pth")
    save_file(net().state_dict(), "net.safetensors")
    out = f"out{Path(source).suffix}".replace(".py", ".pth")
    ran = modtool("freeze", source, "backbone", "-o", out)
    assert ran.err.startswith("note: frozen-batchnorm: backbone.1: frozen, but in train mode")
    assert modtool("freeze", source, "backbone", "!backbone.1.bias", "-o", out, "--force").err == ""


@pytest.mark.parametrize("source", ["state.pth", "ckpt.pth", "net.safetensors"])
def test_bn_eval_is_recorded_and_read_again(modtool: Modtool, source: str) -> None:
    torch.save(net().state_dict(), "state.pth")
    torch.save(trained(net()), "ckpt.pth")
    save_file(net().state_dict(), "net.safetensors")
    out = f"out{Path(source).suffix}"
    ran = modtool("freeze", source, "backbone", "--bn-eval", "-o", out)
    assert "frozen-batchnorm" not in ran.err
    assert "kept in eval mode: backbone.1\n" in ran.out
    if out == "out.pth":
        assert torch.load(out, weights_only=True)["bn_eval"] == ["backbone.1"]
    assert "kept in eval mode: backbone.1\n" in modtool("freeze", out, "--list").out
    again = f"again{Path(source).suffix}"
    ran = modtool("freeze", out, "head", "-o", again, "--json")
    assert json.loads(ran.out)["bn_eval"] == ["backbone.1"]
    ran = modtool("unfreeze", out, "backbone.1.bias", "-o", again, "--force", "--json")
    assert json.loads(ran.out)["bn_eval"] == []
    assert modtool("convert", out, "--to", "safetensors", "-o", "c.safetensors").code == 0
    assert "kept in eval mode: backbone.1\n" in modtool("freeze", "c.safetensors", "--list").out


def test_a_batchnorm_without_parameters_is_frozen_with_what_it_lies_in(modtool: Modtool) -> None:
    model = nn.Sequential(
        nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, affine=False)), nn.Linear(4, 2)
    )
    torch.save(model.state_dict(), "state.pth")
    ran = modtool("freeze", "state.pth", "0", "--bn-eval", "-o", "out.pth", "--json")
    assert json.loads(ran.out)["bn_eval"] == ["0.1"]
    ran = modtool("freeze", "state.pth", "1", "-o", "out.pth", "--force")
    assert ran.err == ""


def test_frozen_parameters_in_an_optimizer_are_noted(modtool: Modtool) -> None:
    torch.save(trained(net()), "ckpt.pth")
    ran = modtool("freeze", "ckpt.pth", "head", "-o", "out.pth")
    assert ran.err == (
        "note: optimizer-holds-frozen: optimizer_state_dict: it still holds state of frozen "
        "head.weight, head.bias; --prune-optimizer takes it out\n"
    )


def test_prune_optimizer_leaves_what_an_optimizer_of_all_loads(modtool: Modtool) -> None:
    checkpoint = trained(net())
    torch.save(checkpoint, "ckpt.pth")
    ran = modtool("freeze", "ckpt.pth", "backbone.0", "--prune-optimizer", "-o", "out.pth")
    assert ran.code == 0
    assert ran.err.startswith("note: optimizer-order-assumed: optimizer_state_dict: ")
    loaded = torch.load("out.pth", weights_only=True)
    model = Net()
    optimizer = torch.optim.Adam(model.parameters())
    optimizer.load_state_dict(loaded["optimizer_state_dict"])
    parameters = list(model.parameters())
    assert [each in optimizer.state for each in parameters] == [False, False, *[True] * 4]
    for index in range(2, 6):
        old = checkpoint["optimizer_state_dict"]["state"][index]
        assert same(dict(optimizer.state[parameters[index]]), old)


def test_prune_groups_leaves_what_an_optimizer_of_the_rest_loads(modtool: Modtool) -> None:
    checkpoint = trained(net())
    torch.save(checkpoint, "ckpt.pth")
    assert modtool("freeze", "ckpt.pth", "backbone.0", "--prune-groups", "-o", "out.pth").code == 0
    loaded = torch.load("out.pth", weights_only=True)
    model = Net()
    optimizer = torch.optim.Adam(list(model.parameters())[2:])
    optimizer.load_state_dict(loaded["optimizer_state_dict"])
    for index, parameter in enumerate(list(model.parameters())[2:]):
        old = checkpoint["optimizer_state_dict"]["state"][index + 2]
        assert same(dict(optimizer.state[parameter]), old)


def test_an_optimizer_of_groups_with_names_is_pruned_by_name(modtool: Modtool) -> None:
    model = net()
    named = list(model.named_parameters())
    groups: list[dict[str, Any]] = [{"params": named[4:]}, {"params": named[:4], "lr": 0.5}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    torch.autograd.backward(model(torch.randn(5, 3)).square().sum())
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, "ckpt.pth")
    assert modtool("freeze", "ckpt.pth", "head", "--prune-groups", "-o", "out.pth").code == 0
    state = torch.load("out.pth", weights_only=True)["optimizer"]
    (group,) = state["param_groups"]
    assert (group["lr"], group["params"], group["param_names"]) == (
        0.5,
        [0, 1, 2, 3],
        [name for name, _ in named[:4]],
    )
    old = optimizer.state_dict()["state"]
    assert [
        torch.equal(state["state"][i]["momentum_buffer"], old[i + 2]["momentum_buffer"])
        for i in range(4)
    ] == [True] * 4


# -- showing -----------------------------------------------------------------------------------


def test_list_only_shows_the_state(modtool: Modtool) -> None:
    Path("model.py").write_text(DEFINITION)
    modtool("freeze", "model.py", "backbone", "-o", "start.pth")
    ran = modtool("freeze", "start.pth", "--list", "head.*", "backbone.1.bias")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == (
        "parameter        shape   elements  state\n"
        "───────────────  ──────  ────────  ─────\n"
        "backbone.1.bias  [4]            4  frozen\n"
        "head.weight      [2, 4]         8  trainable\n"
        "head.bias        [2]            2  trainable\n"
        "\n"
        "trainable 10   frozen 4\n"
    )
    assert sorted(path.name for path in Path().glob("*.pth")) == ["start.pth"]
    document = json.loads(modtool("unfreeze", "start.pth", "--list", "--json").out)
    assert {each["name"]: each["requires_grad"] for each in document["parameters"]} == BACKBONE
    rows = list(
        csv.DictReader(io.StringIO(modtool("freeze", "model.py", "--list", "--format", "csv").out))
    )
    assert [row["state"] for row in rows] == ["trainable"] * 6
    torch.save(net().state_dict(), "state.pth")
    document = json.loads(modtool("freeze", "state.pth", "--list", "--json").out)
    assert document["trainable"] is None
    assert {each["requires_grad"] for each in document["parameters"]} == {None}


def test_dry_run_shows_and_writes_nothing(modtool: Modtool) -> None:
    torch.save(net(), "net.pth")
    for out in ("out.pth", "plan.json", "out.safetensors"):
        ran = modtool("freeze", "net.pth", "head", "-o", out, "--dry-run")
        assert ran.code == 0
        assert ran.out.endswith(
            "trainable before 34   frozen before 0   trainable 24   frozen 10\n"
        )
        assert not Path(out).exists()
    ran = modtool("freeze", "net.pth", "head", "-o", "out.pth", "--dry-run", "--json")
    assert json.loads(ran.out)["written"] == []


def test_nothing_is_overwritten_without_force(modtool: Modtool) -> None:
    torch.save(net(), "net.pth")
    for out in ("out.pth", "plan.json"):
        Path(out).write_text("precious")
        ran = modtool("freeze", "net.pth", "head", "-o", out)
        assert ran.code == 2
        assert "--force" in ran.err
        assert Path(out).read_text() == "precious"
        assert modtool("freeze", "net.pth", "head", "-o", out, "--force").code == 0
        assert Path(out).read_bytes() != b"precious"


def test_freezing_what_is_frozen_changes_nothing(modtool: Modtool) -> None:
    torch.save(net().state_dict(), "state.pth")
    modtool("freeze", "state.pth", "head", "-o", "a.pth")
    ran = modtool("freeze", "a.pth", "head", "-o", "b.pth")
    assert ran.out.startswith("nothing changed\n")
    assert torch.load("b.pth", weights_only=True)["requires_grad"]["head.bias"] is False


# -- errors ------------------------------------------------------------------------------------

WRONG: list[tuple[list[str], str]] = [
    (["freeze"], "Missing argument 'TARGET'."),
    (["freeze", "net.pth"], "no output given"),
    (["freeze", "net.pth", "head"], "no output given"),
    (["freeze", "gone.pth", "head", "-o", "o.pth"], "gone.pth"),
    (["freeze", "gone.py", "head", "-o", "o.pth"], "gone.py"),
    (["freeze", "net.pth", "haed", "-o", "o.pth"], "no name matches 'haed'"),
    (["freeze", "net.pth", "head", "!head", "-o", "o.pth"], "nothing is left of the selection"),
    (["freeze", "net.pth", "re:(", "-o", "o.pth"], "'re:(' is no regular expression"),
    (["freeze", "net.pth", "type:Conv2d", "-o", "o.pth"], "no name matches 'type:Conv2d'"),
    (
        ["freeze", "net.pth", "backbone.1.running_mean", "-o", "o.pth"],
        "error: 'backbone.1.running_mean' selects nothing that can be frozen or unfrozen: "
        "backbone.1.running_mean is a buffer\n  name another one, such as backbone.0.weight\n",
    ),
    (["freeze", "net.pth", "", "-o", "o.pth"], "no name matches ''"),
    (["freeze", "net.pth", "head", "-o", "nowhere/o.pth"], "there is no folder nowhere"),
    (["freeze", "net.pth", "head", "-o", "."], "is a folder"),
    (["freeze", "net.pth", "head", "-o", ""], ""),
    (["freeze", "net.pth", "head", "-o", "net.pth", "--force"], "net.pth is the source itself"),
    (["freeze", "net.pth", "head", "--arg", "width=3", "-o", "o.pth"], "--arg"),
    (["freeze", "net.pth", "head", "--weights", "net.pth", "-o", "o.pth"], "--weights"),
    (["freeze", "net.pth", "head", "--list", "-o", "o.pth"], "--list shows the state"),
    (["freeze", "net.pth", "head", "--bn-eval", "-o", "o.pth"], "--bn-eval: no module"),
    (["freeze", "net.pth", "backbone", "--bn-eval", "-o", "o.pth"], "has no place for it"),
    (["freeze", "net.pth", "head", "--prune-optimizer", "-o", "o.pth"], "only a training"),
    (["freeze", "empty.pth", "head", "-o", "o.pth"], "empty.pth"),
    (["freeze", "text.pth", "head", "-o", "o.pth"], "text.pth"),
    (["freeze", "cut.pth", "head", "-o", "o.pth"], "cut.pth"),
    (["freeze", "values.pth", "head", "-o", "o.pth"], "values.pth"),
    (["freeze", "raises.py", "head", "-o", "o.pth"], "raises.py"),
    (["freeze", ".", "head", "-o", "o.pth"], ""),
    (["freeze", "net.pth", "head", "--format", "xml", "-o", "o.pth"], "'xml'"),
    (
        ["freeze", "net.pth", "head", "--map-location", "a=b", "--map-location", "cpu", "-o", "o"],
        "",
    ),
    (["freeze", "net.pth", "-o", "o.pth"], "no pattern given"),
    (["unfreeze", "net.pth", "-o", "o.pth"], "no pattern given"),
    (["unfreeze", "net.pth", "tail", "-o", "o.pth"], "no name matches 'tail'"),
    (["unfreeze", "net.pth", "head", "--bn-eval", "-o", "o.pth"], "--bn-eval"),
]


@pytest.mark.parametrize(
    ("arguments", "expected"), WRONG, ids=[" ".join(each[0]) for each in WRONG]
)
def test_wrong_input_is_one_or_two_lines(
    modtool: Modtool, arguments: list[str], expected: str
) -> None:
    torch.save(net(), "net.pth")
    torch.save({"a": 1}, "values.pth")
    Path("cut.pth").write_bytes(Path("net.pth").read_bytes()[:2000])
    Path("empty.pth").write_bytes(b"")
    Path("text.pth").write_text("hello, this is no checkpoint at all")
    Path("raises.py").write_text("raise ValueError('no')")
    files = {path.name for path in Path().iterdir()}
    ran = modtool(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ")
    assert expected in ran.err
    assert len(ran.err.splitlines()) <= 2
    assert "Traceback" not in ran.err
    assert {path.name for path in Path().iterdir() if path.name != "__pycache__"} == files


def test_a_model_stays_as_it_was(modtool: Modtool) -> None:
    import modtool as library

    model = net()
    before = copy.deepcopy(model.state_dict())
    outcome = library.freeze(model, ["head"], "out.pth")
    assert outcome.written == ("out.pth",)
    assert flags_of(model) == EVERY
    assert same(model.state_dict(), before)


@pytest.mark.parametrize("verb", ["freeze", "unfreeze"])
def test_a_dry_run_needs_no_output(modtool: Modtool, verb: str) -> None:
    torch.save(net().state_dict(), "state.pth")
    before = sorted(Path().iterdir())
    ran = modtool(verb, "state.pth", "head", "--dry-run", "--json")
    given = modtool(verb, "state.pth", "head", "--dry-run", "--json", "-o", "o.pth")
    assert (ran.code, ran.out) == (0, given.out)
    assert sorted(Path().iterdir()) == before


def test_a_tensor_of_integers_is_told_apart_from_no_tensor(modtool: Modtool) -> None:
    torch.save({"a.weight": torch.ones(2), "table": torch.arange(3)}, "state.pth")
    ran = modtool("freeze", "state.pth", "table", "-o", "o.pth")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(
        "error: 'table' selects nothing that can be frozen or unfrozen: table "
    )


def test_a_file_of_values_has_nothing_to_change(modtool: Modtool) -> None:
    torch.save({"epoch": 3}, "values.pth")
    ran = modtool("freeze", "values.pth", "a", "-o", "o.pth")
    assert (ran.code, ran.err) == (
        2,
        "error: values.pth holds no tensor\n  there is nothing to change or convert\n",
    )


def test_one_pattern_may_be_a_string(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    api.freeze(net(), "backbone", "out.pth")
    flags = torch.load("out.pth", weights_only=True)["requires_grad"]
    assert flags == {name: "backbone" not in name for name in flags}
    api.unfreeze("out.pth", "backbone", "again.pth")
    assert all(torch.load("again.pth", weights_only=True)["requires_grad"].values())
    api.reinit(net(), "filled.pth", scheme="ones", patterns="head")
    filled = torch.load("filled.pth", weights_only=True)
    assert bool(filled["head.weight"].eq(1).all())
    assert not filled["backbone.0.weight"].eq(1).all()
