"""What quantized modules put into a state_dict beside parameters and buffers.

Their weights are attributes, packed in a `torch.ScriptObject` or not, and their scale and zero
point are plain numbers, which `state_dict()` makes tensors of. Source: torch 2.13, every
`_save_to_state_dict` of `torch/ao/nn/quantized`.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from modtool.pickles.nn_settings.names import room_and_class
from modtool.pickles.symbols import Call
from modtool.pickles.torch_objects import TensorFacts, Tensors
from modtool.records import Storage

__all__ = ["PackedEntry", "packed_entries"]

MAX_DEPTH = 12
# Attributes that are saved as they are, in the order of the entries.
PLAIN = ("weight", "bias")
# Attributes that hold what was packed: a tuple of it, or one tensor of it.
PACKED = ("_packed_params", "param", "_packed_weight_ih", "_packed_weight_hh")
PACKED_TENSOR = "_packed_weight"


@dataclass(frozen=True, slots=True)
class PackedEntry:
    """One entry; `facts` are given where it is made from a number."""

    name: str
    value: object
    facts: TensorFacts | None = None


def packed_entries(
    class_name: str, attributes: Mapping[str, object], tensors: Tensors, owner: object
) -> Iterator[PackedEntry]:
    """The entries that a module's class adds, in order; the items of a tuple are numbered.

    `owner` is the module, as a symbol that outlives the walk: it tells its numbers from others'.
    """
    room, _ = room_and_class(class_name)
    if "quantized" not in room or "reference" in room:
        return
    for name in PLAIN:
        if tensors.facts(attributes.get(name)) is not None:
            yield PackedEntry(name, attributes[name])
    yield from numbers_of(attributes, id(owner))
    for name in PACKED:
        for path, value in tensors_in(attributes.get(name), tensors):
            yield PackedEntry(f"{name}{path}", value)
    for _, value in tensors_in(attributes.get(PACKED_TENSOR), tensors):
        yield PackedEntry(PACKED_TENSOR, value)
        break


def numbers_of(attributes: Mapping[str, object], owner: int) -> Iterator[PackedEntry]:
    """Scale and zero point, as the tensors without dimensions that `state_dict()` makes of them."""
    scale, zero_point = attributes.get("scale"), attributes.get("zero_point")
    if isinstance(scale, float) and isinstance(zero_point, int) and abs(zero_point) < 2**63:
        yield PackedEntry("scale", None, number("float32", "<f", scale, owner))
        yield PackedEntry("zero_point", None, number("int64", "<q", zero_point, owner))


def number(dtype: str, layout: str, value: float, owner: int) -> TensorFacts | None:
    """A tensor without dimensions, which the owner shares with nobody."""
    try:
        data = struct.pack(layout, value)
    except OverflowError:
        return None
    storage = Storage(f"{dtype} of {owner}", len(data), "cpu", memoryview(data))
    return TensorFacts(dtype, (), storage, 0, ())


def tensors_in(value: object, tensors: Tensors, depth: int = 0) -> Iterator[tuple[str, object]]:
    """The tensors inside a packed value, each with the indices that lead to it."""
    if tensors.facts(value) is not None:
        yield "", value
        return
    if isinstance(value, Call) and value.callee == "torch.ScriptObject":
        value = value.state[0] if isinstance(value.state, tuple) and value.state else None
    if isinstance(value, tuple | list) and depth < MAX_DEPTH:
        for index, item in enumerate(value):
            for path, found in tensors_in(item, tensors, depth + 1):
                yield f".{index}{path}", found
