"""The settings of every class of `torch.nn`, by its own name."""

from collections.abc import Mapping
from types import MappingProxyType

from modtool.pickles.nn_settings.language import (
    INPLACE,
    Part,
    Settings,
    Unless,
    View,
    joined,
    listed,
    printed,
)
from modtool.pickles.nn_settings.parameters import parameter_dict, parameter_list
from modtool.pickles.plain import attributes_of
from modtool.pickles.symbols import Call

__all__ = ["STANDARD", "convolution_tail"]

DIMENSION = "dim={dim}"
DROPOUT = "p={p}, inplace={inplace}"
LINEAR = "in_features={in_features}, out_features={out_features}, bias={has_bias}"
NORMALIZATION = (
    "{num_features}, eps={eps}, momentum={momentum}, affine={affine}, bias={has_bias}, "
    "track_running_stats={track_running_stats}"
)
RESPONSE_NORMALIZATION = "{size}, alpha={alpha}, beta={beta}, k={k}"
PADDING = "{padding}"
CONSTANT_PADDING = "padding={padding}, value={value}"
OUTPUT_SIZE = "output_size={output_size}"
AVERAGE_POOL = "kernel_size={kernel_size}, stride={stride}, padding={padding}"
POWER_POOL = (
    "norm_type={norm_type}, kernel_size={kernel_size}, stride={stride}, ceil_mode={ceil_mode}"
)
MAX_POOL = (
    "kernel_size={kernel_size}, stride={stride}, padding={padding}, dilation={dilation}, "
    "ceil_mode={ceil_mode}"
)
FOLD = "kernel_size={kernel_size}, dilation={dilation}, padding={padding}, stride={stride}"
RECURRENT = (
    "{input_size}, {hidden_size}",
    Unless("proj_size", 0),
    Unless("num_layers", 1),
    Unless("bias", True),
    Unless("batch_first", False),
    Unless("dropout", 0),
    Unless("bidirectional", False),
)
RECURRENT_CELL = (
    "{input_size}, {hidden_size}",
    Unless("bias", True),
    Unless("nonlinearity", "tanh"),
)
EMBEDDING = (
    "{num_embeddings}, {embedding_dim}",
    Unless("padding_idx", None),
    Unless("max_norm", None),
    Unless("norm_type", 2),
    Unless("scale_grad_by_freq", False),
    Unless("sparse", False, "sparse=True"),
)
EMBEDDING_BAG = (
    "{num_embeddings}, {embedding_dim}",
    Unless("max_norm", None),
    Unless("norm_type", 2),
    Unless("scale_grad_by_freq", False),
    "mode={mode!r}",
    Unless("padding_idx", None),
)


def convolution(view: View) -> str:
    """`Conv*` and `ConvTranspose*`."""
    head = "{in_channels}, {out_channels}, kernel_size={kernel_size}, stride={stride}"
    return joined(view, head, *convolution_tail(view), Unless("padding_mode", "zeros"))


def convolution_tail(view: View) -> tuple[Part, ...]:
    """The settings of a convolution that are printed where they are no defaults."""
    geometry = (("padding", 0), ("dilation", 1), ("output_padding", 0))
    return (
        *(f"{name}={{{name}}}" for name, default in geometry if not all_are(view, name, default)),
        Unless("groups", 1),
        *(("bias=False",) if view.has("bias") is False else ()),
    )


def all_are(view: View, name: str, default: int) -> bool:
    """True when each number of an attribute is the default."""
    value = view.value(name)
    return isinstance(value, tuple) and all(
        isinstance(item, int) and item == default for item in value
    )


def upsample(view: View) -> str:
    """`Upsample` and its kin: a factor, or a size."""
    name = "size" if view.value("scale_factor") is None else "scale_factor"
    return joined(view, f"{name}={{{name}!r}}, mode={{mode!r}}")


def linear_cross_entropy(view: View) -> str:
    """`LinearCrossEntropyLoss`, which tells of the layer that it holds."""
    layer = View(attributes_of(view.members("_modules").get("linear")) or {}, {})
    weights = layer.members("_parameters")
    options = options_text(view.value("options"))
    return listed(
        joined(layer, "in_features={in_features}"),
        joined(view, "num_classes={num_classes}, out_features={out_features}"),
        f"bias={weights['bias'] is not None}" if "bias" in weights else None,
        joined(
            view,
            "reduction={reduction}, ignore_index={ignore_index}, label_smoothing={label_smoothing}",
        ),
        f"options={options}" if options else None,
    )


OPTIONS = ("allow_retain_graph", "batch_chunk_size", "chunking_method", "acc_policy", "acc_dtype")


def options_text(value: object) -> str | None:
    """`LinearCrossEntropyOptions`, whose state is the list of its fields."""
    if not isinstance(value, Call):
        return printed(value)
    state = value.state
    if not isinstance(state, list) or len(state) != len(OPTIONS):
        return None
    fields = [printed(item, quoted=True) for item in state]
    if None in fields:
        return None
    inside = ", ".join(f"{name}={text}" for name, text in zip(OPTIONS, fields, strict=True))
    return f"LinearCrossEntropyOptions({inside})"


def numbered(names: str, settings: Settings, dimensions: str = "123") -> dict[str, Settings]:
    """One entry for each class and number of dimensions."""
    return {f"{name}{count}d": settings for name in names.split() for count in dimensions}


STANDARD: Mapping[str, Settings] = MappingProxyType(
    {
        # activation
        "CELU": ("alpha={alpha}", INPLACE),
        "ELU": ("alpha={alpha}", INPLACE),
        "GELU": "approximate={approximate!r}",
        "GLU": DIMENSION,
        "Hardshrink": "{lambd}",
        "Hardtanh": ("min_val={min_val}, max_val={max_val}", INPLACE),
        "LeakyReLU": ("negative_slope={negative_slope}", INPLACE),
        "LogSoftmax": DIMENSION,
        "Mish": INPLACE,
        "PReLU": "num_parameters={num_parameters}",
        "RReLU": ("lower={lower}, upper={upper}", INPLACE),
        "ReLU": INPLACE,
        "ReLU6": INPLACE,
        "SELU": INPLACE,
        "SiLU": INPLACE,
        "Softmax": DIMENSION,
        "Softmin": DIMENSION,
        "Softplus": "beta={beta}, threshold={threshold}",
        "Softshrink": "{lambd}",
        "Threshold": ("threshold={threshold}, value={value}", INPLACE),
        # batchnorm, instancenorm, normalization
        **numbered("BatchNorm LazyBatchNorm InstanceNorm LazyInstanceNorm", NORMALIZATION),
        "SyncBatchNorm": NORMALIZATION,
        "GroupNorm": "{num_groups}, {num_channels}, eps={eps}, affine={affine}, bias={has_bias}",
        "LayerNorm": (
            "{normalized_shape}, eps={eps}, elementwise_affine={elementwise_affine}, "
            "bias={has_bias}"
        ),
        "RMSNorm": "{normalized_shape}, eps={eps}, elementwise_affine={elementwise_affine}",
        "CrossMapLRN2d": RESPONSE_NORMALIZATION,
        "LocalResponseNorm": RESPONSE_NORMALIZATION,
        # container
        "ParameterDict": parameter_dict,
        "ParameterList": parameter_list,
        # conv, linear, sparse
        **numbered("Conv ConvTranspose LazyConv LazyConvTranspose", convolution),
        "Linear": LINEAR,
        "LazyLinear": LINEAR,
        "NonDynamicallyQuantizableLinear": LINEAR,
        "Bilinear": (
            "in1_features={in1_features}, in2_features={in2_features}, "
            "out_features={out_features}, bias={has_bias}"
        ),
        "Embedding": EMBEDDING,
        "EmbeddingBag": EMBEDDING_BAG,
        # dropout
        "Dropout": DROPOUT,
        **numbered("Dropout", DROPOUT),
        "AlphaDropout": DROPOUT,
        "FeatureAlphaDropout": DROPOUT,
        # channelshuffle, flatten, fold, pixelshuffle, upsampling
        "ChannelShuffle": "groups={groups}",
        "Flatten": "start_dim={start_dim}, end_dim={end_dim}",
        "Unflatten": "dim={dim}, unflattened_size={unflattened_size}",
        "Fold": f"{OUTPUT_SIZE}, {FOLD}",
        "Unfold": FOLD,
        "PixelShuffle": "upscale_factor={upscale_factor}",
        "PixelUnshuffle": "downscale_factor={downscale_factor}",
        "Upsample": upsample,
        "UpsamplingBilinear2d": upsample,
        "UpsamplingNearest2d": upsample,
        # loss
        "LinearCrossEntropyLoss": linear_cross_entropy,
        # padding
        **numbered("CircularPad ReflectionPad ReplicationPad ZeroPad", PADDING),
        **numbered("ConstantPad", CONSTANT_PADDING),
        # pooling
        **numbered("AdaptiveAvgPool AdaptiveMaxPool", OUTPUT_SIZE),
        **numbered("AvgPool MaxUnpool", AVERAGE_POOL),
        **numbered("LPPool", POWER_POOL),
        **numbered("MaxPool", MAX_POOL),
        # rnn
        **dict.fromkeys(("RNN", "LSTM", "GRU", "RNNBase"), RECURRENT),
        **dict.fromkeys(("RNNCell", "LSTMCell", "GRUCell", "RNNCellBase"), RECURRENT_CELL),
    }
)
