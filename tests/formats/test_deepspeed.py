"""DeepSpeed's folders: ZeRO 1 to 3, frozen and shared parameters, pipelines, tensor parallelism."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modtool.api.converting import convert
from modtool.checks.explanations import remedy_of
from modtool.errors import TargetError, UnsafeFileError, UsageError
from modtool.formats import open_checkpoint
from modtool.records import Checkpoint, Section
from modtool.report.totals import totals_of
from tests.formats.deepspeed_files import Shapes, model_states, optimizer_states, write

SHAPES: Shapes = {"fc1.weight": (4, 3), "fc1.bias": (4,), "fc2.weight": (2, 4)}
NUMEL = 12 + 4 + 8


def zero(folder: Path, stage: int, ranks: int = 2, prefix: str = "") -> Path:
    """A folder of one ZeRO stage."""
    files: dict[str, object] = {}
    buffers = {"norm.running_mean": torch.zeros(4)}
    if stage < 3:
        module = {name: torch.zeros(shape, dtype=torch.bfloat16) for name, shape in SHAPES.items()}
        name = "mp_rank_00_model_states.pt"
        files[name] = model_states(module | buffers, SHAPES, ranks=ranks, buffers=tuple(buffers))
    for rank in range(ranks):
        if stage == 3:
            placeholders = {name: torch.zeros(0, dtype=torch.bfloat16) for name in SHAPES}
            files[f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt"] = model_states(
                placeholders | buffers, SHAPES, ranks=ranks, buffers=tuple(buffers)
            )
        files[f"{prefix}zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"] = optimizer_states(
            SHAPES, stage, ranks
        )
    return write(folder, files)


def model(found: Checkpoint) -> dict[str, tuple[str, tuple[int, ...], str]]:
    return {
        tensor.name: (tensor.dtype, tensor.shape, tensor.role) for tensor in found.model_tensors
    }


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("prefix", ["", "bf16_"])
def test_the_weights_lie_in_the_model_file(tmp_path: Path, stage: int, prefix: str) -> None:
    folder = zero(tmp_path / "x", stage, prefix=prefix)
    found = open_checkpoint(str(folder))
    assert (found.target, found.format, found.kind) == (str(folder), "deepspeed", "checkpoint")
    assert found.notes == ()
    assert model(found) == {
        **{name: ("bfloat16", shape, "parameter") for name, shape in SHAPES.items()},
        "norm.running_mean": ("float32", (4,), "buffer"),
    }
    assert all(
        tensor.storage is not None and tensor.storage.data is not None
        for tensor in found.model_tensors
    )
    assert found.sections == (
        Section("module", "model"),
        Section(f"{prefix}zero_pp_rank_0_mp_rank_00_optim_states", "optimizer"),
        Section(f"{prefix}zero_pp_rank_1_mp_rank_00_optim_states", "optimizer"),
    )
    shards = [tensor for tensor in found.tensors if tensor.section != "module"]
    assert sum(tensor.nbytes for tensor in shards) == 3 * 4 * NUMEL
    totals = totals_of(found.model_tensors)
    assert (totals.total, totals.trainable, totals.buffers) == (NUMEL, NUMEL, 4)
    assert found.values["global_steps"] == 7
    assert found.values["ds_config.bf16.enabled"] is True
    assert not any(name.startswith("param_shapes") for name in found.values)
    assert found.metadata == {"step": "global_step7"}


def test_zero_3_has_shapes_and_no_weights(tmp_path: Path) -> None:
    found = open_checkpoint(str(zero(tmp_path / "x", 3)))
    assert model(found) == {
        **{name: ("float32", shape, "parameter") for name, shape in SHAPES.items()},
        "norm.running_mean": ("float32", (4,), "buffer"),
    }
    assert [(note.code, note.where) for note in found.notes] == [
        ("partitioned-weights", "fc1.weight")
    ]
    assert found.notes[0].message == (
        "3 parameters lie in pieces in the ranks' files; "
        "recover them with DeepSpeed's own zero_to_fp32.py, which lies beside `latest`"
    )
    assert remedy_of(found.notes[0]) == (
        "put them together with DeepSpeed's zero_to_fp32.py, which lies beside `latest`"
    )
    assert totals_of(found.model_tensors).total == NUMEL
    assert [section.role for section in found.sections] == [
        "model",
        "optimizer",
        "other",
        "optimizer",
    ]


@pytest.mark.parametrize("name", ["out.pth", "out.safetensors"])
def test_weights_in_pieces_are_not_converted(tmp_path: Path, name: str) -> None:
    folder = zero(tmp_path / "x", 3)
    with pytest.raises(UsageError) as refusal:
        convert(str(folder), output=str(tmp_path / name))
    assert str(refusal.value) == (
        "fc1.weight: its elements lie in pieces in the files of the ranks\n"
        "put them together with DeepSpeed's own zero_to_fp32.py, and convert what it writes"
    )


def test_one_file_of_zero_3_has_the_shapes_that_it_records(tmp_path: Path) -> None:
    step = zero(tmp_path / "x", 3) / "global_step7"
    found = open_checkpoint(str(step / "zero_pp_rank_1_mp_rank_00_model_states.pt"))
    whole = open_checkpoint(str(step))
    assert (found.format, model(found)) == ("torch-zip", model(whole))
    assert (found.notes, found.sections) == (whole.notes, (Section("module", "model"),))
    assert found.values == whole.values
    with pytest.raises(UsageError, match="its elements lie in pieces in the files of the ranks"):
        convert(found.target, output=str(tmp_path / "out.pth"))


@pytest.mark.parametrize("by", ["step", "without latest"])
def test_other_ways_to_name_it(tmp_path: Path, by: str) -> None:
    folder = zero(tmp_path / "x", 2)
    target = folder / "global_step7" if by == "step" else folder
    if by == "without latest":
        (folder / "latest").unlink()
        (folder / "zero_to_fp32.py").unlink()
    assert open_checkpoint(str(target)).tensors == open_checkpoint(str(folder)).tensors


def test_the_latest_of_two_steps(tmp_path: Path) -> None:
    folder = zero(tmp_path / "x", 2)
    (folder / "global_step9").mkdir()
    assert open_checkpoint(str(folder)).metadata == {"step": "global_step7"}
    (folder / "latest").unlink()
    with pytest.raises(TargetError, match="2 steps, and no file that says which is the latest"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize("name", ["../elsewhere", "/etc", "a\0b"])
def test_a_latest_that_leads_away(tmp_path: Path, name: str) -> None:
    folder = zero(tmp_path / "x", 2)
    (folder / "latest").write_text(name)
    with pytest.raises(UnsafeFileError, match="names a file outside its folder"):
        open_checkpoint(str(folder))


def test_a_latest_that_leads_nowhere(tmp_path: Path) -> None:
    folder = zero(tmp_path / "x", 2)
    (folder / "latest").write_text("global_step8")
    with pytest.raises(TargetError, match="it names 'global_step8', which is not there"):
        open_checkpoint(str(folder))


def test_frozen_and_shared_parameters(tmp_path: Path) -> None:
    states = model_states(
        {}, {"embed": (6, 2)}, ranks=1, frozen={"base": (3,)}, shared={"head": "embed"}
    )
    folder = write(tmp_path / "x", {"zero_pp_rank_0_mp_rank_00_model_states.pt": states})
    found = open_checkpoint(str(folder))
    grads = {tensor.name: tensor.requires_grad for tensor in found.model_tensors}
    assert grads == {"embed": True, "base": False, "head": True}
    totals = totals_of(found.model_tensors)
    assert (totals.total, totals.trainable, totals.frozen) == (15, 12, 3)


def test_shapes_as_one_dict(tmp_path: Path) -> None:
    """Older versions wrote one dict and not a list of them."""
    states = model_states({}, SHAPES, ranks=1)
    groups = states["param_shapes"]
    assert isinstance(groups, list)
    states["param_shapes"] = groups[0]
    folder = write(tmp_path / "x", {"zero_pp_rank_0_mp_rank_00_model_states.pt": states})
    assert set(model(open_checkpoint(str(folder)))) == set(SHAPES)


def test_a_rank_that_is_missing(tmp_path: Path) -> None:
    folder = zero(tmp_path / "x", 2, ranks=4)
    (folder / "global_step7" / "zero_pp_rank_2_mp_rank_00_optim_states.pt").unlink()
    found = open_checkpoint(str(folder))
    assert [(note.code, note.message) for note in found.notes] == [
        ("missing-shard", "optimizer files of ranks 2 are not there")
    ]


def test_layers_of_a_pipeline(tmp_path: Path) -> None:
    files: dict[str, object] = {
        "mp_rank_00_model_states.pt": model_states(None, {}, ranks=1),
        "layer_00-model_00-model_states.pt": {"weight": torch.zeros(5, 2)},
        "layer_01-model_00-model_states.pt": {"fc.weight": torch.zeros(2, 2)},
        "layer_01-model_01-model_states.pt": {"fc.weight": torch.zeros(2, 2)},
    }
    found = open_checkpoint(str(write(tmp_path / "x", files)))
    assert {tensor.name: tensor.shape for tensor in found.model_tensors} == {
        "0.weight": (5, 2),
        "1.fc.weight": (2, 2),
    }
    assert [(note.code, note.where) for note in found.notes] == [
        ("tensor-parallel", "layer_01-model_01-model_states.pt")
    ]


def test_tensor_parallel_ranks(tmp_path: Path) -> None:
    module = {"fc.weight": torch.zeros(2, 3)}
    files: dict[str, object] = {
        f"mp_rank_0{rank}_model_states.pt": model_states(module, {"fc.weight": (2, 3)}, ranks=1)
        for rank in range(2)
    }
    found = open_checkpoint(str(write(tmp_path / "x", files)))
    assert totals_of(found.model_tensors).total == 6
    assert found.sections == (
        Section("module", "model"),
        Section("mp_rank_01_model_states", "other"),
    )
    assert [note.code for note in found.notes] == ["tensor-parallel"]


def test_experts(tmp_path: Path) -> None:
    files: dict[str, object] = {
        "mp_rank_00_model_states.pt": model_states({"gate": torch.zeros(2)}, {"gate": (2,)}),
        "layer_0_expert_0_mp_rank_00_model_states.pt": {"moe.experts.0.w": torch.zeros(3)},
        "layer_0_expert_1_mp_rank_00_model_states.pt": {"moe.experts.1.w": torch.zeros(3)},
        "expp_rank_0_mp_rank_00_optim_states.pt": {"optimizer": {"state": {}}},
    }
    found = open_checkpoint(str(write(tmp_path / "x", files)))
    assert set(model(found)) == {"gate", "moe.experts.0.w", "moe.experts.1.w"}
    assert found.notes == ()


def test_storages_of_all_files_are_told_apart(tmp_path: Path) -> None:
    found = open_checkpoint(str(zero(tmp_path / "x", 2)))
    keys = [tensor.storage and tensor.storage.key for tensor in found.tensors]
    assert len(set(keys)) == len(keys)


def test_pickles_of_all_files_are_kept(tmp_path: Path) -> None:
    assert sorted(open_checkpoint(str(zero(tmp_path / "x", 2))).pickles) == [
        "mp_rank_00_model_states.pt/data.pkl",
        "zero_pp_rank_0_mp_rank_00_optim_states.pt/data.pkl",
        "zero_pp_rank_1_mp_rank_00_optim_states.pt/data.pkl",
    ]


def test_a_folder_of_the_trainer_of_transformers(tmp_path: Path) -> None:
    """`checkpoint-500` has the weights, and DeepSpeed's step beside them."""
    folder = zero(tmp_path / "checkpoint-500", 2)
    save_file({"fc.weight": torch.zeros(2)}, folder / "model.safetensors")
    found = open_checkpoint(str(folder))
    assert (found.format, [tensor.name for tensor in found.tensors]) == (
        "safetensors",
        ["fc.weight"],
    )
    assert [(note.code, note.where) for note in found.notes] == [
        ("folder-has-more", "global_step7")
    ]


def test_a_folder_of_lightning(tmp_path: Path) -> None:
    folder = zero(tmp_path / "last.ckpt", 2)
    (folder / "global_step7").rename(folder / "checkpoint")
    (folder / "latest").write_text("checkpoint\n")
    assert open_checkpoint(str(folder)).metadata == {"step": "checkpoint"}
