"""Whatever is selected: its bits are the same each time, and no other byte is touched."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

import modtool as library

State = dict[str, torch.Tensor]

torch.manual_seed(0)
MODEL = nn.Sequential(nn.Linear(5, 4), nn.Conv1d(4, 6, 3, groups=2), nn.Linear(6, 3))
STATE: State = {name: tensor.clone() for name, tensor in MODEL.state_dict().items()}
NAMES = sorted(STATE)
SAVES: dict[str, Callable[[Path], None]] = {
    "state.pth": lambda path: torch.save(STATE, path),
    "ckpt.pth": lambda path: torch.save({"epoch": 3, "model": STATE}, path),
    "full.pth": lambda path: torch.save(MODEL, path),
    "old.pth": lambda path: torch.save(STATE, path, _use_new_zipfile_serialization=False),
    "net.safetensors": lambda path: save_file(STATE, path),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every source, and `all.pth` beside each: all of its tensors filled."""
    made = tmp_path_factory.mktemp("sources")
    for name, save in SAVES.items():
        save(made / name)
        fill(made / name, NAMES, made / f"all-{name}")
    return made


def fill(source: Path, names: list[str], output: Path) -> State:
    """The tensors of a file in which those named were drawn anew."""
    output.unlink(missing_ok=True)
    library.reinit(str(source), str(output), scheme="normal", patterns=names, seed=7)
    return state_of(output)


def state_of(path: Path) -> State:
    if path.suffix == ".safetensors":
        return load_file(path)
    loaded = torch.load(path, weights_only=False)
    if isinstance(loaded, nn.Module):
        return loaded.state_dict()
    return loaded.get("model", loaded)  # type: ignore[no-any-return]


@settings(max_examples=30)
@given(st.permutations(NAMES), st.integers(1, len(NAMES)), st.sampled_from(list(SAVES)))
def test_what_is_filled_depends_on_its_name_alone(
    folder: Path, names: list[str], count: int, source: str
) -> None:
    chosen = names[:count]
    filled = fill(folder / source, chosen, folder / f"some-{source}")
    wanted = state_of(folder / f"all-{source}")
    for name, before in STATE.items():
        expected = wanted[name] if name in chosen else before
        assert filled[name].detach().numpy().tobytes() == expected.detach().numpy().tobytes()
        assert not torch.equal(wanted[name], before)
