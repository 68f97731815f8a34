"""Run with a folder: four ranks save tensors that are split along two dimensions.

    python dcp_ranks.py FOLDER

`FOLDER/dcp` is an ordinary distributed checkpoint, `FOLDER/hf` one of safetensors files alone.
"""

import sys
import warnings

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_saver import save as save_distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.multiprocessing.spawn import start_processes

RANKS = 4


def tensors() -> dict[str, torch.Tensor]:
    """What is saved: sizes that four ranks cannot share evenly."""
    return {
        "grid": torch.arange(35, dtype=torch.float32).reshape(5, 7),
        "rows": torch.arange(18, dtype=torch.bfloat16).reshape(9, 2),
        "columns": torch.arange(24, dtype=torch.int64).reshape(2, 12),
        "everywhere": torch.arange(3, dtype=torch.float64),
        "few": torch.arange(2, dtype=torch.float16),
    }


PLACEMENTS = {
    "grid": (Shard(0), Shard(1)),
    "rows": (Shard(0), Shard(0)),
    "columns": (Replicate(), Shard(1)),
    "everywhere": (Replicate(), Replicate()),
    "few": (Shard(0), Shard(0)),
}


def save(rank: int, folder: str) -> None:
    """What one rank does."""
    warnings.simplefilter("ignore")
    address = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=RANKS)
    mesh = init_device_mesh("cpu", (2, 2))
    split = {
        name: distribute_tensor(tensor, mesh, PLACEMENTS[name])
        for name, tensor in tensors().items()
    }
    save_distributed({"model": split, "epoch": 3}, checkpoint_id=f"{folder}/dcp")
    writer = HuggingFaceStorageWriter(f"{folder}/hf", save_distributed=True)
    save_distributed(dict(split), storage_writer=writer)
    dist.destroy_process_group()


if __name__ == "__main__":
    # Forked, so that torch is imported once.
    start_processes(save, (sys.argv[1],), RANKS, start_method="fork")  # type: ignore[no-untyped-call]
