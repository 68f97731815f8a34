"""Whether a model's load_state_dict would take a checkpoint, as notes."""

from collections.abc import Iterator

from modtool.diffs.compare import Options, compare_structure, first
from modtool.diffs.records import Differences, Pair
from modtool.notes import note
from modtool.records import Checkpoint, Note

__all__ = ["notes_on_loading"]

SHOWN = 3
ON_LOAD = ("cast-on-load", "filled-on-load", "own-loading")


def notes_on_loading(model: Checkpoint, checkpoint: Checkpoint) -> Iterator[Note]:
    """What load_state_dict(strict=True) would say, with the command that helps.

    Args:
        model: A definition; its structure is enough.
        checkpoint: What is to be loaded into it.
    """
    found = compare_structure(model, checkpoint, Options())
    fit = found.fit
    assert fit is not None
    if not fit.loads:
        message = f"load_state_dict of {model.target} would refuse it: {'; '.join(refusals(found))}"
        rest = "" if fit.fixed else ", and load with strict=False"
        yield note("does-not-load", "", message, f"{fit.fix}{rest}" if fit.fix else "")
    yield from (each for each in found.notes if each.code in ON_LOAD)


def refusals(found: Differences) -> Iterator[str]:
    """What is missing, unexpected and mismatched, each with its first names."""
    missing = [single.name for single in found.singles if single.side == "a"]
    unexpected = [single.name for single in found.singles if single.side == "b"]
    missing += [change.name for change in found.values if change.sides == ("a",)]
    unexpected += [change.name for change in found.values if change.sides == ("b",)]
    mismatched = [mismatch(pair) for pair in found.pairs if pair.differs]
    kinds = {"missing": missing, "unexpected": unexpected, "mismatched": mismatched}
    for kind, names in kinds.items():
        if names:
            yield f"{len(names):,} {kind} ({first(names, SHOWN)})"


def mismatch(pair: Pair) -> str:
    """What a tensor of the checkpoint is, beside the model's."""
    if "shape" in pair.differs:
        return f"{pair.name} {list(pair.b.shape)} for {list(pair.a.shape)}"
    return f"{pair.name}, {pair.reason}"
