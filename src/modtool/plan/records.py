"""The nouns of a plan: which tensor goes where, from which bytes, and what is left out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from modtool.plan.views import view_of
from modtool.records import DTYPES, Checkpoint, Note, TensorInfo

__all__ = ["Dropped", "Fill", "Form", "Plan", "PlannedTensor", "Rule"]

Form = Literal["state_dict", "checkpoint", "safetensors", "dcp", "full_model"]
NOTHING: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Fill:
    """New values for a tensor, from an initialiser.

    Attributes:
        scheme: A key of `modtool.live.initialise.SCHEMES`.
        arguments: Of the scheme.
        seed: Of the whole run; with `name` it decides the values.
        name: The tensor's name in the source, the first one where it is tied, so that the values
            depend neither on what else is selected nor on what it is renamed to.
        module_type: Class name of the module that owns it; None where it is not known.
        settings: What that module says of itself in `print(model)`.
        norms_of: For the magnitude of a weight norm: the direction whose norms it becomes.
    """

    scheme: str
    arguments: Mapping[str, object]
    seed: int
    name: str
    module_type: str | None = None
    settings: str = ""
    norms_of: "PlannedTensor | None" = None


@dataclass(frozen=True, slots=True)
class Rule:
    """Which tensors a scheme fills: later rules win.

    Attributes:
        patterns: What to select; none means every parameter.
        scheme: A key of `modtool.live.initialise.SCHEMES`.
        arguments: Of the scheme.
        bias: Scheme and arguments for the biases among the selected, where they differ.
    """

    patterns: tuple[str, ...]
    scheme: str
    arguments: Mapping[str, object] = field(default_factory=lambda: NOTHING)
    bias: tuple[str, Mapping[str, object]] | None = None


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """One tensor of the output.

    Attributes:
        name: In the output, inside its section.
        section: The part of the output it belongs to; None where there is but one.
        source: The tensor whose elements it has.
        dtype: A key of `DTYPES`; other than the source's means a cast.
        fill: Values that take the place of the source's; None to keep them.
        location: The device that torch files record.
    """

    name: str
    section: str | None
    source: TensorInfo
    dtype: str
    fill: Fill | None = None
    location: str = "cpu"

    @property
    def nbytes(self) -> int:
        """Bytes that its elements take in the output."""
        if self.dtype == self.source.dtype:
            return self.source.nbytes
        return self.source.numel * DTYPES[self.dtype].bits // 8

    @property
    def is_computed(self) -> bool:
        """True when its elements are not the source's own bytes."""
        return self.fill is not None or self.dtype != self.source.dtype


@dataclass(frozen=True, slots=True)
class Dropped:
    """Something of the source that the output leaves out; `lost` if there was no choice."""

    name: str
    why: str
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be written: plain data, complete before the first byte is.

    Attributes:
        source: Where the bytes come from.
        form: What the output is.
        tensors: Every tensor of the output under each of its names, in order.
        tree: What a torch file of form `state_dict` or `checkpoint`, or a distributed checkpoint,
            holds: plain containers and values with the source's `TensorInfo` where tensors are.
        models: The sections of the output that are the model, which edits select from.
        requires_grad: What is trainable, by output name; None where it is not recorded.
        flags_changed: Source names of the parameters whose recorded flag differs from the source's.
        bn_eval: Modules to be kept in eval mode, by their paths in the source; None where nothing
            is recorded.
        metadata: The text part of a safetensors file.
        dropped: What is left out, with reasons.
        notes: What is worth telling.
        tied: Whether tensors that share elements go on sharing them.
        shrink: Whether storages are cut down to what tensors use.
    """

    source: Checkpoint
    form: Form
    tensors: tuple[PlannedTensor, ...]
    tree: object = field(default=None, compare=False, repr=False)
    models: tuple[str | None, ...] = (None,)
    requires_grad: Mapping[str, bool] | None = None
    flags_changed: tuple[str, ...] = ()
    bn_eval: tuple[str, ...] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[Note, ...] = ()
    tied: Literal["keep", "clone"] = "keep"
    shrink: bool = False

    @property
    def model_tensors(self) -> tuple[PlannedTensor, ...]:
        """The tensors of the model's part, which edits select from; arrays beside them are not."""
        return tuple(
            tensor
            for tensor in self.tensors
            if tensor.section in self.models and tensor.source.role != "value"
        )

    @property
    def nbytes(self) -> int:
        """Bytes that all its tensors take; what goes on sharing its elements counts once."""
        if self.tied == "clone" or self.form == "dcp":
            return sum(tensor.nbytes for tensor in self.tensors)
        views = {(view_of(tensor.source), tensor.dtype): tensor.nbytes for tensor in self.tensors}
        return sum(views.values())
