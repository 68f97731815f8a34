"""Plans that fill tensors: what does not fit is said before anything is written."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from modtool.errors import UsageError
from modtool.live.fans import Fans, fans, layer_type
from modtool.live.fit import unfit
from modtool.live.initialise import scheme_named
from modtool.notes import note
from modtool.plan import Fill, Plan, PlannedTensor
from modtool.plan.owners import owner
from modtool.records import Note

if TYPE_CHECKING:
    from torch import nn

__all__ = ["fans_for", "fitted", "misfits", "warn_of_guesses", "with_layer_types"]

SHOWN = 20


def misfits(plan: Plan) -> dict[str, str]:
    """Output name -> why its scheme does not fit it, for those that are to be filled and cannot."""
    return {
        tensor.name: reason
        for tensor in plan.tensors
        if tensor.fill is not None and (reason := misfit(tensor, tensor.fill))
    }


def misfit(tensor: PlannedTensor, wanted: Fill) -> str | None:
    """Why the scheme does not fit the tensor that it is to fill; None when it does."""
    if wanted.norms_of is not None:
        return None  # whatever becomes of the direction, it has norms
    return unfit(wanted.scheme, tensor.source.shape, tensor.dtype, wanted.arguments)


def fitted(plan: Plan, reasons: Mapping[str, str], *, skip: bool) -> Plan:
    """The plan without the fills that do not fit their tensors.

    Args:
        plan: What is to be filled.
        reasons: Output name -> why it cannot be.
        skip: Leave those as they are; else they are an error.

    Raises:
        UsageError: There are some and they are not to be skipped, or there are no others.
    """
    filled = {tensor.name for tensor in plan.tensors if tensor.fill is not None}
    if reasons and not skip:
        raise UsageError(
            f"{len(reasons)} of {len(filled)} tensors do not fit: {listed(reasons)}",
            "select others with --pattern, give biases a scheme with --bias, "
            "or leave these as they are with --skip-unfit",
        )
    if reasons and len(reasons) == len(filled):
        raise UsageError(
            f"not one of {len(filled)} tensors fits: {listed(reasons)}",
            "select others with --pattern, or choose another scheme",
        )
    left = tuple(
        replace(tensor, fill=None) if tensor.name in reasons else tensor for tensor in plan.tensors
    )
    notes = (note("left-unfilled", "", f"left as they were: {listed(reasons)}"),) if reasons else ()
    return replace(plan, tensors=left, notes=plan.notes + notes)


def listed(reasons: Mapping[str, str]) -> str:
    """`a.bias, b.bias (eye needs 2 dimensions, this has 1); c.weight (…)`, cut where it is long."""
    names: dict[str, list[str]] = {}
    for name, reason in list(reasons.items())[:SHOWN]:
        names.setdefault(reason, []).append(name)
    more = len(reasons) - SHOWN
    text = "; ".join(f"{', '.join(each)} ({reason})" for reason, each in names.items())
    return text + (f"; and {more} more" if more > 0 else "")


# -- fans --------------------------------------------------------------------------------------


def fans_for(tensor: PlannedTensor, wanted: Fill) -> Fans | None:
    """The fans by which a tensor is filled."""
    return fans(tensor.source.shape, wanted.module_type, name=wanted.name, settings=wanted.settings)


def with_layer_types(plan: Plan, model: "nn.Module") -> Plan:
    """The plan of a live model's tensors, subclasses of layers filled as the layers they are."""
    types = {path: layer_type(each) for path, each in model.named_modules(remove_duplicate=False)}

    def known(fill: Fill) -> Fill:
        return replace(fill, module_type=types.get(owner(fill.name)[0], fill.module_type))

    return replace(
        plan,
        tensors=tuple(
            replace(tensor, fill=known(tensor.fill)) if tensor.fill is not None else tensor
            for tensor in plan.tensors
        ),
    )


def warn_of_guesses(plan: Plan) -> Plan:
    """The plan with a note when a scheme scales by fans that are a guess from the shape."""
    guesses = {
        tensor.fill.name: found
        for tensor in plan.tensors
        if tensor.fill is not None
        and tensor.fill.norms_of is None
        and scheme_named(tensor.fill.scheme).uses_fans
        and (found := fans_for(tensor, tensor.fill)) is not None
        and found.guessed
    }
    if not guesses:
        return plan
    return replace(plan, notes=(*plan.notes, guess_note(guesses)))


def guess_note(guesses: Mapping[str, Fans]) -> Note:
    """One note for all of them."""
    name, found = next(iter(guesses.items()))
    others = len(guesses) - 1
    more = f", and likewise for {others} other{'s' * (others > 1)}" if others else ""
    message = (
        f"fan-in {found.fan_in} and fan-out {found.fan_out} are guessed from the shape, "
        f"as the layer's type is not known{more}; a transposed or grouped layer has others"
    )
    return note("guessed-fans", name, message)
