"""Hooks: of the deprecated kind, and those that somebody put on a model from outside."""

from collections.abc import Callable, Iterator
from types import MethodType

from torch import nn

from modtool.live.blame import is_library, shown_path
from modtool.live.lint.subject import Subject, and_others
from modtool.notes import note
from modtool.pickles.modules import HOOKS
from modtool.records import Note

__all__ = ["deprecated_hooks", "leftover_hooks"]

# The table of a parameter that a hook stands in, and what such a hook is called.
OF_PARAMETERS = {
    "_backward_hooks": "gradient hook",
    "_post_accumulate_grad_hooks": "hook behind the sum of gradients",
}


def deprecated_hooks(subject: Subject) -> Iterator[Note]:
    """Hooks of `register_backward_hook`, which sees but part of the gradients of many modules."""
    places = [
        path
        for path, module in subject.modules
        if module._backward_hooks and module._is_full_backward_hook is False
    ]
    yield from and_others(
        "deprecated-hook",
        places,
        "has a hook of register_backward_hook, which of several operators sees the gradients of "
        "the last one alone",
    )


def leftover_hooks(subject: Subject) -> Iterator[Note]:
    """Hooks on modules and parameters that neither a library nor the model's own code put there."""
    classes = {type(module).__qualname__ for _, module in subject.modules}
    for path, kind, hook in every_hook(subject):
        if is_from_outside(hook, classes):
            passes = "backward pass" if kind in OF_PARAMETERS.values() else "pass"
            message = f"a {kind} is on it ({place_of(hook)}), and runs in every {passes}"
            yield note("leftover-hook", path, message)


def every_hook(subject: Subject) -> Iterator[tuple[str, str, Callable[..., object]]]:
    """Where each hook is, what it is called, and the hook."""
    modules = ((path, module, HOOKS) for path, module in subject.modules)
    parameters = ((name, each, OF_PARAMETERS) for name, each in subject.parameters())
    for path, holder, kinds in (*modules, *parameters):
        for attribute, kind in kinds.items():
            for hook in (getattr(holder, attribute, None) or {}).values():
                yield path, kind, hook


def is_from_outside(hook: Callable[..., object], classes: set[str]) -> bool:
    """True for a function that is no library's, and not defined in a class of the model."""
    if isinstance(hook, MethodType) and isinstance(hook.__self__, nn.Module):
        return False
    code = getattr(hook, "__code__", None)
    if code is None or is_library(code.co_filename):
        return False
    return not any(hook.__qualname__.startswith(f"{name}.") for name in classes)


def place_of(hook: Callable[..., object]) -> str:
    """`save_output, model.py:12`."""
    code = hook.__code__
    return f"{code.co_name}, {shown_path(code.co_filename)}:{code.co_firstlineno}"
