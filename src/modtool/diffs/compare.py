"""Two checkpoints to what differs between them; values come in later, and only where asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from modtool.diffs.counters import filled_in
from modtool.diffs.fitting import explained_pairs, explained_singles, fit_of, misfits
from modtool.diffs.plain_entries import Beside, beside_tensors_of, without_extra_states
from modtool.diffs.records import Differences, Measure, Pair, Side, Single, Tolerance, Verdict
from modtool.diffs.renamings import Found, likely_renamings
from modtool.diffs.sides import Entries, entries_of, named_anew, only, taking_off, without_prefixes
from modtool.diffs.structure import (
    Comparing,
    differing,
    fields_known,
    module_changes,
    pairs_of,
    record_ties,
    singles_of,
    ties_of,
    value_changes,
)
from modtool.diffs.weight_norms import as_parametrized
from modtool.names import Renamer, in_turn, renamer
from modtool.notes import note
from modtool.pickles.values import is_cut
from modtool.records import Checkpoint, Note, TensorInfo

__all__ = ["IGNORABLE", "Ignorable", "Options", "comparable", "compare_structure", "in_one_shape"]
__all__ += ["first", "with_values"]

Ignorable = Literal["dtype", "device", "requires_grad", "ties", "values", "modules"]
IGNORABLE: tuple[Ignorable, ...] = (
    "dtype",
    "device",
    "requires_grad",
    "ties",
    "values",
    "modules",
)


@dataclass(frozen=True, slots=True)
class Options:
    """What to compare, and under which names.

    Attributes:
        only: Patterns of the tensors to compare; with any, nothing but tensors is compared.
        rename: `OLD=NEW`, for the names of A, or of the checkpoint when the other is a model.
        strip_prefix: Prefixes to take off the names of both.
        section: The section that both were narrowed to.
        ignore: What is not to count, of `IGNORABLE`; `values` are the plain ones.
    """

    only: tuple[str, ...] = ()
    rename: tuple[str, ...] = ()
    strip_prefix: tuple[str, ...] = ()
    section: str | None = None
    ignore: tuple[Ignorable, ...] = ()

    @property
    def words(self) -> list[str]:
        """Those of them that convert knows, as words of a command line."""
        section = ["--section", self.section] if self.section is not None else []
        prefixes = [word for each in self.strip_prefix for word in ("--strip-prefix", each)]
        return section + prefixes + [word for each in self.rename for word in ("--rename", each)]


def compare_structure(a: Checkpoint, b: Checkpoint, options: Options) -> Differences:
    """What differs beside the tensors' values. When one side is a model, what does not fit.

    Raises:
        UsageError: A pattern or prefix selects nothing, a renaming changes nothing or collides.
    """
    model = model_side(a, b)
    old: Side = "b" if model == "a" else "a"
    left, right = named(a, b, old, options, model_only=model is not None)
    if model:
        left, right = without_extra_states(left), without_extra_states(right)
        if model == "a":
            right = as_parametrized(a.modules, right)
        else:
            left = as_parametrized(b.modules, left)
    pairs = tuple(pairs_of(left, right, comparing(a, b, options)))
    both: dict[Side, tuple[Checkpoint, Entries]] = {"a": (a, left), "b": (b, right)}
    singles = tuple(singles_of(left, right))
    counters = filled_in(singles, model, *both[old]) if model else []
    singles = tuple(single for single in singles if single not in counters)
    found = renamings(pairs, singles, old)
    fitted = (model, both[model][1]) if model else None
    singles = tuple(explained_singles(singles, found, old, fitted))
    made = Differences(
        targets={"a": a.target, "b": b.target},
        pairs=tuple(explained_pairs(pairs, model)),
        singles=singles,
        renamings=found.renamings,
        notes=tuple(warnings(a, b)),
    )
    if model:
        beside = beside_of(both[model][0], both[old][0], options)
        apart = [Single(pair.name, model, pair.a) for pair in pairs if pair.differs]
        filled = [single.name for single in filled_in(apart, model, *both[old])]
        fit = fit_of(pairs, singles, found, model, both[old][0], beside, filled, options.words)
        own = own_loading_notes(both[model][0])
        told = (*made.notes, *cast_notes(pairs), *counter_notes(counters), *own)
        return replace(made, fit=fit, values=tuple(beside.changes(model)), notes=told)
    return beside_tensors(made, (a, left), (b, right), options)


def beside_of(model: Checkpoint, checkpoint: Checkpoint, options: Options) -> Beside:
    """What lies beside the tensors that a model is to load, unless some were chosen."""
    if options.only:
        return Beside()
    names = [tensor.name for tensor in checkpoint.model_tensors]
    changes: list[Renamer] = [taking_off(names, options.strip_prefix)]
    changes += map(renamer, options.rename)
    return beside_tensors_of(model, checkpoint, in_turn(changes))


def comparing(a: Checkpoint, b: Checkpoint, options: Options) -> Comparing:
    """How two tensors of one name are compared: where one side is a model, whether they fit."""
    model = model_side(a, b)
    if model is None:
        return partial(differing, fields=fields_known(a, b, options.ignore))
    return misfits if model == "a" else lambda given, wanted: misfits(wanted, given)


def model_side(a: Checkpoint, b: Checkpoint) -> Side | None:
    """The side that is a model definition, when the other is none."""
    if (a.kind == "model") == (b.kind == "model"):
        return None
    return "a" if a.kind == "model" else "b"


def named(
    a: Checkpoint, b: Checkpoint, old: Side, options: Options, *, model_only: bool
) -> tuple[Entries, Entries]:
    """The tensors of both sides under the names that they are compared by."""
    left: Entries
    right: Entries
    left, right = entries_of(a, b, model_only=model_only)
    if options.strip_prefix:
        left, right = without_prefixes(left, right, options.strip_prefix)
    if options.rename:
        rules = {text: renamer(text) for text in options.rename}
        if old == "a":
            left = named_anew(left, rules)
        else:
            right = named_anew(right, rules)
    if options.only:
        left, right = only((left, a), (right, b), options.only)
    return left, right


def renamings(pairs: Sequence[Pair], singles: Sequence[Single], old: Side) -> Found:
    """Which names were likely changed, between those that only one side has."""
    sides: dict[bool, dict[str, tuple[int, ...]]] = {True: {}, False: {}}
    for single in singles:
        sides[single.side == old][single.name] = single.tensor.shape
    return likely_renamings(sides[True], sides[False], [pair.name for pair in pairs])


def beside_tensors(
    made: Differences,
    a: tuple[Checkpoint, Entries],
    b: tuple[Checkpoint, Entries],
    options: Options,
) -> Differences:
    """The same with ties, plain values and modules, where they are to count."""
    ties = "ties" not in options.ignore and record_ties(a[0], b[0])
    values = "values" not in options.ignore and not options.only
    modules = "modules" not in options.ignore and not options.only
    return replace(
        made,
        notes=(*made.notes, *(cut_notes(a[0], b[0]) if values else ())),
        ties=tuple(ties_of(a[1], b[1])) if ties else (),
        values=tuple(value_changes(a[0], b[0])) if values else (),
        modules=tuple(module_changes(a[0], b[0])) if modules else (),
    )


def warnings(a: Checkpoint, b: Checkpoint) -> list[Note]:
    """What reading the two brought up, each once, but for mere remarks."""
    return [n for n in dict.fromkeys((*a.notes, *b.notes)) if n.level != "note"]


def cut_notes(a: Checkpoint, b: Checkpoint) -> list[Note]:
    """A note when there are plain values that nobody has looked at."""
    cut = " and ".join(name for name, each in (("A", a), ("B", b)) if is_cut(each.values))
    message = f"more plain values in {cut} than are looked at: the rest could not be compared"
    return [note("values-not-compared", "", message)] if cut else []


def cast_notes(pairs: Sequence[Pair]) -> list[Note]:
    """A note when loading would cast."""
    fitting = [pair for pair in pairs if not pair.differs]
    cast = [pair.name for pair in fitting if pair.a.dtype != pair.b.dtype]
    message = f"load_state_dict would cast {len(cast)} to the model's dtype: {first(cast)}"
    return [note("cast-on-load", "", message)] if cast else []


def own_loading_notes(model: Checkpoint) -> list[Note]:
    """A note when code of the user's takes part in loading, which nobody asks here."""
    names = [node.path or "the model itself" for node in model.modules if node.loads_itself]
    message = f"code of its own takes part in load_state_dict, and is not run here: {first(names)}"
    return [note("own-loading", "", message)] if names else []


def counter_notes(counters: Sequence[Single]) -> list[Note]:
    """A note when loading would fill in counters of BatchNorm."""
    names = [single.name for single in counters]
    message = f"load_state_dict would fill in {len(names)}, as of an old BatchNorm: {first(names)}"
    return [note("filled-on-load", "", message)] if names else []


def first(names: Sequence[str], count: int = 4) -> str:
    """The first few names."""
    return ", ".join(names[:count]) + (", …" if len(names) > count else "")


# -- values ------------------------------------------------------------------------------------


def comparable(differences: Differences) -> list[int]:
    """The indices of the pairs whose values can be set side by side."""
    return [i for i, pair in enumerate(differences.pairs) if "shape" not in pair.differs]


def in_one_shape(pair: Pair) -> tuple[TensorInfo, TensorInfo]:
    """A pair whose shapes do not differ, or do as (1,) from (), which is one element too."""
    if pair.a.shape == pair.b.shape:
        return pair.a, pair.b
    a, b = (replace(each, shape=(1,), stride=None) for each in (pair.a, pair.b))
    return a, b


def with_values(
    differences: Differences,
    equal: Mapping[int, bool | None],
    measures: Mapping[int, Measure | None],
    tolerance: Tolerance | None,
) -> Differences:
    """The same with what is known of values.

    Args:
        differences: What differs beside values.
        equal: Index of a pair -> whether it is equal to the bit; None where that is not known.
        measures: Index of a pair -> how far apart it is, for those that are not known to be equal.
        tolerance: How close values have to be; None for equal to the bit.
    """
    pairs = list(differences.pairs)
    for index, known in equal.items():
        measure = measures.get(index)
        verdict = verdict_of(known, measure, tolerance)
        shown = measure if verdict in ("close", "different") else None
        pairs[index] = replace(pairs[index], verdict=verdict, measure=shown)
    unknown = [pair.name for pair in pairs if pair.verdict == "unknown"]
    message = f"the values of {len(unknown)} could not be compared: {first(unknown)}"
    notes = [note("values-not-compared", "", message)] if unknown else []
    return replace(
        differences,
        pairs=tuple(pairs),
        tolerance=tolerance,
        notes=(*differences.notes, *notes),
    )


def verdict_of(equal: bool | None, measure: Measure | None, tolerance: Tolerance | None) -> Verdict:
    """What is known of the values of one pair."""
    if equal:
        return "equal"
    if measure is None:
        return "unknown" if equal is None else "different"
    if measure.identical:
        return "equal"
    if tolerance is not None and measure.is_within(tolerance):
        return "close"
    return "different"
