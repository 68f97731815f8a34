"""The nouns of a forward pass: its calls, what went in and came out, and where it stopped.

Shapes count elements; sizes called `nbytes` count bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from modtool.records import Note

__all__ = ["ModuleCall", "Statistics", "Trace", "TraceError", "TracedTensor"]


@dataclass(frozen=True, slots=True)
class Statistics:
    """What the elements of a tensor are like; None where there is not one finite element.

    Attributes:
        mean: Of the finite elements, like the next three; of complex ones, their magnitudes.
        std: Standard deviation, of the elements as a whole population.
        min: The smallest.
        max: The largest.
        zeros: Share of zeros among all elements, from 0 to 1.
        nan: Share of NaN.
        inf: Share of infinities.
    """

    mean: float | None
    std: float | None
    min: float | None
    max: float | None
    zeros: float
    nan: float
    inf: float


@dataclass(frozen=True, slots=True)
class TracedTensor:
    """A tensor that went into or came out of a call.

    Attributes:
        path: Leads to it inside a nested value.
        shape: Its sizes; -1 along a ragged dimension.
        dtype: Its element type.
        nbytes: Bytes of its elements.
        norm: Euclidean norm, of gradients in a real pass.
        statistics: With --stats: what its elements are like.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int = 0
    norm: float | None = None
    statistics: Statistics | None = None


@dataclass(frozen=True, slots=True)
class ModuleCall:
    """One call of one module during a forward pass.

    Attributes:
        index: Order in which the calls began, from 0.
        path: The module's dotted name; "" for the model itself.
        type: Its class name.
        call: Which call of this module it is, from 1.
        depth: How many calls it runs inside of.
        inputs: Tensor leaves of its arguments.
        outputs: Tensor leaves of its result.
        parameters: Unique parameters of the module and everything below it.
        macs: Multiply-accumulates run inside it, calls within included.
        gradients: With --backward: the gradient of each output leaf, path for path.
        seconds: With --time: how long it took, calls within included; the median of all repeats.
        dead: With --stats, of a ReLU: units that gave nothing but zeros, and how many there are.
    """

    index: int
    path: str
    type: str
    call: int
    depth: int
    inputs: tuple[TracedTensor, ...]
    outputs: tuple[TracedTensor, ...]
    parameters: int
    macs: int
    gradients: tuple[TracedTensor, ...] | None = None
    seconds: float | None = None
    dead: tuple[int, int] | None = None

    @property
    def activation_bytes(self) -> int:
        """Bytes of the tensors that came out of it."""
        return sum(tensor.nbytes for tensor in self.outputs)


@dataclass(frozen=True, slots=True)
class TraceError:
    """Where a forward pass stopped: the module, the exception, what it was given.

    Attributes:
        path: The module's dotted name; "" for the model itself, `(loss)` for the loss.
        type: Its class name.
        message: What was raised, and the user's own line.
        call: Which call of this module it was, from 1.
        inputs: What it was given.
        produced_by: Path of the call that produced what it was given.
        settings: What the module says of itself in `print(model)`.
        from_input: The model's own input that it was given, directly or reshaped.
    """

    path: str
    type: str
    message: str
    call: int
    inputs: tuple[TracedTensor, ...] = ()
    produced_by: str | None = None
    settings: str = ""
    from_input: str | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """One forward pass, call by call, in order.

    Attributes:
        target: What the user named.
        mode: `train` or `eval`.
        executed: `fake` took no memory and no arithmetic.
        inputs: What the model was given, by the names that `forward` gives them.
        outputs: What it gave back.
        calls: Every call of a submodule.
        parameters: Unique parameters of the model.
        trainable: Those of them with requires_grad.
        macs: Multiply-accumulates of the whole pass.
        uncounted: Operators that compute and have no formula.
        never_called: Modules that did not run.
        parameter_gradients: With --backward: the shape of each parameter's gradient, or None.
        error: Where the pass stopped.
        notes: What is worth telling.
        gradient_norms: With --backward, in a real pass: the Euclidean norm of each gradient.
        unused: With --backward: trainable parameters that got no gradient.
        loss: With --loss: its name.
        seconds: With --time: how long the whole pass took; the median of all repeats.
    """

    target: str
    mode: str
    executed: Literal["fake", "real"]
    inputs: tuple[TracedTensor, ...]
    outputs: tuple[TracedTensor, ...]
    calls: tuple[ModuleCall, ...]
    parameters: int
    trainable: int
    macs: int
    uncounted: tuple[str, ...] = ()
    never_called: tuple[str, ...] = ()
    parameter_gradients: Mapping[str, tuple[int, ...] | None] | None = None
    error: TraceError | None = None
    notes: tuple[Note, ...] = ()
    gradient_norms: Mapping[str, float] | None = None
    unused: tuple[str, ...] = ()
    loss: str | None = None
    seconds: float | None = None
