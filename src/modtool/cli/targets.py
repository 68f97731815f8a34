"""Which model is meant when a command is given none."""

import os
from pathlib import Path

from modtool.cli.configuration import nearest_configuration
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
    found = nearest_configuration(folder)
    return relative_to(found.folder, folder, found.text("model"))


def relative_to(place: Path, folder: Path, model: str) -> str:
    """The model named in `place`, as it is named from `folder`."""
    if not model or place == folder or not model.partition(":")[0].endswith(".py"):
        return model
    return os.path.relpath(place / model, folder)
