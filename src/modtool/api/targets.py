"""What a target is: a path, the name of a model (`model.py:Net`), or an `nn.Module` itself."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from modtool.errors import UsageError
from modtool.formats import open_checkpoint
from modtool.live.targets import is_model_target
from modtool.records import Checkpoint, Note

if TYPE_CHECKING:
    from torch import nn

    from modtool.live.load import Built, LoadedModel

__all__ = ["is_file", "load_target", "open_target"]


def open_target(
    target: "str | os.PathLike[str] | nn.Module",
    *,
    arguments: Mapping[str, object] | None = None,
    weights: str | None = None,
    device: str | None = None,
    section: str | None = None,
    values: bool = False,
) -> Checkpoint:
    """What a target holds. A model is built without values unless they are asked for.

    Raises:
        UsageError: Arguments or weights for a file, which takes none; no such section.
    """
    if is_file(target):
        if arguments or weights or device:
            raise UsageError(
                f"{target} is a checkpoint: --arg, --weights and --device are for models"
            )
        return narrowed(open_checkpoint(os.fspath(target)), section)  # type: ignore[arg-type]
    from modtool.live.state import checkpoint_of

    loaded, notes = load_target(target, arguments, device=device, weights=weights, real=values)
    made = checkpoint_of(loaded.model, loaded.target)
    return narrowed(replace(made, notes=(*made.notes, *notes)), section)


def is_file(target: "str | os.PathLike[str] | nn.Module") -> bool:
    """True for a path that names no Python code."""
    return isinstance(target, str | os.PathLike) and not is_model_target(os.fspath(target))


def load_target(
    target: "str | os.PathLike[str] | nn.Module",
    arguments: Mapping[str, object] | None,
    *,
    device: str | None = None,
    weights: str | None = None,
    real: bool = False,
) -> tuple["LoadedModel", tuple[Note, ...]]:
    """The model that a target names, with the weights put in, and what did not fit of those."""
    if is_file(target):
        raise UsageError(
            f"{target} is a checkpoint, and this needs a model to run",
            f"name the model, and its weights: MODEL.py --weights {target}",
        )
    from modtool.live.load import LoadedModel, load_model

    if not isinstance(target, str | os.PathLike):
        loaded = LoadedModel(target, type(target).__name__, "real", "cpu", lambda: target)
    else:
        build: Built = "real" if real or weights else "meta"
        loaded = load_model(os.fspath(target), arguments, device=device, build=build)
    return loaded, put_in(loaded, weights)


def put_in(loaded: "LoadedModel", weights: str | None) -> tuple[Note, ...]:
    """Load a checkpoint into a model."""
    if weights is None:
        return ()
    from modtool.live.weights import load_weights

    return load_weights(loaded.model, open_checkpoint(weights))


def narrowed(checkpoint: Checkpoint, section: str | None) -> Checkpoint:
    """The checkpoint with nothing but one section; a section that is not there is an error."""
    if section is None:
        return checkpoint
    roles = {part.name: part.role for part in checkpoint.sections}
    if section not in roles:
        hint = f"sections: {', '.join(roles)}" if roles else "it has no sections"
        raise UsageError(f"{checkpoint.target} has no section {section!r}", hint)
    prefix = f"{section}."
    return replace(
        checkpoint,
        tensors=tuple(tensor for tensor in checkpoint.tensors if tensor.section == section),
        modules=checkpoint.modules if roles[section] == "model" else (),
        sections=(),
        values={name: item for name, item in checkpoint.values.items() if name.startswith(prefix)},
    )
