"""Whether a change of names is more than two shapes that happen to be equal."""

from collections.abc import Iterator, Mapping
from itertools import takewhile
from string import digits

__all__ = ["Shape", "is_proven", "shared_ends"]

Shape = tuple[int, ...]
# What layers call their tensors: none of these is another one's name.
LEAVES = frozenset({"weight", "bias", "running_mean", "running_var", "num_batches_tracked"})
# Two names of one thing: LayerNorm in TensorFlow's words, and in torch's.
SYNONYMS = frozenset({frozenset({"gamma", "weight"}), frozenset({"beta", "bias"})})
# How many of many names are looked at for a better partner.
LOOKED_AT = 16


def is_proven(
    hits: Mapping[str, str], left: Mapping[str, Shape], wanted: Mapping[str, Shape]
) -> bool:
    """True for a change that nothing but itself explains.

    One name alone has to keep its last part, and neither side may have another like it. Several
    names that change alike prove each other, unless the shapes fit another name that is more like
    the old one.

    Args:
        hits: Old name -> new name, of one shape each.
        left: The shapes of all names that are to be explained.
        wanted: Those of all that the other side has.
    """
    if not hits or any(is_crossed(leaf(old), leaf(new)) for old, new in hits.items()):
        return False
    if len(hits) == 1:
        ((old, new),) = hits.items()
        alone = is_alone(old, left) and is_alone(new, wanted)
        return alone and is_same_leaf(leaf(old), leaf(new))
    looked_at = list(hits.items())[:LOOKED_AT]
    return not any(has_better(old, new, wanted) for old, new in looked_at)


def leaf(name: str) -> str:
    """The last part of a name."""
    return name.rpartition(".")[2]


def is_crossed(old: str, new: str) -> bool:
    """True where one kind of tensor would become another: a running mean, a weight."""
    return old != new and {old, new} <= LEAVES


def is_same_leaf(old: str, new: str) -> bool:
    """True for one last part, or two words for it."""
    return old == new or frozenset({old, new}) in SYNONYMS


def is_alone(name: str, shapes: Mapping[str, Shape]) -> bool:
    """True where no other name has the same last part and the same shape."""
    return next(alternatives(name, shapes), None) is None


def alternatives(name: str, shapes: Mapping[str, Shape]) -> Iterator[str]:
    """Other names with the same last part and the same shape."""
    for other, shape in shapes.items():
        if other != name and shape == shapes[name] and leaf(other) == leaf(name):
            yield other


def has_better(old: str, new: str, wanted: Mapping[str, Shape]) -> bool:
    """True where another name begins more like the old one, where that differs: `q`, not `k`."""
    parts, now = old.split("."), new.split(".")
    head, _ = shared_ends(parts, now)
    likeness = common_letters(parts[head], now[head])
    for other in alternatives(new, wanted):
        others = other.split(".")
        beside = others[:head] == now[:head] and len(others) == len(now)
        if beside and common_letters(parts[head], others[head]) > likeness:
            return True
    return False


def common_letters(one: str, other: str) -> int:
    """How many letters two words begin with alike; digits say nothing."""
    pairs = zip(one.rstrip(digits), other.rstrip(digits), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def shared_ends(old: list[str], new: list[str]) -> tuple[int, int]:
    """How many parts both begin with, and how many both end with; neither is used up by them."""
    least = min(len(old), len(new))
    head = next((i for i in range(least) if old[i] != new[i]), least)
    tail = next((i for i in range(least) if old[-1 - i] != new[-1 - i]), least)
    tail = min(tail, least - 1)
    return min(head, least - tail - 1), tail
