"""Tensors and parameters as torch before 0.4 pickled them: a class, and a state of four or five.

`torch.FloatTensor` was made empty, and its state said (storage, offset, size, stride); a
`Parameter` or `Variable` had the state (data, grad, hooks, requires_grad, volatile), or later was
made from its data, with the state (requires_grad, volatile, hooks). torch 2.13 still reads all
three: `Tensor.__setstate__` in `torch/_tensor.py`.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from modtool.errors import CorruptFileError
from modtool.pickles.symbols import Call
from modtool.pickles.torch_values import TensorFacts
from modtool.records import DTYPES

if TYPE_CHECKING:
    from modtool.pickles.torch_objects import Tensors

__all__ = ["OLD_TENSORS"]


def old_tensor(tensors: "Tensors", call: Call) -> TensorFacts | None:
    """`torch.FloatTensor` with its state."""
    match call.state:
        case (storage, offset, shape, stride):
            return tensors.strided(storage, offset, shape, stride)
    if call.arguments:
        raise CorruptFileError(f"a {call.callee} with arguments, which torch never saved")
    return TensorFacts("float32", (0,)) if call.how == "reduce" else None


def old_variable(tensors: "Tensors", call: Call) -> TensorFacts | None:
    """`Parameter` or `Variable`: data and flag, in the arguments, in the state, or in both."""
    data = call.arguments[0] if call.arguments else None
    flag = call.arguments[1] if len(call.arguments) > 1 else call.callee.endswith("Parameter")
    match call.state:
        case (inner, _, _, inner_flag, _):
            data, flag = inner, inner_flag
        case (inner_flag, _, _):
            flag = inner_flag
    facts = tensors.facts(data)
    return facts and facts._replace(requires_grad=bool(flag))


OldTensor = Callable[["Tensors", Call], TensorFacts | None]

OLD_TENSORS: Mapping[str, OldTensor] = MappingProxyType(
    {
        f"torch.{room}{dtype.storage.removesuffix('Storage')}Tensor": old_tensor
        for room in ("", "cuda.")
        for dtype in DTYPES.values()
        if dtype.storage
    }
    | {
        "torch.nn.parameter.Parameter": old_variable,
        "torch.autograd.variable.Variable": old_variable,
    }
)
