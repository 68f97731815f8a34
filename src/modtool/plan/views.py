"""When two tensors are the same elements."""

from modtool.pickles.tensor_calls import math_bits_of
from modtool.records import TensorInfo, contiguous_stride

__all__ = ["has_data", "math_bits", "view_of"]


def view_of(tensor: TensorInfo) -> object:
    """Equal for tensors that are the same elements in the same order; unlike for all others."""
    if tensor.storage is None or tensor.numel == 0:
        return id(tensor.origin) if tensor.origin is not None else (tensor.section, tensor.name)
    stride = contiguous_stride(tensor.shape) if tensor.is_contiguous else tensor.stride
    bits = tuple(sorted(map(str, math_bits(tensor))))
    return tensor.storage.key, tensor.offset, tensor.shape, stride, tensor.dtype, bits


def math_bits(tensor: TensorInfo) -> dict[object, object]:
    """`{"conj": True}` or `{"neg": True}` where torch saved a view that is yet to be computed."""
    return math_bits_of(tensor.origin)


def has_data(tensor: TensorInfo) -> bool:
    """True for a tensor of plain elements whose bytes are at hand, in one piece or in blocks."""
    stored = tensor.storage is not None and tensor.storage.data is not None
    return tensor.layout == "strided" and (stored or bool(tensor.chunks))
