"""Element types that an operator refuses: fake tensors do not tell, so torch's kernel is asked.

The fake twin of `mm` multiplies float32 by int64 without a word. The real kernel is given operands
of one element each, of the same types, and what it says of types is what a real pass would raise.
It is asked once for each operator and kind of operands. What it says of one element's shape or
value, which are not the model's, is no refusal.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes

from modtool.live.operators import Operator, name_of

__all__ = ["hold_types", "run"]

# On every device: their operands have to be of one type.
PRODUCT_NAMES = """
    mm bmm mv dot vdot linear addmm _addmm_activation addmv baddbmm addbmm convolution _convolution
    mkldnn_rnn_layer _cdist_forward
"""
PRODUCTS = frozenset(PRODUCT_NAMES.split())
# Operators that torch keeps to itself may trust what they are given: these do not.
INTERNAL_NAMES = """
    _addmm_activation _convolution _cdist_forward _native_batch_norm_legit
    _native_batch_norm_legit_no_training _batch_norm_with_update _batch_norm_no_update
    _prelu_kernel _softmax _safe_softmax _log_softmax _adaptive_avg_pool2d _adaptive_avg_pool3d
    _scaled_dot_product_flash_attention_for_cpu _trilinear _weight_norm_interface
    _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d _linalg_det
    _linalg_eigh _linalg_svd _linalg_solve_ex _fft_c2c _fft_r2c _fft_c2r _index_put_impl
    _unsafe_index
"""
INTERNAL = frozenset(INTERNAL_NAMES.split())
# For a grid of one position it makes a tensor in another way, which half precision has not.
LEFT_OUT = frozenset({"affine_grid_generator"})

# What arguments are for operands of one element, by their names in torch's schemas: axes are kept,
# paddings and positions are 0, other whole numbers 1, which is a size, a stride, a count or a mode.
KEPT = re.compile("dim|axis|axes|expand")
NOTHING = re.compile("pad|ind|target|offset")
# Those that halve an axis, need three elements along one, or take a single value of any type.
LENGTHS = {"glu": 2, "index_put": 2, "linalg_cross": 3}
GATES = 4
SHAPES = {"weight0": (GATES, 1), "weight1": (GATES, 1), "weight2": (GATES,), "weight3": (GATES,)}

# What a kernel says where it is about types, and not about sizes or values.
ABOUT_TYPES = re.compile(
    r"type|not (implemented|supported) (for|on)|complex|bool|integ|can't be cast|half",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor of one element, or of as few as there can be, all 0 or all 1."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    value: int


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
    if not isinstance(operator, OpOverload) or not is_askable(operator):
        return
    names = [each.name for each in operator._schema.arguments]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    tensors = [each for value in given.values() for each in tensors_of(value)]
    if not all(map(is_plain, tensors)) or not any(isinstance(each, FakeTensor) for each in tensors):
        return
    # Which types a kernel takes differs with the device; that they are the same, it does not.
    on_cpu = all(each.device.type == "cpu" for each in tensors)
    mixed = len({each.dtype for each in tensors}) > 1
    if not on_cpu and not (mixed and short_name(operator) in PRODUCTS):
        return
    length = LENGTHS.get(short_name(operator), 1)
    few = tuple((key, smallest(key, each, length)) for key, each in given.items())
    refusal = refusal_of(operator, few)
    if refusal is not None:
        raise refusal.kind(refusal.message)


def run(operator: Operator, args: Sequence[object], kwargs: Mapping[str, object]) -> object:
    """What an operator gives; its fake twin may be stricter about types than the kernel is.

    The kernel of `_grouped_mm`, which mixtures of experts use, takes float32 and float16 too.
    """
    first = args[0] if args else None
    if name_of(operator) != "aten._grouped_mm" or not isinstance(first, FakeTensor):
        return operator(*args, **kwargs)
    if first.device.type != "cpu" or first.dtype not in (torch.float32, torch.float16):
        return operator(*args, **kwargs)
    narrow = [bfloat16(each) for each in args]
    result = operator(*narrow, **{name: bfloat16(each) for name, each in kwargs.items()})
    return result.to(first.dtype)


def bfloat16(value: object) -> object:
    """A floating-point tensor as bfloat16; anything else as it is."""
    is_floating = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.to(torch.bfloat16) if is_floating else value  # type: ignore[attr-defined]


@functools.cache
def is_askable(operator: OpOverload) -> bool:
    """True for an operator of torch's own whose kernel checks all that it is given."""
    name = short_name(operator)
    if operator.namespace != "aten" or operator.is_view or name in LEFT_OUT:
        return False
    return not name.startswith("_") or name in INTERNAL


def short_name(operator: OpOverload) -> str:
    """`mm`, also of what works in place."""
    return name_of(operator).partition(".")[2].removesuffix("_")


def tensors_of(value: object) -> Sequence[torch.Tensor]:
    """The tensors of an argument."""
    if isinstance(value, torch.Tensor):
        return (value,)
    if isinstance(value, list | tuple):
        return [each for each in value if isinstance(each, torch.Tensor)]
    return ()


def is_plain(tensor: torch.Tensor) -> bool:
    """True for a tensor that one made of ones can stand for."""
    return tensor.layout is torch.strided and not tensor.is_quantized and not tensor.is_nested


def smallest(name: str, value: object, length: int = 1) -> object:
    """An argument as it is for operands that are so long along each axis."""
    if isinstance(value, torch.Tensor):
        is_position = NOTHING.search(name) and value.dtype != torch.bool
        return Operand(shape_for(name, value.ndim, length), value.dtype, 0 if is_position else 1)
    if isinstance(value, list | tuple):
        return tuple(smallest(name, each, length) for each in value)
    if isinstance(value, torch.device):
        return torch.device("cpu")
    if type(value) is not int or KEPT.search(name):
        return value
    return 0 if NOTHING.search(name) else 1


def shape_for(name: str, rank: int, length: int) -> tuple[int, ...]:
    """The shape of an operand; a grid has a coordinate for each axis of its image."""
    if name == "grid":
        return (*(1,) * (rank - 1), rank - 2)
    return SHAPES.get(name, (length,) * rank)


def refusal_of(operator: OpOverload, given: tuple[tuple[str, Any], ...]) -> Refusal | None:
    """What a kernel says to the types of such operands; None where it takes them."""
    try:
        return asked(operator, given)
    except TypeError:  # an argument that cannot be compared, such as a generator
        return None


@functools.lru_cache(maxsize=4096, typed=True)
def asked(operator: OpOverload, given: tuple[tuple[str, Any], ...]) -> Refusal | None:
    """The same, once."""
    state = torch.default_generator.get_state()
    with _disable_current_modes(), torch._C._DisableAutocast(), torch.no_grad():
        try:
            operator(**{name: made(each) for name, each in given})
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            return Refusal(type(error), str(error)) if is_about_types(error) else None
        finally:
            torch.default_generator.set_state(state)
    return None


def is_about_types(error: Exception) -> bool:
    """True for an error that other shapes and values would not avoid."""
    return isinstance(error, NotImplementedError) or bool(ABOUT_TYPES.search(str(error)))


def made(value: object) -> object:
    """An operand as a tensor; anything else as it is."""
    if isinstance(value, Operand):
        return torch.full(value.shape, value.value, dtype=value.dtype, device="cpu")
    if isinstance(value, tuple):
        return [made(each) for each in value]
    return value
