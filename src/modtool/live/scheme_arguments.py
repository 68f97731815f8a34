"""What a scheme may be told (`--arg gain=relu`): names, defaults, and what is refused up front."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from modtool.errors import UsageError

__all__ = ["Argument", "Value", "Values", "gain", "number", "read_values"]

Value = float | int | str
Values = Mapping[str, Value]
Kind = Literal[
    "number", "non-negative", "positive", "fraction", "count", "gain", "mode", "nonlinearity"
]

# Source: the table in the documentation of `torch.nn.init.calculate_gain`; leaky_relu has a slope.
GAINS: Mapping[str, float] = MappingProxyType(
    {
        **dict.fromkeys(("linear", "sigmoid"), 1.0),
        **dict.fromkeys((f"conv{n}d" for n in (1, 2, 3)), 1.0),
        **dict.fromkeys((f"conv_transpose{n}d" for n in (1, 2, 3)), 1.0),
        "tanh": 5.0 / 3,
        "relu": math.sqrt(2.0),
        "leaky_relu": math.sqrt(2.0 / (1 + 0.01**2)),
        "selu": 3.0 / 4,
    }
)


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a scheme; `default` is None where it must be given."""

    name: str
    kind: Kind
    default: Value | None = None

    def __str__(self) -> str:
        return self.name if self.default is None else f"{self.name}={self.default}"


def gain(nonlinearity: str, slope: float) -> float:
    """The factor that makes up for a nonlinearity, as `torch.nn.init.calculate_gain` has it."""
    if nonlinearity == "leaky_relu":
        return math.sqrt(2.0 / (1 + slope**2))
    return GAINS[nonlinearity]


def read_values(scheme: str, arguments: Sequence[Argument], given: Mapping[str, object]) -> Values:
    """The value of every argument, in the order of `arguments`, defaults filled in.

    Args:
        scheme: Its name, for messages.
        arguments: What the scheme takes.
        given: Values as text (from a command line) or as they are meant.

    Raises:
        UsageError: An argument is unknown or missing, or its value is of no use.
    """
    unknown = sorted(set(given) - {argument.name for argument in arguments})
    if unknown:
        allowed = ", ".join(map(str, arguments)) or "none at all"
        raise UsageError(f"{scheme} takes no argument {unknown[0]!r}", f"it takes: {allowed}")
    return {argument.name: read_value(scheme, argument, given) for argument in arguments}


def read_value(scheme: str, argument: Argument, given: Mapping[str, object]) -> Value:
    """The value of one argument."""
    if argument.name not in given:
        if argument.default is None:
            hint = f"--arg {argument.name}=…, {WANTED[argument.kind]}"
            raise UsageError(f"{scheme} needs the argument {argument.name!r}", hint)
        return argument.default
    text = given[argument.name]
    value = READERS[argument.kind](text)
    if value is None:
        wanted = WANTED[argument.kind]
        raise UsageError(f"{scheme}: {argument.name}={text} does not fit: it is {wanted}")
    return value


def number(given: object) -> float | None:
    """A finite number, or the text of one; None for everything else."""
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        return None
    try:
        value = float(given)
    except (ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def number_where(holds: Callable[[float], bool]) -> Callable[[object], float | None]:
    """A reader of the numbers for which `holds` is true."""

    def read(given: object) -> float | None:
        value = number(given)
        return value if value is not None and holds(value) else None

    return read


def count(given: object) -> int | None:
    """A whole number from 1."""
    value = number(given)
    return int(value) if value is not None and value >= 1 and value == int(value) else None


def gain_value(given: object) -> float | None:
    """A number from 0, or the name of a nonlinearity."""
    if isinstance(given, str) and given in GAINS:
        return GAINS[given]
    return number_where(lambda value: value >= 0)(given)


def one_of(choices: Sequence[str]) -> Callable[[object], str | None]:
    """A reader of the words in `choices`."""
    return lambda given: given if isinstance(given, str) and given in choices else None


MODES = ("fan_in", "fan_out")

READERS: Mapping[Kind, Callable[[object], Value | None]] = MappingProxyType(
    {
        "number": number,
        "non-negative": number_where(lambda value: value >= 0),
        "positive": number_where(lambda value: value > 0),
        "fraction": number_where(lambda value: 0 <= value <= 1),
        "count": count,
        "gain": gain_value,
        "mode": one_of(MODES),
        "nonlinearity": one_of(tuple(GAINS)),
    }
)

WANTED: Mapping[Kind, str] = MappingProxyType(
    {
        "number": "a number",
        "non-negative": "a number from 0 up",
        "positive": "a number above 0",
        "fraction": "a number from 0 to 1",
        "count": "a whole number from 1 up",
        "gain": f"a number from 0 up or one of {', '.join(GAINS)}",
        "mode": f"one of {', '.join(MODES)}",
        "nonlinearity": f"one of {', '.join(GAINS)}",
    }
)
