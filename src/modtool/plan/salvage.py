"""What is left of a damaged source: everything but the tensors whose bytes are lost."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from modtool.errors import CorruptFileError
from modtool.formats.dcp_items import locate
from modtool.pickles.torch_values import storage_ids_in
from modtool.plan.records import Dropped, Plan, PlannedTensor
from modtool.plan.tree import joined
from modtool.records import Storage, TensorInfo

__all__ = ["salvage", "storages_of"]

MAX_NESTED = 100


def salvage(plan: Plan, damage: Callable[[Storage], str]) -> Plan:
    """The plan without the tensors that are damaged; they and those that are lost are listed.

    Args:
        plan: What is to be written.
        damage: What is wrong with the bytes of a storage; "" where nothing is.

    Raises:
        CorruptFileError: Nothing is left.
    """
    known: dict[str, str] = {}

    def why(tensor: PlannedTensor) -> str:
        for storage in storages_of(tensor.source, plan):
            if storage.key not in known:
                known[storage.key] = damage(storage)
            if known[storage.key]:
                return known[storage.key]
        return ""

    reasons = [why(tensor) for tensor in plan.tensors]
    kept = tuple(tensor for tensor, reason in zip(plan.tensors, reasons, strict=True) if not reason)
    if plan.tensors and not kept:
        raise CorruptFileError(
            f"{plan.source.target}: not one of its {len(reasons):,} tensors is whole"
        )
    damaged = (
        (joined(tensor.section or "", tensor.name).rstrip("."), reason)
        for tensor, reason in zip(plan.tensors, reasons, strict=True)
        if reason
    )
    dropped = tuple(
        Dropped(name, reason, lost=True) for name, reason in (*damaged, *plan.source.lost.items())
    )
    flags = plan.requires_grad
    if flags is not None:
        names = {tensor.name for tensor in kept if tensor.section in plan.models}
        flags = {name: flag for name, flag in flags.items() if name in names}
    return replace(plan, tensors=kept, dropped=plan.dropped + dropped, requires_grad=flags)


def storages_of(tensor: TensorInfo, plan: Plan) -> Iterator[Storage]:
    """Every storage that a tensor needs: its own, or those of its parts (sparse, in blocks)."""
    blocks = (locate(tensor, chunk).storage for chunk in tensor.chunks)
    yield from (storage for storage in blocks if storage is not None)
    if tensor.storage is not None:
        yield tensor.storage
        return
    for identifier in storage_ids_in([tensor.origin], MAX_NESTED):
        if identifier.key in plan.source.storages:
            yield plan.source.storages[identifier.key]
