"""What quantized modules put into a state_dict beside parameters and buffers.

Their weights are attributes, packed in a `torch.ScriptObject` or not, and their scale and zero
point are plain numbers, which `state_dict()` makes tensors of. Source: torch 2.13, every
`_save_to_state_dict` of `torch/ao/nn`.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from modtool.pickles.nn_settings.names import room_and_class
from modtool.pickles.symbols import Call
from modtool.pickles.torch_objects import TensorFacts
from modtool.records import Storage

__all__ = ["SCRIPT_OBJECT", "IsTensor", "PackedEntry", "packed_entries", "tensors_in"]

MAX_DEPTH = 12
SCRIPT_OBJECT = "torch.ScriptObject"
CONVOLUTIONS = tuple(
    f"Conv{kind}{count}d"
    for kind in ("", "Transpose", "ReLU", "Add", "AddReLU")
    for count in (1, 2, 3)
)
# The attributes that become entries, in their order, by the name of the class.
ENTRIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        **dict.fromkeys(CONVOLUTIONS, ("weight", "bias", "scale", "zero_point")),
        **dict.fromkeys(("Linear", "LinearReLU", "QFunctional"), ("scale", "zero_point")),
        **dict.fromkeys(("LinearLeakyReLU", "LinearTanh"), ("scale", "zero_point")),
        **dict.fromkeys(
            ("RNNCell", "LSTMCell", "GRUCell"), ("_packed_weight_ih", "_packed_weight_hh")
        ),
        "LinearPackedParams": ("dtype", "_packed_params"),
        "EmbeddingPackedParams": ("dtype", "_packed_weight"),
        "PackedParameter": ("param",),
    }
)
OF_REFERENCES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    dict.fromkeys(
        ("Linear", "Embedding", "EmbeddingBag", *CONVOLUTIONS), ("weight_qscheme", "weight_dtype")
    )
)
# Those of which a tensor without dimensions is made: from what, to what, as which bytes.
NUMBERS: Mapping[str, tuple[type, str, str]] = MappingProxyType(
    {"scale": (float, "float32", "<f"), "zero_point": (int, "int64", "<q")}
)

IsTensor = Callable[[object], bool]


@dataclass(frozen=True, slots=True)
class PackedEntry:
    """One entry; `facts` are given where it is made from a number."""

    name: str
    value: object
    facts: TensorFacts | None = None


def packed_entries(
    class_name: str, attributes: Mapping[str, object], is_tensor: IsTensor, owner: object
) -> Iterator[PackedEntry]:
    """The entries that a module's class adds, in order, as `state_dict()` has them.

    Args:
        class_name: Qualified.
        attributes: The module's `__dict__`, as it was read from the pickle.
        is_tensor: True for the symbol of a tensor.
        owner: The module, as a symbol that outlives the walk: it tells its numbers from others'.
    """
    room, own = room_and_class(class_name)
    if "quantized" not in room:
        return
    for name in (OF_REFERENCES if "reference" in room else ENTRIES).get(own, ()):
        if name in attributes:
            value = attributes[name]
            facts = number(*NUMBERS[name], value, id(owner)) if name in NUMBERS else None
            yield PackedEntry(name, saved(name, value, is_tensor), facts)


def saved(name: str, value: object, is_tensor: IsTensor) -> object:
    """What becomes of an attribute: packed weights are unpacked, where torch can."""
    if name == "_packed_params":
        return packed(value)
    if name == "_packed_weight":
        return next((found for _, found in tensors_in(value, is_tensor)), None)
    return value


def number(kind: type, dtype: str, layout: str, value: object, owner: int) -> TensorFacts | None:
    """A tensor without dimensions, which the owner shares with nobody."""
    if not isinstance(value, kind):
        return None
    try:
        data = struct.pack(layout, value)
    except (OverflowError, struct.error):
        return None
    storage = Storage(f"{dtype} of {owner}", len(data), "cpu", memoryview(data))
    return TensorFacts(dtype, (), storage)


def packed(value: object) -> object:
    """What an object of torch's C++ side was packed from; any other value as it is."""
    if isinstance(value, Call) and value.callee == SCRIPT_OBJECT:
        return value.state[0] if isinstance(value.state, tuple) and value.state else None
    return value


def tensors_in(value: object, is_tensor: IsTensor, depth: int = 0) -> Iterator[tuple[str, object]]:
    """The tensors inside a packed value, each with the indices that lead to it."""
    if is_tensor(value):
        yield "", value
        return
    value = packed(value)
    if isinstance(value, tuple | list) and depth < MAX_DEPTH:
        for index, item in enumerate(value):
            for path, found in tensors_in(item, is_tensor, depth + 1):
                yield f".{index}{path}", found
