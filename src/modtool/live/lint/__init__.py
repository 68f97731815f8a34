"""What is wrong with a model: findings as notes, from its structure, its values and its passes.

A check is a function that yields notes; the literals below list them, and `modtool.notes.CODES`
says what each code means. No check changes the model.
"""

from collections.abc import Callable, Iterator

from torch import nn

from modtool.live.inputs import Inputs
from modtool.live.lint.attributes import plain_tensors, shadowed_names
from modtool.live.lint.hooks import deprecated_hooks, leftover_hooks
from modtool.live.lint.mixtures import mixed_devices, mixed_dtypes
from modtool.live.lint.modes import frozen_norms, mixed_modes
from modtool.live.lint.sharing import shared_modules, shared_tensors
from modtool.live.lint.subject import Subject, subject_of
from modtool.live.state import unregistered
from modtool.records import Note

__all__ = ["lint_model"]

Check = Callable[[Subject], Iterator[Note]]


def unregistered_modules(subject: Subject) -> Iterator[Note]:
    """Modules and parameters that plain containers hide from PyTorch."""
    return unregistered(list(subject.paths))


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
)


def lint_model(
    model: nn.Module,
    inputs: Inputs | None = None,
    *,
    rebuild: Callable[[], nn.Module] | None = None,
) -> tuple[Note, ...]:
    """What is wrong with a model, in the order of the checks. It is left as it was.

    Args:
        model: Its tensors may be real, fake or on the meta device.
        inputs: What to give it, as `parse_inputs` makes it; None runs no forward pass.
        rebuild: Gives the same model with values, where `model` may have been built without.
    """
    subject = subject_of(model, rebuild)
    return tuple(found for check in STRUCTURE for found in check(subject))
