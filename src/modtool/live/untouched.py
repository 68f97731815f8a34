"""Leave a model, and the process, exactly as they were, whatever a forward pass does to them."""

import contextlib
import random
import sys
from collections.abc import Iterator

import torch
from torch import nn

from modtool.live.keeping import contents_kept, restore_class
from modtool.live.memory import spare_memory
from modtool.live.swapping import model_tensors
from modtool.live.walk import classes_of_modules, every_module, training_flag

__all__ = ["random_states_kept", "untouched"]

SEED = 0


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Undo afterwards what the body changes, also when it raises.

    Undone are attributes of modules (hooks, flags, registered tensors and what their containers,
    functions, arrays, random generators and objects of the user's hold), those of their classes,
    `requires_grad` and `grad` of tensors, and the random states, which are seeded for the body.
    Bytes of tensors that are written over are not.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(random_states_kept())
        stack.enter_context(default_dtype_kept())
        stack.enter_context(fastpath_off())
        stack.enter_context(flex_attention_uncompiled())
        stack.enter_context(attributes_kept(model))
        yield


@contextlib.contextmanager
def attributes_kept(model: nn.Module) -> Iterator[None]:
    """Put back what modules, their classes and their parameters have as attributes."""
    modules = every_module(model)
    kinds = [type(module) for module in modules]
    attributes = [dict(vars(module)) for module in modules]
    flags = [training_flag(module) for module in modules]
    classes = {kind: dict(vars(kind)) for kind in classes_of_modules(kinds)}
    leaves = [each for each in model_tensors(model) if each.is_leaf]
    tensors = [(each, each.requires_grad, each.grad) for each in leaves]
    spaces = (*attributes, *classes.values())
    values = (value for space in spaces for value in space.values())
    held = contents_kept(values, spare_memory())
    try:
        with held:
            yield
    finally:
        for module, kind, kept, flag in zip(modules, kinds, attributes, flags, strict=True):
            restore_module(module, kind, kept, flag)
        for kind, kept in classes.items():
            restore_class(kind, kept)
        for tensor, requires_grad, grad in tensors:
            if tensor.requires_grad is not requires_grad:
                tensor.requires_grad_(requires_grad)
            if tensor.grad is not grad:
                tensor.grad = grad


def restore_module(
    module: nn.Module, kind: type[nn.Module], kept: dict[str, object], training: bool | None
) -> None:
    """Give a module its class and attributes again."""
    if type(module) is not kind:
        module.__class__ = kind
    vars(module).clear()
    vars(module).update(kept)
    if training is not None and module.training is not training:
        module.training = training


@contextlib.contextmanager
def random_states_kept() -> Iterator[None]:
    """Seed the random generators for the body, and put their states back."""
    python, cpu = random.getstate(), torch.default_generator.get_state()
    has_cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    cuda = torch.cuda.get_rng_state_all() if has_cuda else []
    numpy = sys.modules.get("numpy")
    numpy_state = numpy.random.get_state() if numpy else None
    random.seed(SEED)
    torch.default_generator.manual_seed(SEED)
    if cuda:
        torch.cuda.manual_seed_all(SEED)
    if numpy:
        numpy.random.seed(SEED)
    try:
        yield
    finally:
        random.setstate(python)
        torch.default_generator.set_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
        if numpy:
            numpy.random.set_state(numpy_state)


@contextlib.contextmanager
def fastpath_off() -> Iterator[None]:
    """Have attention run as the operators it is made of: the fused ones hide what they multiply."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


@contextlib.contextmanager
def flex_attention_uncompiled() -> Iterator[None]:
    """Have flex_attention run as it stands: torch compiles nothing while operators are watched."""
    module = sys.modules.get("torch.nn.attention.flex_attention")
    flag = "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG"
    if not hasattr(module, flag):
        yield
        return
    kept = getattr(module, flag)
    setattr(module, flag, True)
    try:
        yield
    finally:
        setattr(module, flag, kept)


@contextlib.contextmanager
def default_dtype_kept() -> Iterator[None]:
    """Put back what dtype new tensors have."""
    kept = torch.get_default_dtype()
    try:
        yield
    finally:
        torch.set_default_dtype(kept)
