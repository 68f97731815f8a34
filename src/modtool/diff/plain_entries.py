"""Entries of a state_dict that are no tensors, which load_state_dict does not expect."""

from collections.abc import Iterator

from modtool.diff.records import Side, ValueChange
from modtool.diff.sides import model_of
from modtool.pickles.plain import mapping_of
from modtool.plan.tree import at, joined
from modtool.records import ROOT, Checkpoint

__all__ = ["plain_entries"]


def plain_entries(model: Checkpoint, checkpoint: Checkpoint, side: Side) -> Iterator[ValueChange]:
    """What lies beside the tensors of a state_dict, but for what the model itself puts there.

    Args:
        model: What is to load it; what its `state_dict()` has that is no tensor is in its notes.
        checkpoint: A file of torch; others hold no such entries, and a whole model has none.
        side: That of the checkpoint.
    """
    section = model_of(checkpoint)
    if checkpoint.kind == "full_model" or (checkpoint.sections and section is None):
        return
    if section == ROOT:  # the root's tensors alone
        return
    part = checkpoint.root if section is None else at(checkpoint.root, section)
    known = {each.where for each in model.notes if each.code == "not-a-tensor"}
    known |= {name for tensor in checkpoint.model_tensors for name in beginnings(tensor.name)}
    for key in mapping_of(part) or ():
        if isinstance(key, str) and key not in known:
            value = value_at(checkpoint, joined(section or "", key))
            yield ValueChange(key, (side,), **{side: value})


def beginnings(name: str) -> Iterator[str]:
    """A dotted name, and what it lies in."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def value_at(checkpoint: Checkpoint, path: str) -> object:
    """A plain value, or those that lie in a dict, by the rest of their paths."""
    if path in checkpoint.values:
        return checkpoint.values[path]
    start = f"{path}."
    inside = [name for name in checkpoint.values if name.startswith(start)]
    return {name.removeprefix(start): checkpoint.values[name] for name in inside}
