"""Other tensors in a model for the time of a pass: fake ones, or copies of its buffers."""

import contextlib
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import nn

from modtool.live.fake import (
    addresses_refused,
    fake_tensors_only,
    is_fake,
    is_uninitialized,
    mode_of,
)
from modtool.live.keeping import reached
from modtool.live.leaves import leaves, substitute
from modtool.live.walk import classes_of_modules, every_module

__all__ = ["copy_buffers", "fake_tensors", "model_tensors", "writable_tensors"]


@contextlib.contextmanager
def fake_tensors(model: nn.Module) -> Iterator[None]:
    """Replace every tensor of a model by a fake one; whoever calls this puts them back."""
    mode = mode_of(model)

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        return mode.from_tensor(tensor)

    # What torch or the model warns of concerns the real thing.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        replace_tensors(model, fake)
        with fake_tensors_only(mode), addresses_refused():
            yield


def copy_buffers(model: nn.Module) -> None:
    """Give a model copies of its buffers: batch_norm does not announce that it writes to them."""
    buffers = {id(buffer) for module in every_module(model) for buffer in module.buffers()}
    copies: dict[int, torch.Tensor] = {}

    def copied(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in buffers or is_uninitialized(tensor):
            return tensor
        if id(tensor) not in copies:
            copies[id(tensor)] = tensor.detach().clone()
        return copies[id(tensor)]

    replace_tensors(model, copied)


def replace_tensors(model: nn.Module, replace: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Replace the tensors among the attributes of every module."""
    for module in every_module(model):
        attributes = vars(module)
        for name, value in list(attributes.items()):
            attributes[name] = substitute(value, replace)


def model_tensors(model: nn.Module) -> Iterator[torch.Tensor]:
    """Every tensor that is reached from a model's attributes and classes; some more than once."""
    modules = every_module(model)
    kinds = classes_of_modules(map(type, modules))
    attributes = (value for space in map(vars, (*modules, *kinds)) for value in space.values())
    values = [value for value in attributes if not isinstance(value, dict) or value]
    yield from (tensor for _, tensor in leaves(values, into="caches"))
    yield from (each for each, _ in reached(values) if isinstance(each, torch.Tensor))


def writable_tensors(model: nn.Module) -> Iterator[torch.Tensor]:
    """Every tensor of a model with bytes to write over, and the gradients that they have."""
    for tensor in model_tensors(model):
        if not is_fake(tensor):
            yield tensor
            if tensor.is_leaf and tensor.grad is not None:
                yield tensor.grad
