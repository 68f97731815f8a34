"""Multiply-accumulates of an operator, from the shapes it is given and gives.

Counted are products of matrices, convolutions and attention: one multiply-accumulate for every
product of two elements that is added to a sum. Biases, and elementwise work such as activations,
normalisation, pooling and softmax, are left out. A complex multiply-accumulate counts as one.
Torch runs a complex convolution as three real ones, and these count.
A Fourier transform of n elements counts as n/2 · log2 n of them, as its radix-2 form has.
Attention is counted in full, also where a causal mask lets half of it be skipped.
Of a sparse matrix, the elements that it stores count.

Listed as uncounted, not guessed: what depends on values or iterates (inv, solve, qr, svd, eigh and
others of linalg), and products of two sparse matrices.

A formula takes the operator's arguments with every tensor replaced by its shape, then `out`, the
shape of its result.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["FORMULAS", "Formula"]

Shape = tuple[int, ...]
Formula = Callable[..., int]


def matrix_product(left: Shape, right: Shape, *_: object, out: Any) -> int:
    """(…, m, k) by (…, k, n) or (k): every element of the result is a sum over k."""
    return math.prod(left) * (right[-1] if len(right) > 1 else 1)


def added_product(_: Shape, left: Shape, right: Shape, *__: object, out: Any) -> int:
    """A product that is added to the first argument, as in addmm."""
    return matrix_product(left, right, out=out)


def grouped_product(left: Shape, right: Shape, *_: object, out: Any) -> int:
    """Products of groups of rows; where only the right side is one matrix, of its columns."""
    rows = left[1:] if len(left) == 3 and len(right) == 2 else left
    return math.prod(rows) * right[-1]


def linear(inputs: Shape, weight: Shape, *_: object, out: Any) -> int:
    """(…, in) by weights of (out, in)."""
    return math.prod(inputs) * weight[0]


def packed_int8_product(left: Shape, right: Shape, *_: object, out: Any) -> int:
    """(m, k) by int8 weights of (n, k)."""
    return math.prod(left) * right[0]


def inner_product(left: Shape, *_: object, out: Any) -> int:
    """Two vectors of one length."""
    return math.prod(left)


def convolution(
    image: Shape,
    weight: Shape,
    bias: Shape | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    *_: object,
    out: Any,
) -> int:
    """Each output (transposed: each input) element meets one filter of a group.

    The weight is (out, in / groups, *kernel), transposed (in, out / groups, *kernel).
    """
    return math.prod(image if transposed else out) * math.prod(weight[1:])


def convolution_in_time(sequence: Shape, weight: Shape, *_: object, out: Shape) -> int:
    """(time, batch, in) by a weight of (kernel, in, out)."""
    return math.prod(out) * math.prod(weight[:2])


def attention(query: Shape, key: Shape, value: Shape, *_: object, out: Any) -> int:
    """(…, heads, queries, width): one product with the keys, one with the values."""
    *batch, queries, width = query
    return math.prod(batch) * queries * key[-2] * (width + value[-1])


def attention_by_position(query: Shape, key: Shape, value: Shape, *_: object, out: Any) -> int:
    """As attention, laid out (batch, position, heads, width)."""
    batch, queries, heads, width = query
    return batch * heads * queries * key[1] * (width + value[-1])


def recurrent_layer(
    sequence: Shape, input_weight: Shape, hidden_weight: Shape, *_: object, out: Any
) -> int:
    """One direction of one layer: every position meets both weights."""
    return math.prod(sequence[:-1]) * (math.prod(input_weight) + math.prod(hidden_weight))


def recurrent_stack(sequence: Shape, weights: list[Shape], *_: object, out: Any) -> int:
    """All layers and directions at once: every position meets every matrix."""
    matrices = sum(math.prod(weight) for weight in weights if len(weight) == 2)
    return math.prod(sequence[:-1]) * matrices


def quantized_stack(gates: int) -> Formula:
    """All layers of a dynamically quantized LSTM (4 gates) or GRU (3), of packed weights.

    Its first state, of (layers × directions, batch, hidden), tells how wide they are. A packed
    sequence comes with its batch sizes before that.
    """

    def formula(sequence: Shape, *rest: Any, out: Any) -> int:
        is_packed = all(isinstance(size, int) for size in rest[0]) and len(rest[0]) == 1
        state, _, _, layers, _, _, both_ways, *_ = rest[is_packed:]
        hidden = (state[0] if isinstance(state, list) else state)[-1]
        directions = 2 if both_ways else 1
        widths = sequence[-1] + (layers - 1) * hidden * directions  # of what the layers are given
        matrices: int = gates * hidden * directions * (widths + layers * hidden)
        return math.prod(sequence[:-1]) * matrices

    return formula


def quantized_cell(
    inputs: Shape, state: Any, input_weight: Shape, hidden_weight: Shape, *_: object, out: Any
) -> int:
    """One position meets both packed weights."""
    return math.prod(inputs[:-1]) * (math.prod(input_weight) + math.prod(hidden_weight))


def trilinear(
    first: Shape,
    weight: Shape,
    second: Shape,
    expand_first: list[int],
    expand_weight: list[int],
    expand_second: list[int],
    *_: object,
    out: Any,
) -> int:
    """A sum of products of three, as in Bilinear: one for each element of the full product."""
    rank = len(first) + len(expand_first)
    full = [1] * rank
    for shape, expanded in (
        (first, expand_first),
        (weight, expand_weight),
        (second, expand_second),
    ):
        kept = [axis for axis in range(rank) if axis not in expanded]
        for axis, size in zip(kept, shape, strict=True):
            full[axis] = max(full[axis], size)
    return math.prod(full)


def pairwise_distance(first: Shape, second: Shape, *_: object, out: Any) -> int:
    """(…, p, m) and (…, r, m): a sum over m for each of the p × r pairs."""
    return math.prod((*out, first[-1]))


def distances_within(points: Shape, *_: object, out: Any) -> int:
    """(p, m): a sum over m for each of the p · (p - 1) / 2 pairs."""
    return math.prod((*out, points[-1]))


def fourier(signal: Shape, axes: list[int], *_: object, out: Any) -> int:
    """Complex to complex: half a multiply-accumulate for each element, for each halving."""
    return round(butterflies(signal, axes))


def butterflies(signal: Shape, axes: list[int]) -> float:
    """The n/2 · log2 n of a transform, of any length."""
    halvings: float = sum(math.log2(max(signal[axis], 1)) for axis in axes)
    return math.prod(signal) * halvings / 2


def real_fourier(signal: Shape, axes: list[int], *_: object, out: Any) -> int:
    """From or to real elements, which is half the work; the real side is the longer one."""
    longer: Shape = max(signal, out, key=math.prod)
    return round(butterflies(longer, axes) / 2)


def packed_linear(inputs: Shape, *_: object, out: Any) -> int:
    """(…, in) by quantized weights, packed: the result tells how many rows they have."""
    return math.prod(inputs) * int(out[-1])


def packed_convolution(image: Shape, weight: Shape, *_: object, out: Any) -> int:
    """Quantized: each output element meets one filter of a group."""
    made: Shape = out
    return math.prod(made) * math.prod(weight[1:])


def packed_transposed(image: Shape, weight: Shape, *_: object, out: Any) -> int:
    """Quantized and transposed: each input element meets one filter of a group."""
    return math.prod(image) * math.prod(weight[1:])


PACKED_LINEAR = """
    linear linear_relu linear_leaky_relu linear_tanh linear_dynamic linear_relu_dynamic
    linear_dynamic_fp16 linear_relu_dynamic_fp16
"""
PACKED_CONVOLUTION = """
    conv1d conv1d_relu conv2d conv2d_relu conv2d_add conv2d_add_relu conv3d conv3d_relu
    conv1d_dynamic conv2d_dynamic conv3d_dynamic
"""
PACKED_TRANSPOSED = """
    conv_transpose1d conv_transpose2d conv_transpose3d conv_transpose1d_dynamic
    conv_transpose2d_dynamic conv_transpose3d_dynamic
"""
QUANTIZED_CELLS = ("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")

# By the operator's name. Sources: the schemas in torch's native_functions.yaml.
FORMULAS: Mapping[str, Formula] = MappingProxyType(
    {
        "aten.mm": matrix_product,
        "aten.bmm": matrix_product,
        "aten.mv": matrix_product,
        "aten.linear": linear,
        "aten.dot": inner_product,
        "aten.vdot": inner_product,
        "aten.addmm": added_product,
        "aten._addmm_activation": added_product,
        "aten.addmv": added_product,
        "aten.baddbmm": added_product,
        "aten.addbmm": added_product,
        "aten._sparse_mm": matrix_product,
        "aten._sparse_addmm": added_product,
        "aten._int_mm": matrix_product,
        "aten._scaled_mm": matrix_product,
        "aten._grouped_mm": grouped_product,
        "aten._weight_int8pack_mm": packed_int8_product,
        "aten.convolution": convolution,
        "aten._convolution": convolution,
        "aten.convolution_overrideable": convolution,
        "aten.conv_tbc": convolution_in_time,
        "aten._scaled_dot_product_flash_attention": attention,
        "aten._scaled_dot_product_flash_attention_for_cpu": attention,
        "aten._scaled_dot_product_efficient_attention": attention,
        "aten._scaled_dot_product_cudnn_attention": attention,
        "aten._scaled_dot_product_fused_attention_overrideable": attention,
        "aten._scaled_dot_product_attention_math_for_mps": attention,
        "aten._efficient_attention_forward": attention_by_position,
        "aten._flash_attention_forward": attention_by_position,
        "higher_order.flex_attention": attention,
        "aten.mkldnn_rnn_layer": recurrent_layer,
        "aten._cudnn_rnn": recurrent_stack,
        "aten.miopen_rnn": recurrent_stack,
        "aten.quantized_lstm": quantized_stack(4),
        "aten.quantized_gru": quantized_stack(3),
        **{f"quantized.quantized_{name}_dynamic": quantized_cell for name in QUANTIZED_CELLS},
        "aten._trilinear": trilinear,
        "aten._cdist_forward": pairwise_distance,
        "aten._pdist_forward": distances_within,
        "aten._euclidean_dist": pairwise_distance,
        "aten._fft_c2c": fourier,
        "aten._fft_r2c": real_fourier,
        "aten._fft_c2r": real_fourier,
        "quantized.matmul": matrix_product,
        **{f"quantized.{name}": packed_linear for name in PACKED_LINEAR.split()},
        **{f"quantized.{name}": packed_convolution for name in PACKED_CONVOLUTION.split()},
        **{f"quantized.{name}": packed_transposed for name in PACKED_TRANSPOSED.split()},
    }
)
