"""The header of safetensors files, against the library's own."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from modtool.errors import OutputError
from modtool.formats.safetensors_writer import Entry, file_header, file_order


@pytest.mark.parametrize("metadata", [{}, {"format": "pt"}])
def test_the_header_is_the_librarys(tmp_path: Path, metadata: dict[str, str]) -> None:
    tensors = {
        "ü.weight": torch.zeros(3, 2),
        'quoted"name': torch.zeros(2, dtype=torch.bfloat16),
        "scalar": torch.tensor(1, dtype=torch.int64),
        "empty": torch.zeros(0, 5, dtype=torch.bool),
        "a pair": torch.zeros(3, 5, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
    }
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file(tensors, path, metadata=metadata or None)
    entries = [
        Entry(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        for name, tensor in tensors.items()
    ]
    header = file_header(sorted(entries, key=file_order), metadata)
    assert path.read_bytes().startswith(header)


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.integers(0, 9), max_size=5))
def test_any_name(sizes: dict[str, int]) -> None:
    header = file_header([Entry(name, "uint8", (size,)) for name, size in sizes.items()], {})
    data = safetensors.torch.load(header + b"\1" * sum(sizes.values()))
    assert {name: tensor.tolist() for name, tensor in data.items()} == {
        name: [1] * size for name, size in sizes.items()
    }


def test_the_header_is_padded_to_8() -> None:
    header = file_header([Entry("a", "float32", (2,))], {})
    assert len(header) % 8 == 0
    assert json.loads(header[8:]) == {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def test_names_that_the_format_cannot_hold() -> None:
    with pytest.raises(OutputError, match="reserves the name"):
        file_header([Entry("__metadata__", "uint8", (1,))], {})
    with pytest.raises(OutputError, match="UTF-8"):
        file_header([Entry("\ud800", "uint8", (1,))], {})
