"""One side of a comparison: its tensors by the names that they are compared under."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from modtool.errors import UsageError
from modtool.names import AUTO, Renamer, mapped, shared_prefixes, stripped
from modtool.patterns import select
from modtool.pickles.values import free_name
from modtool.plan import types_of
from modtool.plan.renames import completed, unwrapped
from modtool.records import Checkpoint, TensorInfo

__all__ = [
    "Entries",
    "automatic",
    "entries_of",
    "model_of",
    "named_anew",
    "only",
    "taking_off",
    "without_prefixes",
]

Entries = Mapping[str, TensorInfo]
"""Name -> tensor; names outside the model's section begin with that of their own."""


@dataclass(frozen=True, slots=True)
class Names:
    """How tensors are called: those of the section `model` as `state_dict()` has them.

    `taken` are the names that these have on either side: {"model": {"ema.weight": …}, "ema":
    {"weight": …}} holds two tensors, and the second is `ema:weight` then.
    """

    model: str | None
    taken: Collection[str]

    def of(self, tensor: TensorInfo) -> str:
        """What a tensor is compared as."""
        if tensor.section in (None, self.model):
            return tensor.name
        name = tensor.full_name
        return f"{tensor.section}:{tensor.name}" if name in self.taken else name


def entries_of(
    a: Checkpoint, b: Checkpoint, *, model_only: bool = False
) -> tuple[dict[str, TensorInfo], dict[str, TensorInfo]]:
    """The tensors of both sides by name: those of a lone model section as `state_dict()` has them.

    Args:
        a: One side.
        b: The other.
        model_only: Leave out what belongs to no model, and buffers that `state_dict()` leaves out.
    """
    models = [model_of(side) for side in (a, b)]
    taken = {
        tensor.name
        for side, model in zip((a, b), models, strict=True)
        for tensor in side.tensors
        if tensor.section in (None, model)
    }
    left, right = (
        by_name(side, Names(model, taken), model_only=model_only)
        for side, model in zip((a, b), models, strict=True)
    )
    return left, right


def model_of(checkpoint: Checkpoint) -> str | None:
    """The one section whose names stand alone; None where there are several, or no sections."""
    models = [part.name for part in checkpoint.sections if part.role == "model"]
    if len(models) == 1:
        return models[0]
    sections = {tensor.section for tensor in checkpoint.tensors}
    # Without a list of sections, a section is all that was taken of the file.
    return next(iter(sections)) if not checkpoint.sections and len(sections) == 1 else None


def by_name(checkpoint: Checkpoint, names: Names, *, model_only: bool) -> dict[str, TensorInfo]:
    """One side's tensors; of two with one name (keys such as 1 and "1") the later is `1 (2)`."""
    found: dict[str, TensorInfo] = {}
    times: Counter[str] = Counter()
    for tensor in checkpoint.model_tensors if model_only else checkpoint.tensors:
        if tensor.persistent or not model_only:
            found[free_name(names.of(tensor), found, times)] = tensor
    return found


def without_prefixes(
    a: Entries, b: Entries, prefixes: Sequence[str]
) -> tuple[dict[str, TensorInfo], dict[str, TensorInfo]]:
    """Both sides with prefixes taken off their names; one that no name has is an error."""
    for prefix in prefixes:
        if prefix != AUTO and not any(prefix in name for name in (*a, *b)):
            raise UsageError(f"no name begins with {prefix!r}", hint_of(a, b))
    return strip(a, prefixes), strip(b, prefixes)


def strip(entries: Entries, prefixes: Sequence[str]) -> dict[str, TensorInfo]:
    """One side with prefixes taken off its names."""
    return changed(entries, taking_off(list(entries), prefixes))


def taking_off(names: Sequence[str], prefixes: Sequence[str]) -> Renamer:
    """What `--strip-prefix` does to some names."""
    known = [completed(prefix, names) for prefix in prefixes if prefix != AUTO]
    return automatic(names, known) if AUTO in prefixes else partial(stripped, prefixes=known)


def automatic(names: Sequence[str], prefixes: Sequence[str] = ()) -> Renamer:
    """What `--strip-prefix auto` does to some names, other prefixes taken off, too."""
    whole = (*prefixes, *shared_prefixes([unwrapped(name) for name in names]))
    return lambda name: stripped(unwrapped(name), whole)


def hint_of(a: Entries, b: Entries) -> str:
    """The first name of each side."""
    firsts = [next(iter(entries)) for entries in (a, b) if entries]
    return f"names begin like {' and '.join(firsts)}" if firsts else "there are no names at all"


def changed(entries: Entries, change: Renamer) -> dict[str, TensorInfo]:
    """One side under other names."""
    names = mapped(list(entries), change)
    return {names[name]: tensor for name, tensor in entries.items()}


def named_anew(entries: Entries, renamings: Mapping[str, Renamer]) -> dict[str, TensorInfo]:
    """One side with renamings applied in order; one that changes no name is an error."""
    for text, rename in renamings.items():
        after = changed(entries, rename)
        if list(after) == list(entries):
            raise UsageError(
                f"--rename {text} changes no name", hint_of(entries, {}).replace("begin", "are")
            )
        entries = after
    return dict(entries)


def only(
    a: tuple[Entries, Checkpoint], b: tuple[Entries, Checkpoint], patterns: Sequence[str]
) -> tuple[dict[str, TensorInfo], dict[str, TensorInfo]]:
    """Both sides with nothing but what patterns select among the names of either."""
    types = {**types_by_name(*b), **types_by_name(*a)}
    names = list(dict.fromkeys((*a[0], *b[0])))
    chosen = frozenset(select(patterns, names, types or None))
    left, right = (
        {name: tensor for name, tensor in entries.items() if name in chosen}
        for entries in (a[0], b[0])
    )
    return left, right


def types_by_name(entries: Entries, checkpoint: Checkpoint) -> dict[str, str]:
    """Name in the comparison -> class name of the module that owns it, where that is known."""
    known = types_of(checkpoint) or {}
    return {name: known[tensor.name] for name, tensor in entries.items() if tensor.name in known}
