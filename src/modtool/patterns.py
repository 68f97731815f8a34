"""The one grammar that selects names, wherever a command takes a PATTERN.

encoder  encoder.*  *.bias  layers.[0-3]   a shell glob over the whole dotted name;
                                           a module's name stands for everything below it
re:EXPR                                    a regular expression, searched for
type:Linear                                parameters that modules of that type own
!PATTERN                                   takes away again; later patterns win
"""

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence

from modtool.errors import UsageError

__all__ = ["Types", "patterns_of", "select"]

Types = Mapping[str, str]
"""Tensor name -> class name of the module that owns it."""


def patterns_of(given: str | Sequence[str]) -> tuple[str, ...]:
    """Patterns as a tuple: a string is one of them, not its letters."""
    return (given,) if isinstance(given, str) else tuple(given)


def select(
    patterns: Sequence[str], names: Sequence[str], types: Types | None = None
) -> tuple[str, ...]:
    """The names that the patterns select, in the order of `names`.

    Args:
        patterns: Later ones win. A list that begins with `!` starts from all names.
        names: Dotted tensor names.
        types: What `type:` goes by; None where the file does not tell.

    Raises:
        UsageError: A pattern is malformed, selects nothing, or the result is empty.
    """
    selected = dict.fromkeys(names, bool(patterns) and patterns[0].startswith("!"))
    for pattern in patterns:
        hits = match(pattern.removeprefix("!"), names, types)
        selected.update(dict.fromkeys(hits, not pattern.startswith("!")))
    chosen = tuple(name for name in names if selected[name])
    if patterns and not chosen:
        raise UsageError(f"nothing is left of the selection {' '.join(patterns)}")
    return chosen


def match(pattern: str, names: Sequence[str], types: Types | None) -> list[str]:
    """The names that one pattern, without its `!`, selects; none at all is an error."""
    matches = matcher(pattern, types)
    hits = [name for name in names if matches(name)]
    if not hits:
        raise UsageError(f"no name matches {pattern!r}", hint_for(pattern, names, types))
    return hits


def matcher(pattern: str, types: Types | None) -> Callable[[str], object]:
    """A predicate over names for one pattern."""
    kind, _, rest = pattern.partition(":")
    if kind == "re":
        return compile_expression(rest).search
    if kind == "type":
        if types is None:
            raise UsageError(
                f"{pattern!r}: this file does not record the types of modules",
                "select by name, or use a model definition or a full-model save",
            )
        glob = re.compile(fnmatch.translate(rest))
        return lambda name: glob.match(types.get(name, ""))
    below = fnmatch.translate(pattern).removesuffix(r"\Z") + r"(?:\..*)?\Z"
    return re.compile(below, re.DOTALL).match


def compile_expression(text: str) -> re.Pattern[str]:
    """A regular expression of the user's, or a UsageError that says what is wrong with it."""
    try:
        return re.compile(text)
    except re.error as error:
        raise UsageError(
            f"'re:{text}' is no regular expression: {error}",
            r"write \( \[ \* \. and such for those that are meant as they stand",
        ) from None


def hint_for(pattern: str, names: Sequence[str], types: Types | None) -> str:
    """What to type instead: the nearest names, types or modules."""
    from difflib import get_close_matches

    kind, _, rest = pattern.partition(":")
    if kind == "type" and types is not None:
        pool = sorted(set(types.values()))
        return f"types: {', '.join(pool[:8])}" if pool else "no types are known"
    stems = dict.fromkeys(stem for name in names[:20_000] for stem in prefixes(name))
    nearest = get_close_matches(rest or pattern, stems, n=3, cutoff=0.5)
    if nearest:
        return f"nearest: {', '.join(nearest)}"
    first = ", ".join([*stems][:3]) + (", …" if len(stems) > 3 else "")
    return f"names: {first}" if stems else "there are no names at all"


def prefixes(name: str) -> list[str]:
    """`a.b.c` -> `a`, `a.b`, `a.b.c`."""
    parts = name.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]
