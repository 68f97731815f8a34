"""Constructor arguments of a model, from the command line or a file. Needs no torch."""

import ast
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path

from modtool.errors import TargetError, UsageError, a_kind

__all__ = ["parse_arguments", "parse_value", "read_arguments"]


def parse_arguments(texts: Sequence[str], *, dotted: bool = False) -> dict[str, object]:
    """`["hidden=256", "act=relu"]` -> `{"hidden": 256, "act": "relu"}`; the last of a name wins.

    Args:
        texts: One for each argument.
        dotted: Whether a name may be a path, as in `batch.training=true`.

    Raises:
        UsageError: A text is not `NAME=VALUE`.
    """
    return dict(parse_argument(text, dotted) for text in texts)


def parse_argument(text: str, dotted: bool) -> tuple[str, object]:
    """One `NAME=VALUE`."""
    name, equals, value = text.partition("=")
    name = name.strip()
    first, *others = name.split(".") if dotted else [name]
    whole = all(each.isidentifier() or each.isdecimal() for each in others)
    if not equals or not first.isidentifier() or not whole:
        raise UsageError(
            f"{text!r} is no argument",
            "write NAME=VALUE, as in hidden=256, act=relu or 'sizes=[64, 32]'",
        )
    return name, parse_value(value.strip())


def parse_value(text: str) -> object:
    """A Python literal, or JSON's `true`, `false` and `null`; anything else is a string."""
    if text in JSON_WORDS:
        return JSON_WORDS[text]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


JSON_WORDS = {"true": True, "false": False, "null": None}


def read_arguments(path: str) -> dict[str, object]:
    """The arguments that a `.json` or `.toml` file holds, as one table of names.

    Raises:
        TargetError: The file cannot be read.
        UsageError: It is neither JSON nor TOML, or not a table of names.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TargetError(f"{path}: cannot be read: {reason(error)}") from None
    parse = tomllib.loads if path.endswith(".toml") else json.loads
    try:
        values = parse(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: {error}", "--args-from takes a .json or a .toml file") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path}: holds {a_kind(values)}, not a table of arguments")
    return values


def reason(error: OSError | UnicodeDecodeError) -> str:
    """What went wrong, without the number and the path that the error repeats."""
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not UTF-8 text"
