"""Biases that the batch normalisation behind them takes away again."""

from collections.abc import Iterator
from itertools import pairwise

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from modtool.live.lint.modes import flags_after
from modtool.live.lint.subject import Subject, joined
from modtool.notes import note
from modtool.records import Note

__all__ = ["bias_note", "biases_in_sequence", "has_bias"]


def biases_in_sequence(subject: Subject) -> Iterator[Note]:
    """Layers in a Sequential with a batch normalisation right behind them."""
    found = [
        (joined(path, first), joined(path, second), norm)
        for path, module in subject.modules
        if type(module) is nn.Sequential
        for (first, layer), (second, norm) in pairwise(module._modules.items())
        if layer is not None and has_bias(layer) and isinstance(norm, _BatchNorm)
    ]
    trained = flags_after(subject.model, training=True) if found else {}
    for layer, behind, norm in found:
        if trained.get(id(norm), True) or norm.running_mean is None:
            yield bias_note(layer, behind)


def has_bias(module: nn.Module) -> bool:
    """True for a linear layer or a convolution with a bias that is trained."""
    if not isinstance(module, nn.Linear | _ConvNd):
        return False
    bias = module._parameters.get("bias")
    return bias is not None and bias.requires_grad


def bias_note(layer: str, norm: str) -> Note:
    """Which bias is wasted, and why."""
    message = f"{norm} subtracts the mean of what it is given, this bias with it"
    return note("bias-before-batchnorm", joined(layer, "bias"), message)
