"""`[tool.modtool]` of the nearest pyproject.toml."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modtool.errors import UsageError

__all__ = ["Configuration", "nearest_configuration"]

KEYS = ("model", "select", "ignore", "fail-on")


@dataclass(frozen=True, slots=True)
class Configuration:
    """The table, and where it stands; an empty one where there is no pyproject.toml.

    Attributes:
        folder: The folder of the file.
        table: What is in the table.
    """

    folder: Path
    table: Mapping[str, object] = field(default_factory=dict)

    def text(self, key: str) -> str:
        """A setting that is text; "" where there is none."""
        value = self.table.get(key, "")
        if not isinstance(value, str):
            raise UsageError(f"{self.source}[tool.modtool] {key} is to be text")
        return value

    def texts(self, key: str) -> list[str]:
        """A setting that is a list of texts; empty where there is none."""
        value = self.table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise UsageError(f'{self.source}[tool.modtool] {key} is to be a list: ["…", "…"]')
        return value

    @property
    def source(self) -> str:
        """The file, as errors begin."""
        return f"{self.folder / 'pyproject.toml'}: "


def nearest_configuration(folder: Path) -> Configuration:
    """The table of the pyproject.toml in a folder, or in the nearest one around it.

    Raises:
        UsageError: That file cannot be read, or a key of the table means nothing.
    """
    for place in (folder, *folder.parents):
        file = place / "pyproject.toml"
        if file.is_file():
            return Configuration(place, read_table(file))
    return Configuration(folder)


def read_table(file: Path) -> Mapping[str, object]:
    """`[tool.modtool]` of one file."""
    import tomllib

    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: {error}") from None
    tools = found.get("tool", {})
    table = tools.get("modtool", {}) if isinstance(tools, dict) else {}
    if not isinstance(table, dict):
        raise UsageError(f"{file}: [tool.modtool] is to be a table")
    for key in table:
        prove_known(key, file)
    return table


def prove_known(key: str, file: Path) -> None:
    """Nothing, for a key that has a meaning: one that is misspelt would be passed over unseen.

    Raises:
        UsageError: It has none.
    """
    if key in KEYS:
        return
    from difflib import get_close_matches

    nearest = get_close_matches(key, KEYS, n=1)
    hint = f"nearest: {nearest[0]}" if nearest else f"one of {', '.join(KEYS)}"
    raise UsageError(f"{file}: [tool.modtool] has no key {key!r}", hint)
