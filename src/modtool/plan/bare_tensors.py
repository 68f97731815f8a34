"""What Python adds to tensors, a class or attributes: not written, and told of."""

from collections.abc import Iterator
from dataclasses import replace

from modtool.notes import first_names, note
from modtool.pickles.tensor_calls import own_attributes, own_type
from modtool.plan.records import Dropped, Plan
from modtool.plan.tree import joined, path_of
from modtool.plan.views import has_data
from modtool.records import Checkpoint, Note, TensorInfo

__all__ = ["bare", "is_from_state_dict"]

ATTRIBUTE = "an attribute that Python code gave a tensor, of which the elements alone are written"


def is_from_state_dict(source: Checkpoint) -> bool:
    """True for a torch file whose tensors may be Parameters, or of classes of their own.

    In a full model they are too, but a `state_dict()` of it has none of that.
    """
    return source.kind != "full_model" and source.root is not None


def bare(plan: Plan) -> Plan:
    """The plan, with a word on the classes and attributes of its tensors that it does not take."""
    if plan.source.kind == "full_model":
        return plan
    sources = [tensor.source for tensor in plan.tensors if has_data(tensor.source)]
    dropped = [
        Dropped(joined(path_of(source), name), ATTRIBUTE)
        for source in sources
        for name in own_attributes(source.origin)
    ]
    return replace(
        plan, dropped=(*plan.dropped, *dropped), notes=(*plan.notes, *notes_of_types(sources))
    )


def notes_of_types(sources: list[TensorInfo]) -> Iterator[Note]:
    """What is to be told of the classes that become Tensor, each once."""
    places: dict[str, list[str]] = {}
    for source in sources:
        if kind := own_type(source.origin):
            places.setdefault(kind, []).append(path_of(source))
    for kind, paths in places.items():
        yield note("becomes-plain", "", f"{kind} becomes Tensor: {first_names(paths)}")
