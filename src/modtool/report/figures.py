"""Elements and bytes of every module, with everything below it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modtool.records import ModuleNode, TensorInfo
from modtool.report.totals import bytes_stored, totals_of
from modtool.sharing import share, stored_elements

__all__ = ["Figures", "ancestors", "module_figures", "owner_of"]


@dataclass(slots=True)
class Figures:
    """Elements and bytes of one module.

    Attributes:
        parameters: Elements of its parameters and of those below it.
        trainable: Those with requires_grad; None where that is not recorded for all.
        own: Elements of its own parameters.
        nbytes: Bytes of parameters and buffers, all below included.
    """

    parameters: int = 0
    trainable: int | None = 0
    own: int = 0
    nbytes: int = 0

    def take(self, tensor: TensorInfo, elements: int, nbytes: int) -> None:
        """Add a tensor that lies in the module or below it."""
        self.nbytes += nbytes
        if tensor.role == "buffer":
            return
        self.parameters += elements
        if tensor.requires_grad is None:
            self.trainable = None
        elif tensor.requires_grad and self.trainable is not None:
            self.trainable += elements


def module_figures(
    modules: Sequence[ModuleNode], tensors: Sequence[TensorInfo]
) -> Mapping[str, Figures]:
    """The figures of each path; a tensor under two modules counts in both, once in each."""
    figures = {node.path: Figures() for node in modules}
    shared = sharing_indices(tensors)
    holders: dict[str, list[str]] = {}
    tied: dict[str, list[TensorInfo]] = {}
    for index, tensor in enumerate(tensors):
        owner = owner_of(tensor)
        if owner not in holders:
            holders[owner] = [path for path in ancestors(tensor.name) if path in figures]
        if index in shared:
            for path in holders[owner]:
                tied.setdefault(path, []).append(tensor)
            continue
        elements = stored_elements(tensor)
        nbytes = bytes_stored(tensor, elements)
        for path in holders[owner]:
            figures[path].take(tensor, elements, nbytes)
        if owner in figures and tensor.role != "buffer":
            figures[owner].own += elements
    for path, held in tied.items():
        take_tied(figures[path], held, [each for each in held if owner_of(each) == path])
    return figures


def sharing_indices(tensors: Sequence[TensorInfo]) -> set[int]:
    """The indices of tensors that have elements in common with others, or whose storage has some.

    One view may cover two others that have nothing in common: all of a storage count together.
    """
    pairs = [(at, first) for at, first in enumerate(share(tensors).first) if first is not None]
    sharing = {index for pair in pairs for index in pair}
    if not sharing:
        return sharing
    stores = {store.key for index in sharing if (store := tensors[index].storage) is not None}
    return sharing | {
        index
        for index, each in enumerate(tensors)
        if each.storage is not None and each.storage.key in stores
    }


def take_tied(figures: Figures, held: Sequence[TensorInfo], own: Sequence[TensorInfo]) -> None:
    """Add tensors that share elements to a module: each element once."""
    for tensor, elements in zip(held, share(held).fresh, strict=True):
        figures.take(tensor, elements, bytes_stored(tensor, elements))
    figures.own += totals_of(own).total


def owner_of(tensor: TensorInfo) -> str:
    """The module that a tensor lies in, by its name."""
    return tensor.name.rpartition(".")[0]


def ancestors(name: str) -> list[str]:
    """`a.b.weight` -> "", `a`, `a.b`: the modules that hold a tensor, each once.

    A name that begins with a dot has the root twice: `.weight` lies in "", and so in "" alone.
    """
    parts = name.split(".")
    return list(dict.fromkeys(["", *(".".join(parts[:end]) for end in range(1, len(parts)))]))
