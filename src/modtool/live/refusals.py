"""Element types that an operator refuses: fake tensors do not tell, so torch's kernel is asked.

The fake twin of `mm` multiplies float32 by int64 without a word. The real kernel is given operands
of one element each, of the same types, and what it raises is what a real pass would raise.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes

from modtool.live.operators import Operator, name_of

__all__ = ["hold_types"]

PRODUCT_NAMES = """
    mm bmm mv dot vdot linear addmm _addmm_activation addmv baddbmm addbmm convolution _convolution
    mkldnn_rnn_layer _cdist_forward
"""
# These mix types, or do without some of them, on one device and not on another.
NAMES_ON_CPU = """
    native_layer_norm native_group_norm native_batch_norm _native_batch_norm_legit
    _native_batch_norm_legit_no_training _batch_norm_with_update _batch_norm_no_update
    gelu silu mish elu leaky_relu softplus hardtanh hardswish hardsigmoid log_sigmoid_forward
    _prelu_kernel _softmax _log_softmax binary_cross_entropy mse_loss smooth_l1_loss huber_loss
"""
PRODUCTS = frozenset(f"aten.{name}" for name in PRODUCT_NAMES.split())
ON_CPU = frozenset(f"aten.{name}" for name in NAMES_ON_CPU.split())

# What arguments are for operands of one element, by their names in torch's schemas.
ONE = ("stride", "dilation", "groups", "normalized_shape", "N", "C", "HxW", "group", "hidden_size")
NONE = ("padding", "output_padding")
GATES = 4
SHAPES: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {"weight0": (GATES, 1), "weight1": (GATES, 1), "weight2": (GATES,), "weight3": (GATES,)}
)


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor of ones."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a kernel raised."""

    kind: type[Exception]
    message: str


def hold_types(operator: Operator, args: Sequence[object], kwargs: Mapping[str, object]) -> None:
    """Hold the operands of a fake pass to the element types that the real kernel takes.

    Raises:
        RuntimeError: As the kernel does, in its words.
    """
    name = name_of(operator).removesuffix("_")
    if not isinstance(operator, OpOverload) or name not in PRODUCTS | ON_CPU:
        return
    names = [each.name for each in operator._schema.arguments]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    tensors = [each for each in given.values() if isinstance(each, torch.Tensor)]
    if not all(map(is_plain, tensors)) or not any(isinstance(each, FakeTensor) for each in tensors):
        return
    # Which types a kernel takes differs with the device; that they are the same, it does not.
    on_cpu = all(each.device.type == "cpu" for each in tensors)
    if not on_cpu and (name in ON_CPU or len({each.dtype for each in tensors}) == 1):
        return
    refusal = refusal_of(operator, tuple((key, smallest(key, each)) for key, each in given.items()))
    if refusal is not None:
        raise refusal.kind(refusal.message)


def is_plain(tensor: torch.Tensor) -> bool:
    """True for a tensor that one made of ones can stand for."""
    return tensor.layout is torch.strided and not tensor.is_quantized and not tensor.is_nested


def smallest(name: str, value: object) -> object:
    """An argument as it is for operands of one element."""
    if isinstance(value, torch.Tensor):
        return Operand(SHAPES.get(name, (1,) * value.ndim), value.dtype)
    if isinstance(value, list | tuple):
        return tuple(smallest(name, each) for each in value)
    if name in ONE:
        return 1
    return 0 if name in NONE else value


@functools.lru_cache(maxsize=1024)
def refusal_of(operator: OpOverload, given: tuple[tuple[str, Any], ...]) -> Refusal | None:
    """What a kernel says to such operands; None where it takes them."""
    with _disable_current_modes(), torch._C._DisableAutocast(), torch.no_grad():
        try:
            operator(**{name: made(each) for name, each in given})
        except (RuntimeError, ValueError, TypeError) as error:
            return Refusal(type(error), str(error))
    return None


def made(value: object) -> object:
    """An operand as a tensor; anything else as it is."""
    if isinstance(value, Operand):
        return torch.ones(value.shape, dtype=value.dtype, device="cpu")
    return value
