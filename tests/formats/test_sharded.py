"""Sets of shards behind an index, as huggingface_hub writes them; and sets that are not whole."""

import json
import os
from pathlib import Path

import pytest
import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import save_file

from modtool.errors import (
    CorruptFileError,
    TargetError,
    UnknownFormatError,
    UnsafeFileError,
)
from modtool.formats import open_checkpoint
from modtool.records import Checkpoint, FileRange, TensorInfo
from modtool.sharing import share

STATE = {
    "embed.weight": torch.rand(10, 8),
    "layers.0.weight": torch.rand(8, 8),
    "layers.0.norm.running_mean": torch.rand(8),
    "layers.1.weight": torch.rand(8, 8, dtype=torch.float16),
    "head.bias": torch.rand(10),
}


def index(folder: Path, weight_map: object, **more: object) -> str:
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": weight_map, **more}))
    return str(path)


def read(tensor: TensorInfo) -> torch.Tensor:
    assert tensor.storage is not None
    place = tensor.storage.data
    assert isinstance(place, FileRange)
    with open(place.path, "rb") as file:
        file.seek(place.offset)
        data = bytearray(file.read(place.length))
    return torch.frombuffer(data, dtype=getattr(torch, tensor.dtype)).reshape(tensor.shape)


def codes(found: Checkpoint) -> list[tuple[str, str]]:
    return [(note.code, note.where) for note in found.notes]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file({name: STATE[name] for name in ("embed.weight", "head.bias")}, tmp_path / "a")
    save_file({"layers.0.weight": STATE["layers.0.weight"]}, tmp_path / "b")
    return tmp_path


WEIGHT_MAP = {"embed.weight": "a", "head.bias": "a", "layers.0.weight": "b"}


@pytest.mark.parametrize(
    ("safe", "form", "name"),
    [
        (True, "safetensors-sharded", "model.safetensors.index.json"),
        (False, "torch-sharded", "pytorch_model.bin.index.json"),
    ],
)
@pytest.mark.parametrize("by", ["index", "folder"])
def test_what_huggingface_hub_writes(
    tmp_path: Path, safe: bool, form: str, name: str, by: str
) -> None:
    save_torch_state_dict(STATE, tmp_path, max_shard_size=400, safe_serialization=safe)
    (tmp_path / "config.json").write_text("{}")
    assert len(list(tmp_path.iterdir())) == 3 + 1 + 1  # shards, the index, the configuration
    target = str(tmp_path / name) if by == "index" else str(tmp_path)
    found = open_checkpoint(target)
    assert (found.target, found.format, found.kind, found.notes) == (
        target,
        form,
        "state_dict",
        (),
    )
    assert found.metadata["total_size"] == str(320 + 256 + 32 + 128 + 40)
    assert {tensor.name for tensor in found.tensors} == STATE.keys()
    for tensor in found.tensors:
        assert torch.equal(read(tensor), STATE[tensor.name])
    assert len({tensor.storage and tensor.storage.key for tensor in found.tensors}) == 5
    roles = {tensor.name: tensor.role for tensor in found.tensors}
    assert roles["layers.0.norm.running_mean"] == "buffer"


def test_pickles_of_all_shards_are_kept(tmp_path: Path) -> None:
    save_torch_state_dict(STATE, tmp_path, max_shard_size=400, safe_serialization=False)
    found = open_checkpoint(str(tmp_path))
    assert sorted(found.pickles) == [
        f"pytorch_model-0000{number}-of-00003.bin/data.pkl" for number in range(1, 4)
    ]


def test_shards_without_a_role_of_their_own(tmp_path: Path) -> None:
    """`weight_v` is a buffer beside `weight_u`, which may lie in another shard."""
    save_file({"fc.weight_v": torch.ones(2)}, tmp_path / "a")
    save_file({"fc.weight_u": torch.ones(2)}, tmp_path / "b")
    found = open_checkpoint(index(tmp_path, {"fc.weight_v": "a", "fc.weight_u": "b"}))
    assert [tensor.role for tensor in found.tensors] == ["buffer", "buffer"]


def test_tied_in_one_shard_and_alike_in_two(tmp_path: Path) -> None:
    shared = torch.ones(4)
    torch.save({"a": shared, "b": shared}, tmp_path / "1.bin")
    torch.save({"c": shared}, tmp_path / "2.bin")
    found = open_checkpoint(index(tmp_path, {"a": "1.bin", "b": "1.bin", "c": "2.bin"}))
    keys = [tensor.storage and tensor.storage.key for tensor in found.tensors]
    assert keys == ["1.bin:0", "1.bin:0", "2.bin:0"]
    assert found.notes == ()


def test_sparse_tensors_of_two_shards_are_not_tied(tmp_path: Path) -> None:
    sparse = torch.eye(3).to_sparse()
    torch.save({"a": sparse, "b": sparse.detach()}, tmp_path / "1.bin")
    torch.save({"c": sparse}, tmp_path / "2.bin")
    found = open_checkpoint(index(tmp_path, {"a": "1.bin", "b": "1.bin", "c": "2.bin"}))
    assert share(found.tensors).first == [None, 0, None]


def test_a_tied_name_that_the_index_leaves_out(tmp_path: Path) -> None:
    save_file({"embed": torch.ones(2)}, tmp_path / "a", metadata={"head": "embed"})
    found = open_checkpoint(index(tmp_path, {"embed": "a"}))
    assert [tensor.name for tensor in found.tensors] == ["embed", "head"]
    assert found.notes == ()


# -- sets that are not whole ---------------------------------------------------------------------


def test_a_missing_shard_is_named_and_the_rest_is_shown(folder: Path) -> None:
    (folder / "b").unlink()
    found = open_checkpoint(index(folder, WEIGHT_MAP))
    assert [tensor.name for tensor in found.tensors] == ["embed.weight", "head.bias"]
    assert [(note.code, note.level, note.message) for note in found.notes] == [
        ("missing-shard", "warning", "b is not there, and with it 1 tensor")
    ]


def test_a_link_to_nothing_is_a_missing_shard(folder: Path) -> None:
    (folder / "b").unlink()
    (folder / "b").symlink_to("nowhere")
    assert codes(open_checkpoint(index(folder, WEIGHT_MAP))) == [("missing-shard", "b")]


def test_no_shard_at_all(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="of its 2 files none is there: a, b"):
        open_checkpoint(index(tmp_path, WEIGHT_MAP))


def test_names_that_one_side_lacks(folder: Path) -> None:
    weight_map = {"embed.weight": "a", "lost": "a", "layers.0.weight": "b"}
    found = open_checkpoint(index(folder, weight_map))
    assert codes(found) == [("missing-tensor", "a"), ("unlisted-tensor", "a")]
    assert {tensor.name for tensor in found.tensors} == WEIGHT_MAP.keys()


def test_a_name_in_two_shards_counts_once_from_where_the_index_says(folder: Path) -> None:
    save_file({"head.bias": torch.zeros(3), "layers.0.weight": torch.zeros(1)}, folder / "b")
    found = open_checkpoint(index(folder, WEIGHT_MAP))
    shapes = {tensor.name: tensor.shape for tensor in found.tensors}
    assert shapes == {"embed.weight": (10, 8), "head.bias": (10,), "layers.0.weight": (1,)}
    assert codes(found) == [("repeated-tensor", "b")]


def test_a_damaged_shard_is_an_error_that_names_it(folder: Path) -> None:
    data = (folder / "b").read_bytes()
    (folder / "b").write_bytes(data[:-1])
    with pytest.raises(CorruptFileError) as caught:
        open_checkpoint(index(folder, WEIGHT_MAP))
    assert caught.value.message == (
        f"{folder}/b: truncated: its tensors should end at byte {len(data)}, "
        f"the file at {len(data) - 1}"
    )


@pytest.mark.parametrize("legacy", [False, True])
def test_a_damaged_pickle_in_a_shard_is_an_error_that_names_it(folder: Path, legacy: bool) -> None:
    saved = {"layers.0.weight": torch.ones(3)}
    torch.save(saved, folder / "b", _use_new_zipfile_serialization=not legacy)
    data = (folder / "b").read_bytes()
    (folder / "b").write_bytes(data.replace(b"layers.0.weight", b"\xff" * 15))
    with pytest.raises(CorruptFileError) as caught:
        open_checkpoint(index(folder, WEIGHT_MAP))
    assert caught.value.message.startswith(f"{folder}/b: ")
    assert "index.json" not in caught.value.message


def test_a_pointer_of_git_lfs_in_place_of_a_shard(folder: Path) -> None:
    (folder / "b").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(UnknownFormatError, match=r"/b: a Git-LFS pointer") as caught:
        open_checkpoint(index(folder, WEIGHT_MAP))
    assert caught.value.hint == "run: git lfs pull"


# -- indexes of strangers ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file",
    ["../a", "/etc/passwd", "sub/../../a", "..", "", "a\\b", "a\0", "a//b"],
)
def test_files_outside_the_folder_are_not_opened(folder: Path, file: object) -> None:
    with pytest.raises(UnsafeFileError, match="names a file outside its folder") as caught:
        open_checkpoint(index(folder, {"x": file}))
    assert "\0" not in str(caught.value)


@pytest.mark.parametrize("file", [3, None, ["a"], {}])
def test_a_file_that_is_named_by_no_text(folder: Path, file: object) -> None:
    with pytest.raises(UnsafeFileError, match="something that is no text") as caught:
        open_checkpoint(index(folder, {"a": file}))
    assert caught.value.message.endswith(f": {file}")
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("nothing was opened")


def test_a_file_that_is_a_link_to_something_else(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("root:x:0:0\n")
    (folder / "linked.safetensors").symlink_to(secret)
    with pytest.raises(UnknownFormatError) as caught:
        open_checkpoint(index(folder, {"a": "linked.safetensors"}))
    assert caught.value.message == (
        f"{folder}/linked.safetensors (a symbolic link to {secret}): a text file, not a checkpoint"
    )


def test_a_folder_below_is_inside(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "a").rename(folder / "sub" / "a")
    found = open_checkpoint(index(folder, {"embed.weight": "sub/a", "head.bias": "sub/a"}))
    assert (len(found.tensors), found.notes) == (2, ())


def test_a_link_out_of_the_folder_is_followed_with_a_note(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    (folder / "a").rename(outside)
    (folder / "a").symlink_to(outside)
    found = open_checkpoint(index(folder, WEIGHT_MAP))
    assert len(found.tensors) == 3
    assert [(note.code, note.message) for note in found.notes] == [
        ("link-outside", f"a is a link that leads out of its folder: {outside}")
    ]


def test_a_link_inside_the_folder_needs_no_note(folder: Path) -> None:
    (folder / "a").rename(folder / "blob")
    (folder / "a").symlink_to("blob")
    assert open_checkpoint(index(folder, WEIGHT_MAP)).notes == ()


@pytest.mark.parametrize("by", ["index", "folder"])
def test_a_cache_of_hugging_face(folder: Path, by: str) -> None:
    """`snapshots/REVISION/NAME` leads to `blobs/HASH` of the same repository."""
    cache = folder / "models--org--name"
    snapshot = cache / "snapshots" / "0123abc"
    (cache / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    index(folder, WEIGHT_MAP)
    for name in ("a", "b", "model.safetensors.index.json"):
        (folder / name).rename(cache / "blobs" / f"hash-{name}")
        (snapshot / name).symlink_to(f"../../blobs/hash-{name}")
    target = snapshot / "model.safetensors.index.json" if by == "index" else snapshot
    found = open_checkpoint(str(target))
    assert (len(found.tensors), found.notes) == (3, ())


def test_a_loop_of_links(folder: Path) -> None:
    (folder / "b").unlink()
    (folder / "b").symlink_to("c")
    (folder / "c").symlink_to("b")
    with pytest.raises(TargetError, match="too many levels of symbolic links"):
        open_checkpoint(index(folder, WEIGHT_MAP))


def test_a_pipe_is_no_shard(folder: Path) -> None:
    (folder / "b").unlink()
    os.mkfifo(folder / "b")
    with pytest.raises(TargetError, match="not a regular file"):
        open_checkpoint(index(folder, WEIGHT_MAP))


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("{}", UnknownFormatError, "a JSON text"),
        ('{"weight_map": []}', UnknownFormatError, "a JSON text"),
        ('{"weight_map": {}}', TargetError, "of its 0 files none is there"),
        ('{"weight_map": {"a": "b", "a": "c"}}', CorruptFileError, "a key occurs twice"),
        ('{"weight_map": ', CorruptFileError, "the index is no valid JSON"),
        ("[" * 200_000, UnknownFormatError, "a JSON text"),
        ('{"a":' * 200_000, CorruptFileError, "the index is no valid JSON"),
        ('{"a": "\udcff"}', CorruptFileError, "the index is no valid JSON"),
    ],
    ids=["empty", "list", "nothing", "twice", "cut", "deep", "deep-object", "bytes"],
)
def test_json_that_is_no_index(
    tmp_path: Path, text: str, error: type[Exception], message: str
) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(error, match=message):
        open_checkpoint(str(path))


def test_an_index_of_too_many_files(tmp_path: Path) -> None:
    target = index(tmp_path, {str(number): str(number) for number in range(30_000)})
    with pytest.raises(UnsafeFileError, match="names more than 20,000 files"):
        open_checkpoint(target)


def test_an_index_of_too_many_values(tmp_path: Path) -> None:
    (tmp_path / "x.index.json").write_bytes(b'{"weight_map":{' + b"[]," * 1_300_000)
    with pytest.raises(UnsafeFileError, match="the index has too many values"):
        open_checkpoint(str(tmp_path / "x.index.json"))


def test_text_in_the_metadata(folder: Path) -> None:
    more = {"metadata": {"total_size": 12, "format": "pt", "nested": {"a": 1}}}
    found = open_checkpoint(index(folder, WEIGHT_MAP, **more))
    assert found.metadata == {"total_size": "12", "format": "pt"}
