"""A `config.json` of transformers becomes a model: built from its configuration, no weights read.

Only classes that transformers itself has are built; code that a folder carries is never run.
"""

import contextlib
import functools
import importlib
import json
from pathlib import Path
from typing import Any

from torch import nn

from modtool.errors import ModelError, TargetError, UsageError
from modtool.live.load import Built, LoadedModel, building, check_device, moved, returned

__all__ = ["is_configuration", "load_configuration"]


def is_configuration(path: str) -> bool:
    """True for a `config.json` of transformers, or a folder that has one."""
    file = configuration_file(path)
    return file.is_file() and bool(known_keys(file))


def configuration_file(path: str) -> Path:
    """The configuration that a path means."""
    place = Path(path)
    return place / "config.json" if place.is_dir() else place


def known_keys(file: Path) -> dict[str, Any]:
    """What a configuration holds; {} for a file that is none."""
    if file.suffix != ".json":
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    is_one = isinstance(found, dict) and ("model_type" in found or "architectures" in found)
    return found if is_one else {}


def load_configuration(
    path: str, *, device: str | None = None, build: Built = "real"
) -> LoadedModel:
    """Build the model that a configuration describes.

    Args:
        path: `config.json`, or the folder that it lies in.
        device: Where to put the model.
        build: `meta` or `fake` asks for tensors without bytes.

    Raises:
        TargetError: transformers is missing, or does not know the model.
        ModelError: transformers cannot build it.
    """
    check_device(device)
    file = configuration_file(path)
    make = functools.partial(built, file, path, known_keys(file), device)
    if device == "meta":
        build = "meta"
    if build != "real":
        with contextlib.suppress(ModelError):
            return LoadedModel(make(build), path, build, device or "cpu", lambda: make("real"))
    model = make("real")
    return LoadedModel(model, path, "real", device or "cpu", functools.partial(returned, model))


def built(
    file: Path, path: str, keys: dict[str, Any], device: str | None, build: Built
) -> nn.Module:
    """The model of one configuration."""
    transformers = imported(path)
    if keys.get("model_type") not in transformers.CONFIG_MAPPING:
        hint = "name the Python file that defines it" if "auto_map" in keys else ""
        kind = keys.get("model_type")
        raise TargetError(f"{path}: transformers has no model of type {kind!r}", hint)
    try:
        configuration = transformers.AutoConfig.from_pretrained(
            str(file), local_files_only=True, trust_remote_code=False
        )
        with building(build):
            made = class_of(transformers, keys, configuration)(configuration)
            return moved(made, device)
    except (UsageError, TargetError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{path}: {type(error).__name__}: {reason}") from error


def imported(path: str) -> Any:
    """The library transformers."""
    try:
        return importlib.import_module("transformers")
    except ImportError:
        raise TargetError(
            f"{path}: a model of transformers, which is not installed here",
            'pip install "transformers>=5,<6"',
        ) from None


def class_of(transformers: Any, keys: dict[str, Any], configuration: Any) -> Any:
    """The class that a configuration names; where it names none, the bare model of its type."""
    for name in keys.get("architectures") or ():
        found = getattr(transformers, str(name), None)
        if isinstance(found, type) and issubclass(found, nn.Module):
            # As AutoModel does: it takes the element type from the configuration too.
            return getattr(found, "_from_config", found)
    return transformers.AutoModel.from_config
