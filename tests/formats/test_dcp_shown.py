"""How a distributed checkpoint is shown: its small values, its blocks, what a load would run."""

from pathlib import Path

import torch

from modtool.formats import open_checkpoint
from modtool.formats.dcp import StoredValue
from modtool.formats.dcp_values import MAX_READ, MAX_SMALL, Opened
from modtool.pickles.callables import weights_only_of
from modtool.pickles.weights_only import refused
from modtool.records import Chunk, FileRange, Storage, TensorInfo
from modtool.report.summary import blocks_of
from tests.formats.test_dcp import save


def test_large_values_and_many_values_stay_where_they_are(tmp_path: Path) -> None:
    values: dict[str, object] = {f"value {number}": number for number in range(MAX_READ)}
    save({"large": "x" * MAX_SMALL, "w": torch.ones(2), **values}, tmp_path)
    shown = open_checkpoint(str(tmp_path)).values
    assert str(shown["large"]).endswith(" bytes>")
    assert [name for name in values if shown[name] != values[name]] == [f"value {MAX_READ - 1}"]
    assert shown[f"value {MAX_READ - 1}"] == "<1,261 bytes>"


def test_a_value_that_is_not_what_it_should_be_is_told_by_its_size(tmp_path: Path) -> None:
    save({"epoch": 3, "w": torch.ones(2)}, tmp_path)
    (data,) = tmp_path.glob("*.distcp")
    data.write_bytes(bytes(data.stat().st_size))
    assert open_checkpoint(str(tmp_path)).values == {"epoch": "<1,261 bytes>"}


def test_a_value_whose_storages_torch_could_not_find_stays_closed(tmp_path: Path) -> None:
    path = tmp_path / "item"
    torch.save((torch.ones(2),), path, pickle_protocol=0)  # which writes text for a storage
    value = StoredValue("", FileRange(str(path), 0, path.stat().st_size))
    assert Opened().filled(value) is value


def test_blocks_in_no_order_are_counted() -> None:
    def block(offsets: tuple[int, ...], sizes: tuple[int, ...]) -> Chunk:
        return Chunk(offsets, sizes, Storage("w", 4))

    blocks = (block((0, 0), (2, 1)), block((0, 1), (1, 3)), block((1, 1), (1, 3)))
    assert blocks_of(TensorInfo("w", "float32", (2, 4), chunks=blocks)) == (
        "3 blocks of up to [2, 3]"
    )


def test_what_a_load_of_it_unpickles(tmp_path: Path) -> None:
    save({"w": torch.ones(2)}, tmp_path)
    verdict = weights_only_of(open_checkpoint(str(tmp_path)))
    assert verdict == refused(
        [
            "a distributed checkpoint: only torch.distributed.checkpoint.load reads it, which "
            "unpickles .metadata and plain values for real"
        ]
    )
