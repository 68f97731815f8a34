"""reinit from the command line: every scheme, on definitions and on every kind of checkpoint."""

import json
import math
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import parametrizations

from modtool.live.fans import Fans
from modtool.live.fill import fill
from modtool.live.initialise import SCHEMES
from modtool.live.recipe import Recipe, read_recipe, recipe_text, rule_of
from tests.conftest import Ran
from tests.gone import gone

Modtool = Callable[..., Ran]

DEFINITION = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv1d(8, 12, 5, groups=2)
        self.body = nn.Linear(60, 40)
        self.norm = nn.BatchNorm1d(40)
        self.head = nn.Linear(40, 30)
"""
CONV, BODY = "conv.weight", "body.weight"
FANS = {CONV: Fans(20, 30), BODY: Fans(60, 40)}
VECTORS = ("conv.bias", "body.bias", "norm.weight", "norm.bias", "head.bias")

State = dict[str, torch.Tensor]


def net() -> nn.Module:
    """The model of DEFINITION."""
    with gone("defines_net", DEFINITION) as module:
        model = module.Net()
        assert isinstance(model, nn.Module)
        return model


def state_of(path: str) -> State:
    """The model's tensors of any file that reinit wrote."""
    if path.endswith(".safetensors"):
        return load_file(path)
    loaded = torch.load(path, weights_only=True)
    return loaded.get("model_state_dict", loaded)  # type: ignore[no-any-return]


def changed(before: State, after: State) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.fixture
def sources(modtool: Modtool) -> dict[str, State]:
    """The same weights in every form: path -> what they are."""
    model = net()
    state = {name: each.detach().clone() for name, each in model.state_dict().items()}
    Path("model.py").write_text(DEFINITION)
    torch.save(state, "state.pth")
    torch.save({"epoch": 3, "model_state_dict": state}, "ckpt.pth")
    save_file(state, "net.safetensors", {"author": "me"})
    return dict.fromkeys(("model.py", "state.pth", "ckpt.pth", "net.safetensors"), state)


def output_for(source: str) -> str:
    return "out.safetensors" if source.endswith(".safetensors") else "out.pth"


# -- every scheme ------------------------------------------------------------------------------

Property = Callable[[torch.Tensor, Fans], bool]


def about(value: float, wanted: float, slack: float = 0.1) -> bool:
    return abs(value - wanted) <= slack * abs(wanted)


def normal(std: Callable[[Fans], float], mean: float = 0.0) -> Property:
    """Right mean and deviation, and tails that a uniform distribution does not have."""
    return lambda t, fans: (
        about(t.std().item(), std(fans))
        and abs(t.mean().item() - mean) < 5 * std(fans) / math.sqrt(t.numel())
        and (t - mean).abs().max().item() > 2.2 * std(fans)
    )


def uniform(low: Callable[[Fans], float], high: Callable[[Fans], float]) -> Property:
    """Inside the bounds, close to both of them, and evenly spread."""
    return lambda t, fans: (
        low(fans) <= t.min().item() < low(fans) + 0.05 * (high(fans) - low(fans))
        and high(fans) >= t.max().item() > high(fans) - 0.05 * (high(fans) - low(fans))
        and about(t.std().item(), (high(fans) - low(fans)) / math.sqrt(12))
    )


def symmetric(bound: Callable[[Fans], float]) -> Property:
    return uniform(lambda fans: -bound(fans), bound)


def orthogonal(gain: float) -> Property:
    def holds(tensor: torch.Tensor, fans: Fans) -> bool:
        flat = tensor.flatten(1).double()
        small = flat @ flat.T if flat.shape[0] <= flat.shape[1] else flat.T @ flat
        return torch.allclose(small, gain**2 * torch.eye(len(small), dtype=torch.double), atol=1e-5)

    return holds


def sparse(tensor: torch.Tensor, fans: Fans) -> bool:
    zeros = (tensor == 0).sum(dim=0)
    rest = tensor[tensor != 0]
    return bool((zeros == 10).all()) and about(rest.std().item(), 0.5)


# scheme, its arguments, the tensors to fill, what holds of them (from the definition of each).
SCHEME_CASES: list[tuple[str, list[str], list[str], Property]] = [
    ("uniform", [], [CONV, BODY], uniform(lambda _: 0.0, lambda _: 1.0)),
    ("uniform", ["a=-3", "b=2"], [CONV, BODY], uniform(lambda _: -3.0, lambda _: 2.0)),
    ("normal", [], [CONV, BODY], normal(lambda _: 1.0)),
    ("normal", ["mean=4", "std=0.5"], [CONV, BODY], normal(lambda _: 0.5, 4.0)),
    (
        "trunc_normal",
        ["mean=1", "std=1", "a=0", "b=2"],
        [CONV, BODY],
        # The variance of N(1, 1) inside one deviation either way: 1 - 2·φ(1)/(Φ(1) - Φ(-1)).
        lambda t, _: t.min().item() >= 0 and t.max().item() <= 2 and about(t.std().item(), 0.5396),
    ),
    ("constant", ["val=0.25"], [CONV, BODY], lambda t, _: bool((t == 0.25).all())),
    ("ones", [], [CONV, BODY], lambda t, _: bool((t == 1).all())),
    ("zeros", [], [CONV, BODY], lambda t, _: bool((t == 0).all())),
    ("eye", [], [BODY], lambda t, _: torch.equal(t, torch.eye(40, 60))),
    ("dirac", [], [CONV], lambda t, _: torch.equal(t, nn.init.dirac_(torch.empty(12, 4, 5)))),
    (
        "dirac",
        ["groups=2"],
        [CONV],
        lambda t, _: torch.equal(t, nn.init.dirac_(torch.empty(12, 4, 5), groups=2)),
    ),
    (
        "xavier_uniform",
        [],
        [CONV, BODY],
        symmetric(lambda f: math.sqrt(6 / (f.fan_in + f.fan_out))),
    ),
    (
        "xavier_uniform",
        ["gain=1.4"],
        [CONV, BODY],
        symmetric(lambda f: 1.4 * math.sqrt(6 / (f.fan_in + f.fan_out))),
    ),
    (
        "xavier_normal",
        ["gain=tanh"],
        [CONV, BODY],
        normal(lambda f: 5 / 3 * math.sqrt(2 / (f.fan_in + f.fan_out))),
    ),
    ("kaiming_uniform", [], [CONV, BODY], symmetric(lambda f: math.sqrt(6 / f.fan_in))),
    (
        "kaiming_uniform",
        ["a=2", "mode=fan_out"],
        [CONV, BODY],
        symmetric(lambda f: math.sqrt(6 / (5 * f.fan_out))),
    ),
    (
        "kaiming_normal",
        ["nonlinearity=relu"],
        [CONV, BODY],
        normal(lambda f: math.sqrt(2 / f.fan_in)),
    ),
    (
        "kaiming_normal",
        ["nonlinearity=linear", "mode=fan_out"],
        [CONV, BODY],
        normal(lambda f: math.sqrt(1 / f.fan_out)),
    ),
    ("orthogonal", [], [CONV, BODY], orthogonal(1.0)),
    ("orthogonal", ["gain=2"], [CONV, BODY], orthogonal(2.0)),
    ("sparse", ["sparsity=0.25", "std=0.5"], [BODY], sparse),
]


def test_every_scheme_is_tried() -> None:
    assert {case[0] for case in SCHEME_CASES} | {"default"} == set(SCHEMES)
    given = {name.partition("=")[0] for case in SCHEME_CASES for name in case[1]}
    assert given == {argument.name for each in SCHEMES.values() for argument in each.arguments}


@pytest.mark.parametrize(
    ("scheme", "arguments", "names", "holds"),
    SCHEME_CASES,
    ids=[f"{case[0]} {' '.join(case[1])}" for case in SCHEME_CASES],
)
def test_every_scheme_with_its_arguments(
    modtool: Modtool,
    sources: dict[str, State],
    scheme: str,
    arguments: list[str],
    names: list[str],
    holds: Property,
) -> None:
    made = []
    for source, before in sources.items():
        given = [part for text in arguments for part in ("--arg", text)]
        chosen = [part for name in names for part in ("--pattern", name)]
        # Only the definition knows that the convolution has groups.
        fans = FANS if source == "model.py" else {**FANS, CONV: Fans(20, 60)}
        out = output_for(source)
        ran = modtool("reinit", source, "--scheme", scheme, *given, *chosen, "-o", out, "--force")
        assert ran.code == 0, ran.err
        after = state_of(out)
        assert changed(before, after) == set(names)
        for name in names:
            assert holds(after[name], fans[name])
        made.append({name: after[name] for name in names})
    assert not any(changed(made[1], other) for other in made[2:])


@pytest.mark.parametrize("seed", [0, 7, -3, 2**70])
def test_the_bits_are_those_of_the_library(
    modtool: Modtool, sources: dict[str, State], seed: int
) -> None:
    for source in sources:
        out = output_for(source)
        command = ("reinit", source, "--scheme", "xavier_normal", "--pattern", "body.weight")
        assert modtool(*command, "--seed", seed, "-o", out, "--force").code == 0
        wanted = fill("body.weight", (40, 60), "float32", "xavier_normal", seed=seed)
        assert torch.equal(state_of(out)["body.weight"], wanted)


def test_the_same_seed_gives_the_same_bits_whatever_else_is_filled(
    modtool: Modtool, sources: dict[str, State]
) -> None:
    command = ("reinit", "state.pth", "--scheme", "orthogonal", "--seed", 5)
    modtool(*command, "--pattern", "head.weight", "-o", "a.pth")
    modtool(*command, "--pattern", "*.weight", "--pattern", "!norm", "-o", "b.pth")
    a, b = state_of("a.pth"), state_of("b.pth")
    assert changed(a, b) == {"conv.weight", "body.weight"}
    modtool(
        "reinit", "state.pth", "--scheme", "orthogonal", "--pattern", "head.weight", "-o", "c.pth"
    )
    assert changed(a, state_of("c.pth")) == {"head.weight"}


# -- default -----------------------------------------------------------------------------------


def test_default_lets_modules_reset_themselves(modtool: Modtool) -> None:
    Path("model.py").write_text(DEFINITION)
    before = {name: each + 1 for name, each in net().state_dict().items()}
    torch.save(before, "w.pth")
    command = ("reinit", "model.py", "--weights", "w.pth", "--scheme", "default")
    ran = modtool(*command, "--pattern", "head", "--pattern", "norm", "-o", "out.pth", "--json")
    assert (ran.code, ran.err) == (0, "")
    after = state_of("out.pth")
    report = json.loads(ran.out)
    names = [each["name"] for each in report["filled"]]
    assert set(names) == changed(before, after)
    assert names == [name for name in before if name.startswith(("head", "norm"))]
    assert after["head.weight"].abs().max() <= 1 / math.sqrt(40)
    assert torch.equal(after["norm.weight"], torch.ones(40))
    assert torch.equal(after["norm.running_var"], torch.ones(40))
    assert after["norm.num_batches_tracked"] == 0
    ones = next(each for each in report["filled"] if each["name"] == "norm.weight")
    assert ones["before"] == {"mean": 2.0, "std": 0.0}
    assert ones["after"] == {"mean": 1.0, "std": 0.0}
    assert ones["expected"] is None
    modtool(*command, "--pattern", "head.weight", "-o", "one.pth")
    assert changed(before, state_of("one.pth")) == {"head.weight"}
    assert torch.equal(state_of("one.pth")["head.weight"], after["head.weight"])


def test_default_needs_modules_that_can_reset_themselves(modtool: Modtool) -> None:
    Path("model.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.scale = nn.Parameter(torch.full((3,), 7.0))\n"
        "        self.fc = nn.Linear(3, 2)\n"
    )
    ran = modtool("reinit", "model.py", "--scheme", "default", "-o", "out.pth")
    assert ran.code == 2
    assert ran.err.startswith(
        "error: 1 of 3 tensors do not fit: scale (its module has no reset_parameters)\n"
    )
    ran = modtool("reinit", "model.py", "--scheme", "default", "--skip-unfit", "-o", "out.pth")
    assert ran.code == 0
    assert ran.err.startswith("note: left-unfilled: left as they were: scale (its module")
    assert torch.equal(state_of("out.pth")["scale"], torch.full((3,), 7.0))


@pytest.mark.parametrize("source", ["state.pth", "ckpt.pth", "net.safetensors"])
def test_a_checkpoint_has_no_default(
    modtool: Modtool, sources: dict[str, State], source: str
) -> None:
    ran = modtool("reinit", source, "--scheme", "default", "-o", output_for(source))
    assert ran.code == 2
    assert "a checkpoint has none" in ran.err
    assert f"modtool reinit MODEL.py --weights {source}" in ran.err


def test_a_model_at_hand_stays_as_it_was(modtool: Modtool) -> None:
    import modtool as library

    model = net()
    before = {name: each.clone() for name, each in model.state_dict().items()}
    outcome = library.reinit(model, "out.pth", scheme="default", patterns=["body"])
    assert outcome.written == ("out.pth",)
    assert not changed(before, model.state_dict())
    assert changed(before, state_of("out.pth")) == {"body.weight", "body.bias"}


# -- full models -------------------------------------------------------------------------------


def test_a_full_model_stays_one_and_its_layers_are_known(modtool: Modtool) -> None:
    with gone("vanished", DEFINITION) as module:
        model = module.Net()
        torch.save(model, "net.pth")
    command = ("reinit", "net.pth", "--scheme", "kaiming_normal", "--arg", "mode=fan_out")
    ran = modtool(*command, "--pattern", "type:Conv1d", "--bias", "zeros", "-o", "out.pth")
    assert (ran.code, ran.err) == (0, "")
    with gone("vanished", DEFINITION):
        loaded = torch.load("out.pth", weights_only=False)
    before, after = model.state_dict(), loaded.state_dict()
    assert changed(before, after) == {"conv.weight", "conv.bias"}
    fans = Fans(20, 30)
    wanted = fill(
        "conv.weight", (12, 4, 5), "float32", "kaiming_normal", {"mode": "fan_out"}, fans=fans
    )
    assert torch.equal(after["conv.weight"], wanted)
    assert not after["conv.bias"].any()
    assert isinstance(loaded.conv.weight, nn.Parameter)


def test_a_frozen_parameter_stays_frozen(modtool: Modtool) -> None:
    model = nn.Linear(3, 2)
    model.weight.requires_grad_(False)
    torch.save(model, "net.pth")
    assert modtool("reinit", "net.pth", "--scheme", "ones", "-o", "out.pth").code == 0
    loaded = torch.load("out.pth", weights_only=False)
    assert [each.requires_grad for each in loaded.parameters()] == [False, True]


# -- what is not selected ----------------------------------------------------------------------


@pytest.mark.parametrize("source", ["state.pth", "ckpt.pth", "net.safetensors"])
def test_no_other_tensors_bytes_are_touched(
    modtool: Modtool, sources: dict[str, State], source: str
) -> None:
    out = output_for(source)
    assert modtool("reinit", source, "--scheme", "ones", "--pattern", "head", "-o", out).code == 0
    before, after = sources[source], state_of(out)
    assert changed(before, after) == {"head.weight", "head.bias"}
    for name in before.keys() - {"head.weight", "head.bias"}:
        assert before[name].numpy().tobytes() == after[name].numpy().tobytes()
    if source == "ckpt.pth":
        assert torch.load(out, weights_only=True)["epoch"] == 3
    if source == "net.safetensors":
        with safe_open(out, "pt") as file:
            assert file.metadata()["author"] == "me"


def test_tied_tensors_are_filled_once(modtool: Modtool) -> None:
    model: Any = nn.Module()
    model.embed = nn.Embedding(7, 5)
    model.head = nn.Linear(5, 7, bias=False)
    model.head.weight = model.embed.weight
    for source in ("net.pth", "state.pth"):
        torch.save(model if source == "net.pth" else model.state_dict(), source)
        ran = modtool(
            "reinit",
            source,
            "--scheme",
            "normal",
            "--pattern",
            "head",
            "-o",
            "o.pth",
            "--force",
            "--json",
        )
        report = json.loads(ran.out)
        (filled,) = report["filled"]
        assert (filled["name"], filled["tied"]) == ("embed.weight", ["head.weight"])
        assert [note["code"] for note in report["notes"]] == ["tied-together"]
        loaded = torch.load("o.pth", weights_only=False)
        state = loaded.state_dict() if source == "net.pth" else loaded
        assert state["head.weight"].data_ptr() == state["embed.weight"].data_ptr()
        assert torch.equal(state["head.weight"], fill("embed.weight", (7, 5), "float32", "normal"))


# -- fans --------------------------------------------------------------------------------------

LAYERS = """
from torch import nn
from transformers.pytorch_utils import Conv1D

class Sub(nn.ConvTranspose2d):
    pass

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 10)
        self.conv1 = nn.Conv1d(6, 10, 3)
        self.conv2 = nn.Conv2d(6, 10, 3, groups=2)
        self.conv3 = nn.Conv3d(6, 10, 3)
        self.up = nn.ConvTranspose2d(6, 10, 3, groups=2)
        self.sub = Sub(6, 10, 3)
        self.gpt = Conv1D(10, 6)
        self.attention = nn.MultiheadAttention(8, 2)
"""


def test_fans_are_right_for_every_layer(modtool: Modtool) -> None:
    Path("model.py").write_text(LAYERS)
    command = ("reinit", "model.py", "--scheme", "xavier_normal", "--bias", 0)
    ran = modtool(*command, "-o", "out.pth", "--json")
    assert (ran.code, ran.err) == (0, "")
    report = json.loads(ran.out)
    assert report["notes"] == []
    deviations = {each["name"]: each["expected"]["std"] for each in report["filled"]}
    # fan_in + fan_out of each, from the definition: products per output, outputs per input.
    sums = {
        "linear.weight": 6 + 10,
        "conv1.weight": (6 + 10) * 3,
        "conv2.weight": (3 + 5) * 9,
        "conv3.weight": (6 + 10) * 27,
        "up.weight": (3 + 5) * 9,
        "sub.weight": (6 + 10) * 9,
        "gpt.weight": 6 + 10,
        "attention.in_proj_weight": 8 + 8,
        "attention.out_proj.weight": 8 + 8,
    }
    assert {name: deviations[name] for name in sums} == pytest.approx(
        {name: math.sqrt(2 / total) for name, total in sums.items()}
    )


def test_a_guess_is_a_warning(modtool: Modtool, sources: dict[str, State]) -> None:
    command = ("reinit", "state.pth", "--pattern", "*.weight", "--pattern", "!norm", "-o", "o.pth")
    ran = modtool(*command, "--scheme", "xavier_normal")
    assert ran.err == (
        "warning: guessed-fans: conv.weight: fan-in 20 and fan-out 60 are guessed from the shape, "
        "as the layer's type is not known, and likewise for 2 others; a transposed or grouped "
        "layer has others\n"
    )
    assert modtool(*command, "--scheme", "normal", "--force").err == ""
    ran = modtool("reinit", "model.py", *command[2:], "--scheme", "xavier_normal", "--force")
    assert ran.err == ""


@pytest.mark.parametrize("kind", ["parametrization", "hook"])
def test_weight_norm_is_filled_through_its_originals(modtool: Modtool, kind: str) -> None:
    wrap = "parametrizations.weight_norm" if kind == "parametrization" else "weight_norm"
    Path("model.py").write_text(
        "import warnings\nfrom torch import nn\n"
        "from torch.nn.utils import parametrizations, weight_norm\n"
        "warnings.simplefilter('ignore')\n"
        f"net = nn.Sequential({wrap}(nn.Linear(40, 30)))\n"
    )
    command = ("reinit", "model.py", "--scheme", "kaiming_normal", "--bias", "zeros")
    ran = modtool(*command, "--pattern", "type:Linear", "-o", "out.pth", "--json")
    assert (ran.code, ran.err) == (0, "")
    plain: Any = parametrizations.weight_norm(nn.Linear(40, 30))
    names = ["0.parametrizations.weight.original0", "0.parametrizations.weight.original1"]
    if kind == "hook":
        names = ["0.weight_g", "0.weight_v"]
    state = state_of("out.pth")
    magnitude, direction = (state[name] for name in names)
    wanted = fill(names[1], (30, 40), "float32", "kaiming_normal")
    assert torch.equal(direction, wanted)
    plain.parametrizations.weight.original0.data = magnitude
    plain.parametrizations.weight.original1.data = direction
    assert torch.allclose(plain.weight, wanted, atol=1e-6)
    filled = {each["name"]: each for each in json.loads(ran.out)["filled"]}
    assert filled[names[0]]["norms_of"] == names[1]


# -- what does not fit -------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["model.py", "ckpt.pth"])
def test_what_does_not_fit_is_listed(
    modtool: Modtool, sources: dict[str, State], source: str
) -> None:
    ran = modtool("reinit", source, "--scheme", "xavier_normal", "-o", "out.pth")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.splitlines() == [
        "error: 5 of 8 tensors do not fit: conv.bias, body.bias, norm.weight, norm.bias, head.bias "
        "(xavier_normal needs 2 or more dimensions, this has 1)",
        "  select others with --pattern, give biases a scheme with --bias, or leave these as they "
        "are with --skip-unfit",
    ]
    assert not Path("out.pth").exists()
    ran = modtool("reinit", source, "--scheme", "xavier_normal", "--skip-unfit", "-o", "out.pth")
    assert ran.code == 0
    assert "note: left-unfilled: left as they were: conv.bias" in ran.err
    assert changed(sources[source], state_of("out.pth")) == {"conv.weight", BODY, "head.weight"}
    command = ("--scheme", "dirac", "--pattern", "body", "--skip-unfit", "-o", "b.pth")
    ran = modtool("reinit", source, *command)
    assert ran.code == 2
    assert ran.err.startswith("error: not one of 2 tensors fits: body.weight (dirac needs 3 to 5")


# -- biases and recipes ------------------------------------------------------------------------


@pytest.mark.parametrize(("bias", "value"), [("zeros", 0.0), ("ones", 1.0), ("0.125", 0.125)])
def test_biases_get_a_scheme_of_their_own(
    modtool: Modtool, sources: dict[str, State], bias: str, value: float
) -> None:
    command = ("--scheme", "xavier_normal", "--pattern", "head", "--pattern", "body")
    ran = modtool("reinit", "model.py", *command, "--bias", bias, "-o", "out.pth")
    assert (ran.code, ran.err) == (0, "")
    after = state_of("out.pth")
    names = {"head.weight", "head.bias", "body.weight", "body.bias"}
    assert changed(sources["model.py"], after) == names
    assert bool((after["head.bias"] == value).all())
    assert about(after["head.weight"].std().item(), math.sqrt(2 / 70))


def test_a_recipe_is_rules_in_order(modtool: Modtool, sources: dict[str, State]) -> None:
    Path("init.toml").write_text(
        'seed = 4\n[[rule]]\nscheme = "zeros"\n'
        '[[rule]]\npatterns = ["*.weight", "!norm"]\nscheme = "kaiming_normal"\n'
        'arguments = { nonlinearity = "relu" }\n'
        '[[rule]]\npatterns = "head"\nscheme = "normal"\narguments = { std = 2 }\nbias = 0.5\n'
    )
    ran = modtool("reinit", "model.py", "--recipe", "init.toml", "-o", "out.pth")
    assert (ran.code, ran.err) == (0, "")
    after = state_of("out.pth")
    zero = {name for name, each in after.items() if not each.any()} - {
        "norm.num_batches_tracked",
        "norm.running_mean",
    }
    assert zero == {"conv.bias", "body.bias", "norm.weight", "norm.bias"}
    normal_of = {"std": 2.0}
    wanted = fill("head.weight", (30, 40), "float32", "normal", normal_of, seed=4)
    assert torch.equal(after["head.weight"], wanted)
    assert torch.equal(after["head.bias"], torch.full((30,), 0.5))
    assert about(after[BODY].std().item(), math.sqrt(2 / 60))
    modtool("reinit", "model.py", "--recipe", "init.toml", "--seed", 5, "-o", "b.pth")
    assert changed(after, state_of("b.pth")) == {"conv.weight", BODY, "head.weight"}


def test_default_and_other_schemes_go_together(modtool: Modtool) -> None:
    Path("model.py").write_text(DEFINITION)
    Path("init.toml").write_text(
        '[[rule]]\nscheme = "default"\n[[rule]]\npatterns = ["head"]\nscheme = "ones"\n'
    )
    ran = modtool("reinit", "model.py", "--recipe", "init.toml", "-o", "out.pth", "--json")
    schemes = {each["name"]: each["scheme"] for each in json.loads(ran.out)["filled"]}
    assert schemes["head.weight"] == schemes["head.bias"] == "ones"
    assert schemes["body.weight"] == schemes["norm.running_mean"] == "default"
    after = state_of("out.pth")
    assert bool((after["head.weight"] == 1).all())
    before = net().state_dict()
    assert {"conv.weight", "conv.bias", "body.weight", "body.bias"} <= changed(before, after)


FLAGS = ("--scheme", "kaiming_normal", "--arg", "nonlinearity=relu", "--pattern", "type:Linear")


def test_print_recipe_is_what_the_flags_mean(modtool: Modtool, sources: dict[str, State]) -> None:
    ran = modtool("reinit", "model.py", *FLAGS, "--bias", "zeros", "--seed", 3, "--print-recipe")
    assert ran.out == (
        "seed = 3\n"
        "skip_unfit = false\n"
        "\n"
        "[[rule]]\n"
        'patterns = ["type:Linear"]\n'
        'scheme = "kaiming_normal"\n'
        'arguments = { a = 0.0, mode = "fan_in", nonlinearity = "relu" }\n'
        'bias = "zeros"\n'
    )
    Path("init.toml").write_text(ran.out)
    modtool("reinit", "model.py", *FLAGS, "--bias", "zeros", "--seed", 3, "-o", "a.pth")
    assert modtool("reinit", "model.py", "--recipe", "init.toml", "-o", "b.pth").code == 0
    assert Path("a.pth").read_bytes()[200:] != b""
    assert not changed(state_of("a.pth"), state_of("b.pth"))
    document = json.loads(modtool("reinit", "model.py", *FLAGS, "--print-recipe", "--json").out)
    assert document["recipe"]["rule"][0]["patterns"] == ["type:Linear"]
    again = modtool("reinit", "model.py", "--recipe", "init.toml", "--print-recipe")
    assert again.out == ran.out


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
rules = st.builds(
    rule_of,
    st.sampled_from(["normal", "uniform", "xavier_normal"]),
    st.just({}),
    st.lists(texts, max_size=3),
    st.none() | st.sampled_from(["zeros", "ones"]) | st.floats(-1e30, 1e30),
)
recipes = st.builds(Recipe, st.lists(rules, min_size=1).map(tuple), st.integers(), st.booleans())


@given(recipe=recipes)
def test_a_recipe_survives_its_file(
    recipe: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("recipes") / "init.toml"
    path.write_text(recipe_text(recipe), encoding="utf-8")
    assert read_recipe(str(path)) == recipe
    assert tomllib.loads(path.read_text(encoding="utf-8"))["seed"] == recipe.seed


# -- the report --------------------------------------------------------------------------------


def test_the_report_has_before_after_and_what_theory_expects(
    modtool: Modtool, sources: dict[str, State]
) -> None:
    command = ("reinit", "state.pth", "--scheme", "trunc_normal", "--pattern", "body")
    report = json.loads(modtool(*command, "-o", "out.pth", "--json").out)
    before, after = sources["state.pth"], state_of("out.pth")
    for each in report["filled"]:
        for when, state in (("before", before), ("after", after)):
            values = state[each["name"]].double()
            assert each[when]["mean"] == pytest.approx(values.mean().item(), abs=1e-12)
            assert each[when]["std"] == pytest.approx(values.std(correction=0).item())
        # The variance of N(0, 1) inside two deviations: 1 - 4·φ(2)/(2·Φ(2) - 1).
        assert each["expected"]["std"] == pytest.approx(0.8796256610342398)
    assert (len(report["filled"]), report["unchanged"], report["skipped"]) == (2, 9, [])
    assert report["written"] == ["out.pth"]


def test_the_table(modtool: Modtool) -> None:
    torch.save({"w": torch.full((2, 2), 3.0), "b": torch.zeros(2)}, "s.pth")
    ran = modtool("reinit", "s.pth", "--scheme", "eye", "--pattern", "w", "-o", "out.pth")
    lines = ran.out.splitlines()
    assert lines[0].split() == (
        [
            *("tensor", "shape", "scheme", "mean", "before", "std", "before", "mean", "std"),
            *("expected", "mean", "expected", "std", "arguments"),
        ]
    )
    assert lines[2].split() == ["w", "[2,", "2]", "eye", "3", "0", "0.5", "0.5", "0.5", "0.5"]
    assert lines[-3:] == ["filled 1   elements 4   skipped 0   unchanged 1", "", "out.pth"]


def test_dry_run_writes_nothing_and_knows_before_and_expected(
    modtool: Modtool, sources: dict[str, State]
) -> None:
    for source in sources:
        command = ("reinit", source, "--scheme", "normal", "--pattern", "body.weight")
        ran = modtool(*command, "-o", output_for(source), "--dry-run", "--json")
        report = json.loads(ran.out)
        (filled,) = report["filled"]
        assert filled["before"]["std"] == pytest.approx(
            sources[source][BODY].std(correction=0).item(), rel=1e-5
        )
        assert (filled["after"], filled["expected"]) == (None, {"mean": 0.0, "std": 1.0})
        assert report["written"] == []
        assert not Path(output_for(source)).exists()


def test_nothing_is_overwritten_without_force(modtool: Modtool, sources: dict[str, State]) -> None:
    Path("out.pth").write_text("precious")
    ran = modtool("reinit", "state.pth", "--scheme", "ones", "-o", "out.pth")
    assert ran.code == 2
    assert "--force" in ran.err
    assert Path("out.pth").read_text() == "precious"
    assert modtool("reinit", "state.pth", "--scheme", "ones", "-o", "out.pth", "--force").code == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_types(modtool: Modtool, dtype: torch.dtype) -> None:
    save_file({"w": torch.zeros(64, 64, dtype=dtype)}, "a.safetensors")
    ran = modtool("reinit", "a.safetensors", "--scheme", "normal", "-o", "b.safetensors", "--json")
    (filled,) = json.loads(ran.out)["filled"]
    values = load_file("b.safetensors")["w"]
    assert values.dtype == dtype
    assert filled["after"]["std"] == pytest.approx(values.double().std(correction=0).item())
    assert about(filled["after"]["std"], 1.0)


PEAK = """
import sys
from modtool.cli import run
assert run(sys.argv[1:]) == 0
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
sys.stderr.write(peak.split()[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="tells no peak memory")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_memory_is_bounded_by_the_largest_tensor_that_is_filled(
    tmp_path: Path, suffix: str
) -> None:
    size = 8 << 20
    state = {f"w{index}": torch.zeros(size // 4) for index in range(16)}
    source = str(tmp_path / f"in{suffix}")
    save_file(state, source) if suffix == ".safetensors" else torch.save(state, source)
    peaks = []
    for pattern in ("w0", "*"):
        command = ["reinit", source, "--scheme", "normal", "--pattern", pattern, "--force"]
        done = subprocess.run(
            [sys.executable, "-c", PEAK, *command, "-o", str(tmp_path / f"out{suffix}")],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(done.stderr) * 1024)
    # Sixteen tensors are 128 MiB. They cost what one does, and what the allocator keeps.
    assert peaks[1] - peaks[0] < 4 * size


# -- errors ------------------------------------------------------------------------------------

WRONG: list[tuple[list[str], str]] = [
    ([], "Missing argument 'TARGET'."),
    (["state.pth"], "no scheme given"),
    (["state.pth", "--scheme", "ones"], "no output given"),
    (["state.pth", "--scheme", "xavier", "-o", "o.pth"], "there is no scheme 'xavier'"),
    (["state.pth", "--scheme", "constant", "-o", "o.pth"], "needs the argument 'val'"),
    (["state.pth", "--scheme", "ones", "--arg", "val=1", "-o", "o.pth"], "no argument 'val'"),
    (["state.pth", "--scheme", "normal", "--arg", "std=-1", "-o", "o.pth"], "std=-1"),
    (["state.pth", "--scheme", "normal", "--arg", "std", "-o", "o.pth"], "'std' is no argument"),
    (["state.pth", "--scheme", "normal", "--arg", "std=nan", "-o", "o.pth"], "std=nan"),
    (["state.pth", "--scheme", "uniform", "--arg", "a=2", "-o", "o.pth"], "a=2 is not below b=1"),
    (["state.pth", "--scheme", "kaiming_normal", "--arg", "mode=in", "-o", "o.pth"], "mode=in"),
    (["state.pth", "--scheme", "ones", "--pattern", "haed", "-o", "o.pth"], "'haed'"),
    (["state.pth", "--scheme", "ones", "--pattern", "re:[", "-o", "o.pth"], "no regular"),
    (["state.pth", "--scheme", "ones", "--bias", "nought", "-o", "o.pth"], "'nought' for biases"),
    (["state.pth", "--scheme", "ones", "--bias", "constant", "-o", "o.pth"], "'val'"),
    (["state.pth", "--bias", "zeros", "-o", "o.pth"], "no scheme given"),
    (["state.pth", "--scheme", "ones", "--seed", "x", "-o", "o.pth"], "'x'"),
    (["state.pth", "--scheme", "ones", "--recipe", "good.toml", "-o", "o.pth"], "a recipe has its"),
    (["state.pth", "--recipe", "gone.toml", "-o", "o.pth"], "gone.toml"),
    (["state.pth", "--recipe", "state.pth", "-o", "o.pth"], "state.pth is no TOML"),
    (["state.pth", "--recipe", "empty.toml", "-o", "o.pth"], "there is no [[rule]]"),
    (["state.pth", "--recipe", "key.toml", "-o", "o.pth"], "rule 1: a rule has no 'pattern'"),
    (["state.pth", "--recipe", "scheme.toml", "-o", "o.pth"], "rule 2: there is no scheme 'no'"),
    (["gone.pth", "--scheme", "ones", "-o", "o.pth"], "gone.pth"),
    (["state.pth", "--scheme", "ones", "--model-arg", "a=1", "-o", "o.pth"], "are for models"),
    (["state.pth", "--scheme", "ones", "-o", "no/o.pth"], "there is no folder no"),
    (["state.pth", "--scheme", "ones", "-o", "state.pth", "--force"], "is the source itself"),
    (["ints.pth", "--scheme", "ones", "-o", "o.pth"], "ints.pth"),
    (["half.pth", "--scheme", "constant", "--arg", "val=1e6", "-o", "o.pth"], "too large"),
    (["half.pth", "--scheme", "normal", "--arg", "std=1e6", "-o", "o.pth"], "float16"),
    (["cut.pth", "--scheme", "ones", "-o", "o.pth"], "cut.pth"),
]


@pytest.mark.parametrize(
    ("arguments", "expected"), WRONG, ids=[" ".join(each[0]) for each in WRONG]
)
def test_wrong_input_is_one_or_two_lines(
    modtool: Modtool, arguments: list[str], expected: str
) -> None:
    torch.save(net().state_dict(), "state.pth")
    torch.save({"steps": torch.zeros(3, dtype=torch.int64)}, "ints.pth")
    torch.save({"w": torch.zeros(300, dtype=torch.float16)}, "half.pth")
    Path("cut.pth").write_bytes(Path("state.pth").read_bytes()[:-500])
    Path("good.toml").write_text('[[rule]]\nscheme = "ones"\n')
    Path("empty.toml").write_text("seed = 1\n")
    Path("key.toml").write_text('[[rule]]\npattern = "a"\nscheme = "ones"\n')
    Path("scheme.toml").write_text('[[rule]]\nscheme = "ones"\n[[rule]]\nscheme = "no"\n')
    files = {path.name for path in Path().iterdir()}
    ran = modtool("reinit", *arguments)
    assert (ran.code, ran.out) == (2, ""), ran.out
    assert ran.err.startswith("error: ")
    assert expected in ran.err
    assert len(ran.err.splitlines()) <= 2
    assert {path.name for path in Path().iterdir()} == files


def test_a_dry_run_needs_no_output(modtool: Modtool) -> None:
    torch.save({"a.weight": torch.ones(2, 2)}, "one.pth")
    before = sorted(Path().iterdir())
    ran = modtool("reinit", "one.pth", "--scheme", "zeros", "--dry-run")
    assert (ran.code, ran.err) == (0, "")
    assert sorted(Path().iterdir()) == before


def test_a_buffer_is_told_apart_from_no_tensor(modtool: Modtool) -> None:
    torch.save(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).state_dict(), "bn.pth")
    ran = modtool("reinit", "bn.pth", "--scheme", "ones", "--pattern", "1.running_mean", "-o", "o")
    assert (ran.code, ran.err) == (
        2,
        "error: '1.running_mean' selects nothing that can be filled: 1.running_mean is a buffer\n"
        "  name another one, such as 0.weight\n",
    )
