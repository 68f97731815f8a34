"""What stands among a module's attributes: tensors nobody registered, names that hide another."""

import inspect
from collections.abc import Iterator

import torch
from torch import nn

from modtool.live.leaves import leaves
from modtool.live.lint.subject import Subject, joined
from modtool.live.settings import type_of
from modtool.live.walk import BOOKKEEPING
from modtool.notes import note
from modtool.records import Note

__all__ = ["plain_tensors", "shadowed_names"]

# What torch's own reparametrisations keep a tensor under, beside the plain one they make of it.
REPARAMETRISED = ("_orig", "_v")
MISSING = object()


def plain_tensors(subject: Subject) -> Iterator[Note]:
    """Tensors that are plain attributes, and not computed from registered ones."""
    registered = {
        storage_of(each) for each in (*subject.model.parameters(), *subject.model.buffers())
    }
    for path, module in subject.modules:
        for name, value in list(vars(module).items()):
            if name in BOOKKEEPING or name in reparametrised(module):
                continue
            tensors = [tensor for _, tensor in leaves(value, into="containers") if is_kept(tensor)]
            tensors = [tensor for tensor in tensors if storage_of(tensor) not in registered]
            if tensors:
                is_one = isinstance(value, torch.Tensor)
                yield plain_tensor_note(joined(path, name), name, tensors, is_one=is_one)


def is_kept(tensor: torch.Tensor) -> bool:
    """True for a tensor that a module keeps as it is; False for results, constants, parameters.

    A single number without a gradient works on every device and with every type.
    """
    if isinstance(tensor, nn.Parameter) or tensor.grad_fn is not None:
        return False
    return tensor.requires_grad or tensor.dim() > 0


def reparametrised(module: nn.Module) -> frozenset[str]:
    """Names that weight_norm, spectral_norm and pruning compute anew before every pass."""
    return frozenset(
        name.removesuffix(ending)
        for name in dict(module._parameters.items())
        for ending in REPARAMETRISED
        if name.endswith(ending)
    )


def storage_of(tensor: torch.Tensor) -> int:
    """What tensors that share bytes have in common; the tensor itself where it has no storage."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError, ValueError):
        return id(tensor)


def plain_tensor_note(where: str, name: str, tensors: list[torch.Tensor], *, is_one: bool) -> Note:
    """What a plain tensor misses, and what to make of it."""
    shape = list(tensors[0].shape)
    what = f"a plain tensor of shape {shape}" if is_one else f"a plain container of {len(tensors)}"
    what += "" if is_one else f" tensor{'s' * (len(tensors) > 1)}"
    if any(each.requires_grad for each in tensors):
        lack = "requires a gradient, and parameters() does not have it: no optimizer trains it"
        proper = f"self.{name} = nn.Parameter(…)" if is_one else "use nn.ParameterList"
    else:
        lack = "to() does not move it, and state_dict() does not save it"
        proper = f"self.register_buffer({name!r}, …)" if is_one else "register each as a buffer"
    return note("plain-tensor", where, f"`{name}` is {what}: {lack}", proper)


def shadowed_names(subject: Subject) -> Iterator[Note]:
    """Children, parameters and buffers that `self.name` does not give."""
    for path, module in subject.modules:
        for kind, registered in (
            ("child", module._modules),
            ("parameter", module._parameters),
            ("buffer", module._buffers),
        ):
            for name, value in registered.items():
                hider = hider_of(module, name, value)
                if hider:
                    message = (
                        f"{hider} hides the {kind} `{name}`: `self.{name}` does not give what is "
                        "registered, and what state_dict() saves"
                    )
                    yield note("shadowed-name", joined(path, name), message)


def hider_of(module: nn.Module, name: str, value: object) -> str:
    """What stands before a registered name, in words; "" where nothing does."""
    if name in vars(module):
        return f"an attribute of the instance ({type(vars(module)[name]).__name__})"
    found = inspect.getattr_static(type(module), name, MISSING)
    if found is MISSING:
        return ""
    try:
        given = getattr(module, name)
    except Exception:
        return ""
    if given is value:
        return ""
    kind = "a method" if inspect.isroutine(found) else "a property"
    kind = kind if inspect.isroutine(found) or isinstance(found, property) else "an attribute"
    owner = next(base for base in type(module).__mro__ if name in vars(base))
    return f"{kind} of the class {owner.__name__ if owner is not type(module) else type_of(module)}"
