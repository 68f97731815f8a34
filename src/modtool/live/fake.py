"""Tensors with a shape, a dtype and a device, and no bytes."""

import contextlib
import functools
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn.parameter import is_lazy

__all__ = [
    "addresses_refused",
    "fake_mode",
    "fake_tensors_only",
    "is_fake",
    "is_uninitialized",
    "mode_of",
]


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


@contextlib.contextmanager
def addresses_refused() -> Iterator[None]:
    """Refuse to tell where the bytes of fake tensors are, except to torch itself.

    They are at address 0, and code outside torch that reads there, or writes, ends the process.
    """
    with contextlib.ExitStack() as stack:
        for kind, name in ADDRESSES:
            own = vars(kind).get(name)
            setattr(kind, name, refusing(getattr(kind, name)))
            if own is None:
                stack.callback(delattr, kind, name)
            else:
                stack.callback(setattr, kind, name, own)
        yield


ADDRESSES = (
    (FakeTensor, "data_ptr"),
    (FakeTensor, "__dlpack__"),
    (torch.UntypedStorage, "data_ptr"),
    (torch.TypedStorage, "data_ptr"),
)


def refusing(method: Callable[..., object]) -> Callable[..., object]:
    """A method that tells an address, of everything that has bytes."""

    @functools.wraps(method)
    def told(owner: Any, *args: object, **kwargs: object) -> object:
        caller: str = sys._getframe(1).f_globals.get("__name__", "")
        by_torch = caller.startswith("torch.") and caller != "torch.utils.dlpack"
        if not by_torch and (isinstance(owner, FakeTensor) or owner.device.type == "meta"):
            raise RuntimeError("a FakeTensor has no data pointer")
        return method(owner, *args, **kwargs)

    return told


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
