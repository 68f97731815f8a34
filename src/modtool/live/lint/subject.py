"""What a check is given: a model, with the ways through it that checks have in common."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from modtool.live.fake import is_fake, is_uninitialized
from modtool.live.swapping import model_tensors
from modtool.live.walk import modules_by_path
from modtool.notes import note
from modtool.records import Note

__all__ = ["Subject", "and_others", "joined", "subject_of"]


@dataclass(frozen=True, slots=True)
class Subject:
    """A model that is looked at.

    Attributes:
        model: The model; no check changes it.
        paths: Every path of every module, parents first.
        modules: Every module once, under its first path.
        hollow: True where some of its tensors, registered or not, have no bytes.
        spared: True where they were given none to save memory; False where the model's own code
            put them on the meta device.
    """

    model: nn.Module
    paths: tuple[tuple[str, nn.Module], ...]
    modules: tuple[tuple[str, nn.Module], ...]
    hollow: bool
    spared: bool = False

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every parameter once that has a shape, under its first name."""
        for name, each in self.model.named_parameters():
            if not is_uninitialized(each):
                yield name, each

    def buffers(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Every buffer once that has a shape, under its first name."""
        for name, each in self.model.named_buffers():
            if not is_uninitialized(each):
                yield name, each


def subject_of(
    model: nn.Module, rebuild: Callable[[], nn.Module] | None = None, *, rebuilt: bool = False
) -> Subject:
    """A model as checks see it.

    Args:
        model: Any model.
        rebuild: Builds it with values; given where `model` may have been built without.
        rebuilt: Whether it has built `model`.
    """
    paths = tuple(modules_by_path(model))
    first = {id(module): (path, module) for path, module in reversed(paths)}
    modules = tuple(pair for pair in paths if first[id(pair[1])] == pair)
    hollow = rebuild is not None and any(map(is_fake, model_tensors(model)))
    return Subject(model, paths, modules, hollow, spared=hollow and not rebuilt)


def joined(path: str, name: str) -> str:
    """The dotted name of what a module at a path calls `name`."""
    return f"{path}.{name}" if path else name


def and_others(code: str, places: Sequence[str], message: str, remedy: str = "") -> Iterator[Note]:
    """One note for several places, at the first of them; none for no place."""
    if not places:
        return
    others = len(places) - 1
    more = f" ({others} more like it: {', '.join(places[1:4])}{', …' * (others > 3)})"
    yield note(code, places[0], message + (more if others else ""), remedy)
