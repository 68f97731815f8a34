"""The calls that make a saved tensor, one around the other: its data, its type, its attributes.

Signatures: torch 2.13, `torch/_utils.py`, `torch/_tensor.py`.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from modtool.pickles.plain import mapping_of
from modtool.pickles.symbols import Call, class_named

__all__ = ["inner_call", "is_bare", "math_bits_of", "own_attributes", "own_type"]

PARAMETERS = frozenset(
    {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}
)
# What these call has its own arguments in a tuple, the third of theirs.
TYPED = frozenset(
    {
        "torch.tensor._rebuild_from_type",  # torch 1.8 and before
        "torch._tensor._rebuild_from_type",
        "torch._tensor._rebuild_from_type_v2",
    }
)
# What these call has the attributes of the tensor for its fourth argument.
STATEFUL = TYPED | {"torch._utils._rebuild_parameter_with_state"}
# The argument that holds the bits, of those with an argument for them.
MATH_BITS: Mapping[str, int] = MappingProxyType(
    {"torch._utils._rebuild_tensor_v2": 6, "torch._utils._rebuild_tensor_v3": 7}
)
PLAIN_TYPES = frozenset({"torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Parameter"})


def inner_call(origin: Call) -> Call | None:
    """The call that a tensor of a type of its own is made by."""
    match origin.arguments:
        case (function, _, tuple(arguments), *_) if origin.callee in TYPED:
            return Call(function, arguments)
    return None


def calls_of(origin: object) -> Iterator[Call]:
    """The call that makes a tensor, and those inside of it, down to the one with its data."""
    while isinstance(origin, Call):
        yield origin
        inner: object = inner_call(origin)
        if origin.callee in PARAMETERS and origin.arguments:
            inner = origin.arguments[0]
        origin = inner


def math_bits_of(origin: object) -> dict[object, object]:
    """`{"conj": True}` or `{"neg": True}` where torch saved a view that is yet to be computed."""
    for call in calls_of(origin):
        index = MATH_BITS.get(call.callee)
        if index is not None and len(call.arguments) > index:
            found = call.arguments[index]
            return found if isinstance(found, dict) else {}
    return {}


def own_type(origin: object) -> str:
    """The class of a saved tensor, where it is neither Tensor nor Parameter; else ""."""
    for call in calls_of(origin):
        if call.callee in TYPED:
            name = class_named(call.arguments[1])
            return "" if name in PLAIN_TYPES else name
    return ""


def own_attributes(origin: object) -> list[str]:
    """The names of the Python attributes that were saved with a tensor, in order."""
    names: list[str] = []
    for call in calls_of(origin):
        has_state = call.callee in STATEFUL and len(call.arguments) > 3
        state = call.arguments[3] if has_state else None
        # `__dict__`, or a tuple of it and of what lies in `__slots__`.
        for part in state if isinstance(state, tuple) else (state,):
            names += map(str, mapping_of(part) or ())
    return names


def is_bare(origin: object) -> bool:
    """True for a tensor that is its stored elements, and has nothing that Python adds to them."""
    return not (math_bits_of(origin) or own_type(origin) or own_attributes(origin))
