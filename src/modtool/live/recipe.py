"""Recipes: ordered rules of what `reinit` fills by which scheme, as a TOML file has them.

seed = 0

[[rule]]
patterns = ["type:Linear", "!head"]    # none: every parameter; later rules win
scheme = "kaiming_normal"
arguments = { nonlinearity = "relu" }
bias = "zeros"                         # a scheme, or a number, for biases among them
"""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modtool.errors import TargetError, UsageError
from modtool.live.initialise import SCHEMES, parse_arguments
from modtool.live.scheme_arguments import number
from modtool.patterns import patterns_of
from modtool.plan import Rule

__all__ = ["Recipe", "bias_scheme", "read_recipe", "recipe_document", "recipe_text", "rule_of"]

RULE_KEYS = ("patterns", "scheme", "arguments", "bias")
RECIPE_KEYS = ("seed", "skip_unfit", "rule")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to fill.

    Attributes:
        rules: Later ones win.
        seed: The same seed gives a tensor the same bits.
        skip_unfit: Leave tensors that a scheme does not fit as they are.
    """

    rules: tuple[Rule, ...]
    seed: int = 0
    skip_unfit: bool = False


def rule_of(
    scheme: str,
    arguments: Mapping[str, object] | None = None,
    patterns: str | Sequence[str] = (),
    bias: object = None,
) -> Rule:
    """A rule, its arguments checked and complete.

    Raises:
        UsageError: There is no such scheme, or it does not take these arguments.
    """
    values = parse_arguments(scheme, arguments)
    return Rule(patterns_of(patterns), scheme, values, None if bias is None else bias_scheme(bias))


def bias_scheme(wanted: object) -> tuple[str, Mapping[str, object]]:
    """`zeros` -> that scheme, `0.1` -> the constant.

    Raises:
        UsageError: It is neither a scheme that needs no argument nor a number.
    """
    value = number(wanted)
    if value is not None:
        return "constant", parse_arguments("constant", {"val": value})
    if not isinstance(wanted, str) or wanted not in SCHEMES:
        usable = [name for name, scheme in SCHEMES.items() if scheme.dimensions[0] < 2]
        raise UsageError(
            f"there is no scheme {wanted!r} for biases",
            f"a number, or one of {', '.join(usable)}",
        )
    return wanted, parse_arguments(wanted)


# -- reading -----------------------------------------------------------------------------------


def read_recipe(path: str) -> Recipe:
    """Read a recipe file.

    Raises:
        TargetError: The file cannot be read.
        UsageError: It is no TOML, or has something in it that is no part of a recipe.
    """
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise TargetError(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no TOML: {error}") from None
    try:
        return recipe_of(document)
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", error.hint) from None


def recipe_of(document: Mapping[str, object]) -> Recipe:
    """A recipe from the tables of its file."""
    refuse_unknown(document, RECIPE_KEYS, "a recipe")
    seed, skip = document.get("seed", 0), document.get("skip_unfit", False)
    if type(seed) is not int:
        raise UsageError(f"seed is a whole number, not {seed!r}")
    if not isinstance(skip, bool):
        raise UsageError(f"skip_unfit is true or false, not {skip!r}")
    rules = document.get("rule")
    if not isinstance(rules, list) or not rules:
        raise UsageError("there is no [[rule]] in it", EXAMPLE)
    return Recipe(tuple(map(read_rule, rules, range(1, len(rules) + 1))), seed, skip)


EXAMPLE = 'a rule is: [[rule]] patterns = ["type:Linear"] scheme = "zeros", a line for each'


def read_rule(table: object, index: int) -> Rule:
    """One rule from its table."""
    if not isinstance(table, dict):
        raise UsageError(f"rule {index} is no table", EXAMPLE)
    try:
        refuse_unknown(table, RULE_KEYS, "a rule")
        patterns, scheme = table.get("patterns", []), table.get("scheme")
        arguments = table.get("arguments", {})
        if isinstance(patterns, str):
            patterns = [patterns]
        if not isinstance(patterns, list) or not all(isinstance(each, str) for each in patterns):
            raise UsageError("patterns is a list of texts")
        if not isinstance(scheme, str):
            raise UsageError("it names no scheme", EXAMPLE)
        if not isinstance(arguments, dict):
            raise UsageError("arguments is a table: { gain = 1.4 }")
        return rule_of(scheme, arguments, patterns, table.get("bias"))
    except UsageError as error:
        raise UsageError(f"rule {index}: {error.message}", error.hint) from None


def refuse_unknown(table: Mapping[str, object], known: Sequence[str], what: str) -> None:
    """An error for a key that means nothing."""
    unknown = [key for key in table if key not in known]
    if unknown:
        raise UsageError(f"{what} has no {unknown[0]!r}", f"it has: {', '.join(known)}")


# -- writing -----------------------------------------------------------------------------------


def recipe_document(recipe: Recipe) -> dict[str, object]:
    """A recipe as the tables of its file."""
    return {
        "seed": recipe.seed,
        "skip_unfit": recipe.skip_unfit,
        "rule": [dict(rule_items(rule)) for rule in recipe.rules],
    }


def rule_items(rule: Rule) -> Iterator[tuple[str, object]]:
    """What there is to say of a rule."""
    yield "patterns", list(rule.patterns)
    yield "scheme", rule.scheme
    if rule.arguments:
        yield "arguments", dict(rule.arguments)
    if rule.bias is not None:
        scheme, arguments = rule.bias
        yield "bias", arguments["val"] if scheme == "constant" else scheme


def recipe_text(recipe: Recipe) -> str:
    """The TOML file that `read_recipe` makes the same recipe of."""
    lines = [f"seed = {recipe.seed}", f"skip_unfit = {toml(recipe.skip_unfit)}"]
    for rule in recipe.rules:
        lines += ["", "[[rule]]", *(f"{key} = {toml(value)}" for key, value in rule_items(rule))]
    return "\n".join(lines) + "\n"


def toml(value: object) -> str:
    """One value as TOML 1.0 writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # TOML allows the escapes of JSON, and wants DEL escaped too.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {toml(item)}' for key, item in value.items())} }}"
    return repr(value)
