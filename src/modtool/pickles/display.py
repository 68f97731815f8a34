"""Values for people and for JSON: containers entered, unknown objects named, all of it bounded."""

from collections.abc import Mapping
from itertools import islice

from modtool.pickles.plain import CONTAINERS, Unknown, breadth, items_of, mapping_of, plain
from modtool.pickles.symbols import Call

__all__ = ["Display", "display", "key_text"]

MAX_DEPTH = 40
MAX_TEXT = 10_000
# What one showing may cost: one for each value, and one for each sixteen characters of text.
MAX_COST = 500_000
COST_OF_TEXT = 16
MAX_KEY_BREADTH = 100
# What may hold other values.
ENTERED = (*CONTAINERS, Call)


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
        mapping = mapping_of(value)
        found = plain(value) if mapping is None else mapping
        if isinstance(found, Mapping):
            return {
                self.text(key_text(key)): self.show(item, depth + 1)
                for key, item in islice(found.items(), max(self.left, 0) + 1)
            }
        items = items_of(found)
        if items is None:
            return self.leaf(found)
        return [self.show(item, depth + 1) for item in islice(items, max(self.left, 0) + 1)]

    def leaf(self, value: object) -> object:
        """A value that is no container, as JSON can hold it."""
        if isinstance(value, bytes | bytearray):
            return f"<{len(value):,} bytes>"
        if isinstance(value, Unknown | complex):
            return self.text(str(value))
        return self.text(value) if isinstance(value, str) else value

    def text(self, text: str) -> str:
        """Text, cut where it is too long."""
        shown = text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"
        self.left -= len(shown) // COST_OF_TEXT
        return shown


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
