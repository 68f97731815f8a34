"""Which names were likely changed: prefixes first, then parts, judged by shape and position."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from modtool.diffs.evidence import Shape, is_proven, kind_of, partners, shared_ends
from modtool.diffs.records import Renaming
from modtool.diffs.sides import automatic
from modtool.names import AUTO, WRAPPERS, Renamer, in_turn, renamer, stripped
from modtool.plan.renames import unwrapped

__all__ = ["Found", "Shapes", "likely_renamings"]

Shapes = Mapping[str, Shape]
"""Name -> shape."""

MOST = 8
# Rules that are tried in one round, and how many names they may be tried on in all.
TRIED = 48
TRIED_NAMES = 200_000
# With more names than this, only prefixes are looked for.
LARGEST = 20_000
# The share of the names that a rule changes which it has to bring together.
CLEAN = 0.8
# The share of all names that a rule has to bring together to be more than chance.
TELLING = 0.01
# The share of the names of the smaller side that parts of names have to explain to be told.
MOST_OF = 0.5
DEEPEST_PREFIX = 4


@dataclass(frozen=True, slots=True)
class Found:
    """What is likely.

    Attributes:
        renamings: Options to type, in the order in which they apply.
        names: Old name -> new name, for the names that they bring together.
        left: Old name -> what the renamings make of it, for all other old names.
        added: The prefix that the old names lack, when that is what was found.
        change: What the renamings make of any name.
    """

    renamings: tuple[Renaming, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    left: Mapping[str, str] = field(default_factory=dict)
    added: str = ""
    change: Renamer = str


def likely_renamings(old: Shapes, new: Shapes, common: Sequence[str]) -> Found:
    """What to do to old names so that they become new ones.

    Args:
        old: The names that only the old side has, in order.
        new: The names that only the new side has, in order.
        common: The names of both, which are to stay as they are.
    """
    search = searched(old, new, common)
    if len(search.names) < MOST_OF * min(len(old), len(new)):
        search = searched(old, new, common, rules=False)
    left = {before: now for now, before in search.before.items()}
    change = in_turn(search.changes)
    return Found(tuple(search.renamings), search.names, left, search.added, change)


def searched(old: Shapes, new: Shapes, common: Sequence[str], *, rules: bool = True) -> "Search":
    """What a search ends with; without rules it looks for prefixes alone."""
    search = Search(dict(old), dict(new), tuple(common))
    search.try_prefixes()
    while rules and search.left and search.wanted and len(search.renamings) < MOST:
        if not search.try_rules():
            break
    return search


class Search:
    """What is left to explain, and what has been explained.

    Attributes:
        left: Current name -> shape, of the old names that are not explained.
        wanted: Name -> shape, of the new names that are not explained.
        names: Old name -> new name.
        before: Current name -> old name.
        renamings: What was found so far.
        changes: The functions of these.
        added: The prefix that the old names lack, once that is known.
    """

    def __init__(
        self,
        left: dict[str, Shape],
        wanted: dict[str, Shape],
        common: tuple[str, ...],
    ) -> None:
        self.left = left
        self.wanted = wanted
        self.common = common
        self.names: dict[str, str] = {}
        self.before = {name: name for name in left}
        self.renamings: list[Renaming] = []
        self.changes: list[Renamer] = []
        self.added = ""

    # -- prefixes --------------------------------------------------------------------------

    def try_prefixes(self) -> None:
        """A prefix on one side that the other lacks."""
        inner = automatic([*self.left, *self.common])
        if self.hits(inner) and any(unwrapped(name) != name for name in self.left):
            self.accept("--strip-prefix", AUTO, inner)
            return
        taken = best(prefixes_of(self.left), lambda prefix: self.clean_hits(cut(prefix)))
        put = best(prefixes_of(self.wanted), lambda prefix: self.clean_hits(add(prefix)))
        if taken and self.clean_hits(cut(taken)) >= (self.clean_hits(add(put)) if put else 0):
            self.accept("--strip-prefix", taken, cut(taken))
        elif put:
            self.added = put
            self.accept("--strip-prefix", put, add(put))

    # -- parts of names ------------------------------------------------------------------------

    def try_rules(self) -> bool:
        """The one rule that brings the most names together; False when there is none."""
        if max(len(self.left), len(self.wanted)) > LARGEST:
            return False
        found: tuple[int, int, str] = (1, -1000, "")
        for text in self.tried():
            hits = self.clean_hits(renamer(text))
            better = hits >= TELLING * len(self.left) and (hits, -len(text)) > found[:2]
            if better and is_proven(self.hits(renamer(text)), self.left, self.wanted):
                found = (hits, -len(text), text)
            if hits == len(self.left):
                break
        if found[2]:
            self.accept("--rename", found[2], renamer(found[2]))
        return bool(found[2])

    def tried(self) -> Iterator[str]:
        """The first rules that there are to try, each once; fewer where there are many names."""
        seen: set[str] = set()
        most = min(TRIED, max(4, TRIED_NAMES // len(self.left)))
        for text in self.candidates():
            if len(seen) == most:
                break
            if text not in seen:
                seen.add(text)
                yield text

    def candidates(self) -> Iterator[str]:
        """Rules that explain the names that probably belong together, general ones first."""
        for old, new in self.likely_pairs():
            yield from rules_for(old.split("."), new.split("."))

    def likely_pairs(self) -> Iterator[tuple[str, str]]:
        """Names with one shape (and one last part), in their order, where there are as many."""
        rest_old, rest_new = dict(self.left), dict(self.wanted)
        for key in (by_leaf, by_shape):
            left, right = grouped(rest_old, key), grouped(rest_new, key)
            for group, olds in left.items():
                news = right.get(group, [])
                if len(olds) == len(news):
                    yield from partners(olds, news)
                    for old, new in zip(olds, news, strict=True):
                        del rest_old[old], rest_new[new]

    # -- what both share -----------------------------------------------------------------------

    def hits(self, change: Renamer) -> dict[str, str]:
        """Current name -> new name, for what a change brings together; {} where two collide."""
        changed = {name: change(name) for name in self.left}
        if len({*changed.values(), *self.common}) < len(changed) + len(self.common):
            return {}
        return {
            name: new
            for name, new in changed.items()
            if new != name and self.wanted.get(new) == self.left[name]
        }

    def clean_hits(self, change: Renamer) -> int:
        """How many names a change brings together; 0 where it spoils more than a few."""
        if any(change(name) != name for name in self.common):
            return 0
        hits = len(self.hits(change))
        touched = sum(change(name) != name for name in self.left)
        return hits if hits >= CLEAN * touched else 0

    def accept(self, option: str, value: str, change: Renamer) -> None:
        """Take a change for what happened."""
        hits = self.hits(change)
        reason = "" if option == "--rename" else reason_for(value)
        self.renamings.append(Renaming(option, value, len(hits), reason))
        self.changes.append(change)
        left: dict[str, Shape] = {}
        before: dict[str, str] = {}
        for name, shape in self.left.items():
            if name in hits:
                self.names[self.before[name]] = hits[name]
                del self.wanted[hits[name]]
            else:
                left[change(name)] = shape
                before[change(name)] = self.before[name]
        self.left, self.before = left, before


def cut(prefix: str) -> Renamer:
    """What takes a prefix off."""
    return lambda name: stripped(name, [prefix])


def add(prefix: str) -> Renamer:
    """What puts a prefix on."""
    return lambda name: prefix + name


def best(prefixes: Sequence[str], hits: Callable[[str], int]) -> str:
    """The prefix that brings the most names together, the shortest; "" where none brings any."""
    scored = [(hits(prefix), -len(prefix), prefix) for prefix in prefixes]
    found = max(scored, default=(0, 0, ""))
    return found[2] if found[0] else ""


def prefixes_of(names: Mapping[str, object]) -> list[str]:
    """`a.`, `a.b.`, … of the first name, and the wrappers' own."""
    parts = next(iter(names), "").split(".")[:-1][:DEEPEST_PREFIX]
    heads = [".".join(parts[:end]) + "." for end in range(1, len(parts) + 1)]
    return list(dict.fromkeys((*WRAPPERS, *heads)))


def reason_for(prefix: str) -> str:
    """What puts a prefix before names."""
    if prefix == AUTO:
        return "torch.compile, FSDP or checkpointing inside"
    known = [WRAPPERS[f"{part}."] for part in prefix.split(".") if f"{part}." in WRAPPERS]
    return ", ".join(dict.fromkeys(known))


def rules_for(old: list[str], new: list[str]) -> Iterator[str]:
    """`OLD=NEW` for one pair of names: for the part that differs anywhere, there, or just here."""
    if any(character in part for part in (*old, *new) for character in "*?[="):
        return
    head, tail = shared_ends(old, new)
    middle_old, middle_new = old[head : len(old) - tail], new[head : len(new) - tail]
    before, after = old[:head], old[len(old) - tail :]
    for more in range(tail + 1):  # what follows tells them apart from names that are to stay
        ends = middle_old + after[:more], middle_new + after[:more]
        if numbers_in(middle_old) == numbers_in(middle_new):
            for context in ([["*"]] if before else []) + [before]:
                yield rule(starred(context), *map(starred, ends))
        yield rule(before, *ends)


def rule(context: list[str], old: list[str], new: list[str]) -> str:
    """`context.old=context.new`."""
    return f"{'.'.join(context + old)}={'.'.join(context + new)}"


def numbers_in(parts: list[str]) -> list[str]:
    """The parts that are numbers."""
    return [part for part in parts if part.isdigit()]


def starred(parts: list[str]) -> list[str]:
    """The parts with a star for every number."""
    return ["*" if part.isdigit() else part for part in parts]


def by_leaf(name: str, shape: Shape) -> object:
    """The last part of a name, and the shape."""
    return kind_of(name), shape


def by_shape(name: str, shape: Shape) -> object:
    """The shape alone."""
    return shape


def grouped(
    names: Mapping[str, Shape], key: Callable[[str, Shape], object]
) -> dict[object, list[str]]:
    """Names by a key, in order."""
    groups: dict[object, list[str]] = {}
    for name, shape in names.items():
        groups.setdefault(key(name, shape), []).append(name)
    return groups
