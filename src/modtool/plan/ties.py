"""Tensors that are the same elements under several names."""

from collections.abc import Mapping
from itertools import islice

from modtool.notes import note
from modtool.plan.records import Plan, PlannedTensor
from modtool.plan.views import view_of
from modtool.records import Note
from modtool.sharing import share

__all__ = ["notes_of", "stored_once", "ties_of"]

# More than these are told of together.
MANY = 8
NOT_STRICT = "load_state_dict of a model that ties them needs strict=False"


def ties_of(plan: Plan) -> dict[str, list[PlannedTensor]]:
    """Each of the model's names -> all tensors that are the same elements, itself included."""
    groups: dict[object, list[PlannedTensor]] = {}
    for tensor in plan.model_tensors:
        groups.setdefault(view_of(tensor.source), []).append(tensor)
    return {tensor.name: group for group in groups.values() for tensor in group}


def stored_once(plan: Plan) -> dict[str, str]:
    """In safetensors: the names left out, each with the name that its elements stand under.

    That is the first in alphabetical order, as `safetensors.torch.save_model` chooses. Partners
    that are cast or filled differently are no longer the same and stay.
    """
    if plan.form != "safetensors" or plan.tied == "clone":
        return {}
    groups: dict[object, list[str]] = {}
    for tensor in plan.tensors:
        if tensor.source.numel:
            made = (view_of(tensor.source), tensor.dtype, tensor.fill and tensor.fill.scheme)
            groups.setdefault(made, []).append(tensor.name)
    return {name: min(names) for names in groups.values() for name in names if name != min(names)}


def notes_of(plan: Plan, *, sharded: bool = False) -> tuple[Note, ...]:
    """The plan's notes, and what is to be told of tensors that share their elements no longer.

    Args:
        plan: What is written.
        sharded: Into several files, of which safetensors' `load_model` takes but one.
    """
    if plan.form not in ("safetensors", "dcp") or plan.tied == "clone":
        return plan.notes
    removed = stored_once(plan)
    return (
        *plan.notes,
        *notes_of_removed(removed, sharded=sharded),
        *notes_of_apart(plan, removed),
    )


def notes_of_removed(removed: Mapping[str, str], *, sharded: bool) -> tuple[Note, ...]:
    """What is to be told of tensors that are stored under another's name."""
    if len(removed) > MANY:
        some = ", ".join(islice(removed, 3))
        message = f"{len(removed):,} names are stored once, under another one: {some}, …"
        how = NOT_STRICT if sharded else "load_model restores them"
        return (note("tied-stored-once", "", f"{message}; {how}"),)
    how = NOT_STRICT if sharded else "load_model restores it"
    return tuple(
        note("tied-stored-once", name, f"stored once, as {kept}; {how}")
        for name, kept in removed.items()
    )


def notes_of_apart(plan: Plan, removed: Mapping[str, str]) -> tuple[Note, ...]:
    """What is to be told of ties that a form has no place for, and of views that overlap."""
    stored = [tensor for tensor in plan.tensors if tensor.name not in removed]
    groups: dict[int, list[str]] = {}
    for tensor, first in zip(stored, share([each.source for each in stored]).first, strict=True):
        if first is not None:
            groups.setdefault(first, [stored[first].name]).append(tensor.name)
    if not groups:
        return ()
    names = [", ".join(group) for group in groups.values()]
    some = "; ".join(names[:MANY]) + ("; …" if len(names) > MANY else "")
    return (note("tied-stored-apart", "", f"stored once for each name: {some}"),)
