"""The little language that settings are written in, and how values are printed.

Settings are a template, `"p={p}, inplace={inplace}"`; or a tuple of templates and of parts that
are printed on a condition; or a function. A part whose attribute is missing, or is a value whose
text cannot be known without torch, is left out. `{name!r}` prints a text with its quotes.

`{has_bias}` is no attribute: it says whether the module has a bias.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

from modtool.pickles.plain import mapping_of, plain
from modtool.pickles.symbols import ABSENT, Call, Global
from modtool.records import DTYPES

__all__ = [
    "INPLACE",
    "Settings",
    "Unless",
    "View",
    "When",
    "joined",
    "listed",
    "printed",
    "rendered",
]

MAX_TEXT = 100
MAX_BITS = 128
MAX_PARTS = 64
PLACEHOLDER = re.compile(r"\{(\w+)(!r)?\}")


@dataclass(frozen=True, slots=True)
class View:
    """A module as its settings see it: attributes, and shapes of its own parameters."""

    attributes: Mapping[str, object]
    parameters: Mapping[str, tuple[int, ...] | None]

    def value(self, name: str) -> object:
        """An attribute; `ABSENT` where there is none."""
        return self.has("bias") if name == "has_bias" else self.attributes.get(name, ABSENT)

    def has(self, name: str) -> object:
        """Whether a parameter (or what took its place) is there and not None; or `ABSENT`."""
        # Old-style weight_norm and pruning put a plain attribute where the parameter was.
        if name in self.attributes:
            return self.attributes[name] is not None
        return self.parameters[name] is not None if name in self.parameters else ABSENT

    def members(self, kind: str) -> Mapping[object, object]:
        """`_parameters`, `_buffers` or `_modules`; empty where there are none."""
        return mapping_of(self.attributes.get(kind)) or {}


@dataclass(frozen=True, slots=True)
class Unless:
    """A part that is printed unless its attribute has its default."""

    name: str
    default: bool | int | str | None
    text: str = ""

    def template(self, view: View) -> str | None:
        """The template to print, if any."""
        value = view.value(self.name)
        # torch compares with `is` where the default is a singleton, with `!=` elsewhere.
        same = value is self.default or (
            isinstance(value, int | float | str)
            and not isinstance(self.default, bool)
            and value == self.default
        )
        return None if same or value is ABSENT else self.text or f"{self.name}={{{self.name}}}"


@dataclass(frozen=True, slots=True)
class When:
    """A fixed part that is printed when its attribute is true."""

    name: str
    text: str

    def template(self, view: View) -> str | None:
        """The template to print, if any."""
        value = view.value(self.name)
        return self.text if value is not ABSENT and value else None


Part = str | Unless | When
Settings = Part | tuple[Part, ...] | Callable[[View], str]

INPLACE = When("inplace", "inplace=True")


def rendered(settings: Settings, view: View) -> str:
    """The text of a module's settings."""
    if isinstance(settings, str | Unless | When):
        settings = (settings,)
    return joined(view, *settings) if isinstance(settings, tuple) else settings(view)


def joined(view: View, *parts: Part) -> str:
    """Parts, one after another, without those that cannot be printed."""
    found: list[str] = []
    for part in parts:
        template = part if isinstance(part, str) else part.template(view)
        if template is not None:
            found += filled(template, view)
    return ", ".join(found)


def listed(*texts: str | None) -> str:
    """Texts, one after another, without those that are empty."""
    return ", ".join(text for text in texts if text)


def filled(template: str, view: View) -> list[str]:
    """The parts of one template that can be printed."""
    found: list[str] = []
    for label, name, quoted in compiled(template):
        value = printed(view.value(name), quoted=quoted) if name else ""
        if value is not None:
            found.append(label + value)
    return found


@cache
def compiled(template: str) -> tuple[tuple[str, str, bool], ...]:
    """(label, attribute, quoted) of each part of a template."""
    parts: list[tuple[str, str, bool]] = []
    for part in template.split(", "):
        match = PLACEHOLDER.search(part)
        if match is None:
            parts.append((part, "", False))
        else:
            parts.append((part[: match.start()], match[1], match[2] is not None))
    return tuple(parts)


def printed(value: object, *, quoted: bool = False) -> str | None:
    """A value as Python prints it; None when its text cannot be known, or is no setting's.

    Args:
        value: As it was read from the pickle.
        quoted: `repr` instead of `str`, which differ for a text.
    """
    return Printer().text(value, quoted)


class Printer:
    """One printing of a value, which counts its parts."""

    def __init__(self) -> None:
        self.left = MAX_PARTS

    def text(self, value: object, quoted: bool) -> str | None:
        """`str` or `repr` of a value."""
        self.left -= 1
        if self.left < 0:
            return None
        if value is None or isinstance(value, bool | float):
            return repr(value)
        if isinstance(value, int):
            return repr(value) if value.bit_length() <= MAX_BITS else None
        if isinstance(value, str):
            known = len(value) <= MAX_TEXT and value.isprintable()
            return (repr(value) if quoted else value) if known else None
        if isinstance(value, tuple | list):
            return self.sequence(value)
        return self.symbol(value, quoted)

    def sequence(self, value: tuple[object, ...] | list[object]) -> str | None:
        """A tuple or a list."""
        inside: list[str] = []
        for item in value:
            text = self.text(item, quoted=True)
            if text is None:
                return None
            inside.append(text)
        if isinstance(value, list):
            return f"[{', '.join(inside)}]"
        return f"({', '.join(inside)}{',' if len(inside) == 1 else ''})"

    def symbol(self, value: object, quoted: bool) -> str | None:
        """The few objects of torch and numpy that are settings."""
        if isinstance(value, Global):
            known = value.module == "torch" and (value.name in DTYPES or value.name in QSCHEMES)
            return value.qualified if known else None
        if not isinstance(value, Call):
            return None
        if value.callee == "torch.Size" and len(value.arguments) == 1:
            size = value.arguments[0]
            inside = self.sequence(list(size)) if isinstance(size, tuple | list) else None
            return None if inside is None else f"torch.Size({inside})"
        return numpy_number(value, quoted)


QSCHEMES = frozenset(
    f"per_{what}"
    for what in (
        "tensor_affine",
        "channel_affine",
        "tensor_symmetric",
        "channel_symmetric",
        "channel_affine_float_qparams",
    )
)

# float32 prints the shortest text that is unique among float32, which a float's is not.
NUMPY_KINDS = {"i8": "int64", "i4": "int32", "i2": "int16", "i1": "int8", "f8": "float64"}


def numpy_number(call: Call, quoted: bool) -> str | None:
    """A numpy scalar, as `in_features=numpy.prod(shape)` leaves it."""
    if not call.callee.endswith("core.multiarray.scalar") or not call.arguments:
        return None
    dtype, number = call.arguments[0], plain(call)
    kind = dtype.arguments[0] if isinstance(dtype, Call) and dtype.arguments else None
    name = NUMPY_KINDS.get(kind) if isinstance(kind, str) else None
    if name is None or not isinstance(number, int | float):
        return None
    return f"np.{name}({number})" if quoted else str(number)
