"""Tensors in objects that nobody can look into: their bytes are told of, their names cannot be."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import spectral_norm

from modtool.formats import open_checkpoint


class Opaque:
    """Made by a call, of tensors."""

    def __init__(self, *parts: torch.Tensor) -> None:
        self.parts = parts

    def __reduce__(self) -> tuple[object, ...]:
        return make, self.parts


def make(*parts: torch.Tensor) -> Opaque:
    return Opaque(*parts)


def unshown(path: Path, value: object, *, legacy: bool = False) -> list[str]:
    torch.save(value, path, _use_new_zipfile_serialization=not legacy)
    notes = open_checkpoint(str(path)).notes
    return [note.message for note in notes if note.code == "unshown-tensors"]


@pytest.mark.parametrize("legacy", [False, True])
def test_bytes_of_tensors_that_only_a_call_knows(tmp_path: Path, legacy: bool) -> None:
    one = {"thing": Opaque(torch.ones(10, 10)), "w": torch.ones(3)}
    assert unshown(tmp_path / "a.pth", one, legacy=legacy) == [
        "a storage of 400 bytes, of no tensor that is shown"
    ]
    two = Opaque(torch.ones(10, 10), torch.ones(5, dtype=torch.int8))
    assert unshown(tmp_path / "b.pth", two, legacy=legacy) == [
        "2 storages of 405 bytes, of no tensor that is shown"
    ]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_parts_of_a_tensor_are_shown_with_it(tmp_path: Path) -> None:
    base = torch.eye(4)
    held = {
        "sparse": base.to_sparse(),
        "rows": base.to_sparse_csr(),
        "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        "jagged": torch.nested.nested_tensor([torch.ones(2)], layout=torch.jagged),
        "quantized": torch.quantize_per_channel(
            base, torch.ones(4), torch.zeros(4), 0, torch.qint8
        ),
        "view": base[1],
        "empty": Opaque(torch.ones(0)),
    }
    assert unshown(tmp_path / "a.pth", held) == []
    assert unshown(tmp_path / "b.pth", spectral_norm(nn.Linear(3, 2))) == []
