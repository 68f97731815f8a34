"""A small checkpoint of each format, for tests that damage it.

A format adds its line to `SAMPLES`.
"""

import io
import json
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn
from torch.package.package_exporter import PackageExporter

from tests.formats import deepspeed_files, gguf_files, test_dcp, test_torch_tar
from tests.formats.test_torchscript_json import old_archive, old_model

__all__ = ["SAMPLES", "Sample", "sample", "whole"]


@dataclass(frozen=True, slots=True)
class Sample:
    """The files of one checkpoint.

    Attributes:
        files: Bytes by name; the first is the one that tests damage.
        target: What is opened of them; "" is the folder that they lie in.
    """

    files: Mapping[str, bytes]
    target: str = ""

    @property
    def damaged(self) -> str:
        """The name of the file that tests damage."""
        return next(iter(self.files))

    def lay_out(self, folder: Path) -> Path:
        """Write the files; the path to open."""
        for name, data in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return folder / self.target


def file(data: bytes) -> Sample:
    """A checkpoint of one file."""
    return Sample({"x": data}, "x")


def written(write: Callable[[Path], object]) -> bytes:
    """What something writes that wants a path."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        write(path)
        return path.read_bytes()


def saved(value: object, **options: Any) -> bytes:
    """What `torch.save` writes."""
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


# -- torch.save ------------------------------------------------------------------------------------


def tensors() -> dict[str, torch.Tensor]:
    """A tie, a view, a buffer and several types."""
    weight = torch.arange(6.0).reshape(2, 3)
    return {
        "a.weight": weight,
        "b.weight": weight,
        "a.bias": weight[0],
        "norm.running_mean": torch.ones(2, dtype=torch.float64),
        "half": torch.ones(2, dtype=torch.float8_e5m2),
        "sparse": torch.eye(2).to_sparse(),
    }


def state_dict() -> Sample:
    return file(saved(tensors()))


def training_checkpoint() -> Sample:
    """A model, an optimizer with state, a scheduler and values."""
    model = nn.Linear(2, 1)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    return file(
        saved(
            {
                "model_state_dict": model.state_dict(),
                "optimizer_state_dict": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
                "epoch": 3,
                "loss": [0.5, float("nan")],
            }
        )
    )


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())


def full_model() -> Sample:
    return file(saved(net()))


def legacy_state_dict() -> Sample:
    return file(saved(tensors(), _use_new_zipfile_serialization=False))


class Scale(nn.Module):
    """Its source goes into a legacy file."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.register_buffer("mean", torch.zeros(2))


def legacy_full_model() -> Sample:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no source for a builtin
        return file(saved(Scale(), _use_new_zipfile_serialization=False))


def torch_tar() -> Sample:
    members = test_torch_tar.parts(test_torch_tar.ROOT)
    return file(written(lambda path: test_torch_tar.archive(path, members)))


# -- TorchScript and torch.package -----------------------------------------------------------------


class Scripted(nn.Module):
    """Compiled by torch: its source is in this file."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 1)
        self.plain = torch.ones(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.fc(x + self.plain)
        return out


def scripted() -> Any:
    jit: Any = torch.jit
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        return jit.script(Scripted().eval())


def torchscript() -> Sample:
    return file(written(lambda path: scripted().save(str(path))))


def torchscript_mobile() -> Sample:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the lite interpreter is deprecated
        return file(written(lambda path: scripted()._save_for_lite_interpreter(str(path))))


def torchscript_json() -> Sample:
    return file(written(lambda path: old_archive(path, old_model())))


def torch_package() -> Sample:
    def write(path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PackageExporter(str(path)) as made:
                made.extern(["torch.**", "numpy.**"])
                made.save_pickle("model", "model.pkl", nn.Linear(2, 1))
                made.save_text("model", "notes.txt", "hello")

    return file(written(write))


# -- other containers ------------------------------------------------------------------------------


def safetensors_bytes() -> bytes:
    found = {"a.weight": torch.zeros(2, 3), "a.bias": torch.ones(2), "n": torch.tensor(1)}
    return save({**found, "e": torch.zeros(0)}, {"format": "pt", "tied": "a.bias"})


def safetensors() -> Sample:
    """Tensors, metadata, a scalar and an empty tensor."""
    return file(safetensors_bytes())


def sharded() -> Sample:
    """An index, a shard of each kind, and one that is not there."""
    shards = {"1.safetensors": safetensors_bytes(), "2.bin": saved({"b": torch.ones(2)})}
    homes = {"a.weight": "1.safetensors", "a.bias": "1.safetensors", "b": "2.bin", "c": "3.bin"}
    index = json.dumps({"metadata": {"total_size": 40}, "weight_map": homes}).encode()
    return Sample({"x.index.json": index, **shards}, "x.index.json")


def sharded_shard() -> Sample:
    """The same, with the shard to be damaged."""
    files = dict(sharded().files)
    return Sample({"2.bin": files.pop("2.bin"), **files}, "x.index.json")


def dcp() -> Sample:
    """A model, an optimizer and a value, saved by one process."""
    with tempfile.TemporaryDirectory() as folder:
        state = {"model": {"a": torch.ones(2, 2)}, "optim": {"m": torch.ones(3)}, "epoch": 3}
        test_dcp.save(state, Path(folder))
        names = sorted(path.name for path in Path(folder).iterdir())
        return Sample({name: (Path(folder) / name).read_bytes() for name in names})


def deepspeed() -> Sample:
    """ZeRO 1 of one rank."""
    shapes = {"a.weight": (2, 3), "a.bias": (2,)}
    module = {name: torch.zeros(shape) for name, shape in shapes.items()}
    states = deepspeed_files.model_states(module, shapes, ranks=1)
    optimizer = deepspeed_files.optimizer_states(shapes, 1, 1)
    return Sample(
        {
            "global_step7/mp_rank_00_model_states.pt": saved(states),
            "global_step7/zero_pp_rank_0_mp_rank_00_optim_states.pt": saved(optimizer),
            "latest": b"global_step7",
        }
    )


def gguf() -> Sample:
    """Values of every kind, and tensors of three types."""
    kinds: dict[str, tuple[int, object]] = {
        "general.architecture": (gguf_files.STRING, "llama"),
        "general.alignment": (gguf_files.U32, 32),
        "a.flag": (gguf_files.BOOL, True),
        "a.rate": (gguf_files.F32, 0.5),
        "a.texts": (gguf_files.ARRAY, (gguf_files.STRING, ("a", "b"))),
        "a.lists": (gguf_files.ARRAY, (gguf_files.ARRAY, ((gguf_files.I8, (1, 2)),))),
    }
    stored = [("a", (4, 2), 0, 0), ("b", (32,), 2, 32), ("c", (2,), 1, 64)]
    return file(gguf_files.Writer().file(kinds, stored, 68))


def npy() -> Sample:
    stream = io.BytesIO()
    np.save(stream, np.asfortranarray(np.ones((2, 3), "<f4")))
    return file(stream.getvalue())


def npz() -> Sample:
    """A stored and a deflated array, one of records and one of objects."""
    records = np.zeros(2, [("x", "<f4"), ("y", "<i2", (2,))])
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        for name, array in {"a.weight": np.ones((2, 2)), "r": records}.items():
            made.writestr(f"{name}.npy", array_bytes(array))
        made.writestr("b.npy", array_bytes(np.ones(9)), zipfile.ZIP_DEFLATED)
        made.writestr("o.npy", array_bytes(np.array([None], dtype=object)))
        made.writestr("readme.txt", b"hello")
    return file(stream.getvalue())


def array_bytes(array: "np.ndarray[Any, Any]") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array)
    return stream.getvalue()


# Format and what is in it -> what builds it. The order is that of the tests.
SAMPLES: Mapping[str, Callable[[], Sample]] = MappingProxyType(
    {
        "torch-zip: state_dict": state_dict,
        "torch-zip: checkpoint": training_checkpoint,
        "torch-zip: full model": full_model,
        "torch-legacy: state_dict": legacy_state_dict,
        "torch-legacy: full model": legacy_full_model,
        "torch-tar": torch_tar,
        "torchscript": torchscript,
        "torchscript: mobile": torchscript_mobile,
        "torchscript: model.json": torchscript_json,
        "torch-package": torch_package,
        "safetensors": safetensors,
        "sharded: index": sharded,
        "sharded: shard": sharded_shard,
        "dcp": dcp,
        "deepspeed": deepspeed,
        "gguf": gguf,
        "npy": npy,
        "npz": npz,
    }
)


@cache
def sample(name: str) -> Sample:
    """One of `SAMPLES`, built once."""
    return SAMPLES[name]()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with nothing wrong, to compare with."""
    return sample("safetensors").lay_out(tmp_path_factory.mktemp("whole"))
