"""What torch saved is frozen and unfrozen to the letter: nothing but flags is ever different."""

import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import modtool as library
from tests.conftest import Ran
from tests.nets import Net, net

Modtool = Callable[..., Ran]


def tied() -> Net:
    model = net()
    model.twin = nn.Linear(4, 2)
    model.twin.weight = model.head.weight
    return model


def with_attributes() -> Net:
    """Its parameters are saved by another call, with what they carry."""
    model = net()
    for parameter in model.parameters():
        parameter.owner = "me"  # type: ignore[attr-defined]
    return model


def with_plain_tensors() -> Net:
    """What `nn.DataParallel` puts in its replicas: tensors in the place of Parameters."""
    model = net()
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            del module._parameters[name]
            module._parameters[name] = parameter.detach().clone().requires_grad_()  # type: ignore[assignment]
    return model


def with_lazy_layer() -> Net:
    model = net()
    model.tail = nn.LazyLinear(3)
    return model


def with_subclass() -> Net:
    model = net()
    model.head.weight = nn.Parameter(model.head.weight.detach().as_subclass(Tagged))
    return model


class Tagged(torch.Tensor):
    """A tensor of a type of its own."""


def recorded(kind: type[dict[str, bool]]) -> dict[str, Any]:
    """A training checkpoint in which the user's script says what trains."""
    flags = kind((name, True) for name, _ in net().named_parameters())
    return {"epoch": 3, "requires_grad": flags, "model_state_dict": net().state_dict()}


MODELS: dict[str, Callable[[], Any]] = {
    "plain": net,
    "tied": tied,
    "attributes": with_attributes,
    "plain tensors": with_plain_tensors,
    "lazy": with_lazy_layer,
    "subclass": with_subclass,
    "DataParallel": lambda: nn.DataParallel(net()),
    "in a checkpoint": lambda: {"epoch": 3, "model": net(), "flags": [True, False]},
    "a map": lambda: recorded(dict),
    "an ordered map": lambda: recorded(OrderedDict),
}
SAVES: dict[str, dict[str, Any]] = {
    **{f"zip, protocol {number}": {"pickle_protocol": number} for number in range(2, 6)},
    **{
        f"legacy, protocol {number}": {
            "pickle_protocol": number,
            "_use_new_zipfile_serialization": False,
        }
        for number in range(1, 5)
    },
}
CASES = [("plain", save) for save in SAVES] + [
    (model, save)
    for model in MODELS
    if model != "plain"
    for save in ("zip, protocol 2", "legacy, protocol 2")
]


def flags_of(value: Any) -> list[bool]:
    """The flags of the model in what was loaded, or those of the map."""
    if isinstance(value, dict) and "requires_grad" in value:
        return list(value["requires_grad"].values())
    model = value["model"] if isinstance(value, dict) else value
    return [each.requires_grad for each in model.parameters()]


def different(one: str, other: str) -> int:
    """How many bytes of two files of one size differ."""
    left, right = Path(one).read_bytes(), Path(other).read_bytes()
    assert len(left) == len(right)
    return sum(a != b for a, b in zip(left, right, strict=True))


def number_of_checksums(path: str) -> int:
    """In a zip the checksum of `data.pkl` changes in two places, the descriptor and the entry."""
    return 2 if zipfile.is_zipfile(path) else 0


@pytest.mark.parametrize(("model", "save"), CASES, ids=[", ".join(case) for case in CASES])
def test_freeze_then_unfreeze_gives_the_bytes_that_torch_saved(
    modtool: Modtool, model: str, save: str
) -> None:
    made = MODELS[model]()
    torch.save(made, "net.pth", **SAVES[save])
    assert modtool("freeze", "net.pth", "*head*", "-o", "frozen.pth").code == 0
    before = flags_of(made)
    after = flags_of(torch.load("frozen.pth", weights_only=False))
    frozen = sum(one and not other for one, other in zip(before, after, strict=True))
    assert frozen == 2
    assert before.count(True) == after.count(True) + 2
    checksums = number_of_checksums("net.pth")
    assert frozen <= different("net.pth", "frozen.pth") <= frozen + 4 * checksums
    if checksums:
        assert zipfile.ZipFile("frozen.pth").testzip() is None
    assert modtool("unfreeze", "frozen.pth", "*head*", "-o", "back.pth").code == 0
    assert Path("back.pth").read_bytes() == Path("net.pth").read_bytes()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("how", ["script", "trace"])
def test_torchscript_stays_what_it_is(modtool: Modtool, how: str) -> None:
    model = net().eval()
    jit: Any = torch.jit
    made = jit.script(model) if how == "script" else jit.trace(model, torch.ones(2, 3))
    made.save("net.pt")
    assert modtool("freeze", "net.pt", "backbone", "-o", "frozen.pt").code == 0
    loaded = jit.load("frozen.pt")
    assert [each.requires_grad for each in loaded.parameters()] == [False] * 4 + [True] * 2
    assert torch.equal(loaded.eval()(torch.ones(2, 3)), model(torch.ones(2, 3)))
    assert modtool("count", "frozen.pt", "--frozen").out == "24\n"
    assert 4 <= different("net.pt", "frozen.pt") <= 12
    assert modtool("unfreeze", "frozen.pt", "backbone", "-o", "back.pt").code == 0
    assert Path("back.pt").read_bytes() == Path("net.pt").read_bytes()
    ran = modtool("freeze", "net.pt", "backbone", "--map-location", "cuda", "-o", "no.pt")
    assert (ran.code, ran.err) == (
        2,
        "error: net.pt is TorchScript, in which only flags can be changed\n"
        "  torch.jit.load(FILE, map_location=…) moves it; "
        "-o OUT.safetensors takes its weights\n",
    )
    ran = modtool("freeze", "net.pt", "backbone", "-o", "out.safetensors")
    assert "left out code: TorchScript's program, which no other form has a place for\n" in ran.out
    assert modtool("count", "out.safetensors", "--frozen").out == "24\n"


def test_a_file_without_checksums_gets_none(modtool: Modtool) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(net(), "net.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    modtool("freeze", "net.pth", "head", "-o", "frozen.pth")
    assert different("net.pth", "frozen.pth") == 2
    modtool("unfreeze", "frozen.pth", "head", "-o", "back.pth")
    assert Path("back.pth").read_bytes() == Path("net.pth").read_bytes()


def test_checksums_before_the_data_follow_too(modtool: Modtool) -> None:
    """Python's zipfile writes them into the header, and leaves out what torch puts after."""
    torch.save(net(), "first.pth")
    with zipfile.ZipFile("first.pth") as source, zipfile.ZipFile("net.pth", "w") as archive:
        for name in source.namelist():
            archive.writestr(name, source.read(name))
    modtool("freeze", "net.pth", "head", "-o", "frozen.pth")
    assert 2 < different("net.pth", "frozen.pth") <= 10
    assert zipfile.ZipFile("frozen.pth").testzip() is None
    assert flags_of(torch.load("frozen.pth", weights_only=False)) == [True] * 4 + [False] * 2


def test_a_packed_pickle_is_written_anew(modtool: Modtool) -> None:
    torch.save(net(), "first.pth")
    with zipfile.ZipFile("first.pth") as source, zipfile.ZipFile("net.pth", "w") as archive:
        for name in source.namelist():
            packed = zipfile.ZIP_DEFLATED if name.endswith("data.pkl") else zipfile.ZIP_STORED
            archive.writestr(name, source.read(name), packed)
    assert modtool("freeze", "net.pth", "head", "-o", "frozen.pth").code == 0
    assert flags_of(torch.load("frozen.pth", weights_only=False)) == [True] * 4 + [False] * 2


def test_devices_that_change_too_are_written_anew(modtool: Modtool) -> None:
    torch.save(net(), "net.pth")
    ran = modtool("freeze", "net.pth", "head", "--map-location", "cuda:1", "-o", "frozen.pth")
    assert ran.code == 0
    loaded = torch.load("frozen.pth", weights_only=False, map_location="cpu")
    assert flags_of(loaded) == [True] * 4 + [False] * 2
    assert modtool("convert", "frozen.pth", "-o", "s.pth", "--map-location", "cuda:1=cpu").code == 0


def test_a_map_that_leaves_out_names_gets_them(modtool: Modtool) -> None:
    checkpoint = recorded(dict)
    del checkpoint["requires_grad"]["head.bias"]
    checkpoint["requires_grad"]["gone"] = True
    torch.save(checkpoint, "net.pth")
    assert modtool("freeze", "net.pth", "backbone.0", "-o", "a.pth").code == 0
    flags = torch.load("a.pth", weights_only=True)["requires_grad"]
    wanted = {**checkpoint["requires_grad"], "backbone.0.weight": False, "backbone.0.bias": False}
    assert list(flags.items()) == list(wanted.items())
    assert modtool("freeze", "net.pth", "head", "-o", "b.pth").code == 0
    flags = torch.load("b.pth", weights_only=True)["requires_grad"]
    assert flags == {**checkpoint["requires_grad"], "head.weight": False, "head.bias": False}


def test_the_map_and_the_model_say_the_same(modtool: Modtool) -> None:
    flags = {name: True for name, _ in net().named_parameters()}
    torch.save({"model": net(), "requires_grad": flags}, "net.pth")
    assert modtool("freeze", "net.pth", "head", "-o", "out.pth").code == 0
    loaded = torch.load("out.pth", weights_only=False)
    assert [each.requires_grad for each in loaded["model"].parameters()] == flags_of(loaded)
    assert flags_of(loaded) == [True] * 4 + [False] * 2


NAMES = [name for name, _ in net().named_parameters()]


@settings(max_examples=25)
@given(
    st.lists(st.booleans(), min_size=6, max_size=6),
    st.sets(st.sampled_from(NAMES), min_size=1),
    st.sampled_from(list(SAVES)),
)
def test_any_selection_can_be_taken_back(
    tmp_path_factory: pytest.TempPathFactory, flags: list[bool], names: set[str], save: str
) -> None:
    folder = tmp_path_factory.mktemp("flags")
    paths = [str(folder / name) for name in ("net.pth", "changed.pth", "back.pth")]
    model = net()
    for parameter, flag in zip(model.parameters(), flags, strict=True):
        parameter.requires_grad_(flag)
    torch.save(model, paths[0], **SAVES[save])
    states = dict(zip(NAMES, flags, strict=True))
    trainable = [name for name in names if states[name]]
    frozen = [name for name in names if not states[name]]
    for verb, undo, chosen in (
        (library.freeze, library.unfreeze, trainable),
        (library.unfreeze, library.freeze, frozen),
    ):
        if not chosen:
            continue
        for path in paths[1:]:
            Path(path).unlink(missing_ok=True)
        verb(paths[0], chosen, paths[1])
        loaded = torch.load(paths[1], weights_only=False)
        wanted = {**states, **dict.fromkeys(chosen, verb is library.unfreeze)}
        assert flags_of(loaded) == list(wanted.values())
        undo(paths[1], chosen, paths[2])
        assert Path(paths[2]).read_bytes() == Path(paths[0]).read_bytes()
