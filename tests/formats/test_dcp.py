"""Distributed checkpoints, written by torch itself: one process, four ranks, safetensors modes."""

import pickle
import subprocess
import sys
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.checkpoint.filesystem import (
    FileSystemWriter,
    SerializationFormat,
    _StorageInfo,
)
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.state_dict_saver import save as save_distributed

from modtool.api.inspecting import summary
from modtool.errors import (
    CorruptFileError,
    ModtoolError,
    TargetError,
    UnknownFormatError,
    UnsafeFileError,
)
from modtool.formats import open_checkpoint
from modtool.formats.dcp import StoredValue
from modtool.formats.dcp_items import locate, read_item, values_of
from modtool.records import Checkpoint, FileRange, Section, TensorInfo
from tests.formats import dcp_ranks


def save(state: dict[str, object], folder: Path, form: SerializationFormat | None = None) -> None:
    form = form or SerializationFormat.TORCH_SAVE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        writer = FileSystemWriter(folder, serialization_format=form)
        save_distributed(state, storage_writer=writer, no_dist=True)


def elements(block: TensorInfo) -> torch.Tensor:
    """The elements of a located block, read as plain bytes."""
    assert block.storage is not None
    place = block.storage.data
    assert isinstance(place, FileRange)
    with open(place.path, "rb") as file:
        file.seek(place.offset)
        data = bytearray(file.read(place.length))
    flat = torch.frombuffer(data, dtype=getattr(torch, block.dtype)) if data else torch.empty(0)
    stride = block.stride or torch.empty(block.shape, device="meta").stride()
    return flat.as_strided(block.shape, stride, block.offset)


def assembled(tensor: TensorInfo) -> torch.Tensor:
    """A tensor put together from its blocks."""
    whole = torch.empty(tensor.shape, dtype=getattr(torch, tensor.dtype))
    for chunk in tensor.chunks:
        where = tuple(
            slice(begin, begin + size)
            for begin, size in zip(chunk.offsets, chunk.sizes, strict=True)
        )
        if 0 not in chunk.sizes:
            whole[where] = elements(locate(tensor, chunk))
    return whole


def by_name(checkpoint: Checkpoint) -> dict[str, TensorInfo]:
    return {f"{tensor.section}/{tensor.name}": tensor for tensor in checkpoint.tensors}


# -- one process ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("dcp")
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.rand(4, 3)).sum().backward()
    optimizer.step()
    save(
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "epoch": 3,
            "history": [torch.ones(2), {"loss": torch.zeros(1)}],
        },
        folder,
    )
    return folder, model.state_dict()


def test_a_training_checkpoint(training: tuple[Path, dict[str, torch.Tensor]]) -> None:
    folder, state = training
    found = open_checkpoint(str(folder))
    assert (found.target, found.format, found.kind) == (str(folder), "dcp", "checkpoint")
    assert found.notes == ()
    assert found.sections == (
        Section("model", "model"),
        Section("optimizer", "optimizer"),
        Section("history", "other"),
    )
    assert {tensor.name: tensor.shape for tensor in found.model_tensors} == {
        name: tuple(tensor.shape) for name, tensor in state.items()
    }
    tensors = by_name(found)
    for name, tensor in state.items():
        assert torch.equal(assembled(tensors[f"model/{name}"]), tensor)
    assert tensors["model/1.running_mean"].role == "buffer"
    assert tensors["model/0.weight"].role == "parameter"
    assert tensors["optimizer/state.0.exp_avg"].role == "state"
    assert tensors["history/1.loss"].shape == (1,)
    assert tensors["model/0.weight"].location == "cpu"


def test_small_values_are_read_and_the_object_keeps_their_places(
    training: tuple[Path, dict[str, torch.Tensor]],
) -> None:
    found = open_checkpoint(str(training[0]))
    assert found.values["epoch"] == 3
    assert found.values["optimizer.param_groups.0.params"] == [0, 1, 2, 3]
    assert isinstance(found.root, dict)
    value = found.root["epoch"]
    assert isinstance(value, StoredValue)
    assert read_item(value.item).root == 3


def test_no_more_than_the_metadata_is_needed(
    training: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    (tmp_path / ".metadata").write_bytes((training[0] / ".metadata").read_bytes())
    found = open_checkpoint(str(tmp_path))
    assert found.tensors == tuple(
        moved(tensor, str(training[0]), str(tmp_path))
        for tensor in open_checkpoint(str(training[0])).tensors
    )
    assert [(note.code, note.where) for note in found.notes] == [("missing-shard", "__0_0.distcp")]


def moved(tensor: TensorInfo, old: str, new: str) -> TensorInfo:
    """The tensor as it is in a copy of the folder."""
    chunks = tuple(
        replace(chunk, item=chunk.item._replace(path=chunk.item.path.replace(old, new)))
        for chunk in tensor.chunks
        if chunk.item is not None
    )
    return replace(tensor, chunks=chunks)


def test_every_way_to_name_it(training: tuple[Path, dict[str, torch.Tensor]]) -> None:
    folder = training[0]
    whole = open_checkpoint(str(folder))
    assert open_checkpoint(str(folder / ".metadata")) == whole
    with pytest.raises(UnknownFormatError, match="a part of a distributed checkpoint") as caught:
        open_checkpoint(str(folder / "__0_0.distcp"))
    assert caught.value.hint == f"name its folder: {folder}"


def test_the_items_of_all_values(training: tuple[Path, dict[str, torch.Tensor]]) -> None:
    # 12 settings and the epoch
    assert len(list(values_of(open_checkpoint(str(training[0]))))) == 12 + 1


def test_a_strided_tensor(tmp_path: Path) -> None:
    weight = torch.arange(6.0).reshape(2, 3).t()
    save({"weight": weight}, tmp_path)
    found = open_checkpoint(str(tmp_path))
    assert found.kind == "state_dict"
    block = locate(found.tensors[0], found.tensors[0].chunks[0])
    assert (block.shape, block.stride) == ((3, 2), (1, 3))
    assert torch.equal(elements(block), weight)


def test_trainable_is_recorded_where_it_is_true(tmp_path: Path) -> None:
    save({"a": torch.nn.Parameter(torch.ones(2)), "b": torch.ones(2)}, tmp_path)
    found = open_checkpoint(str(tmp_path))
    assert {tensor.name: tensor.requires_grad for tensor in found.tensors} == {"a": True, "b": None}


def test_the_safetensors_mode(tmp_path: Path) -> None:
    weight, other = torch.rand(3, 4), torch.arange(5)
    state: dict[str, object] = {"model": {"weight": weight, "other": other}, "epoch": 3}
    save(state, tmp_path, SerializationFormat.SAFETENSORS)
    found = open_checkpoint(str(tmp_path))
    tensors = by_name(found)
    assert torch.equal(assembled(tensors["model/weight"]), weight)
    assert torch.equal(assembled(tensors["model/other"]), other)


# -- four ranks ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-W", "ignore", dcp_ranks.__file__, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("kind", ["dcp", "hf"])
def test_tensors_split_over_four_ranks(ranks: Path, kind: str) -> None:
    found = open_checkpoint(str(ranks / kind))
    assert found.format == "dcp"
    assert found.notes == ()
    tensors = {tensor.name: tensor for tensor in found.tensors}
    assert tensors.keys() == dcp_ranks.tensors().keys()
    for name, whole in dcp_ranks.tensors().items():
        assert f"torch.{tensors[name].dtype}" == str(whole.dtype)
        assert torch.equal(assembled(tensors[name]), whole)
    assert {(chunk.offsets, chunk.sizes) for chunk in tensors["grid"].chunks} == {
        ((0, 0), (3, 4)),
        ((0, 4), (3, 3)),
        ((3, 0), (2, 4)),
        ((3, 4), (2, 3)),
    }
    assert [chunk.sizes for chunk in tensors["everywhere"].chunks] == [(3,)]


def test_how_tensors_are_split_stands_in_the_tables(ranks: Path) -> None:
    (table, *_) = summary(str(ranks / "dcp"), tensors=True).tables
    assert [column.key for column in table.columns] == [
        "tensor",
        "shape",
        "dtype",
        "bytes",
        "chunks",
    ]
    assert {row[0][1]: row[-1] for row in table.rows} == {  # type: ignore[index]
        "grid": "2×2 of [3, 4]",
        "rows": "4×1 of [3, 2]",
        "columns": "1×2 of [2, 6]",
        "everywhere": "whole",
        "few": "2 of [1]",
    }
    document: Any = summary(str(ranks / "dcp")).document
    grid = next(each for each in document["tensors"] if each["name"] == "grid")
    assert grid["chunks"] == [
        {"offsets": chunk.offsets, "sizes": chunk.sizes}
        for tensor in open_checkpoint(str(ranks / "dcp")).tensors
        for chunk in tensor.chunks
        if tensor.name == "grid"
    ]


def test_a_rank_that_is_missing(ranks: Path, tmp_path: Path) -> None:
    for path in (ranks / "dcp").iterdir():
        if path.name != "__3_0.distcp":
            (tmp_path / path.name).symlink_to(path)
    found = open_checkpoint(str(tmp_path))
    assert {(note.code, note.where) for note in found.notes} == {
        ("missing-shard", "__3_0.distcp"),
        *(("link-outside", f"__{rank}_0.distcp") for rank in range(3)),
    }


def test_a_rank_of_safetensors_that_is_missing(ranks: Path, tmp_path: Path) -> None:
    for path in (ranks / "hf").iterdir():
        if not path.name.startswith("shard-00001"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    found = open_checkpoint(str(tmp_path))
    assert [(note.code, note.where) for note in found.notes] == [("missing-tensor", "grid")]


# -- metadata that lies --------------------------------------------------------------------------


def metadata(
    file: str = "__0_0.distcp",
    *,
    length: int = 10,
    size: tuple[int, ...] = (2, 3),
    offsets: tuple[int, ...] = (0, 0),
    sizes: tuple[int, ...] = (2, 3),
) -> Metadata:
    tensor = TensorStorageMetadata(
        TensorProperties(),
        torch.Size(size),
        [ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes))],
    )
    return Metadata(
        {"w": tensor, "epoch": BytesStorageMetadata()},
        storage_data={
            MetadataIndex("w", offsets): _StorageInfo(file, 0, length),
            MetadataIndex("epoch"): _StorageInfo(file, length, 5),
        },
    )


def opened(folder: Path, made: object) -> Checkpoint:
    (folder / ".metadata").write_bytes(pickle.dumps(made, protocol=4))
    return open_checkpoint(str(folder))


@pytest.mark.parametrize(
    "file", ["../other.distcp", "/etc/passwd", "a/../../b", "", "a\\b", "x\0y", "a//b", "n" * 2000]
)
def test_names_that_lead_out_of_the_folder(tmp_path: Path, file: str) -> None:
    with pytest.raises(UnsafeFileError, match="names a file outside its folder"):
        opened(tmp_path, metadata(file))


def test_items_beyond_the_end_of_their_file(tmp_path: Path) -> None:
    (tmp_path / "__0_0.distcp").write_bytes(b"x" * 12)
    found = opened(tmp_path, metadata())
    assert [(note.code, note.message) for note in found.notes] == [
        ("missing-shard", "__0_0.distcp ends at byte 12, its items at 15")
    ]
    with pytest.raises(CorruptFileError, match="no item that is known"):
        locate(found.tensors[0], found.tensors[0].chunks[0])


def test_an_item_that_is_cut_off(training: tuple[Path, dict[str, torch.Tensor]]) -> None:
    found = open_checkpoint(str(training[0]))
    item = found.tensors[0].chunks[0].item
    assert item is not None
    with pytest.raises(CorruptFileError, match="truncated: an item should end at byte"):
        read_item(FileRange(item.path, item.offset, 10**9))


def test_an_item_that_is_another_tensor(training: tuple[Path, dict[str, torch.Tensor]]) -> None:
    tensors = by_name(open_checkpoint(str(training[0])))
    weight, bias = tensors["model/0.weight"], tensors["model/0.bias"]
    wrong = replace(weight.chunks[0], item=bias.chunks[0].item)
    with pytest.raises(CorruptFileError, match=r"should be float32 \[2, 3\], it is float32 \[2\]"):
        locate(weight, wrong)


@pytest.mark.parametrize(
    ("offsets", "sizes"), [((1, 0), (2, 3)), ((0,), (2,)), ((0, 0), (2, 4)), ((0, 0, 0), (1, 1, 1))]
)
def test_blocks_outside_their_tensor(
    tmp_path: Path, offsets: tuple[int, ...], sizes: tuple[int, ...]
) -> None:
    with pytest.raises(CorruptFileError, match="a block of w lies outside of it"):
        opened(tmp_path, metadata(offsets=offsets, sizes=sizes))


def test_blocks_that_do_not_add_up(tmp_path: Path) -> None:
    (tmp_path / "__0_0.distcp").write_bytes(b"x" * 15)
    found = opened(tmp_path, metadata(sizes=(1, 3)))
    assert [(note.code, note.where) for note in found.notes] == [("missing-tensor", "w")]


def test_a_block_that_nobody_stored(tmp_path: Path) -> None:
    made = metadata()
    made.storage_data = {}
    found = opened(tmp_path, made)
    assert [(note.code, note.where) for note in found.notes] == [("missing-tensor", "w")]
    with pytest.raises(CorruptFileError, match="is not stored"):
        locate(found.tensors[0], found.tensors[0].chunks[0])


def test_a_packed_item_is_named(tmp_path: Path) -> None:
    made = metadata()
    made.storage_data[MetadataIndex("w", (0, 0))].transform_descriptors = ["zstd"]
    (tmp_path / "__0_0.distcp").write_bytes(b"x" * 15)
    codes = [(note.code, note.where) for note in opened(tmp_path, made).notes]
    assert codes == [("missing-tensor", "w"), ("compressed-member", "w")]


@pytest.mark.parametrize(
    "path", [(), ("a",) * 100, ("w", 1.5), (("w",),)], ids=["none", "deep", "float", "tuple"]
)
def test_paths_that_are_none(tmp_path: Path, path: tuple[object, ...]) -> None:
    made = metadata()
    made.planner_data = {"w": path}
    with pytest.raises(CorruptFileError, match="w: the path to it is none"):
        opened(tmp_path, made)


def test_paths_that_cross(tmp_path: Path) -> None:
    made = metadata()
    made.planner_data = {"w": ("epoch", "w"), "epoch": ("epoch",)}
    with pytest.raises(CorruptFileError, match="epoch: its place is taken"):
        opened(tmp_path, made)


@pytest.mark.parametrize("made", [{}, [1], Metadata({}), "text"], ids=["dict", "list", "half", "s"])
def test_pickles_that_are_no_metadata(tmp_path: Path, made: object) -> None:
    with pytest.raises(CorruptFileError, match=r"no metadata of|does not say where"):
        opened(tmp_path, made)


def test_a_shape_too_large_to_count(tmp_path: Path) -> None:
    with pytest.raises(CorruptFileError, match=r"\.metadata: .*more elements than can be counted"):
        opened(tmp_path, metadata(size=(2**40, 2**40), sizes=(1, 1)))


def test_blocks_shared_by_a_million_tensors(tmp_path: Path) -> None:
    made = metadata()
    tensor = made.state_dict_metadata["w"]
    assert isinstance(tensor, TensorStorageMetadata)
    tensor.chunks *= 10_000
    made.state_dict_metadata = {str(number): tensor for number in range(10_000)}
    with pytest.raises(UnsafeFileError, match="too many blocks"):
        opened(tmp_path, made)


def test_a_loop_of_links(tmp_path: Path) -> None:
    (tmp_path / "__0_0.distcp").symlink_to(tmp_path / "__0_0.distcp")
    with pytest.raises(TargetError, match="too many levels of symbolic links"):
        opened(tmp_path, metadata())


@given(st.data())
def test_any_damage_is_an_error_or_a_checkpoint(
    training: tuple[Path, dict[str, torch.Tensor]],
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
) -> None:
    whole = bytearray((training[0] / ".metadata").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("damage")
    (folder / ".metadata").write_bytes(whole[: data.draw(st.integers(1, len(whole)))])
    (folder / "__0_0.distcp").symlink_to(training[0] / "__0_0.distcp")
    with suppress(ModtoolError):
        for tensor in open_checkpoint(str(folder)).tensors:
            for chunk in tensor.chunks:
                with suppress(ModtoolError):
                    locate(tensor, chunk)
