"""Which tensors a scheme cannot fill, said before anything is written."""

from dataclasses import replace

from modtool.errors import UsageError
from modtool.live.fit import unfit
from modtool.plan import Plan, PlannedTensor

__all__ = ["fitted"]


def fitted(plan: Plan, *, skip: bool) -> Plan:
    """The plan without fills that do not fit their tensors.

    Raises:
        UsageError: There are some, and they are not to be skipped.
    """
    filled = [tensor for tensor in plan.tensors if tensor.fill is not None]
    reasons = {tensor.name: reason for tensor in filled if (reason := misfit(tensor))}
    if reasons and (not skip or len(reasons) == len({tensor.name for tensor in filled})):
        listed = ", ".join(list(reasons)[:5]) + (", …" if len(reasons) > 5 else "")
        raise UsageError(
            f"{len(reasons)} of {len(filled)} tensors do not fit: {listed} "
            f"({next(iter(reasons.values()))})",
            "select others with --pattern, or leave these as they are with --skip-unfit",
        )
    return replace(
        plan,
        tensors=tuple(
            replace(tensor, fill=None) if tensor.name in reasons else tensor
            for tensor in plan.tensors
        ),
    )


def misfit(tensor: PlannedTensor) -> str | None:
    """Why the scheme does not fit the tensor that it is to fill; None when it does."""
    wanted = tensor.fill
    assert wanted is not None
    return unfit(wanted.scheme, tensor.source.shape, tensor.dtype, wanted.arguments)
