"""Folders laid out as DeepSpeed lays them out, with what its files hold, written by torch.save.

Names and keys are those that DeepSpeed 0.19.8 wrote for ZeRO 1, 2 and 3 on two ranks, and of its
`runtime/engine.py`, `runtime/zero/{stage_1_and_2,stage3}.py` and `checkpoint/constants.py` for the
rest. It is not a dependency: it is built where it is installed.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch

Shapes = Mapping[str, tuple[int, ...]]


def sizes(shapes: Shapes) -> "OrderedDict[str, torch.Size]":
    return OrderedDict((name, torch.Size(shape)) for name, shape in shapes.items())


def model_states(
    module: Mapping[str, torch.Tensor] | None,
    shapes: Shapes,
    *,
    ranks: int = 2,
    frozen: Shapes | None = None,
    shared: Mapping[str, str] | None = None,
    buffers: tuple[str, ...] = (),
) -> dict[str, object]:
    """What a model-states file holds."""
    return {
        "module": None if module is None else OrderedDict(module),
        "buffer_names": list(buffers),
        "optimizer": None,
        "param_shapes": [sizes(shapes)],
        "frozen_param_shapes": None if frozen is None else sizes(frozen),
        "frozen_param_fragments": None,
        "shared_params": dict(shared or {}),
        "lr_scheduler": None,
        "data_sampler": None,
        "random_ltd": None,
        "sparse_tensor_module_names": set(),
        "skipped_steps": 0,
        "global_steps": 7,
        "global_samples": 56,
        "dp_world_size": ranks,
        "mp_world_size": 1,
        "ds_config": {"train_batch_size": 8, "bf16": {"enabled": True}},
        "ds_version": "0.17.0",
    }


def optimizer_states(shapes: Shapes, stage: int, ranks: int) -> dict[str, object]:
    """What the optimizer file of one rank holds: its flat piece of everything, in float32."""
    piece = math.ceil(sum(math.prod(shape) for shape in shapes.values()) / ranks)
    flat = torch.zeros(piece)
    key = "fp32_flat_groups" if stage == 3 else "single_partition_of_fp32_groups"
    state = {0: {"exp_avg": torch.zeros(piece), "exp_avg_sq": torch.zeros(piece), "step": 7}}
    inner = {"state": state, "param_groups": [{"lr": 0.1, "params": [0]}]}
    return {
        "optimizer_state_dict": {
            "zero_stage": stage,
            "partition_count": ranks,
            "loss_scaler": None,
            "optimizer_state_dict" if stage == 3 else "base_optimizer_state": inner,
            key: [flat],
        },
        "ds_config": {},
        "ds_version": "0.17.0",
    }


def write(folder: Path, files: Mapping[str, object], step: str = "global_step7") -> Path:
    """A folder with `latest` and the files of one step."""
    (folder / step).mkdir(parents=True)
    (folder / "latest").write_text(step)
    (folder / "zero_to_fp32.py").write_text("# DeepSpeed's own script\n")
    for name, value in files.items():
        torch.save(value, folder / step / name)
    return folder
