"""Planned tensors as the symbols that torch writes for them."""

from dataclasses import dataclass

from modtool.errors import OutputError
from modtool.pickles.flags import parameter_flag, saved_flag
from modtool.pickles.symbols import Call, Global, PersistentId
from modtool.plan import Plan, PlannedTensor
from modtool.plan.bare_tensors import is_from_state_dict
from modtool.plan.views import math_bits
from modtool.records import DTYPES
from modtool.write.storages import Placement, Record

__all__ = ["StorageOf", "name", "rebuilt", "tensor_symbol"]

NAMES: dict[tuple[str, str], Global] = {}


@dataclass(frozen=True, slots=True)
class StorageOf:
    """What a persistent id refers to while its record has no key yet."""

    record: Record
    storage_class: Global
    numel: int


def name(module: str, text: str) -> Global:
    """The symbol of a name, the same one each time."""
    return NAMES.setdefault((module, text), Global(module, text))


def ordered_dict() -> Call:
    """An empty OrderedDict: the hooks of one tensor, so never shared between two."""
    return Call(name("collections", "OrderedDict"), ())


def tensor_symbol(tensor: PlannedTensor, place: Placement | None, plan: Plan) -> object:
    """What a real load would call to make the tensor.

    A tensor without plain elements (sparse, quantized, meta) is what it was in the source.
    """
    origin = tensor.source.origin
    if place is None:
        if origin is None:
            raise OutputError(f"{tensor.name}: its source holds no data for it")
        return origin
    from_file = is_from_state_dict(plan.source)
    flag = parameter_flag(origin) if from_file else None
    if flag is not None and plan.requires_grad is not None and tensor.section in plan.models:
        flag = plan.requires_grad.get(tensor.name, flag)
    plain = rebuilt(
        tensor, place, requires_grad=bool(flag is None and from_file and saved_flag(origin))
    )
    if flag is None:
        return plain
    return Call(name("torch._utils", "_rebuild_parameter"), (plain, flag, ordered_dict()))


def rebuilt(tensor: PlannedTensor, place: Placement, *, requires_grad: bool) -> Call:
    """`_rebuild_tensor_v2`, or v3 for the types that have no storage class of their own."""
    dtype = DTYPES[tensor.dtype]
    nbytes = place.record.payload.nbytes
    size = dtype.bits // 8
    bits = {} if place.record.payload.compute is not None else math_bits(tensor.source)
    shape = (place.offset, tensor.source.shape, place.stride, requires_grad, ordered_dict())
    if dtype.storage and nbytes % size == 0:
        storage = StorageOf(place.record, name("torch", dtype.storage), nbytes // size)
        rebuild, rest = "_rebuild_tensor_v2", (bits,) if bits else ()
    else:
        storage = StorageOf(place.record, name("torch.storage", "UntypedStorage"), nbytes)
        rebuild, rest = (
            "_rebuild_tensor_v3",
            (name("torch", dtype.name), *((bits,) if bits else ())),
        )
    return Call(name("torch._utils", rebuild), (PersistentId(storage), *shape, *rest))
