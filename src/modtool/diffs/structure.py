"""What differs beside values, from headers alone."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from modtool.diffs.records import FIELDS, ModuleChange, Pair, Side, Single, Tie, ValueChange
from modtool.diffs.sides import Entries
from modtool.pickles.display import Abridged
from modtool.records import Checkpoint, ModuleNode, TensorInfo
from modtool.sharing import share

__all__ = ["differing", "fields_known", "is_equal", "module_changes", "pairs_of"]
__all__ += ["record_ties", "singles_of", "ties_of", "value_changes"]

# Containers that know of neither a device nor of tensors that share elements.
PLAIN_FORMATS = frozenset({"safetensors", "safetensors-sharded", "gguf", "npz", "npy", "dcp"})
# Text that containers write about themselves.
OWN_METADATA = frozenset({"format", "total_size"})
MISSING = object()

Comparing = Callable[[TensorInfo, TensorInfo], Iterable[str]]
"""A tensor of A and one of B -> the fields that differ."""


def pairs_of(a: Entries, b: Entries, compared: Comparing) -> Iterator[Pair]:
    """The tensors that both have, with the fields that differ."""
    for name, tensor in a.items():
        other = b.get(name)
        if other is not None:
            yield Pair(name, tensor, other, tuple(compared(tensor, other)))


def fields_known(a: Checkpoint, b: Checkpoint, ignored: Collection[str]) -> tuple[str, ...]:
    """The fields that both containers record and that nobody wants ignored."""
    plain = PLAIN_FORMATS & {a.format, b.format}
    return tuple(
        field for field in FIELDS if field not in ignored and not (plain and field == "device")
    )


def differing(a: TensorInfo, b: TensorInfo, fields: Collection[str]) -> Iterator[str]:
    """The names of the fields that differ; what one side does not record does not."""
    if "shape" in fields and a.shape != b.shape:
        yield "shape"
    if "dtype" in fields and (a.dtype, a.layout) != (b.dtype, b.layout):
        yield "dtype"
    if "device" in fields and a.location != b.location:
        yield "device"
    flags = {a.requires_grad, b.requires_grad}
    if "requires_grad" in fields and flags == {True, False}:
        yield "requires_grad"


def singles_of(a: Entries, b: Entries) -> Iterator[Single]:
    """The tensors that only one side has, those of A first."""
    sides: tuple[tuple[Side, Entries, Entries], ...] = (("a", a, b), ("b", b, a))
    for side, entries, others in sides:
        for name, tensor in entries.items():
            if name not in others:
                yield Single(name, side, tensor)


# -- ties --------------------------------------------------------------------------------------


def ties_of(a: Entries, b: Entries) -> Iterator[Tie]:
    """Groups of names that share elements on one side and not likewise on the other."""
    common = [name for name in a if name in b]
    left, right = groups(a, common), groups(b, common)
    yield from (Tie(names, "a") for names in left if names not in right)
    yield from (Tie(names, "b") for names in right if names not in left)


def groups(entries: Entries, names: Sequence[str]) -> dict[tuple[str, ...], None]:
    """The names that share elements, group by group."""
    found: dict[int, list[str]] = {}
    for index, first in enumerate(share([entries[name] for name in names]).first):
        if first is not None:
            found.setdefault(first, [names[first]]).append(names[index])
    return {tuple(sorted(group)): None for group in found.values()}


def record_ties(a: Checkpoint, b: Checkpoint) -> bool:
    """True when both containers can say what is shared."""
    return not PLAIN_FORMATS & {a.format, b.format}


# -- what is beside tensors --------------------------------------------------------------------


def value_changes(a: Checkpoint, b: Checkpoint) -> Iterator[ValueChange]:
    """The plain values, and the containers' own text, that differ."""
    left, right = dict(a.values), dict(b.values)
    if a.format == b.format:
        left |= text_of(a.metadata)
        right |= text_of(b.metadata)
    known: Known = {}
    for name in dict.fromkeys((*left, *right)):
        one, other = left.get(name, MISSING), right.get(name, MISSING)
        if one is MISSING:
            yield ValueChange(name, ("b",), b=other)
        elif other is MISSING:
            yield ValueChange(name, ("a",), a=one)
        elif not is_equal(one, other, known):
            yield ValueChange(name, ("a", "b"), one, other)


def text_of(metadata: Mapping[str, str]) -> dict[str, object]:
    """A container's text under names that tell where it stands."""
    return {f"__metadata__.{k}": text for k, text in metadata.items() if k not in OWN_METADATA}


Known = dict[tuple[int, int], bool]
"""Pairs of what is not shown whole -> whether they are the same."""


def is_equal(a: object, b: object, known: Known) -> bool:
    """True for the same value of the same type; NaN equals NaN.

    `known` is filled: what stands in a million places is compared once.
    """
    if type(a) is not type(b):
        return False
    if isinstance(a, Abridged) and isinstance(b, Abridged):
        key = id(a.whole), id(b.whole)
        known[key] = known[key] if key in known else a.is_same(b)
        return a == b and known[key]
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(is_equal(a[key], b[key], known) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(
            is_equal(one, other, known) for one, other in zip(a, b, strict=True)
        )
    return bool(a == b) or (a != a and b != b)


def module_changes(a: Checkpoint, b: Checkpoint) -> Iterator[ModuleChange]:
    """The modules that both have, where type, settings or mode differ."""
    several = max(len(sections_of(side)) for side in (a, b)) > 1
    known = {placed(module, several): module for module in b.model_modules if module.type}
    for module in a.model_modules:
        other = known.get(placed(module, several))
        if module.type and other is not None and said(module, other) != said(other, module):
            yield ModuleChange(module.path, said(module, other), said(other, module))


def sections_of(side: Checkpoint) -> set[str | None]:
    """The sections that the modules of a model lie in: more than one for a pair of nets."""
    return {module.section for module in side.model_modules}


def placed(module: ModuleNode, several: bool) -> tuple[str | None, str]:
    """Where a module lies; one of several nets is known by the section, too."""
    return (module.section if several else None), module.path


def said(module: ModuleNode, other: ModuleNode) -> str:
    """A module in words; its mode is said where the two are known to differ in it."""
    text = f"{module.type}({module.settings})"
    if None in (module.training, other.training) or not module.mode_sensitive:
        return text
    return text if module.training == other.training else f"{text} in {mode(module)} mode"


def mode(module: ModuleNode) -> str:
    """`train` or `eval`."""
    return "train" if module.training else "eval"
