"""The settings of every class of `torch.ao.nn`, by its room and its own name.

A quantized layer keeps its weight in packed form; the pickle holds what it was packed from, a
call of `torch._utils._rebuild_qtensor`, whose scheme is a part of the settings. The values of
tensors are not: `scale` and `zero_point` of `Quantize` stay out.
"""

from collections.abc import Mapping
from types import MappingProxyType

from modtool.errors import CorruptFileError
from modtool.pickles.nn_settings.language import Settings, View, joined, listed, printed
from modtool.pickles.nn_settings.standard import STANDARD, convolution_tail
from modtool.pickles.plain import attributes_of
from modtool.pickles.symbols import Call, Global
from modtool.pickles.torch_objects import storage_id

__all__ = ["QUANTIZED", "quantized_conv_attributes"]

CONVOLUTION_STATE = (
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "transposed",
    "output_padding",
    "groups",
    "padding_mode",
    "weight",
    "bias",
    "scale",
    "zero_point",
    "training",
)
MAX_PACKED = 4


def quantized_conv_attributes(state: object) -> Mapping[str, object] | None:
    """The attributes of a quantized convolution, whose state is a tuple instead of a dict.

    Returns:
        The attributes by name, `weight` and `bias` (tensors, or None) among them; None when the
        state is not of this form. Source: torch 2.13, `_ConvNd.__getstate__` of
        `torch/ao/nn/quantized/modules/conv.py`.
    """
    if not isinstance(state, tuple) or len(state) != len(CONVOLUTION_STATE):
        return None
    return dict(zip(CONVOLUTION_STATE, state, strict=True))


FEATURES = "in_features={in_features}, out_features={out_features}"
SCALE = "scale={scale}, zero_point={zero_point}"
CONVOLUTION = "{in_channels}, {out_channels}, kernel_size={kernel_size}, stride={stride}"


def convolution(view: View) -> str:
    """Quantized `Conv*` and `ConvTranspose*`."""
    return joined(view, CONVOLUTION, SCALE, *convolution_tail(view))


def linear(view: View) -> str:
    """`Linear` of quantized inputs, with or without an activation."""
    return listed(joined(view, FEATURES, SCALE), scheme(view))


def dynamic_linear(view: View) -> str:
    """`Linear` that quantizes its input as it comes; half-precision weights have no scheme."""
    return listed(joined(view, FEATURES), packed_dtype(view), scheme(view))


def sparse_dynamic_linear(view: View) -> str:
    """`Linear` of sparse weights."""
    return listed(joined(view, FEATURES), scheme(view))


def embedding(view: View) -> str:
    """`Embedding` and `EmbeddingBag`."""
    template = "num_embeddings={num_embeddings}, embedding_dim={embedding_dim}"
    return listed(joined(view, template), packed_dtype(view), scheme(view))


def packed(view: View) -> Mapping[str, object]:
    """The attributes of the child that holds the packed weight."""
    return attributes_of(view.members("_modules").get("_packed_params")) or {}


def packed_dtype(view: View) -> str | None:
    """The type of a packed weight, as a part to print."""
    dtype = packed(view).get("dtype")
    text = printed(dtype) if dtype is not None else None
    return f"dtype={text}" if text else None


def scheme(view: View) -> str | None:
    """How a packed weight is quantized, as a part to print."""
    weights = packed(view)
    found = scheme_in([weights.get("_packed_params"), weights.get("_packed_weight")], MAX_PACKED)
    return f"qscheme={found}" if found else None


def scheme_in(value: object, depth: int) -> str | None:
    """The scheme of the first quantized tensor among what was packed."""
    if isinstance(value, Call):
        if value.callee == "torch._utils._rebuild_qtensor" and len(value.arguments) > 4:
            return scheme_text(value.arguments[4])
        value = value.state if value.callee == "torch.ScriptObject" else None
    if not isinstance(value, tuple | list) or depth == 0:
        return None
    found = (scheme_in(item, depth - 1) for item in value[:MAX_PACKED])
    return next((text for text in found if text), None)


def scheme_text(quantizer: object) -> str | None:
    """`torch.per_tensor_affine` from what a quantized tensor is rebuilt with."""
    match quantizer:
        case (Global(name="per_channel_affine"), _, Call(arguments=(zero_points, *_)), *_):
            # Saving writes one name for both kinds; zero points that are floats tell them apart.
            kind = "_float_qparams" if holds_floats(zero_points) else ""
            return f"torch.per_channel_affine{kind}"
        case (Global() as name, *_):
            return printed(name)
    return None


def holds_floats(storage: object) -> bool:
    """True for a storage of floats."""
    try:
        found = storage_id(storage)
    except CorruptFileError:
        return False
    return found is not None and found.dtype.startswith("float")


def like(*names: str) -> dict[str, Settings]:
    """Classes that print what those of `torch.nn` print."""
    return {name: STANDARD[name] for name in names}


RECURRENT_LIKE = ("RNN", "LSTM", "GRU", "RNNBase", "RNNCell", "LSTMCell", "GRUCell", "RNNCellBase")
CONVOLUTIONS = tuple(f"Conv{count}d" for count in (1, 2, 3))
TRANSPOSED = tuple(f"ConvTranspose{count}d" for count in (1, 2, 3))
NUMBERED_FUSED = tuple(
    f"Conv{fused}{count}d" for fused in ("Bn", "BnReLU", "ReLU") for count in (1, 2, 3)
)

QUANTIZED: Mapping[str, Mapping[str, Settings]] = MappingProxyType(
    {
        "quantized": {
            **like("ELU", "LeakyReLU", "Softmax", "Dropout", "GroupNorm", "LayerNorm"),
            **like("BatchNorm2d", "BatchNorm3d"),
            **like("InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d", "ReLU6"),
            **dict.fromkeys(CONVOLUTIONS + TRANSPOSED, convolution),
            "Linear": linear,
            "Embedding": embedding,
            "EmbeddingBag": embedding,
            "QFunctional": SCALE,
            "Quantize": "dtype={dtype}",
        },
        "quantized.dynamic": {
            **like(*RECURRENT_LIKE),
            **dict.fromkeys(CONVOLUTIONS + TRANSPOSED, convolution),
            "Linear": dynamic_linear,
        },
        "quantized.reference": like(
            *RECURRENT_LIKE, *CONVOLUTIONS, *TRANSPOSED, "Linear", "Embedding", "EmbeddingBag"
        ),
        "sparse.quantized": {"Linear": linear},
        "sparse.quantized.dynamic": {"Linear": sparse_dynamic_linear},
        "qat": like(*CONVOLUTIONS, "Linear", "Embedding", "EmbeddingBag"),
        "qat.dynamic": like("Linear"),
        "intrinsic.qat": {
            **dict.fromkeys(NUMBERED_FUSED, STANDARD["Conv1d"]),
            **dict.fromkeys(("LinearBn1d", "LinearReLU"), STANDARD["Linear"]),
        },
        "intrinsic.quantized": {
            **dict.fromkeys(("BNReLU2d", "BNReLU3d"), STANDARD["BatchNorm2d"]),
            **dict.fromkeys((f"ConvReLU{count}d" for count in (1, 2, 3)), convolution),
            **dict.fromkeys(("ConvAdd2d", "ConvAddReLU2d"), convolution),
            **dict.fromkeys(("LinearReLU", "LinearLeakyReLU", "LinearTanh"), linear),
        },
        "intrinsic.quantized.dynamic": {"LinearReLU": dynamic_linear},
    }
)
