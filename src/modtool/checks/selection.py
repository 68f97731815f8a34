"""Which codes are told: `--select` and `--ignore`, as ruff has them.

A beginning of a code stands for all codes that begin so. Where both take a code, the longer
beginning decides; where those are equal, it is ignored.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from modtool.errors import UsageError
from modtool.notes import CODES

__all__ = ["Selection", "selection_of"]


@dataclass(frozen=True, slots=True)
class Selection:
    """Beginnings of codes; with nothing selected, all are."""

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    def takes(self, code: str) -> bool:
        """Whether a code is told."""
        taken = longest(self.select, code) if self.select else 0
        return taken is not None and taken > (longest(self.ignore, code) or -1)


def longest(beginnings: Sequence[str], code: str) -> int | None:
    """How long the longest of the beginnings is that a code has; None where it has none."""
    return max((len(text) for text in beginnings if code.startswith(text)), default=None)


def selection_of(select: Sequence[str], ignore: Sequence[str], source: str = "") -> Selection:
    """The selection that some texts mean; each may hold several codes, by commas.

    Args:
        select: Codes to look for; none means all.
        ignore: Codes to leave out.
        source: Where they stand, for the error: `pyproject.toml: `.

    Raises:
        UsageError: No code begins so.
    """
    return Selection(codes_of(select, source), codes_of(ignore, source))


def codes_of(texts: Sequence[str], source: str) -> tuple[str, ...]:
    """Beginnings of codes, each proved to be one."""
    codes = [code.strip() for text in texts for code in text.split(",") if code.strip()]
    for code in codes:
        known_code(code, source)
    return tuple(codes)


def known_code(code: str, source: str = "") -> None:
    """Nothing, for a beginning of a code.

    Raises:
        UsageError: No code begins so; the nearest ones are named.
    """
    if code and any(known.startswith(code) for known in CODES):
        return
    from difflib import get_close_matches

    nearest = get_close_matches(code, CODES, n=3, cutoff=0.4)
    hint = f"nearest: {', '.join(nearest)}" if nearest else "the README lists all codes"
    raise UsageError(f"{source}there is no code {code!r}", hint)
