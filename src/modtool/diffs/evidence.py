"""Whether a change of names is more than two shapes that happen to be equal."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, takewhile
from string import digits

__all__ = ["Shape", "is_proven", "kind_of", "partners", "shared_ends"]

Shape = tuple[int, ...]
# What layers call their tensors: none of these is another one's name.
LEAVES = frozenset({"weight", "bias", "running_mean", "running_var", "num_batches_tracked"})
# Two names of one thing: LayerNorm in TensorFlow's words, and in torch's.
SYNONYMS = {"gamma": "weight", "beta": "bias"}
# How many of many names are looked at for a better partner.
LOOKED_AT = 16
# Up to how many names each is compared with each.
COMPARED = 64


def is_proven(
    hits: Mapping[str, str], left: Mapping[str, Shape], wanted: Mapping[str, Shape]
) -> bool:
    """True for a change that nothing but itself explains.

    One name alone has to keep its last part, and neither side may have another like it. Several
    names that change alike prove each other, unless one of two is more like another name of the
    same shape.

    Args:
        hits: Old name -> new name, of one shape each.
        left: The shapes of all names that are to be explained.
        wanted: Those of all that the other side has.
    """
    if not hits or any(is_crossed(old, new) for old, new in hits.items()):
        return False
    if len(hits) == 1:
        ((old, new),) = hits.items()
        alone = is_alone(old, left) and is_alone(new, wanted)
        return alone and kind_of(old) == kind_of(new)
    looked_at = list(hits.items())[:LOOKED_AT]
    return not any(is_contradicted(old, new, left, wanted) for old, new in looked_at)


def partners(olds: Sequence[str], news: Sequence[str]) -> list[tuple[str, str]]:
    """Old and new names of one shape in pairs: each with the one most like it, else in order.

    Containers that sort names give them another order than a model does.
    """
    in_order = list(zip(olds, news, strict=True))
    if not 1 < len(olds) <= COMPARED:
        return in_order
    found: list[tuple[str, str]] = []
    for old in olds:
        likeness = [likeness_of(old, new) for new in news]
        best = max(likeness)
        if likeness.count(best) > 1:
            return in_order
        found.append((old, news[likeness.index(best)]))
    return found if len({new for _, new in found}) == len(news) else in_order


def kind_of(name: str) -> str:
    """The last part of a name, in torch's words."""
    return SYNONYMS.get(leaf(name), leaf(name))


def leaf(name: str) -> str:
    """The last part of a name."""
    return name.rpartition(".")[2]


def is_crossed(old: str, new: str) -> bool:
    """True where one kind of tensor would become another: a running mean, a weight."""
    kinds = {kind_of(old), kind_of(new)}
    return len(kinds) == 2 and kinds <= LEAVES


def is_alone(name: str, shapes: Mapping[str, Shape]) -> bool:
    """True where no other name has the same last part and the same shape."""
    return next(alternatives(name, shapes), None) is None


def alternatives(name: str, shapes: Mapping[str, Shape]) -> Iterator[str]:
    """Other names with the same last part and the same shape."""
    for other, shape in shapes.items():
        if other != name and shape == shapes[name] and leaf(other) == leaf(name):
            yield other


def is_contradicted(
    old: str, new: str, left: Mapping[str, Shape], wanted: Mapping[str, Shape]
) -> bool:
    """True where one of two names is more like another: `attn.q` like `query`, and not `key`."""
    likeness = likeness_of(old, new)
    pairs = (
        *((old, other) for other in islice(alternatives(new, wanted), COMPARED)),
        *((other, new) for other in islice(alternatives(old, left), COMPARED)),
    )
    return any(likeness_of(*pair) > likeness for pair in pairs)


def likeness_of(one: str, other: str) -> tuple[int, int]:
    """How many parts two names share, and how many letters the other parts begin with alike."""
    left, right = one.split("."), other.split(".")
    shared = Counter(left) & Counter(right)
    rests = [[part for part in parts if part not in shared] for parts in (left, right)]
    pairs = zip(reversed(rests[0]), reversed(rests[1]), strict=False)
    return shared.total(), sum(common_letters(*pair) for pair in pairs)


def common_letters(one: str, other: str) -> int:
    """How many letters two words begin with alike; numbers say nothing."""
    pairs = zip(one.rstrip(digits), other.rstrip(digits), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def shared_ends(old: list[str], new: list[str]) -> tuple[int, int]:
    """How many parts both begin with, and how many both end with; neither is used up by them."""
    least = min(len(old), len(new))
    head = next((i for i in range(least) if old[i] != new[i]), least)
    tail = next((i for i in range(least) if old[-1 - i] != new[-1 - i]), least)
    tail = min(tail, least - 1)
    return min(head, least - tail - 1), tail
