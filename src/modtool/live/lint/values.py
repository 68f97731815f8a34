"""Weights with which a layer cannot learn."""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import nn

from modtool.live.fake import is_fake, is_uninitialized
from modtool.live.lint.subject import Subject, joined
from modtool.live.settings import type_of
from modtool.notes import note
from modtool.records import Note

__all__ = [
    "LAYERS",
    "constant_pair",
    "constant_weights",
    "silent_layer",
    "zero_attention",
    "zero_frozen_weights",
]

LAYERS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
# What treats equal units equally, so that they stay equal behind it. Dropout does not.
BETWEEN = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.SELU,
    nn.CELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Tanh,
    nn.Sigmoid,
    nn.Softplus,
    nn.Hardtanh,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Identity,
    nn.Flatten,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
)


def constant_weights(subject: Subject) -> Iterator[Note]:
    """Layers that follow each other and hold one value each: their units stay equal for ever."""
    for path, module in subject.modules:
        if isinstance(module, nn.Sequential):
            for (first, one), (second, other) in neighbours(path, module):
                yield from constant_pair(first, one, second, other)


def constant_pair(first: str, one: nn.Module, second: str, other: nn.Module) -> Iterator[Note]:
    """A note where both of two layers that follow each other are constant."""
    if stays_equal(one) and is_constant(other) and is_trained(one, other):
        yield constant_note(first, one, second, other)


def neighbours(
    path: str, sequence: nn.Sequential
) -> Iterator[tuple[tuple[str, nn.Module], tuple[str, nn.Module]]]:
    """Layers with a weight of which one is given what the other gave, more or less as it is."""
    run: list[tuple[str, nn.Module]] = []
    for name, module in sequence.named_children():
        if isinstance(module, LAYERS):
            run.append((joined(path, name), module))
        elif not isinstance(module, BETWEEN):
            yield from pairwise(run)
            run = []
    yield from pairwise(run)


def stays_equal(layer: nn.Module) -> bool:
    """True for a layer of several units that begin as one and the same."""
    units = getattr(layer, "out_features", getattr(layer, "out_channels", 1))
    bias = layer._parameters.get("bias")
    equal = bias is None or value_of(bias) is not None
    return units > 1 and equal and is_constant(layer)


def is_constant(layer: nn.Module) -> bool:
    """True for a weight of one value that is given every channel: groups get different ones."""
    return value_of(layer.weight) is not None and getattr(layer, "groups", 1) == 1


def is_trained(*layers: nn.Module) -> bool:
    """True where a weight is trained."""
    return any(
        isinstance(each.weight, nn.Parameter) and each.weight.requires_grad for each in layers
    )


def value_of(tensor: object) -> float | None:
    """The one value that all elements of a tensor have; None where they differ, or have none."""
    if not isinstance(tensor, torch.Tensor) or is_fake(tensor) or is_uninitialized(tensor):
        return None
    if tensor.layout is not torch.strided or tensor.is_quantized or not tensor.numel():
        return None
    low, high = tensor.detach().aminmax()
    return low.item() if bool(low == high) else None


EQUAL = "all its units get the same gradient and"


def constant_note(first: str, one: nn.Module, second: str, other: nn.Module) -> Note:
    """What becomes of two constant layers."""
    values = (value_of(one.weight), value_of(other.weight))
    reason = "its gradient is zero, and its units" if values[1] == 0 else EQUAL
    message = (
        f"its weight is {values[0]:g} everywhere, and that of {second} {values[1]:g}: {reason} "
        "stay equal"
    )
    return note("constant-weights", first, message)


def zero_frozen_weights(subject: Subject) -> Iterator[Note]:
    """Frozen layers whose weight is zero: what comes out of them does not depend on the input."""
    for path, module in subject.modules:
        if not isinstance(module, LAYERS):
            continue
        weight = module.weight
        frozen = isinstance(weight, nn.Parameter) and not weight.requires_grad
        if frozen and value_of(weight) == 0:
            message = (
                f"the weight of this {type_of(module)} is zero and frozen: nothing passes through, "
                "and no gradient reaches what comes before"
            )
            yield note("constant-weights", path, message, "load weights into it, or unfreeze it")


def silent_layer(path: str, layer: nn.Module) -> Iterator[Note]:
    """A note where nothing comes out of a layer that a ReLU alone is given the output of."""
    if not isinstance(layer, LAYERS) or not is_trained(layer):
        return
    bias = value_of(layer.bias) if layer.bias is not None else 0.0
    if value_of(layer.weight) == 0 and bias is not None and bias <= 0:
        message = (
            f"the weight of this {type_of(layer)} is zero, and a ReLU follows: it gives zero for "
            "every input, and no gradient reaches it, in any step"
        )
        yield note("constant-weights", path, message)


def zero_attention(subject: Subject) -> Iterator[Note]:
    """Attention with two projections of zeros that meet: neither gets a gradient, ever."""
    for path, module in subject.modules:
        if not isinstance(module, nn.MultiheadAttention) or not is_plain(module):
            continue
        query, key, value = (all(map(is_zero, each)) for each in projections(module))
        out = module.out_proj
        if value and value_of(out.weight) == 0 and is_trained(out):
            yield note("constant-weights", path, f"its value and output projections {STUCK}")
        elif query and key:
            message = f"its query and key projections {STUCK}: it attends to every position alike"
            yield note("constant-weights", path, message)


STUCK = "are zero, and so are the gradients of their weights, in every step"


def is_plain(attention: nn.MultiheadAttention) -> bool:
    """True where it is trained, and by torch's own forward: another may not use what is here."""
    own = type(attention).forward is nn.MultiheadAttention.forward
    return own and any(each.requires_grad for each in attention.parameters())


def projections(attention: nn.MultiheadAttention) -> Iterator[tuple[torch.Tensor | None, ...]]:
    """What queries, keys and values are made with: a weight, a bias, and an item put behind."""
    packed, bias = attention.in_proj_weight, attention.in_proj_bias
    separate = attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight
    weights = separate if packed is None else packed.chunk(3)
    biases = (None,) * 3 if bias is None else bias.chunk(3)
    return zip(weights, biases, (None, attention.bias_k, attention.bias_v), strict=True)


def is_zero(tensor: torch.Tensor | None) -> bool:
    """True for zeros, and for nothing."""
    return tensor is None or value_of(tensor) == 0
