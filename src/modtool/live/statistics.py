"""What the elements of activations are like: moments, zeros, NaN and Inf, dead units."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import _disable_current_modes

from modtool.live.leaves import leaves
from modtool.traces import Statistics, TracedTensor

__all__ = [
    "dead_units",
    "is_finite",
    "own_axis",
    "statistics_of",
    "unwatched",
    "with_statistics",
]


@contextmanager
def unwatched() -> Iterator[None]:
    """Compute something that is no part of the pass: not counted, not differentiated."""
    with _disable_current_modes(), torch.no_grad():
        yield


def statistics_of(tensor: torch.Tensor) -> Statistics | None:
    """The statistics of one tensor; None of one that has no plain elements.

    Sums are made in float64. Complex elements count by magnitude.
    """
    if tensor.is_nested or tensor.layout is not torch.strided or tensor.numel() == 0:
        return None
    with unwatched():
        values = tensor.detach()
        values = values.dequantize() if values.is_quantized else values
        values = values.abs() if values.is_complex() else values
        values = values.to(torch.float64)
        zeros, nan = share(values == 0), share(values.isnan())
        infinite = share(values.isinf())
        if nan or infinite:
            values = values[values.isfinite()]
        if values.numel() == 0:
            return Statistics(None, None, None, None, zeros, nan, infinite)
        low, high = values.aminmax()
        std, mean = torch.std_mean(values, correction=0)
        return Statistics(mean.item(), std.item(), low.item(), high.item(), zeros, nan, infinite)


def share(flags: torch.Tensor) -> float:
    """Share of elements that are true."""
    return int(flags.count_nonzero()) / flags.numel()


def with_statistics(described: tuple[TracedTensor, ...], value: object) -> tuple[TracedTensor, ...]:
    """Traced tensors with the statistics of the tensors that they describe."""
    tensors = [tensor for _, tensor in leaves(value, into="caches")]
    return tuple(
        replace(traced, statistics=statistics_of(tensor))
        for traced, tensor in zip(described, tensors, strict=True)
    )


def is_finite(value: object) -> bool:
    """True where no tensor of a nested value holds a NaN or an infinity."""
    with unwatched():
        return all(
            bool(tensor.isfinite().all())
            for _, tensor in leaves(value)
            if tensor.dtype.is_floating_point or tensor.dtype.is_complex
            if not tensor.is_nested and tensor.layout is torch.strided
        )


def own_axis(module: nn.Module, dimensions: int) -> int | None:
    """Which dimension of what a layer gives are its units, counted from the end.

    None of a module that takes them as they come: an activation, dropout, pooling.
    """
    if isinstance(module, _ConvNd):
        return -1 - len(module.kernel_size)
    if isinstance(module, _BatchNorm | nn.GroupNorm):
        return 1 - dimensions
    return -1 if isinstance(module, FEATURES_LAST) else None


FEATURES_LAST = (nn.Linear, nn.Bilinear, nn.Embedding, nn.RNNBase, nn.RNNCellBase)


def dead_units(module: nn.Module, output: object, axis: int | None) -> tuple[int, int] | None:
    """Units of a ReLU that gave nothing but zeros, and how many units there are.

    Args:
        module: None is told of one that is no ReLU.
        output: What it gave. None is told where that has but one sample of each unit.
        axis: The dimension of the units; where it is not known, they are the channels of an image,
            (batch, channels, height, width, …), and the features of all else, (…, features).
    """
    if not isinstance(module, nn.ReLU | nn.ReLU6) or not isinstance(output, torch.Tensor):
        return None
    if axis is None:
        axis = 1 if output.dim() >= 4 else -1
    units = output.shape[axis] if output.dim() else 0
    if units == 0 or output.numel() <= units:
        return None
    with unwatched():
        alive = output.detach().ne(0).movedim(axis, 0).reshape(units, -1).any(1)
        return units - int(alive.count_nonzero()), units
