"""Which model is meant when a command is given none."""

import os
import tomllib
from pathlib import Path

from modtool.errors import UsageError

__all__ = ["target_or_default"]


def target_or_default(target: str | None) -> str:
    """The target, or the default: $MODTOOL_MODEL, the nearest pyproject.toml, ./model.py.

    Raises:
        UsageError: There is none of these.
    """
    found = target or os.environ.get("MODTOOL_MODEL") or configured_model(Path.cwd())
    if found:
        return found
    if Path("model.py").is_file():
        return "model.py"
    raise UsageError(
        "no target given, and there is no model.py here",
        'name a file or a model, set MODTOOL_MODEL, or write [tool.modtool] model = "…"',
    )


def configured_model(folder: Path) -> str:
    """`[tool.modtool] model` of the nearest pyproject.toml, relative to that file; "" if none."""
    for place in (folder, *folder.parents):
        file = place / "pyproject.toml"
        if file.is_file():
            return relative_to(place, folder, read_model(file))
    return ""


def read_model(file: Path) -> str:
    """The `model` setting of one pyproject.toml."""
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: {error}") from None
    model = table.get("tool", {}).get("modtool", {}).get("model", "")
    if not isinstance(model, str):
        raise UsageError(f"{file}: [tool.modtool] model is to be text")
    return model


def relative_to(place: Path, folder: Path, model: str) -> str:
    """The model named in `place`, as it is named from `folder`."""
    if not model or place == folder or not model.partition(":")[0].endswith(".py"):
        return model
    return os.path.relpath(place / model, folder)
