"""`--assert`: a small language over the keys of `count`. Nothing is evaluated but numbers.

params <= 5e6                       a comparison; several in a row as in Python: 1M < params < 2M
trainable / params < 10%            + - * / and parentheses
frozen == 0 or bytes < 2 GiB        and, or, not
1k 5M 7B 1T                         powers of 1000, also KB, MB, GB, TB; KiB, … are of 1024
"""

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from modtool.errors import UsageError

__all__ = ["Assertion", "Expression", "parse_assertion"]

Values = Mapping[str, int]
Number = int | float
Kind = Literal["number", "truth"]

KEYS = ("total", "trainable", "frozen", "buffers", "bytes", "tensors")
ALIASES = MappingProxyType({"params": "total", "parameters": "total"})
UNITS: Mapping[str, Number] = MappingProxyType(
    {
        **{unit: 1000**power for power, unit in enumerate("kMGT", 1)},
        **{f"{unit}B": 1000**power for power, unit in enumerate("KMGT", 1)},
        **{f"{unit}iB": 1024**power for power, unit in enumerate("KMGT", 1)},
        "K": 1000,
        "B": 1000**3,
    }
)
COMPARISONS: Mapping[str, Callable[[Number, Number], bool]] = MappingProxyType(
    {
        "<=": operator.le,
        ">=": operator.ge,
        "==": operator.eq,
        "!=": operator.ne,
        "<": operator.lt,
        ">": operator.gt,
    }
)
Operation = Callable[[Number, Number], Number]
OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
)
TOKEN = (  # compiled when it is used: start-up is every command's
    r"(?P<number>(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    rf"(?:\s*(?P<unit>%|(?:{'|'.join(UNITS)})\b)|(?P<unknown>[A-Za-z_]\w*))?"
    r"|(?P<word>[A-Za-z_]\w*)|(?P<sign><=|>=|==|!=|[<>+\-*/()])|(?P<else>=[<>]|\S)"
)
# What is written for a sign, and the sign.
MEANT: Mapping[str, str] = MappingProxyType(
    {"=": "==", "=<": "<=", "=>": ">=", "≤": "<=", "≥": ">=", "≠": "!="}
)
WORDS = frozenset({"and", "or", "not"})
DEEPEST = 50
LONGEST = 1000


@dataclass(frozen=True, slots=True)
class Assertion:
    """What became of an expression.

    Attributes:
        text: The expression.
        holds: Whether it is true.
        values: The figures that it speaks of.
    """

    text: str
    holds: bool
    values: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression that was understood; `places` is where each name stands first."""

    text: str
    places: Mapping[str, int]
    compute: Callable[[Values], object]

    def of(self, figures: Mapping[str, int | None], target: str) -> Assertion:
        """Whether it holds for the figures of `count`.

        Raises:
            UsageError: A figure is not known, or something is divided by zero.
        """
        known: dict[str, int] = {}
        for name, place in self.places.items():
            figure = figures[ALIASES.get(name, name)]
            if figure is None:
                raise error_at(self.text, f"{target} does not record which are {name}", place)
            known[name] = figure
        return Assertion(self.text, bool(self.compute(known)), known)


def error_at(text: str, what: str, place: int) -> UsageError:
    """An error whose second line points at the place in the first."""
    begin = f"--assert '{text[:place]}"
    return UsageError(f"--assert '{text}': {what}", " " * (len(begin) + 5) + "^")


def parse_assertion(text: str) -> Expression:
    """Understand one expression.

    Raises:
        UsageError: It is none; the message points at the place.
    """
    text = " ".join(text.split())
    if len(text) > LONGEST:
        raise UsageError(
            f"--assert '{text[:20]}…': {len(text):,} characters, and {LONGEST:,} are the most",
            "give --assert several times instead of joining with and",
        )
    parser = Parser(text)
    found = parser.either()
    if parser.token.text:
        raise parser.error(f"expected an operator, not {parser.token.text!r}", parser.token.at)
    return Expression(text, parser.places, parser.truth(found).compute)


@dataclass(frozen=True, slots=True)
class Token:
    """A word, sign or number of the text; the last one of all is empty."""

    text: str
    at: int
    number: Number | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the expression: what it is, how to compute it, where it begins."""

    kind: Kind
    compute: Callable[[Values], Number | bool]
    at: int


class Parser:
    """Recursive descent, an operator's precedence for each method, as in Python."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = self.tokenize()
        self.places: dict[str, int] = {}
        self.depth = 0
        self.token = next(self.tokens)

    def tokenize(self) -> Iterator[Token]:
        """The tokens, one by one."""
        for found in re.finditer(TOKEN, self.text):
            if found["else"]:
                sign = found["else"]
                more = f": {MEANT[sign]} compares" if sign in MEANT else ""
                raise self.error(f"{sign!r} means nothing here{more}", found.start())
            if found["unknown"]:
                raise self.error(
                    f"{found['unknown']!r} is no unit: {', '.join(UNITS)}, %",
                    found.start("unknown"),
                )
            number = self.number(found) if found["number"] else None
            yield Token(found[0], found.start(), number)
        yield Token("", len(self.text))

    def number(self, found: re.Match[str]) -> Number:
        """A number with its unit."""
        text, unit = found["number"], found["unit"]
        try:
            value: Number = int(text) if text.replace("_", "").isdigit() else float(text)
        except ValueError:
            raise self.error(f"{text!r} is no number", found.start()) from None
        if unit == "%":
            return self.calculated(operator.truediv, value, 100, found.start())
        return value if unit is None else value * UNITS[unit]

    def error(self, what: str, at: int) -> UsageError:
        """An error that points at a place."""
        return error_at(self.text, what, at)

    def take(self, *texts: str) -> Token | None:
        """The next token, if it is one of these."""
        token = self.token
        if token.text not in texts or not token.text:
            return None
        self.token = next(self.tokens)
        return token

    # -- what a part has to be -----------------------------------------------------------------

    def truth(self, part: Part) -> Part:
        """The part, which has to be true or false."""
        if part.kind != "truth":
            raise self.error("expected a comparison, as in params <= 5e6", part.at)
        return part

    def figure(self, part: Part) -> Part:
        """The part, which has to be a number."""
        if part.kind != "number":
            raise self.error("expected a number, and this is true or false", part.at)
        return part

    # -- from loose to tight -------------------------------------------------------------------

    def either(self) -> Part:
        """`a or b`."""
        left = self.both()
        while self.take("or"):
            left = self.joined(self.truth(left), self.truth(self.both()), every=False)
        return left

    def both(self) -> Part:
        """`a and b`."""
        left = self.negated()
        while self.take("and"):
            left = self.joined(self.truth(left), self.truth(self.negated()), every=True)
        return left

    def joined(self, left: Part, right: Part, *, every: bool) -> Part:
        """Two truths; the right one is not asked where the left one settles it."""
        one, other = left.compute, right.compute
        if every:
            return Part("truth", lambda values: one(values) and other(values), left.at)
        return Part("truth", lambda values: one(values) or other(values), left.at)

    def negated(self) -> Part:
        """`not a`."""
        token = self.take("not")
        if token is None:
            return self.compared()
        with_limit = self.nested(lambda: self.truth(self.negated()))
        return Part("truth", lambda values: not with_limit.compute(values), token.at)

    def compared(self) -> Part:
        """`a < b <= c`."""
        left = self.sum()
        found: Part | None = None
        while token := self.take(*COMPARISONS):
            right = self.sum()
            step = self.comparison(self.figure(left), token, self.figure(right))
            found = step if found is None else self.joined(found, step, every=True)
            left = right
        return found or left

    def comparison(self, left: Part, token: Token, right: Part) -> Part:
        """`a < b`."""
        compare, one, other = COMPARISONS[token.text], left.compute, right.compute
        return Part("truth", lambda values: compare(one(values), other(values)), left.at)

    def sum(self) -> Part:
        """`a + b - c`."""
        left = self.product()
        while token := self.take("+", "-"):
            left = self.calculation(left, token, self.product())
        return left

    def product(self) -> Part:
        """`a * b / c`."""
        left = self.signed()
        while token := self.take("*", "/"):
            left = self.calculation(left, token, self.signed())
        return left

    def calculation(self, left: Part, token: Token, right: Part) -> Part:
        """One operation on two numbers."""
        one, other = self.figure(left).compute, self.figure(right).compute
        operation = OPERATIONS[token.text]
        return Part(
            "number",
            lambda values: self.calculated(operation, one(values), other(values), token.at),
            left.at,
        )

    def calculated(self, operation: Operation, one: Number, other: Number, at: int) -> Number:
        """What an operation gives, or an error that says where it fails."""
        try:
            return operation(one, other)
        except (ZeroDivisionError, OverflowError) as error:
            raise self.error(str(error), at) from None

    def signed(self) -> Part:
        """`-a`."""
        token = self.take("-", "+")
        if token is None:
            return self.atom()
        part = self.nested(lambda: self.figure(self.signed()))
        sign = -1 if token.text == "-" else 1
        return Part("number", lambda values: sign * part.compute(values), token.at)

    def atom(self) -> Part:
        """A number, a name, or something in parentheses."""
        token = self.token
        if token.number is not None:
            number = token.number
            self.take(token.text)
            return Part("number", lambda values: number, token.at)
        if self.take("("):
            inner = self.nested(self.either)
            if not self.take(")"):
                raise self.error("expected a closing parenthesis", self.token.at)
            return Part(inner.kind, inner.compute, token.at)
        return self.name(token)

    def name(self, token: Token) -> Part:
        """A key of `count`."""
        if token.text in WORDS or not (token.text[:1].isalpha() or token.text[:1] == "_"):
            raise self.error("expected a number or a key of count", token.at)
        if ALIASES.get(token.text, token.text) not in KEYS:
            known = ", ".join(("params", *KEYS))
            raise self.error(f"there is no {token.text!r}, but {known}", token.at)
        self.places.setdefault(token.text, token.at)
        self.take(token.text)
        return Part("number", lambda values: values[token.text], token.at)

    def nested(self, parse: Callable[[], Part]) -> Part:
        """What stands deeper; there is a limit."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise self.error(f"nested more than {DEEPEST} deep", self.token.at)
        part = parse()
        self.depth -= 1
        return part
