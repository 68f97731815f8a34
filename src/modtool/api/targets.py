"""What a target is: a path, the name of a model (`model.py:Net`), or an `nn.Module` itself."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from modtool.errors import TargetError, UsageError
from modtool.formats import open_checkpoint
from modtool.live.targets import is_model_target
from modtool.records import Checkpoint, ModuleNode, Note, TensorInfo, section_label

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
    lazy: bool = False,
    truncated: bool = False,
) -> Checkpoint:
    """What a target holds. A model is built without values unless they are asked for.

    Of a model, `lazy` lists what has no shape yet; a file may be `truncated` where its headers are
    enough.

    Raises:
        UsageError: Arguments or weights for a file, which takes none; no such section.
    """
    if is_file(target):
        if arguments or weights or device:
            raise UsageError(
                f"{target} is a checkpoint: --arg, --weights and --device are for models"
            )
        found = opened(os.fspath(target), truncated=truncated)  # type: ignore[arg-type]
        if found is not None:
            return narrowed(found, section)
    from modtool.live.state import checkpoint_of

    build: Built = "real" if values else "meta"
    loaded, notes = load_target(target, arguments, device=device, weights=weights, build=build)
    made = checkpoint_of(
        loaded.model, loaded.target, device=loaded.device, values=values, lazy=lazy
    )
    return narrowed(replace(made, notes=(*made.notes, *notes)), section)


def opened(path: str, *, truncated: bool = False) -> Checkpoint | None:
    """The checkpoint at a path; None where there is but a configuration of transformers."""
    try:
        return open_checkpoint(path, truncated=truncated)
    except TargetError:
        if is_configuration(path):
            return None
        raise


def is_configuration(path: str) -> bool:
    """True for a `config.json` of transformers, or a folder that has one; torch stays away."""
    place = os.path.join(path, "config.json") if os.path.isdir(path) else path
    if os.path.basename(place) != "config.json" or not os.path.isfile(place):
        return False
    from modtool.live.pretrained import is_configuration as holds_a_model

    return holds_a_model(path)


def is_file(target: "str | os.PathLike[str] | nn.Module") -> bool:
    """True for a path that names no Python code."""
    return isinstance(target, str | os.PathLike) and not is_model_target(os.fspath(target))


def load_target(
    target: "str | os.PathLike[str] | nn.Module",
    arguments: Mapping[str, object] | None,
    *,
    device: str | None = None,
    weights: str | None = None,
    build: "Built" = "real",
    trust: bool = False,
) -> tuple["LoadedModel", tuple[Note, ...]]:
    """The model that a target names, with the weights put in, and what did not fit of those.

    Args:
        target: What the user named, or the model itself.
        arguments: Of the model's constructor.
        device: Where to put the model.
        weights: A checkpoint to load into it; into tensors without bytes when it is rebuilt.
        build: `meta` or `fake` asks for tensors without bytes; see `modtool.live.load`.
        trust: A full-model save or a TorchScript file may be loaded for real.
    """
    if is_file(target):
        path = os.fspath(target)  # type: ignore[arg-type]
        loaded = load_file(path, arguments, device=device, build=build, trust=trust)
    elif isinstance(target, str | os.PathLike):
        from modtool.live.load import load_model

        loaded = load_model(os.fspath(target), arguments, device=device, build=build)
    else:
        from modtool.live.load import LoadedModel

        loaded = LoadedModel(target, type(target).__name__, "real", "cpu", lambda: target)
    return with_weights(loaded, weights)


def load_file(
    path: str,
    arguments: Mapping[str, object] | None,
    *,
    device: str | None,
    build: "Built",
    trust: bool,
) -> "LoadedModel":
    """The model of a path that is no Python file: a configuration, or what is to be trusted."""
    if is_configuration(path):
        from modtool.live.pretrained import load_configuration

        if arguments:
            raise UsageError(f"{path} is a configuration: change it there, not with --arg")
        return load_configuration(path, device=device, build=build)
    checkpoint = open_checkpoint(path)
    if checkpoint.format != "torchscript" and checkpoint.kind != "full_model":
        raise UsageError(
            f"{path} is a checkpoint, and this needs a model to run",
            f"name the model, and its weights: MODEL.py --weights {path}",
        )
    if not trust:
        raise UsageError(
            f"{path} would have to be unpickled for real, which runs what it holds",
            f"--trust does so; safer: MODEL.py --weights {path}",
        )
    from modtool.live.trusted import load_trusted

    return load_trusted(checkpoint, device)


def with_weights(
    loaded: "LoadedModel", weights: str | None
) -> tuple["LoadedModel", tuple[Note, ...]]:
    """A model with a checkpoint loaded into it, also when it is built again for real."""
    if weights is None:
        return loaded, ()
    from modtool.live.weights import load_weights

    checkpoint = open_checkpoint(weights)

    def rebuilt() -> "nn.Module":
        model = loaded.rebuild()
        load_weights(model, checkpoint)
        return model

    notes = load_weights(loaded.model, checkpoint)
    return (loaded if loaded.built == "real" else replace(loaded, rebuild=rebuilt)), notes


def narrowed(checkpoint: Checkpoint, section: str | None) -> Checkpoint:
    """The checkpoint with nothing but one section; a section that is not there is an error.

    A name that leads to several sections stands for all of them, as if they were one.
    """
    if section is None:
        return checkpoint
    parts = frozenset(checkpoint.sections_at(section))
    if not parts:
        names = [section_label(part.name) for part in checkpoint.sections]
        hint = f"sections: {', '.join(names)}" if names else "it has no sections"
        raise UsageError(f"{checkpoint.target} has no section {section!r}", hint)
    tensors = tuple(tensor for tensor in checkpoint.tensors if tensor.section in parts)
    modules = tuple(node for node in checkpoint.modules if node.section in parts)
    if section not in parts:
        tensors = tuple(map(partial(below, section), tensors))
        modules = modules_below(section, modules, parts)
    prefix = f"{section}."
    return replace(
        checkpoint,
        tensors=tensors,
        modules=modules,
        sections=(),
        values={name: item for name, item in checkpoint.values.items() if name.startswith(prefix)},
    )


def below(section: str, tensor: TensorInfo) -> TensorInfo:
    """A tensor of a section that lies below another, as that one's."""
    return replace(tensor, section=section, name=tensor.full_name.removeprefix(f"{section}."))


def modules_below(
    section: str, modules: Sequence[ModuleNode], parts: Collection[str]
) -> tuple[ModuleNode, ...]:
    """The modules of several sections in one tree; none where one has none, for it has names."""
    if {node.section for node in modules} != parts:
        return ()
    return (ModuleNode("", section=section), *map(partial(module_below, section), modules))


def module_below(section: str, node: ModuleNode) -> ModuleNode:
    """A module of a section that lies below another, as that one's."""

    def inner(path: str) -> str:
        return f"{node.section}.{path}".removeprefix(f"{section}.").removesuffix(".")

    alias = None if node.alias_of is None else inner(node.alias_of)
    return replace(node, section=section, path=inner(node.path), alias_of=alias)
