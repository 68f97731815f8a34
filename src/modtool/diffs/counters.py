"""What load_state_dict fills in by itself: BatchNorm's counters, where they were not known yet.

`num_batches_tracked` came with version 2 of BatchNorm (torch 0.4.1). A state_dict of an earlier
version may lack it, and so may one without versions: a plain dict, safetensors, NumPy.
Source: torch 2.13, `torch/nn/modules/batchnorm.py`, `_NormBase._load_from_state_dict`.
"""

from collections.abc import Mapping, Sequence

from modtool.diffs.records import Side, Single
from modtool.diffs.sides import Entries
from modtool.pickles.plain import attributes_of, mapping_of
from modtool.plan.tree import at
from modtool.records import Checkpoint

__all__ = ["filled_in"]

COUNTER = "num_batches_tracked"
BESIDE = "running_mean"
SINCE = 2


def filled_in(
    singles: Sequence[Single], model: Side, checkpoint: Checkpoint, entries: Entries
) -> list[Single]:
    """The counters among what is missing that loading would fill in.

    Args:
        singles: The tensors that one side has.
        model: The side that is the model.
        checkpoint: The other side.
        entries: Its tensors, by the names that they are compared by.
    """
    found = []
    for single in singles:
        above, dot, last = single.name.rpartition(".")
        beside = entries.get(f"{above}{dot}{BESIDE}")
        if single.side == model and last == COUNTER and beside is not None:
            path = beside.name.rpartition(".")[0]
            if version_of(versions(checkpoint, beside.section), path) < SINCE:
                found.append(single)
    return found


def versions(checkpoint: Checkpoint, section: str | None) -> Mapping[object, object]:
    """The `_metadata` that `state_dict()` attaches: a module's path to what it says of itself."""
    part = at(checkpoint.root, section) if section is not None else checkpoint.root
    return mapping_of((attributes_of(part) or {}).get("_metadata")) or {}


def version_of(known: Mapping[object, object], path: str) -> int:
    """The version of one module; 0 where none is recorded."""
    version = (mapping_of(known.get(path)) or {}).get("version")
    return version if isinstance(version, int) else 0
