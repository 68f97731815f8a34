"""Which modules compute differently in train and in eval mode."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from modtool.pickles.nn_settings.names import room_and_class
from modtool.pickles.plain import mapping_of

__all__ = ["mode_rule", "mode_sensitive"]

Attributes = Mapping[str, object]


def mode_sensitive(class_name: str, attributes: Attributes) -> bool:
    """Whether a module itself, its children aside, computes differently in train and eval.

    A live module is asked about by its class and its `vars()`, so that a file and a live model
    get the same answer.

    Args:
        class_name: Qualified: `torch.nn.modules.dropout.Dropout`.
        attributes: The module's `__dict__`, live or as it was read from a pickle.
    """
    heeds = mode_rule(class_name)
    return heeds is not None and heeds(attributes)


def mode_rule(class_name: str) -> Callable[[Attributes], bool] | None:
    """What tells, from a module's attributes, whether it heeds the mode; None: it never does."""
    room, name = room_and_class(class_name)
    return MODES.get(f"{room}:{name}")


def always(attributes: Attributes) -> bool:
    """Whatever its settings: those may be changed between two calls."""
    return True


def keeps_statistics(attributes: Attributes) -> bool:
    """Batch normalisation with running statistics; without, it uses the batch in both modes."""
    buffers = mapping_of(attributes.get("_buffers"))
    if buffers is None:
        return True
    return any(buffers.get(name) is not None for name in ("running_mean", "running_var"))


def tracks_statistics(attributes: Attributes) -> bool:
    """Instance normalisation that uses running statistics in eval mode."""
    return attributes.get("track_running_stats") is True


def drops(attributes: Attributes) -> bool:
    """A module that hands its own `dropout` to a function."""
    dropout = attributes.get("dropout", 0)
    return isinstance(dropout, int | float) and dropout > 0


def drops_between_layers(attributes: Attributes) -> bool:
    """Recurrent layers drop the output of each layer but the last."""
    layers = attributes.get("num_layers", 1)
    return drops(attributes) and isinstance(layers, int) and layers > 1


DIMENSIONS = (1, 2, 3)
DROPOUTS = (
    "Dropout",
    *(f"Dropout{count}d" for count in DIMENSIONS),
    "AlphaDropout",
    "FeatureAlphaDropout",
)
BATCH_NORMS = (
    *(f"{lazy}BatchNorm{count}d" for lazy in ("", "Lazy") for count in DIMENSIONS),
    "SyncBatchNorm",
)
INSTANCE_NORMS = tuple(
    f"{lazy}InstanceNorm{count}d" for lazy in ("", "Lazy") for count in DIMENSIONS
)
RECURRENT_ROOMS = ("", "quantized.dynamic", "quantized.reference")
ATTENTION_ROOMS = ("", "quantizable", "quantized")

# Quantized dropout and batch normalisation of torch.ao.nn only know eval.
MODES: Mapping[str, Callable[[Attributes], bool]] = MappingProxyType(
    {
        **{f":{name}": always for name in DROPOUTS},
        ":RReLU": always,
        ":_SpectralNorm": always,  # torch.nn.utils.parametrizations: iterates in train mode
        **{f":{name}": keeps_statistics for name in BATCH_NORMS},
        **{f":{name}": tracks_statistics for name in INSTANCE_NORMS},
        **{f"{room}:MultiheadAttention": drops for room in ATTENTION_ROOMS},
        **{
            f"{room}:{name}": drops_between_layers
            for room in RECURRENT_ROOMS
            for name in ("RNN", "LSTM", "GRU", "RNNBase")
        },
    }
)
