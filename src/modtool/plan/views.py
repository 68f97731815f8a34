"""When two tensors are the same elements."""

from collections.abc import Mapping

from modtool.pickles.symbols import Call
from modtool.records import TensorInfo, contiguous_stride

__all__ = ["has_data", "math_bits", "view_of"]

WRAPPERS = frozenset(
    {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}
)
# The argument that holds them, of those with an argument for them (torch 2.13, `_utils.py`).
METADATA: Mapping[str, int] = {
    "torch._utils._rebuild_tensor_v2": 6,
    "torch._utils._rebuild_tensor_v3": 7,
}


def view_of(tensor: TensorInfo) -> object:
    """Equal for tensors that are the same elements in the same order; unlike for all others."""
    if tensor.storage is None or tensor.numel == 0:
        return id(tensor.origin) if tensor.origin is not None else (tensor.section, tensor.name)
    stride = contiguous_stride(tensor.shape) if tensor.is_contiguous else tensor.stride
    bits = tuple(sorted(map(str, math_bits(tensor))))
    return tensor.storage.key, tensor.offset, tensor.shape, stride, tensor.dtype, bits


def math_bits(tensor: TensorInfo) -> dict[object, object]:
    """`{"conj": True}` or `{"neg": True}` where torch saved a view that is yet to be computed."""
    call: object = tensor.origin
    while isinstance(call, Call) and call.callee in WRAPPERS and call.arguments:
        call = call.arguments[0]
    index = METADATA.get(call.callee) if isinstance(call, Call) else None
    if index is None or not isinstance(call, Call) or len(call.arguments) <= index:
        return {}
    found = call.arguments[index]
    return found if isinstance(found, dict) else {}


def has_data(tensor: TensorInfo) -> bool:
    """True for a tensor of plain elements whose bytes are at hand, in one piece or in blocks."""
    stored = tensor.storage is not None and tensor.storage.data is not None
    return tensor.layout == "strided" and (stored or bool(tensor.chunks))
