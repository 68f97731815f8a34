"""The nouns of `check`: what is asked of every target, and what became of one."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from modtool.checks.assertions import Assertion
from modtool.checks.selection import Selection
from modtool.pickles.weights_only import WeightsOnly
from modtool.records import CallableUse, Checkpoint, Note

__all__ = ["Checked", "Failure", "Questions"]


@dataclass(frozen=True, slots=True)
class Questions:
    """What is asked of every target.

    Attributes:
        selection: Which codes are told.
        assertions: Expressions that are to hold; see `modtool.checks.assertions`.
        values: Read every element of checkpoints.
        model: A definition that checkpoints are to load into.
        arguments: Of the constructor of models.
        weights: A checkpoint to load into models first.
        device: Where to put models.
        input_shapes: Of the inputs that models are run with, as `trace` takes them; without
            any input there is no forward pass.
        input_values: Arguments of `forward` that are no tensors.
        input_files: Files that inputs are read from.
        input_functions: Functions that make them.
    """

    selection: Selection = field(default_factory=Selection)
    assertions: tuple[str, ...] = ()
    values: bool = False
    model: Checkpoint | None = None
    arguments: Mapping[str, object] = field(default_factory=dict)
    weights: str | None = None
    device: str | None = None
    input_shapes: tuple[str, ...] = ()
    input_values: Mapping[str, object] = field(default_factory=dict)
    input_files: tuple[str, ...] = ()
    input_functions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a target could not be checked: what and where, and what to do."""

    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found in one target.

    Attributes:
        target: What the user named, or what was found in a folder that he named.
        findings: The worst first; an assertion that does not hold is one of them.
        callables: What loading it for real would import and call.
        verdict: What weights_only=True would make of it; None where it holds no pickle.
        assertions: What became of each.
        failure: Why nothing of this is known.
        places: Finding -> (file, line) of the code that it is about, where that is known.
    """

    target: str
    findings: tuple[Note, ...] = ()
    callables: tuple[CallableUse, ...] = ()
    verdict: WeightsOnly | None = None
    assertions: tuple[Assertion, ...] = ()
    failure: Failure | None = None
    places: Mapping[Note, tuple[str, int]] = field(default_factory=dict)
