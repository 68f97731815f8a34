"""What an operator costs: counted by a formula, left out knowingly, or not known."""

import functools
import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch._ops import HigherOrderOperator, OpOverload
from torch._subclasses.fake_tensor import FakeTensor, UnsupportedOperatorException
from torch.utils._python_dispatch import _disable_current_modes

from modtool.live.flops import FORMULAS, Formula

__all__ = ["Cost", "Operator", "cost_of", "macs_of", "name_of"]

Cost = Literal["counted", "left out", "unknown"]

Operator = OpOverload | HigherOrderOperator
"""What torch runs; of higher order are those that take functions, such as flex_attention."""

# Elementwise, reducing, moving and making operators that torch does not tag as such.
LEFT_OUT_NAMES = """
    made: arange bernoulli empty empty_like empty_permuted empty_strided eye full full_like linspace
    logspace new_empty new_empty_strided new_full new_ones new_zeros normal ones ones_like rand
    rand_like randint randint_like randn randn_like randperm scalar_tensor tril_indices
    triu_indices uniform exponential cauchy geometric log_normal multinomial poisson random zeros
    zeros_like _efficientzerotensor vander hann_window hamming_window blackman_window
    bartlett_window _standard_gamma _sparse_coo_tensor_with_dims_and_tensors

    asked: _assert_async _assert_scalar _assert_tensor_metadata _functional_assert_async
    _functional_sym_constrain_range _functional_sym_constrain_range_for_size sym_constrain_range
    sym_constrain_range_for_size _print _local_scalar_dense equal is_same_size item dense_dim
    sparse_dim is_coalesced is_pinned record_stream sym_size sym_stride _fused_sdp_choice q_scale
    q_zero_point _linalg_check_errors _is_all_true _is_any_true _nested_tensor_size
    _nested_tensor_strides _nested_tensor_storage_offsets _nested_get_values _nested_get_offsets
    _nested_get_lengths _nested_get_ragged_idx _nested_get_min_seqlen _nested_get_max_seqlen
    _nested_get_jagged_dummy _nested_compute_contiguous_strides_offsets

    moved: _to_copy _to_dense _coalesce alias alias_copy as_strided_copy as_strided_scatter
    block_diag cat _chunk_cat channel_shuffle clone constant_pad_nd contiguous copy detach
    detach_copy diag_embed diagonal_copy diagonal_scatter expand expand_copy fill flip gather
    im2col col2im index index_add index_copy index_fill index_put _index_put_impl _unsafe_index
    _unsafe_index_put _unsafe_masked_index _unsafe_masked_index_put_accumulate index_reduce
    index_select lift lift_fresh lift_fresh_copy masked_fill masked_scatter masked_select
    narrow_copy _nested_tensor_from_mask _nested_tensor_from_tensor_list
    _nested_view_from_buffer_copy nonzero nonzero_static _pack_padded_sequence _pad_packed_sequence
    _jagged_to_padded_dense_forward _padded_dense_to_jagged_forward permute_copy pin_memory
    _pin_memory pixel_shuffle pixel_unshuffle put reflection_pad1d reflection_pad2d
    reflection_pad3d repeat repeat_interleave replication_pad1d replication_pad2d replication_pad3d
    reshape _reshape_alias _reshape_copy resize resize_as _resize_output roll rot90 scatter
    scatter_add scatter_reduce select_scatter set slice_copy slice_scatter _spdiags
    split_with_sizes_copy squeeze_copy stack t_copy take tensor_split to_dense to_padded_tensor
    to_sparse _to_sparse _to_sparse_bsc _to_sparse_bsr _to_sparse_csc _to_sparse_csr transpose_copy
    tril triu unbind_copy unfold_copy unfold_backward unsafe_chunk unsafe_split
    unsafe_split_with_sizes _unsafe_view unsqueeze_copy view_as_real_copy view_copy zero embedding
    embedding_renorm _embedding_bag _embedding_bag_forward_only one_hot

    elementwise: addr _add_relu alpha_dropout complex _conj_physical floor_divide _fused_dropout glu
    hardswish log_sigmoid_forward _masked_scale native_dropout polar prelu _prelu_kernel real_copy
    rrelu_with_noise rrelu_with_noise_functional linalg_cross cumprod cumsum cummax cummin
    logcumsumexp diff _thnn_fused_lstm_cell _thnn_fused_gru_cell quantize_per_tensor
    quantize_per_channel dequantize _make_per_tensor_quantized_tensor int_repr
    fake_quantize_per_tensor_affine_cachemask fake_quantize_per_channel_affine_cachemask
    _fused_moving_avg_obs_fq_helper

    reduced: aminmax bincount count_nonzero dist histc kthvalue linalg_vector_norm logsumexp max
    median min mode nanmedian norm renorm segment_reduce std_mean trace var_mean bucketize isin
    searchsorted argsort msort sort topk _unique _unique2 unique_consecutive unique_dim

    normalised: _batch_norm_no_update batch_norm_update_stats _batch_norm_with_update
    _batch_norm_with_update_functional cudnn_batch_norm _fused_rms_norm _log_softmax
    miopen_batch_norm native_batch_norm _native_batch_norm_legit
    _native_batch_norm_legit_functional _native_batch_norm_legit_no_training native_group_norm
    native_layer_norm rms_norm _safe_softmax _softmax _weight_norm_interface

    pooled: _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d
    avg_pool2d avg_pool3d fractional_max_pool2d fractional_max_pool3d max_pool2d
    max_pool2d_with_indices max_pool3d_with_indices max_unpool2d max_unpool3d
    mkldnn_adaptive_avg_pool2d mkldnn_max_pool2d affine_grid_generator cudnn_grid_sampler
    grid_sampler_2d _grid_sampler_2d_cpu_fallback grid_sampler_3d upsample_bicubic2d
    _upsample_bicubic2d_aa upsample_bilinear2d _upsample_bilinear2d_aa _upsample_lanczos2d_aa
    upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d
    _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
    upsample_trilinear3d

    losses: binary_cross_entropy binary_cross_entropy_with_logits _ctc_loss _cudnn_ctc_loss
    huber_loss mse_loss multi_margin_loss multilabel_margin_loss_forward nll_loss2d_forward
    nll_loss_forward smooth_l1_loss soft_margin_loss
"""
LEFT_OUT = frozenset(name for name in LEFT_OUT_NAMES.split() if not name.endswith(":"))


def name_of(operator: Operator) -> str:
    """`aten.mm`, the overload left out."""
    if isinstance(operator, HigherOrderOperator):
        return f"higher_order.{operator}"
    return str(operator.overloadpacket)


@functools.cache
def cost_of(operator: Operator) -> Cost:
    """Whether an operator is counted, left out by the convention, or not known to modtool."""
    name = name_of(operator)
    namespace, _, short = name.partition(".")
    if formula_of(name):
        return "counted"
    if isinstance(operator, HigherOrderOperator):
        return "unknown"
    if namespace == "quantized" and not any(word in short for word in PRODUCTS):
        return "left out"
    if namespace in SILENT or operator.is_view or is_elementwise(operator):
        return "left out"
    return "left out" if namespace == "aten" and short.rstrip("_") in LEFT_OUT else "unknown"


# What a quantized operator's name says when it multiplies matrices; all others are elementwise.
PRODUCTS = ("linear", "conv", "matmul", "lstm", "gru", "rnn", "cell")

# Asking for properties, and communication.
SILENT = frozenset({"prim", "prims", "_c10d_functional", "c10d", "profiler"})


def formula_of(name: str) -> Formula | None:
    """The formula of an operator; one that works in place has that of its twin."""
    return FORMULAS.get(name) or FORMULAS.get(name.removesuffix("_"))


def is_elementwise(operator: OpOverload) -> bool:
    """True where torch tags the operator, or a twin of it, as pointwise, reducing or a view."""
    # Not every overload carries the tag that its twins do. Older releases do not tag reductions.
    free = {torch.Tag.pointwise, torch.Tag.inplace_view, getattr(torch.Tag, "reduction", None)}
    short = operator.overloadpacket.__name__
    twins = getattr(getattr(torch.ops, operator.namespace), short.rstrip("_"), None)
    packets = [operator.overloadpacket, *([twins] if twins is not None else [])]
    overloads = (getattr(packet, name) for packet in packets for name in packet.overloads())
    return any(not free.isdisjoint(overload.tags) for overload in overloads)


SPARSE = frozenset(
    (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)
)


def macs_of(operator: Operator, arguments: Sequence[object], result: object) -> int | None:
    """Multiply-accumulates of one call of a counted operator.

    None where the formula does not tell: of nested tensors, only a linear layer's rows are alike.
    """
    name = name_of(operator)
    if any(map(is_sparse, arguments)):
        return sparse_macs(operator, arguments)
    nested = any(isinstance(each, torch.Tensor) and each.is_nested for each in arguments)
    formula = formula_of(name) if not nested or name == "aten.linear" else None
    if formula is None:
        return None
    return formula(*map(shape, arguments), out=shape(result))


def is_sparse(value: object) -> bool:
    """True for a tensor that stores some of its elements alone."""
    return isinstance(value, torch.Tensor) and value.layout in SPARSE


def sparse_macs(operator: Operator, arguments: Sequence[object]) -> int | None:
    """Of a sparse and a dense matrix: each stored element meets a row, or a column, of the other.

    Raises:
        UnsupportedOperatorException: The operands are fake, and how much they store is not known.
    """
    if isinstance(operator, HigherOrderOperator):
        return None
    if any(isinstance(each, FakeTensor) for each in arguments):
        raise UnsupportedOperatorException(operator)
    adds = "add" in name_of(operator)
    left, right = arguments[1:3] if adds else arguments[:2]
    if not isinstance(left, torch.Tensor) or not isinstance(right, torch.Tensor):
        return None
    if is_sparse(left) == is_sparse(right):
        return None
    if is_sparse(left):
        return stored(left) * (right.shape[-1] if right.ndim > 1 else 1)
    return math.prod(left.shape[:-1]) * stored(right)


def stored(tensor: torch.Tensor) -> int:
    """How many elements a sparse tensor stores."""
    with _disable_current_modes():
        values = tensor._values() if tensor.layout is torch.sparse_coo else tensor.values()
        return values.numel()


def shape(value: object) -> object:
    """A tensor's shape; lists of tensors as lists of shapes; anything else as it is.

    A nested tensor is as long as it has elements.
    Packed weights of quantized modules have the shape of what they unpack to.
    """
    if isinstance(value, torch.Tensor):
        return (value.numel(),) if value.is_nested else tuple(value.shape)
    if isinstance(value, torch.ScriptObject) and hasattr(value, "unpack"):
        with _disable_current_modes():
            return tuple(value.unpack()[0].shape)
    if isinstance(value, list | tuple):
        return [shape(each) for each in value]
    return value
