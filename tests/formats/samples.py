"""A small file of each format, for tests that damage it. A format adds its line to `SAMPLES`."""

import io
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from safetensors.torch import save
from torch import nn

__all__ = ["SAMPLES"]


def saved(value: object) -> bytes:
    """What `torch.save` writes."""
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def state_dict() -> bytes:
    """A state_dict with a tie, a view, a buffer and several types."""
    weight = torch.arange(6.0).reshape(2, 3)
    return saved(
        {
            "a.weight": weight,
            "b.weight": weight,
            "a.bias": weight[0],
            "norm.running_mean": torch.ones(2, dtype=torch.float64),
            "half": torch.ones(2, dtype=torch.float8_e5m2),
            "sparse": torch.eye(2).to_sparse(),
        }
    )


def training_checkpoint() -> bytes:
    """A model, an optimizer with state, a scheduler and values."""
    model = nn.Linear(2, 1)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    return saved(
        {
            "model_state_dict": model.state_dict(),
            "optimizer_state_dict": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "epoch": 3,
            "loss": [0.5, float("nan")],
        }
    )


def full_model() -> bytes:
    """A model with its classes."""
    return saved(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()))


def safetensors() -> bytes:
    """Tensors, metadata, a scalar and an empty tensor."""
    tensors = {"a.weight": torch.zeros(2, 3), "a.bias": torch.ones(2), "n": torch.tensor(1)}
    return save({**tensors, "e": torch.zeros(0)}, {"format": "pt", "tied": "a.bias"})


# Format and what is in it -> what builds the file. The order is that of the tests.
SAMPLES: Mapping[str, Callable[[], bytes]] = MappingProxyType(
    {
        "torch-zip: state_dict": state_dict,
        "torch-zip: checkpoint": training_checkpoint,
        "torch-zip: full model": full_model,
        "safetensors": safetensors,
    }
)
