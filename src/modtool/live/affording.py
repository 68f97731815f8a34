"""What a real pass takes in memory, told before it is run."""

import itertools
import math
from collections.abc import Iterator

import torch
from torch import nn

from modtool.live.fake import is_fake
from modtool.live.inputs import Inputs, InputSpec, mapped
from modtool.live.passes import Pass, Settings

__all__ = ["CHEAP", "is_cheap", "is_hollow", "is_small", "size_for_real", "size_of_inputs"]

# What is nice to have of a real pass, such as confirming a failure, is had below this size.
CHEAP = 2 * 10**9
HEADS = 16
CHANNELS = 64


def is_hollow(model: nn.Module) -> bool:
    """True when a tensor of the model has no bytes."""
    return any(map(is_fake, tensors_of(model)))


def is_small(model: nn.Module) -> bool:
    """True for a model whose own tensors are cheap."""
    return size_of(model) < CHEAP


def size_of(model: nn.Module) -> int:
    """Bytes of parameters and buffers."""
    return sum(each.nbytes for each in tensors_of(model))


def is_cheap(model: nn.Module, inputs: Inputs) -> bool:
    """True for a pass that is run for real at once, with no fake one to measure it before.

    A fake pass costs as much as importing torch once more: its shapes pull in torch's compiler.
    """
    shapes = (tuple(each.shape) for each in tensors_given(inputs))
    return size_of(model) + sum(map(guess, shapes)) < CHEAP


def size_of_inputs(inputs: Inputs) -> int:
    """Bytes of all that a model is given."""
    return sum(math.prod(each.shape) * each.dtype.itemsize for each in tensors_given(inputs))


def tensors_given(inputs: Inputs) -> list[InputSpec | torch.Tensor]:
    """The tensors among a model's inputs, made already or to be made."""
    found: list[InputSpec | torch.Tensor] = []

    def visit(_: str, value: object) -> object:
        if isinstance(value, InputSpec | torch.Tensor):
            found.append(value)
        return value

    mapped(inputs, visit)
    return found


def guess(shape: tuple[int, ...]) -> int:
    """Bytes of the largest activations of an input: scores of a sequence, channels of an image.

    (…, positions) or (…, positions, features) may have a score for each two positions, in each of
    many heads; (…, channels, height, width) may become an image of many more channels.
    """
    if len(shape) > 3:
        return math.prod(shape) * 4 * CHANNELS
    return math.prod(shape) * max((1, *shape[-2:])) * 4 * HEADS


def size_for_real(model: nn.Module, measured: Pass, settings: Settings) -> int:
    """Bytes that a real pass takes at least, beside what is in memory already.

    A graph keeps what its operators made: that is counted whole where gradients are asked for.
    """
    built = sum(each.nbytes for each in tensors_of(model) if is_fake(each))
    made = measured.made if settings.backward or settings.gradients else measured.peak
    return built + sum(each.nbytes for each in measured.inputs) + made


def tensors_of(model: nn.Module) -> Iterator[torch.Tensor]:
    """Every parameter and buffer, once."""
    seen: set[int] = set()
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        if id(tensor) not in seen:
            seen.add(id(tensor))
            yield tensor
