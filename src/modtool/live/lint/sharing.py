"""The same module or tensor under two names."""

from collections.abc import Iterator

from torch import nn

from modtool.live.lint.subject import Subject
from modtool.live.settings import type_of
from modtool.live.state import checkpoint_of
from modtool.notes import note
from modtool.records import Note
from modtool.sharing import share

__all__ = ["shared_modules", "shared_tensors"]


def shared_modules(subject: Subject) -> Iterator[Note]:
    """Modules with parameters or buffers that are registered more than once; outermost ones."""
    first = {id(module): path for path, module in subject.modules}
    again: set[str] = set()
    for path, module in subject.paths:
        if first[id(module)] == path:
            continue
        again.add(path)
        if path.rpartition(".")[0] not in again and has_state(module):
            message = (
                f"is the same {type_of(module)} as {first[id(module)] or 'the model itself'}: both "
                "names train and save one set of parameters"
            )
            yield note("shared-module", path, message)


def has_state(module: nn.Module) -> bool:
    """True for a module that holds, or contains, a parameter or a buffer."""
    return any(True for _ in module.parameters()) or any(True for _ in module.buffers())


def shared_tensors(subject: Subject) -> Iterator[Note]:
    """Tensors of different modules that are one, or have elements in common."""
    first = {id(module): path for path, module in subject.modules}
    again = {path for path, module in subject.paths if first[id(module)] != path}
    tensors = [
        tensor
        for tensor in checkpoint_of(subject.model, "", values=False).tensors
        if tensor.name.rpartition(".")[0] not in again
    ]
    for tensor, index in zip(tensors, share(tensors).first, strict=True):
        if index is not None:
            same = tensor.shape == tensors[index].shape
            how = "is the same tensor as" if same else "has elements in common with"
            message = f"{how} {tensors[index].name}: to train, freeze or fill one does so to both"
            yield note("shared-tensor", tensor.name, message)
