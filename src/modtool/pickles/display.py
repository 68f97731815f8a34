"""Values for people and for JSON: containers entered, unknown objects named, all of it bounded."""

from collections.abc import Mapping
from itertools import islice
from typing import Any

from modtool.pickles.modules import module_parts
from modtool.pickles.numpy_values import array_content
from modtool.pickles.plain import (
    CONTAINERS,
    Unknown,
    attributes_of,
    breadth,
    is_set,
    items_of,
    mapping_of,
    plain,
)
from modtool.pickles.symbols import Call

__all__ = ["Abridged", "Display", "display", "key_text", "parts_of"]

MAX_DEPTH = 40
MAX_TEXT = 10_000
# What one showing may cost: one for each value, and one for each sixteen characters of text.
MAX_COST = 500_000
COST_OF_TEXT = 16
MAX_KEY_BREADTH = 100
# What may hold other values.
ENTERED = (*CONTAINERS, Call)


class Abridged(str):
    """Text for a value that is not shown whole: bytes, an array, long text.

    Two such texts may be equal where the values are not, which `whole` tells apart.
    """

    __slots__ = ("whole",)
    whole: object

    def __new__(cls, text: str, whole: object) -> "Abridged":
        """The text, and what it stands for, as symbols."""
        made = super().__new__(cls, text)
        made.whole = whole
        return made

    def __deepcopy__(self, memo: object) -> "Abridged":
        return self

    def is_same(self, other: "Abridged") -> bool:
        """True where both stand for the same text, bytes or array."""
        return str(self) == str(other) and content(self.whole) == content(other.whole)


def content(value: object) -> object:
    """What tells values of one description apart; None where nothing does."""
    if isinstance(value, str | bytes | bytearray):
        return value
    return array_content(value) if isinstance(value, Call) else None


def display(value: object) -> object:
    """A value that JSON can hold.

    What lies too deep, or is too much (a list that holds itself, doubled lists), becomes `…`.
    """
    return Display().show(value)


class Display:
    """A showing of values, which counts what it has shown; `left` is what it may still cost.

    `cycles` counts the places where a value lay inside itself, and was shown as `…`.
    """

    def __init__(self, left: int = MAX_COST) -> None:
        self.left = left
        self.cycles = 0
        self.open: set[int] = set()

    def show(self, value: object, depth: int = 0) -> object:
        """One value; nothing but `…` once too much has been shown."""
        self.left -= 1
        if id(value) in self.open:
            self.cycles += 1
            return "…"
        if depth > MAX_DEPTH or self.left < 0:
            return "…"
        if not isinstance(value, ENTERED):
            return self.leaf(plain(value))
        self.open.add(id(value))
        shown = self.entered(value, depth)
        self.open.discard(id(value))
        return shown

    def entered(self, value: object, depth: int) -> object:
        """What may be a container, with what it holds."""
        if isinstance(value, Call):
            self.left -= breadth(value)
            value = omega_content(value)
        mapping = parts_of(value)
        if mapping is not None:
            return {
                self.text(key_text(key)): self.show(item, depth + 1)
                for key, item in islice(mapping.items(), max(self.left, 0) + 1)
            }
        items = items_of(value)
        if items is None:
            return self.leaf(plain(value), value)
        if is_set(value):
            items = in_order(items)
        return [self.show(item, depth + 1) for item in islice(items, max(self.left, 0) + 1)]

    def leaf(self, value: object, symbol: object = None) -> object:
        """A value that is no container, as JSON can hold it; `symbol` is what it was made from."""
        if isinstance(value, bytes | bytearray):
            return Abridged(f"<{len(value):,} bytes>", value)
        if isinstance(value, Unknown):
            return Abridged(self.text(str(value)), symbol)
        if isinstance(value, complex):
            return self.text(str(value))
        return self.text(value) if isinstance(value, str) else value

    def text(self, text: str) -> str:
        """Text, cut where it is too long."""
        shown = text if len(text) <= MAX_TEXT else Abridged(text[:MAX_TEXT] + "…", text)
        self.left -= len(shown) // COST_OF_TEXT
        return shown


def in_order(items: list[object]) -> list[object]:
    """The items of a set in an order that is the same at every run; what has none comes last."""
    texts = [item for item in items if isinstance(item, str)]
    numbers = [item for item in items if isinstance(item, int | float)]
    rest = [item for item in items if not isinstance(item, str | int | float)]
    return [*sorted(numbers), *sorted(texts), *rest]


def parts_of(value: object) -> Mapping[Any, object] | None:
    """What a value holds by name: a dict, or an object's attributes beside its class.

    None for a module, for what has a plain equivalent, and for what has no attributes.
    """
    if isinstance(value, Call):
        value = omega_content(value)
    mapping = mapping_of(value)
    if mapping is not None or not isinstance(value, Call):
        return mapping
    attributes = attributes_of(value)
    if not attributes or items_of(value) is not None or module_parts(value) is not None:
        return None
    if value.made in NAMESPACES:
        return {**attributes}
    return {CLASS: value.made or "?", **attributes}


# Objects that are nothing but their attributes.
NAMESPACES = frozenset({"argparse.Namespace", "types.SimpleNamespace"})
# The key under which the class of an object stands beside its attributes.
CLASS = "__class__"


def omega_content(call: Call) -> object:
    """What a node of OmegaConf holds, which is how many keep their hyper-parameters."""
    if not call.callee.startswith("omegaconf.") or not isinstance(call.state, dict):
        return call
    return call.state.get("_content", call.state.get("_val", call))


def key_text(key: object) -> str:
    """A dictionary key as text; the parts of a tuple are joined with dots."""
    if isinstance(key, str):
        return key
    if isinstance(key, tuple) and all(isinstance(part, str | int) for part in key):
        return ".".join(map(str, key))
    if isinstance(key, Call) and breadth(key) > MAX_KEY_BREADTH:
        return f"<{key.made}>"
    found = Display().leaf(plain(key))
    return str(found) if isinstance(found, str | int | float | None) else "…"
