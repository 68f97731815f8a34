"""Notes on what `state_dict()` may have otherwise than it is shown, and on values without end."""

import sys
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import spectral_norm, weight_norm

from modtool.formats import open_checkpoint
from modtool.records import Note
from tests.gone import gone
from tests.pickles.test_modules import dynamic_quantized

HOOKS = """
from torch import nn


def post(module, state, prefix, metadata):
    pass


def pre(module, prefix, keep_vars):
    pass


def other_names(*args, **kwargs):
    return {}


class Keeper:
    def __call__(self, *args):
        pass

    def keep(self, *args):
        pass


class Net(nn.Linear):
    def state_dict(self, *args, **kwargs):
        return {}

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        pass
"""


def notes_of(value: object, path: Path, **options: Any) -> tuple[Note, ...]:
    torch.save(value, path, **options)
    return open_checkpoint(str(path)).notes


def hooked(kit: Any) -> nn.Module:
    """A net with a hook of each kind."""
    model: Any = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    model.register_state_dict_pre_hook(kit.pre)
    model[0].register_state_dict_post_hook(kit.post)
    model[1].register_state_dict_post_hook(partial(kit.post))
    model[1]._register_state_dict_hook(kit.Keeper())
    model[1]._register_state_dict_hook(kit.Keeper().keep)
    model[0].state_dict = kit.other_names
    made: nn.Module = model
    return made


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("zipped", [True, False])
def test_hooks_of_strangers_are_told(tmp_path: Path, zipped: bool, protocol: int) -> None:
    options = {"_use_new_zipfile_serialization": zipped, "pickle_protocol": protocol}
    with gone("hook_kit", HOOKS) as kit:
        notes = notes_of(hooked(kit), tmp_path / "x.pth", **options)
    end = "may change what state_dict() gives for"
    assert [(each.code, each.where, each.message) for each in notes] == [
        ("extra-state", "", f"the hook hook_kit.pre {end} the model"),
        ("extra-state", "0", f"the hook hook_kit.post {end} 0, 1"),
        ("extra-state", "0", f"hook_kit.other_names, set in place of state_dict(), {end} 0"),
        ("extra-state", "1", f"the hook hook_kit.Keeper {end} 1"),
        ("extra-state", "1", f"the hook hook_kit.Keeper.keep {end} 1"),
    ]


def test_methods_in_the_source_that_a_legacy_file_carries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hook_sources.py").write_text(HOOKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    import hook_sources  # type: ignore[import-not-found]

    model = nn.Sequential(hook_sources.Net(1, 1))
    notes = notes_of(model, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    del sys.modules["hook_sources"]
    end = "may give other entries than these"
    assert [(each.where, each.message) for each in notes] == [
        ("0", f"hook_sources.Net.state_dict() {end}"),
        ("0", f"hook_sources.Net._save_to_state_dict() {end}"),
    ]


@pytest.mark.parametrize(
    "make",
    [
        lambda: spectral_norm(nn.Linear(3, 2)),
        lambda: weight_norm(nn.Linear(3, 2)),
        lambda: nn.DataParallel(nn.Linear(3, 2)),
        lambda: nn.Transformer(4, 2, 1, 1, 8),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_the_hooks_of_torch_itself_are_no_news(tmp_path: Path, make: Any) -> None:
    assert notes_of(make(), tmp_path / "x.pth") == ()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_what_quantized_modules_pack_into_one_entry(tmp_path: Path) -> None:
    model = dynamic_quantized()
    notes = notes_of(model, tmp_path / "x.pth")
    packed, dtypes = "._packed_params._packed_params", "._packed_params.dtype"
    unlike = [name for name, value in model.state_dict().items() if not torch.is_tensor(value)]
    assert sorted(unlike) == sorted(f"{index}{end}" for index in "01" for end in (packed, dtypes))
    assert [(each.code, each.where, each.message) for each in notes] == [
        (
            "not-a-tensor",
            f"0{packed}",
            "one entry of state_dict() each, whose packed tensors are numbered here: "
            f"0{packed}, 1{packed}",
        ),
    ]


def endless_list() -> list[object]:
    made: list[object] = [1]
    made.append(made)
    return made


def endless_dict() -> dict[str, object]:
    made: dict[str, object] = {"a": 1}
    made["self"] = made
    return made


def endless_object() -> Namespace:
    made = Namespace(a=1)
    made.self = made
    return made


@pytest.mark.parametrize(
    ("value", "place", "shown"),
    [
        (endless_list(), "x.1", {"x.0": 1}),
        (endless_dict(), "x.self", {"x.a": 1}),
        (endless_object(), "x.self", {"x.a": 1}),
        ((1, [endless_list()]), "x.1.0.1", {"x.0": 1, "x.1.0.0": 1}),
    ],
)
def test_a_value_without_end_is_named(
    tmp_path: Path, value: object, place: str, shown: dict[str, object]
) -> None:
    path = tmp_path / "x.pth"
    torch.save({"model": {"weight": torch.ones(2)}, "x": value}, path)
    found = open_checkpoint(str(path))
    assert found.values == shown
    assert [(each.code, each.where, each.message) for each in found.notes] == [
        ("cyclic-value", place, f"a value that contains itself, shown once: {place}")
    ]
    assert [tensor.name for tensor in found.tensors] == ["weight"]


def test_a_value_that_is_only_shared_has_an_end(tmp_path: Path) -> None:
    shared = [1, [2]]
    assert notes_of({"model": {"w": torch.ones(1)}, "x": [shared, shared]}, tmp_path / "x") == ()
