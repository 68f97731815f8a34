"""Which of torch's classes a qualified name means, wherever its release of torch kept it."""

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["printed_name", "room_and_class"]

# Until torch 1.13 what is now `torch.ao.nn` was a part of `torch.nn`.
MOVED = tuple(f"torch.nn.{part}." for part in ("quantized", "quantizable", "qat", "intrinsic"))


def room_and_class(class_name: str) -> tuple[str, str]:
    """The room of torch that a class belongs to, and the class's own name.

    Returns:
        ("", "Linear") for a class of `torch.nn`, in whatever file of it; ("quantized.dynamic",
        "Linear") for one of `torch.ao.nn`; ("?", "") for one that is not torch's.
    """
    module, _, name = class_name.rpartition(".")
    if class_name.startswith(MOVED):
        return room_of(module.removeprefix("torch.nn.")), name
    if class_name.startswith("torch.nn."):
        return "", name
    if class_name.startswith("torch.ao.nn."):
        return room_of(module.removeprefix("torch.ao.nn.")), name
    return "?", ""


def room_of(module: str) -> str:
    """`quantized` from `quantized.modules.linear`, `sparse.quantized` from its own `….linear`."""
    room, found, _ = module.partition(".modules")
    return room if found else module.rpartition(".")[0]


# What `print(model)` puts before the names of a room's classes (every `_get_name` of torch 2.13).
PREFIXES: Mapping[str, str] = MappingProxyType(
    {
        "quantizable": "Quantizable",
        "quantized": "Quantized",
        "quantized.dynamic": "DynamicQuantized",
        "quantized.reference": "Quantized",
        "intrinsic.quantized": "Quantized",
        "intrinsic.quantized.dynamic": "DynamicQuantized",
        "sparse.quantized": "SparseQuantized",
        "sparse.quantized.dynamic": "SparseQuantizedDynamic",
    }
)
UNCHANGED = frozenset(
    {"DeQuantize", "EmbeddingPackedParams", "FXFloatFunctional", "FloatFunctional"}
    | {"LinearPackedParams", "PackedParameter", "QFunctional", "Quantize", "Sigmoid"}
)
REFERENCE = "quantized.reference"


def printed_name(class_name: str) -> str:
    """The name of a class in `print(model)`: `DynamicQuantizedLinear`, for most their own."""
    room, name = room_and_class(class_name)
    own = class_name.rpartition(".")[2]
    if room not in PREFIXES or own.startswith("_"):
        return own
    if own in UNCHANGED and not room.startswith("sparse."):
        return own
    if room == REFERENCE:
        return f"Quantized{'Embedding' if name == 'EmbeddingBag' else name}(Reference)"
    return PREFIXES[room] + name
