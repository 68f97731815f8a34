"""Which folder is what: well-known names, numbered shards, one file, several, none."""

import json
import zipfile
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from modtool.errors import ModtoolError, TargetError
from modtool.formats import open_checkpoint


def weights(path: Path, name: str = "fc.weight") -> None:
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".safetensors":
        save_file({name: torch.ones(2, 3)}, path)
    else:
        torch.save({name: torch.ones(2, 3)}, path)


def names(path: Path) -> list[str]:
    return [tensor.name for tensor in open_checkpoint(str(path)).tensors]


@pytest.mark.parametrize(
    ("file", "form"),
    [
        ("model.safetensors", "safetensors"),
        ("pytorch_model.bin", "torch-zip"),
        ("diffusion_pytorch_model.safetensors", "safetensors"),
        ("adapter_model.safetensors", "safetensors"),
        ("anything.pth", "torch-zip"),
        ("last.ckpt", "torch-zip"),
        ("checkpoint.pth.tar", "torch-zip"),
    ],
)
def test_the_one_file_of_a_folder(tmp_path: Path, file: str, form: str) -> None:
    weights(tmp_path / file)
    for beside in ("config.json", "tokenizer.json", "README.md", "vocab.txt"):
        (tmp_path / beside).write_text("{}")
    found = open_checkpoint(str(tmp_path))
    assert (found.target, found.format, found.notes) == (str(tmp_path), form, ())
    assert [tensor.name for tensor in found.tensors] == ["fc.weight"]
    assert open_checkpoint(f"{tmp_path}/").tensors == found.tensors


def test_what_a_trainer_leaves_beside_the_weights(tmp_path: Path) -> None:
    weights(tmp_path / "my-model.pt")
    for beside in (
        "optimizer.pt",
        "optimizer.bin",
        "scheduler.pt",
        "scaler.pt",
        "rng_state.pth",
        "rng_state_3.pth",
        "random_states_0.pkl",
        "training_args.bin",
    ):
        weights(tmp_path / beside, "other")
    assert names(tmp_path) == ["fc.weight"]


def test_from_pretrained_decides_what_comes_first(tmp_path: Path) -> None:
    order = [
        "model.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    ]
    for name in order:
        if name.endswith(".json"):
            shard = f"shard-of-{name}.safetensors"
            weights(tmp_path / shard, name)
            (tmp_path / name).write_text(json.dumps({"weight_map": {name: shard}}))
        else:
            weights(tmp_path / name, name)
    for name in order:
        assert names(tmp_path) == [name]
        (tmp_path / name).unlink()


def test_an_index_of_another_name(tmp_path: Path) -> None:
    weights(tmp_path / "model.fp16-00001-of-00001.safetensors", "w")
    index = tmp_path / "model.fp16.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": "model.fp16-00001-of-00001.safetensors"}}))
    assert names(tmp_path) == ["w"]


def test_shards_without_an_index(tmp_path: Path) -> None:
    for number in (1, 2, 4):
        weights(tmp_path / f"model-{number:05d}-of-00004.safetensors", f"w{number}")
    found = open_checkpoint(str(tmp_path))
    assert found.format == "safetensors-sharded"
    assert [tensor.name for tensor in found.tensors] == ["w1", "w2", "w4"]
    assert [(note.code, note.message) for note in found.notes] == [
        ("missing-shard", "model-00003-of-00004.safetensors is not there")
    ]


def test_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", w=np.zeros(2))
    assert names(tmp_path) == ["w"]


# -- too much, or nothing ------------------------------------------------------------------------


def error(path: Path) -> tuple[str, str]:
    with pytest.raises(TargetError) as caught:
        open_checkpoint(str(path))
    return caught.value.message.removeprefix(f"{path}: "), caught.value.hint


@pytest.mark.parametrize(
    ("files", "first"),
    [
        (["b.pth", "a.pth"], "a.pth"),
        (["x.pt", "y.safetensors"], "x.pt"),
        (["a.index.json", "b.index.json"], "a.index.json"),
    ],
)
def test_several_checkpoints(tmp_path: Path, files: list[str], first: str) -> None:
    for name in files:
        (tmp_path / name).write_text("")
    message, hint = error(tmp_path)
    assert message == f"a folder with 2 checkpoints: {', '.join(sorted(files))}"
    assert hint == f"name one of them: {tmp_path}/{first}"


def test_two_sets_of_shards(tmp_path: Path) -> None:
    weights(tmp_path / "a-00001-of-00002.safetensors")
    weights(tmp_path / "b-00001-of-00003.safetensors")
    message, _ = error(tmp_path)
    assert message == (
        "a folder with 2 checkpoints: a-…-of-00002.safetensors, b-…-of-00003.safetensors"
    )


def test_an_empty_folder(tmp_path: Path) -> None:
    assert error(tmp_path) == ("a folder without a checkpoint in it", "name the file itself")


def test_the_folder_of_a_megatron_run(tmp_path: Path) -> None:
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("100\n")
    assert error(tmp_path) == (
        "the folder of a Megatron run, without its latest iteration: 'iter_0000100'",
        "copy it here",
    )
    for step in ("iter_0000050", "iter_0000100"):
        (tmp_path / step).mkdir()
    assert error(tmp_path) == (
        "the folder of a Megatron run, whose latest checkpoint lies in iter_0000100",
        f"name its folder: {tmp_path}/iter_0000100",
    )
    rank = tmp_path / "iter_0000100" / "mp_rank_00"
    rank.mkdir()
    layer = {"layers.0.weight": torch.ones(3, 3)}
    args = Namespace(tensor_model_parallel_size=2)
    torch.save({"args": args, "model": {"encoder": layer}}, rank / "model_optim_rng.pt")
    assert error(tmp_path)[1] == f"name a rank: {rank}"
    (told,) = open_checkpoint(str(rank)).notes
    assert (told.code, told.where) == ("tensor-parallel", "model")
    assert told.message.startswith("one of 2 ranks")


def test_a_pipeline_of_diffusers(tmp_path: Path) -> None:
    weights(tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    weights(tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "model_index.json").write_text("{}")
    assert error(tmp_path) == (
        "no checkpoint in this folder, but in: unet, vae",
        f"name one of them: {tmp_path}/unet",
    )


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["saved_model.pb", "variables/"], "a TensorFlow SavedModel"),
        (["checkpoint", "model.index", "model.data-00000-of-00001"], "a TensorFlow checkpoint"),
        (["_CHECKPOINT_METADATA", "default/"], "an Orbax checkpoint (JAX)"),
        (["flax_model.msgpack", "config.json"], "a Flax model"),
        (["tf_model.h5"], "a TensorFlow model of transformers"),
        (["data.pkl", "version", "data/"], "an unpacked torch.save archive"),
        (["model.onnx"], "a folder with an ONNX model"),
    ],
)
def test_folders_of_others(tmp_path: Path, names: list[str], what: str) -> None:
    for name in names:
        if name.endswith("/"):
            (tmp_path / name).mkdir()
        else:
            (tmp_path / name).write_text("")
    message, hint = error(tmp_path)
    assert message == what
    assert hint


def test_an_unpacked_archive_can_be_packed_as_the_hint_says(tmp_path: Path) -> None:
    weights(tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth") as archive:
        archive.extractall(tmp_path / "out")
    folder = tmp_path / "out" / "x"
    message, hint = error(folder)
    assert message == "an unpacked torch.save archive"
    assert hint == "pack it: cd .. && zip -0Dr FILE.pth FOLDER"
    with zipfile.ZipFile(tmp_path / "again.pth", "w") as archive:  # what zip -0Dr does
        for path in folder.rglob("*"):
            if path.is_file():
                archive.write(path, path.relative_to(folder.parent))
    assert names(tmp_path / "again.pth") == ["fc.weight"]
    assert list(torch.load(tmp_path / "again.pth")) == ["fc.weight"]


def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(ModtoolError, match="no such file or directory"):
        open_checkpoint(str(tmp_path / "nowhere"))


def test_links_in_a_folder(tmp_path: Path) -> None:
    inside = tmp_path / "in"
    weights(tmp_path / "elsewhere.safetensors")
    inside.mkdir()
    (inside / "model.safetensors").symlink_to("../elsewhere.safetensors")
    found = open_checkpoint(str(inside))
    assert [tensor.name for tensor in found.tensors] == ["fc.weight"]
    assert [note.code for note in found.notes] == ["link-outside"]
    (inside / "model.safetensors").unlink()
    (inside / "model.safetensors").symlink_to("model.safetensors")
    with pytest.raises(TargetError, match="too many levels of symbolic links"):
        open_checkpoint(str(inside))


def test_a_folder_that_contains_itself(tmp_path: Path) -> None:
    (tmp_path / "again").symlink_to(tmp_path)
    assert error(tmp_path)[0] == "a folder without a checkpoint in it"
