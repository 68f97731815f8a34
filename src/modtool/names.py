r"""Names changed: prefixes taken off or put on, parts renamed. Pure functions of names.

--strip-prefix module.      repeated, in any order: `module._orig_mod.fc` and `_orig_mod.module.fc`
--strip-prefix auto         the known wrappers' prefixes, where all names share them
--rename OLD=NEW            a name and all below it; a `*` of NEW is what that of OLD matched
--rename re:EXPR=NEW        every match of a regular expression; `\1` is its first group
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import reduce
from types import MappingProxyType

from modtool.errors import UsageError
from modtool.patterns import compile_expression

__all__ = ["AUTO", "WRAPPERS", "Renamer", "in_turn", "mapped", "renamer", "shared_prefixes"]
__all__ += ["stripped"]

# What puts each prefix before all names of a state_dict.
WRAPPERS: Mapping[str, str] = MappingProxyType(
    {
        "module.": "DataParallel or DistributedDataParallel",
        "_orig_mod.": "torch.compile",
        "model.": "a wrapper that holds the model",
    }
)
AUTO = "auto"
Renamer = Callable[[str], str]


def renamer(text: str) -> Renamer:
    """The function of one `OLD=NEW`; a name that it does not fit stays as it is.

    Raises:
        UsageError: There is no `=`, a side is empty, or OLD is no expression.
    """
    expression = text.startswith("re:")
    old, equals, new = text.rpartition("=") if expression else text.partition("=")
    old = old.removeprefix("re:")
    if not equals or not old or not (new or expression):
        raise UsageError(
            f"{text!r} is no renaming",
            r"write OLD=NEW, such as encoder=backbone, *.gamma=*.weight or 're:^net\.=model.'",
        )
    return by_expression(old, new) if expression else by_glob(old, new)


def by_expression(expression: str, new: str) -> Renamer:
    """Every match of a regular expression replaced."""
    compiled = compile_expression(expression)
    try:
        compiled.sub(new, "")
    except (re.error, IndexError) as error:
        raise UsageError(
            f"{new!r} cannot take the place of {expression!r}: {error}",
            rf"\1 is its first (group), of which it has {compiled.groups}; \\ is a backslash",
        ) from None
    return lambda name: compiled.sub(new, name)


def by_glob(old: str, new: str) -> Renamer:
    """A name, or the beginning of one up to a dot, replaced; stars keep what they matched.

    Raises:
        UsageError: NEW has more stars than OLD.
    """
    if new.count("*") > old.count("*"):
        raise UsageError(
            f"{old}={new}: {new!r} has more stars than {old!r}",
            "a star of NEW is what that of OLD matched",
        )
    compiled = compile_expression(rf"(?s:{glob_expression(old)})(?P<below>(?s:\..*)?)\Z")
    pieces = new.split("*")

    def rename(name: str) -> str:
        found = compiled.match(name)
        if found is None:
            return name
        kept = [found[f"star{index}"] for index in range(len(pieces) - 1)]
        return "".join(map(str.__add__, pieces, [*kept, ""])) + found["below"]

    return rename


def glob_expression(glob: str) -> str:
    """A shell glob as a regular expression whose stars are groups: `star0`, `star1`, …."""
    parts: list[str] = []
    stars = 0
    for token in re.findall(r"\[!?\]?[^\]]*\]|.", glob, re.DOTALL):
        if token == "*":
            parts.append(f"(?P<star{stars}>.*?)")
            stars += 1
        elif token == "?":
            parts.append(".")
        elif len(token) > 1:
            inside = token[1:-1].replace("\\", "\\\\")
            parts.append(f"[^{inside[1:]}]" if inside.startswith("!") else f"[{inside}]")
        else:
            parts.append(re.escape(token))
    return "".join(parts)


def in_turn(changes: Sequence[Renamer]) -> Renamer:
    """Several changes, one after the other."""
    return lambda name: reduce(lambda so_far, change: change(so_far), changes, name)


def shared_prefixes(names: Collection[str]) -> tuple[str, ...]:
    """The wrappers' prefixes that all names begin with, outermost first."""
    found: list[str] = []
    rest = list(names)
    while rest:
        shared = next((p for p in WRAPPERS if all(name.startswith(p) for name in rest)), None)
        if shared is None:
            break
        found.append(shared)
        rest = [name[len(shared) :] for name in rest]
    return tuple(found)


def stripped(name: str, prefixes: Sequence[str]) -> str:
    """A name without any of the prefixes at its beginning, in whatever order they stand there."""
    while True:
        found = next((prefix for prefix in prefixes if prefix and name.startswith(prefix)), None)
        rest = name[len(found or "") :].lstrip(".")
        if found is None or not rest:
            return name
        name = rest


def mapped(names: Sequence[str], change: Renamer) -> dict[str, str]:
    """Old name -> new name, for all names.

    Raises:
        UsageError: Two names would become one.
    """
    taken: dict[str, str] = {}
    for name in names:
        new = change(name)
        if not new:
            raise UsageError(f"nothing is left of the name {name!r}")
        other = taken.setdefault(new, name)
        if other != name:
            raise UsageError(
                f"{other} and {name} would both be named {new}",
                "leave one out, or name it otherwise; two change places through a third name: "
                "--rename A=X --rename B=A --rename X=B",
            )
    return {name: new for new, name in taken.items()}
