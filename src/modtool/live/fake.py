"""Tensors with a shape, a dtype and a device, and no bytes."""

import contextlib
import functools
import logging
from collections.abc import Iterator

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn.parameter import is_lazy

__all__ = ["fake_mode", "fake_tensors_only", "is_fake", "is_uninitialized", "mode_of"]


@functools.cache
def fake_mode() -> FakeTensorMode:
    """The one fake mode of this process: what was built under it can be run under it."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    share_in_copies(mode)
    return mode


def share_in_copies(mode: FakeTensorMode) -> None:
    """Let copies of a fake tensor belong to its mode, not to a copy of the mode.

    `deepcopy` would copy the mode among the tensor's attributes, and with it torch's weak
    references to storages: bare addresses that each copy releases once more, which ends the process
    with a segmentation fault.
    """
    vars(mode)["__deepcopy__"] = lambda memo: mode


@contextlib.contextmanager
def fake_tensors_only(mode: FakeTensorMode) -> Iterator[None]:
    """Make every new tensor a fake one. What fails raises; torch does not log it as well."""
    share_in_copies(mode)
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    disabled, logger.disabled = logger.disabled, True
    try:
        with mode:
            yield
    finally:
        logger.disabled = disabled


def is_fake(tensor: torch.Tensor) -> bool:
    """True for a tensor that has no bytes: fake, or on the meta device."""
    return isinstance(tensor, FakeTensor) or tensor.is_meta


def is_uninitialized(tensor: torch.Tensor) -> bool:
    """True for a lazy parameter or buffer, which has no shape before the first forward pass."""
    return is_lazy(tensor)


def mode_of(model: nn.Module) -> FakeTensorMode:
    """The fake mode that a model's tensors belong to; the process's own where they are real."""
    for tensor in (*model.parameters(), *model.buffers()):
        if isinstance(tensor, FakeTensor):
            return tensor.fake_mode
    return fake_mode()
