"""Views that share a storage in unusual ways, written and read again by torch."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from modtool.formats import open_checkpoint
from modtool.live.compute import compute
from modtool.plan import Form, cast, notes_of, plan_conversion, shrink, tied
from modtool.write import write

Saved = Mapping[str, torch.Tensor]
BASE = torch.arange(10_000.0).reshape(100, 100)


def written(saved: Saved, folder: Path, to: Form, *edits: object) -> Path:
    """A file of some tensors in another form."""
    torch.save(saved, folder / "source.pth")
    plan = plan_conversion(open_checkpoint(str(folder / "source.pth")), to=to)
    for edit in edits:
        plan = edit(plan)  # type: ignore[operator]
    path = folder / "output.pth"
    write(plan, str(path), verified=True, compute=compute)
    return path


def test_views_of_several_widths_are_cut_down_where_each_can_begin(tmp_path: Path) -> None:
    base = torch.arange(64, dtype=torch.uint8)
    saved = {
        "bytes": base[1:9],
        "words": base[4:12].view(torch.uint32),
        "apart": base[41:43],
        "halves": base[42:46].view(torch.uint16),
    }
    found = torch.load(written(saved, tmp_path, "state_dict", shrink), weights_only=True)
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        "bytes": [1, 2, 3, 4, 5, 6, 7, 8],
        "words": [0x07060504, 0x0B0A0908],
        "apart": [41, 42],
        "halves": [0x2B2A, 0x2D2C],
    }
    sizes = {name: tensor.untyped_storage().nbytes() for name, tensor in found.items()}
    assert sizes == {"bytes": 12, "words": 12, "apart": 6, "halves": 6}


def test_what_lies_scattered_over_a_storage_is_put_together(tmp_path: Path) -> None:
    saved = {
        "columns": BASE[:, :10],
        "tied": BASE[:, :10],
        "others": BASE[:, 50:60],
        "expanded": BASE[::50, 70:71].expand(2, 100),
        "conjugate": torch.complex(BASE, BASE).conj()[:, 3],
    }
    found = torch.load(written(saved, tmp_path, "state_dict", shrink), weights_only=True)
    for name, tensor in saved.items():
        assert torch.equal(found[name], tensor), name
    sizes = {name: tensor.untyped_storage().nbytes() for name, tensor in found.items()}
    assert sizes == {
        "columns": 4000,
        "tied": 4000,
        "others": 4000,
        "expanded": 8,
        "conjugate": 800,
    }
    assert found["expanded"].stride() == (1, 0)
    assert found["columns"].data_ptr() == found["tied"].data_ptr()


@pytest.mark.parametrize(
    ("left", "right", "nbytes"),
    [
        (BASE[:, :10], BASE[5:7, :20], 4 * 9910),
        (BASE[:, ::2], BASE[:, 1::2], 4 * 10_000),
        (BASE.T, BASE.T, 4 * 10_000),
        (BASE[:1, :1].expand(100, 100), BASE[:1, :1], 4),
    ],
    ids=["overlapping", "between each other", "turned", "expanded"],
)
def test_a_storage_is_kept_together_where_that_shares_or_takes_less(
    tmp_path: Path, left: torch.Tensor, right: torch.Tensor, nbytes: int
) -> None:
    saved = {"left": left, "right": right}
    found = torch.load(written(saved, tmp_path, "state_dict", shrink), weights_only=True)
    assert found["left"].untyped_storage().nbytes() == nbytes
    assert found["left"].stride() == left.stride()
    apart = found["right"].data_ptr() - found["left"].data_ptr()
    assert apart == right.data_ptr() - left.data_ptr()
    for name, tensor in saved.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_a_negated_view_beside_a_plain_one_is_cast_to_its_own_values(
    tmp_path: Path, dtype: str
) -> None:
    parts = torch.complex(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
    saved = {"negated": parts.conj().imag, "real": parts.real}
    assert saved["negated"].is_neg()
    path = written(saved, tmp_path, "state_dict", lambda plan: cast(plan, dtype))
    found = torch.load(path, weights_only=True)
    assert found["negated"].tolist() == [-3.0, -4.0]
    assert found["real"].tolist() == [1.0, 2.0]
    assert found["negated"].dtype == found["real"].dtype == getattr(torch, dtype)


def test_views_that_overlap_are_said_to_be_stored_apart(tmp_path: Path) -> None:
    whole, parts = torch.randn(4, 4), torch.randn(8)
    saved = {"a": whole, "tied": whole, "turned": whole.T, "left": parts[:4], "right": parts[4:]}
    torch.save(saved, tmp_path / "source.pth")
    plan = plan_conversion(open_checkpoint(str(tmp_path / "source.pth")), to="safetensors")
    assert [(note.code, note.where, note.message) for note in notes_of(plan)] == [
        ("tied-stored-once", "tied", "stored once, as a; load_model restores it"),
        ("tied-stored-apart", "", "stored once for each name: a, turned"),
    ]
    assert notes_of(tied(plan, "clone")) == ()
