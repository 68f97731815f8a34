"""The `requires_grad` of a saved tensor: where in the arguments of its call it stands.

Signatures: torch 2.13, `torch/_utils.py`, `torch/_tensor.py`, `torch/nn/parameter.py`.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from modtool.pickles.symbols import Call
from modtool.pickles.tensor_calls import inner_call

__all__ = ["has_flag", "parameter_flag", "saved_flag", "with_flag"]

PARAMETERS: Mapping[str, int] = MappingProxyType(
    {
        "torch._utils._rebuild_parameter": 1,
        "torch._utils._rebuild_parameter_with_state": 1,
        "torch.nn.parameter.Parameter": 1,
        "torch.nn.parameter.UninitializedParameter": 0,
    }
)
PLAIN: Mapping[str, int] = MappingProxyType(
    {
        "torch._utils._rebuild_tensor_v2": 4,
        "torch._utils._rebuild_tensor_v3": 4,
        "torch._utils._rebuild_meta_tensor_no_storage": 3,
    }
)
RECORDING = MappingProxyType({**PARAMETERS, **PLAIN})


def parameter_flag(origin: object) -> bool | None:
    """Whether a saved Parameter is trainable; None for what is no Parameter."""
    return flag_in(origin, PARAMETERS, True)


def saved_flag(origin: object) -> bool:
    """The `requires_grad` that a tensor, not a Parameter, was saved with."""
    return flag_in(origin, PLAIN, False) is True


def has_flag(origin: object) -> bool:
    """True for what records whether it is trainable, a Parameter or not."""
    return flag_in(origin, RECORDING, False) is not None


def flag_in(origin: object, places: Mapping[str, int], otherwise: bool) -> bool | None:
    """The flag of a tensor that one of some calls makes; None for one that none of them does."""
    if not isinstance(origin, Call):
        return None
    inner = inner_call(origin)
    if inner is not None:
        return flag_in(inner, places, otherwise)
    index = places.get(origin.callee)
    if index is None:
        return None
    return bool(origin.arguments[index]) if len(origin.arguments) > index else otherwise


def with_flag(origin: Call, flag: bool) -> Call:
    """A saved tensor that has a flag with another one, and everything else as it was."""
    inner = inner_call(origin)
    if inner is not None:
        function, cls, _, *rest = origin.arguments
        arguments: tuple[object, ...] = (function, cls, with_flag(inner, flag).arguments, *rest)
    else:
        index = RECORDING[origin.callee]
        arguments = (*origin.arguments[:index], flag, *origin.arguments[index + 1 :])
    return replace(origin, arguments=arguments)
