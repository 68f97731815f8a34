"""The plain values of a training checkpoint, by dotted path: epoch, losses, learning rates."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from modtool.errors import UnsafeFileError
from modtool.pickles.display import COST_OF_TEXT, MAX_COST, Display, key_text, parts_of
from modtool.pickles.places import Places
from modtool.pickles.plain import items_of

__all__ = ["REST", "TOO_MUCH", "Names", "Values", "free_name", "is_cut"]

MAX_DEPTH = 40
MAX_LOOKED_AT = 1000
# What showing the values of a small file may cost, all told; more would be the same ones again.
FREE_COST = 50_000
# What stands for the values that were left out.
REST, TOO_MUCH = "…", "more than can be shown"


def free_name(name: str, taken: Collection[str], times: Counter[str]) -> str:
    """The name itself, or `name (2)` of the second thing with it; `times` counts those."""
    found = name
    while found in taken:
        times[name] += 1
        found = f"{name} ({times[name] + 1})"
    return found


@dataclass(frozen=True, slots=True)
class Names:
    """Names that are given once each, as `free_name` has it.

    Attributes:
        kept: Name -> `id` of what alone is to have it.
    """

    taken: set[str] = field(default_factory=set)
    kept: dict[str, int] = field(default_factory=dict)
    times: Counter[str] = field(default_factory=Counter)

    def keep(self, name: str, owner: object) -> None:
        """Keep a name, unless it was given already."""
        if name not in self.taken:
            self.taken.add(name)
            self.kept[name] = id(owner)

    def give(self, name: str, owner: object = None) -> str:
        """The name, or the next that is free."""
        if self.kept.get(name) == id(owner):
            del self.kept[name]
            return name
        given = free_name(name, self.taken, self.times)
        self.taken.add(given)
        return given


def is_cut(values: Mapping[str, object]) -> bool:
    """True for the values of an object that has more of them than were collected."""
    return values.get(REST) == TOO_MUCH


class Values:
    """Collects the plain values of an object, as many as can be shown.

    `budget` and `among` are those of `contents_of`.
    """

    def __init__(self, places: Places, budget: int, among: int = 1) -> None:
        self.places = places
        self.limit = FREE_COST // among + budget // 2
        self.most = MAX_COST // among
        self.display = Display(min(self.most, self.limit))
        self.found: dict[str, object] = {}
        self.open: set[int] = set()
        self.times: Counter[str] = Counter()

    def keep(self, path: str, value: object) -> None:
        """Record the values inside a value; tensors are left out."""
        if self.places.is_tensor(value):
            return
        if id(value) in self.open:
            self.places.take_cycle(path)
            return
        self.display.left -= 1 + len(path) // COST_OF_TEXT
        if self.display.left >= 0 and not self.places.hold_tensors_alone(value):
            self.keep_parts(path, value)
        if self.display.left < 0:
            self.give_up()

    def give_up(self) -> None:
        """Leave the rest out; it is an error when the file is too small to hold so much."""
        if self.limit < self.most:
            raise UnsafeFileError("its values refer to the same parts too many times over")
        self.found[REST] = TOO_MUCH

    def keep_parts(self, path: str, value: object) -> None:
        """Record a value that is no tensor: part by part where it has named parts."""
        mapping = parts_of(value)
        children = self.nested(value) if mapping is None else mapping
        if children is None or len(self.open) > MAX_DEPTH:
            if path:
                cycles = self.display.cycles
                self.put(path, self.display.show(value))
                if self.display.cycles > cycles:
                    self.places.take_cycle(path)
            return
        if not children and path:
            self.put(path, {})
        self.open.add(id(value))
        prefix = f"{path}." if path else ""
        for key, item in children.items():
            if self.display.left < 0:
                break
            self.keep(prefix + key_text(key), item)
        self.open.discard(id(value))

    def put(self, path: str, shown: object) -> None:
        """Record what is shown; of two values with one path the later is `a.b (2)`.

        So are the second of the keys 1 and "1", and {"b": …} under "a" beside "a.b".
        """
        self.found[free_name(path, self.found, self.times)] = shown

    def nested(self, value: object) -> Mapping[object, object] | None:
        """The items of a list or tuple that holds containers or tensors of its own, by index."""
        items = items_of(value) if self.places.is_container(value) else None
        if items is None:
            return None
        looked_at = items[:MAX_LOOKED_AT]
        if not self.places.hold(value) and not any(map(self.places.is_container, looked_at)):
            return None
        return dict(enumerate(items))
