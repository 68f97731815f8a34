"""How many inputs and outputs a unit of a layer has, by the layer that a weight belongs to.

The fan-in of a weight is how many products one output sums up; the fan-out is how many outputs one
input takes part in. Strides are left out, as is usual. `torch.nn.init` reads both off the shape,
as if each weight were (out, in, *kernel) of one group and one projection; where that is not so,
the numbers here differ from it on purpose:

    Linear, Conv1d–3d       (out, in/groups, *k)   in/groups·k    out/groups·k   torch: out·k
    ConvTranspose1d–3d      (in, out/groups, *k)   in/groups·k    out/groups·k   torch: swapped
    Conv1D (transformers)   (in, out)              in             out            torch: swapped
      … named c_attn        (in, n·in)             in             in             n projections
    MultiheadAttention      (3·dim, dim)           dim            dim            torch: out = 3·dim
    RNN, LSTM, GRU, cells   (gates·hidden, in)     in             hidden         torch: gates·hidden
    Bilinear                (out, in1, in2)        in1·in2        out            torch: out·in2
    Embedding, EmbeddingBag (count, dim)           dim            count          as the output layer
                                                                                 that it is tied to
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from modtool.plan.owners import direction_of, owner

if TYPE_CHECKING:
    from torch import nn

__all__ = ["LAYERS", "Fans", "direction_of", "fans", "layer_type", "owner"]

Shape = tuple[int, ...]
Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Fans:
    """The fans of one weight; `guessed` where they follow from the shape alone."""

    fan_in: int
    fan_out: int
    guessed: bool = False


def fans(
    shape: Shape, module_type: str | None = None, *, name: str = "weight", settings: str = ""
) -> Fans | None:
    """The fans of a tensor, or None when it has fewer than two dimensions.

    Args:
        shape: As stored.
        module_type: Class name of the module it belongs to (see `layer_type`, and `owner` for
            parametrized tensors); None where it is not known.
        name: The tensor's name, dotted or not: it tells the parts of a layer from each other.
        settings: What the module says of itself in `print(model)`: `groups=2` is read from it.
    """
    if len(shape) < 2:
        return None
    parameter = name if "." not in name else ".".join(owner(name))
    layer = LAYERS.get((module_type or "").removeprefix("Parametrized"))
    known = layer(shape, parameter, groups_of(settings)) if layer else None
    # A class of the same name may keep something else in its weight: then groups do not divide it.
    if known and (min(known) > 0 or 0 in shape):
        return Fans(*known)
    return Fans(*guess(shape, parameter), guessed=True)


def guess(shape: Shape, parameter: str) -> Pair:
    """What the shape suggests: torch's reading, but for attention's packed projections."""
    if parameter.endswith("in_proj_weight") and shape[0] == 3 * shape[1]:
        return shape[1], shape[1]
    kernel = math.prod(shape[2:])
    return shape[1] * kernel, shape[0] * kernel


def groups_of(settings: str) -> int:
    """The groups of a convolution; 1 is not printed, so it is what silence means."""
    found = re.search(r"\bgroups=([1-9]\d*)", settings)
    return int(found[1]) if found else 1


def linear(shape: Shape, parameter: str, groups: int) -> Pair | None:
    """(out, in); an embedding is read as the output layer that it is often tied to."""
    return (shape[1], shape[0]) if len(shape) == 2 else None


def bilinear(shape: Shape, parameter: str, groups: int) -> Pair | None:
    """(out, in1, in2): an output sums over all pairs of inputs."""
    return (shape[1] * shape[2], shape[0]) if len(shape) == 3 else None


def convolution(shape: Shape, parameter: str, groups: int) -> Pair | None:
    """(out, in/groups, *kernel)."""
    kernel = math.prod(shape[2:])
    return (shape[1] * kernel, shape[0] // groups * kernel) if len(shape) > 2 else None


def transposed_convolution(shape: Shape, parameter: str, groups: int) -> Pair | None:
    """(in, out/groups, *kernel)."""
    kernel = math.prod(shape[2:])
    return (shape[0] // groups * kernel, shape[1] * kernel) if len(shape) > 2 else None


def transposed_linear(shape: Shape, parameter: str, groups: int) -> Pair | None:
    """(in, out); GPT-2 packs two or three projections into its `c_attn`."""
    if len(shape) != 2:
        return None
    fan_in, fan_out = shape
    packed = "c_attn" in parameter.split(".") and fan_out in (2 * fan_in, 3 * fan_in)
    return fan_in, fan_in if packed else fan_out


def attention(shape: Shape, parameter: str, groups: int) -> Pair | None:
    """(3·dim, dim) where query, key and value are packed, (dim, in) where they are not."""
    part = parameter.rpartition(".")[2]
    if len(shape) != 2 or not part.endswith("proj_weight"):
        return None
    return shape[1], shape[0] // (3 if part == "in_proj_weight" else 1)


def recurrent(gates: int) -> Callable[[Shape, str, int], Pair | None]:
    """(gates·hidden, in) and (gates·hidden, hidden); (projection, hidden) is an ordinary one."""

    def layer(shape: Shape, parameter: str, groups: int) -> Pair | None:
        part = parameter.rpartition(".")[2]
        if len(shape) != 2 or not part.startswith("weight_"):
            return None
        packed = part.startswith(("weight_ih", "weight_hh"))
        return shape[1], shape[0] // (gates if packed else 1)

    return layer


LAYERS: Mapping[str, Callable[[Shape, str, int], Pair | None]] = MappingProxyType(
    {
        "Linear": linear,
        "NonDynamicallyQuantizableLinear": linear,
        "Embedding": linear,
        "EmbeddingBag": linear,
        "Bilinear": bilinear,
        "Conv1d": convolution,
        "Conv2d": convolution,
        "Conv3d": convolution,
        "ConvTranspose1d": transposed_convolution,
        "ConvTranspose2d": transposed_convolution,
        "ConvTranspose3d": transposed_convolution,
        "Conv1D": transposed_linear,
        "MultiheadAttention": attention,
        "RNN": recurrent(1),
        "RNNCell": recurrent(1),
        "GRU": recurrent(3),
        "GRUCell": recurrent(3),
        "LSTM": recurrent(4),
        "LSTMCell": recurrent(4),
    }
)


def layer_type(module: "nn.Module") -> str:
    """The class name that `fans` knows a live module by: its own, or that of a base class."""
    names = [base.__name__ for base in type(module).__mro__]
    return next((name for name in names if name in LAYERS), names[0])
