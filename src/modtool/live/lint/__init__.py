"""What is wrong with a model: findings as notes, from its structure, its values and its passes.

A check is a function that yields notes; the literals below list them, and `modtool.notes.CODES`
says what each code means. No check changes the model.
"""

from collections.abc import Callable, Iterator

from torch import nn

from modtool.errors import UsageError
from modtool.live.affording import is_small
from modtool.live.inputs import Inputs
from modtool.live.lint.attributes import plain_tensors, shadowed_names
from modtool.live.lint.biases import biases_in_sequence
from modtool.live.lint.construction import construction_note, unfinished
from modtool.live.lint.forward import FORWARD, run_passes
from modtool.live.lint.hooks import deprecated_hooks, leftover_hooks
from modtool.live.lint.mixtures import mixed_devices, mixed_dtypes
from modtool.live.lint.modes import frozen_norms, mixed_modes
from modtool.live.lint.rebuilding import with_values
from modtool.live.lint.sharing import shared_modules, shared_tensors
from modtool.live.lint.source import assigned_twice, lost_at_init
from modtool.live.lint.subject import Subject, subject_of
from modtool.live.lint.values import constant_weights, zero_attention, zero_frozen_weights
from modtool.live.state import unregistered
from modtool.notes import note
from modtool.records import Note

__all__ = ["construction_note", "lint_model", "unfinished"]

Check = Callable[[Subject], Iterator[Note]]


def unregistered_modules(subject: Subject) -> Iterator[Note]:
    """Modules and parameters that plain containers hide from PyTorch."""
    return unregistered(dict(subject.paths))


STRUCTURE: tuple[Check, ...] = (
    unregistered_modules,
    plain_tensors,
    shadowed_names,
    shared_modules,
    shared_tensors,
    mixed_modes,
    frozen_norms,
    mixed_dtypes,
    mixed_devices,
    deprecated_hooks,
    leftover_hooks,
    lost_at_init,
    assigned_twice,
    biases_in_sequence,
)


VALUES: tuple[Check, ...] = (constant_weights, zero_attention, zero_frozen_weights)


def lint_model(
    model: nn.Module,
    inputs: Inputs | None = None,
    *,
    rebuild: Callable[[], nn.Module] | None = None,
) -> tuple[Note, ...]:
    """What is wrong with a model, in the order of the checks. It is left as it was.

    A model that cannot be built is `construction_note`'s.

    Args:
        model: Its tensors may be real, fake or on the meta device.
        inputs: What to give it, as `parse_inputs` makes it; None runs no forward pass.
        rebuild: Gives the same model with values, where `model` may have been built without. It is
            asked where that takes little memory.
    """
    found = tuple(unfinished(model))
    if not found:
        unique = {key_of(each): each for each in findings(model, inputs, rebuild)}
        found = tuple(unique.values())
    return found


def key_of(found: Note) -> object:
    """What notes have in common that tell of one thing: structure and passes may show the same."""
    return found if found.code == "checks-left-out" else (found.code, found.where)


def findings(
    model: nn.Module, inputs: Inputs | None, rebuild: Callable[[], nn.Module] | None
) -> Iterator[Note]:
    """What every check finds."""
    subject = subject_of(model, rebuild)
    if rebuild is not None and subject.hollow and is_small(model):
        model, unset = with_values(rebuild)
        subject = subject_of(model, rebuild, rebuilt=True)
        yield from unset
    for check in STRUCTURE:
        yield from check(subject)
    if subject.hollow:
        yield note("checks-left-out", "", *(SPARED if subject.spared else OWN_META))
    if not subject.spared:
        for check in VALUES:
            yield from check(subject)
    if inputs is not None:
        yield from forward_findings(subject, inputs, rebuild)


# What is said of them, and what to do; "" for what the code's own remedy says.
SPARED = (
    "built without values, as they would take 2 GB or more: constant-weights, unset-parameter and "
    "varying-output were not checked",
    "",
)
OWN_META = (
    "the model's own code puts tensors on the meta device, without values: constant-weights passed "
    "over these, and varying-output was not checked",
    "give them values where the model is built: to_empty(), or load_state_dict(…, assign=True)",
)


def forward_findings(
    subject: Subject, inputs: Inputs, rebuild: Callable[[], nn.Module] | None
) -> Iterator[Note]:
    """What the checks find that need a forward pass."""
    try:
        passes = run_passes(subject, inputs, rebuild)
    except UsageError as error:
        yield note("checks-left-out", "", f"no forward pass was run: {error.message}", error.hint)
        return
    # What a pass did not get to, nobody knows of.
    for check in FORWARD if passes.eval.error is None else FORWARD[:1]:
        yield from check(passes)
