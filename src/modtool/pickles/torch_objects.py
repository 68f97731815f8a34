"""What torch's own globals mean in a pickle: storages, tensors and parameters.

A real load would call `torch._utils._rebuild_tensor_v2(storage, …)`; here the arguments of that
call are read as what they say. Signatures: torch 2.13, `torch/_utils.py`, `torch/_tensor.py`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from modtool.errors import CorruptFileError
from modtool.pickles.symbols import Call, Global, PersistentId
from modtool.records import DTYPES, Storage

__all__ = ["StorageId", "TensorFacts", "Tensors", "dtype_named", "storage_id"]

STORAGE_CLASSES: Mapping[str, str] = MappingProxyType(
    {dtype.storage: dtype.name for dtype in DTYPES.values() if dtype.storage}
)
UNTYPED = "uint8"
MAX_DIMENSIONS = 64


@dataclass(frozen=True, slots=True)
class StorageId:
    """What a persistent id says of a storage.

    Attributes:
        key: Which storage of the file.
        dtype: Of its elements; `uint8` for an untyped storage.
        location: The device it was saved from.
        numel: Elements of `dtype`.
        view: In legacy files: the key of this part, and where it begins (elements); else None.
    """

    key: str
    dtype: str
    location: str
    numel: int
    view: tuple[str, int, int] | None = None

    @property
    def nbytes(self) -> int:
        """Size of the storage."""
        return self.numel * DTYPES[self.dtype].bits // 8


def storage_id(symbol: object) -> StorageId | None:
    """What a persistent id says of a storage; None when it is about something else."""
    value = symbol.value if isinstance(symbol, PersistentId) else None
    if not isinstance(value, tuple) or len(value) not in (5, 6) or value[0] != "storage":
        return None
    _, cls, key, location, numel = value[:5]
    name = cls.name if isinstance(cls, Global) else ""
    dtype = STORAGE_CLASSES.get(name, UNTYPED if name == "UntypedStorage" else "")
    if not dtype or not isinstance(key, str | int) or not isinstance(location, str):
        raise CorruptFileError(f"a storage of an unknown kind: {name or type(cls).__name__}")
    if type(numel) is not int or numel < 0:
        raise CorruptFileError(f"storage {key}: an impossible number of elements")
    view = value[5] if len(value) == 6 else None
    return StorageId(str(key), dtype, location, numel, legacy_view(view))


def legacy_view(value: object) -> tuple[str, int, int] | None:
    """The sixth item of a legacy persistent id: (key, offset, size), or None."""
    match value:
        case None:
            return None
        case (key, int(offset), int(size)) if offset >= 0 and size >= 0:
            return str(key), offset, size
    raise CorruptFileError("a storage view that is none")


class TensorFacts(NamedTuple):
    """What a rebuild call says of a tensor; the fields mean what they do in `TensorInfo`."""

    dtype: str
    shape: tuple[int, ...]
    storage: Storage | None = None
    offset: int = 0
    stride: tuple[int, ...] | None = None
    requires_grad: bool | None = None
    layout: str = "strided"
    device: str | None = None
    stored_bytes: int | None = None


class Tensors:
    """Reads rebuild calls; `storages` says where the bytes of a storage id are."""

    def __init__(self, storages: Callable[[StorageId], Storage]) -> None:
        self.storages = storages
        self.known: dict[int, TensorFacts | None] = {}

    def facts(self, value: object) -> TensorFacts | None:
        """What a value says of a tensor; None when it is no tensor."""
        if isinstance(value, PersistentId):
            return self.bare_storage(value)
        if not isinstance(value, Call):
            return None
        if id(value) not in self.known:
            self.known[id(value)] = None  # a tensor inside itself is none
            rebuild = REBUILDS.get(value.callee)
            if rebuild is not None:
                self.known[id(value)] = self.rebuilt(rebuild, value)
        return self.known[id(value)]

    def rebuilt(self, rebuild: "Rebuild", call: Call) -> TensorFacts | None:
        """The facts of one call; arguments that do not fit are an error."""
        try:
            return rebuild(self, *call.arguments)
        except (TypeError, ValueError) as error:
            raise CorruptFileError(
                f"{call.callee} with arguments that do not fit: {error}"
            ) from None

    def bare_storage(self, symbol: PersistentId) -> TensorFacts | None:
        """A storage that stands on its own, as a tensor of one dimension."""
        identifier = storage_id(symbol)
        if identifier is None:
            return None
        storage = self.storages(identifier)
        return TensorFacts(identifier.dtype, (identifier.numel,), storage, layout="storage")

    def strided(
        self,
        storage: object,
        offset: object,
        shape: object,
        stride: object,
        dtype: str | None = None,
        *,
        requires_grad: object = False,
        layout: str = "strided",
    ) -> TensorFacts:
        """A view of a storage, proved to lie inside it."""
        identifier = storage_id(unwrap_storage(storage))
        if identifier is None:
            raise CorruptFileError("a tensor without a storage")
        found = self.storages(identifier)
        name = dtype or identifier.dtype
        sizes, steps = numbers(shape, "shape"), numbers(stride, "stride")
        start = number(offset, "offset")
        if len(sizes) != len(steps):
            raise CorruptFileError(f"a tensor of shape {sizes} with stride {steps}")
        capacity = found.nbytes * 8 // DTYPES[name].bits
        last = start + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
        if 0 not in sizes and last >= capacity:
            raise CorruptFileError(
                f"a tensor of shape {list(sizes)} claims more than its storage {identifier.key} "
                f"of {capacity:,} elements holds"
            )
        # False may also mean "detached by state_dict()": only True tells something.
        grad = True if requires_grad is True else None
        return TensorFacts(name, sizes, found, start, steps, grad, layout)


Rebuild = Callable[..., TensorFacts | None]


def unwrap_storage(value: object) -> object:
    """The persistent id inside `TypedStorage(wrap_storage=…)`, or the value itself."""
    if isinstance(value, Call) and value.callee == "torch.storage.TypedStorage":
        state = value.state
        return state.get("_untyped_storage") if isinstance(state, dict) else None
    return value


def number(value: object, what: str) -> int:
    """A non-negative integer."""
    if type(value) is not int or not 0 <= value < 2**63:
        raise CorruptFileError(f"a tensor with an impossible {what}")
    return value


def numbers(value: object, what: str) -> tuple[int, ...]:
    """A tuple of non-negative integers; `torch.Size(…)` is one too."""
    if isinstance(value, Call) and value.callee == "torch.Size" and value.arguments:
        value = value.arguments[0]
    if not isinstance(value, tuple | list) or len(value) > MAX_DIMENSIONS:
        raise CorruptFileError(f"a tensor with an impossible {what}")
    for item in value:
        number(item, what)
    if what == "shape" and math.prod(value) >= 2**63:
        raise CorruptFileError("a tensor of more elements than can be counted")
    return tuple(value)


def dtype_named(value: object) -> str:
    """The dtype that `torch.float32` names."""
    name = value.name if isinstance(value, Global) and value.module == "torch" else ""
    if name not in DTYPES:
        raise CorruptFileError(f"a tensor of an unknown dtype: {name or type(value).__name__}")
    return name


def device_named(value: object) -> str:
    """`cuda:0` from `torch.device('cuda', 0)` or from the text itself."""
    if isinstance(value, Call) and value.callee == "torch.device":
        return ":".join(str(part) for part in value.arguments)
    return value if isinstance(value, str) else "unknown"


# -- one function for each rebuild call, with its own arguments ---------------------------------


def rebuild_tensor(
    tensors: Tensors, storage: object, offset: object, shape: object, stride: object
) -> TensorFacts:
    return tensors.strided(storage, offset, shape, stride)


def rebuild_tensor_v2(
    tensors: Tensors,
    storage: object,
    offset: object,
    shape: object,
    stride: object,
    requires_grad: object = False,
    hooks: object = None,
    metadata: object = None,
) -> TensorFacts:
    return tensors.strided(storage, offset, shape, stride, requires_grad=requires_grad)


def rebuild_tensor_v3(
    tensors: Tensors,
    storage: object,
    offset: object,
    shape: object,
    stride: object,
    requires_grad: object,
    hooks: object,
    dtype: object,
    metadata: object = None,
) -> TensorFacts:
    name = dtype_named(dtype)
    return tensors.strided(storage, offset, shape, stride, name, requires_grad=requires_grad)


def rebuild_quantized(
    tensors: Tensors,
    storage: object,
    offset: object,
    shape: object,
    stride: object,
    quantizer: object,
    requires_grad: object = False,
    hooks: object = None,
) -> TensorFacts:
    return tensors.strided(
        storage, offset, shape, stride, requires_grad=requires_grad, layout="quantized"
    )


def rebuild_parameter(
    tensors: Tensors,
    data: object,
    requires_grad: object = True,
    hooks: object = None,
    state: object = None,
) -> TensorFacts | None:
    inner = tensors.facts(data)
    return inner and inner._replace(requires_grad=bool(requires_grad))


def uninitialized(tensors: Tensors, requires_grad: object = True, *ignored: object) -> TensorFacts:
    return TensorFacts(
        "float32", (0,), requires_grad=bool(requires_grad), layout="uninitialized", device="cpu"
    )


def rebuild_sparse(tensors: Tensors, layout: object, data: tuple[object, ...]) -> TensorFacts:
    # coo: (indices, values, size[, is_coalesced]); compressed: (outer, inner, values, size)
    name = sparse_layout(layout)
    parts, size = (data[:2], data[2]) if name == "sparse_coo" else (data[:3], data[3])
    facts = [tensors.facts(part) for part in parts]
    if any(part is None for part in facts):
        raise CorruptFileError(f"a {name} tensor whose parts are no tensors")
    known = [part for part in facts if part is not None]
    shape = numbers(size, "shape")
    stored = sum(nbytes(part) for part in known)
    device = known[-1].storage.location if known[-1].storage else None
    return TensorFacts(known[-1].dtype, shape, layout=name, device=device, stored_bytes=stored)


def rebuild_sparse_csr(tensors: Tensors, data: tuple[object, ...]) -> TensorFacts:
    return rebuild_sparse(tensors, "torch.sparse_csr", data)


def sparse_layout(value: object) -> str:
    """`sparse_coo` from `torch.serialization._get_layout('torch.sparse_coo')`."""
    if isinstance(value, Call) and value.arguments:
        value = value.arguments[0]
    if isinstance(value, Global):
        value = value.name
    return value.removeprefix("torch.") if isinstance(value, str) else "sparse"


def nbytes(facts: TensorFacts) -> int:
    """Bytes that the elements take."""
    return math.prod(facts.shape) * DTYPES[facts.dtype].bits // 8


def rebuild_nested(
    tensors: Tensors, buffer: object, sizes: object, strides: object, offsets: object
) -> TensorFacts:
    data, shapes = tensors.facts(buffer), tensors.facts(sizes)
    if data is None or shapes is None:
        raise CorruptFileError("a nested tensor whose parts are no tensors")
    # The inner sizes are data, not header: only the number of components is known here.
    return data._replace(shape=shapes.shape[:1], layout="nested", stored_bytes=nbytes(data))


def rebuild_meta(
    tensors: Tensors, dtype: object, shape: object, stride: object, requires_grad: object
) -> TensorFacts:
    grad = True if requires_grad is True else None
    sizes, steps = numbers(shape, "shape"), numbers(stride, "stride")
    return TensorFacts(dtype_named(dtype), sizes, None, 0, steps, grad, device="meta")


def rebuild_wrapper(
    tensors: Tensors,
    cls: object,
    dtype: object,
    shape: object,
    stride: object,
    offset: object,
    layout: object,
    device: object,
    requires_grad: object,
) -> TensorFacts:
    return TensorFacts(
        dtype_named(dtype),
        numbers(shape, "shape"),
        requires_grad=True if requires_grad is True else None,
        layout=cls.name if isinstance(cls, Global) else "subclass",
        device=device_named(device),
    )


def rebuild_from_type(
    tensors: Tensors, function: object, cls: object, arguments: tuple[object, ...], state: object
) -> TensorFacts | None:
    return tensors.facts(Call(function, arguments))


def rebuild_on_device(
    tensors: Tensors, data: object, dtype: object, device: object, requires_grad: object
) -> TensorFacts | None:
    inner = tensors.facts(data)
    name, grad = dtype_named(dtype), True if requires_grad is True else None
    if inner is None:  # saved as a numpy array, whose bytes are in the pickle
        return TensorFacts(name, numpy_shape(data), requires_grad=grad, device=device_named(device))
    return inner._replace(requires_grad=grad, device=device_named(device))


def numpy_shape(value: object) -> tuple[int, ...]:
    """The shape in the state of a pickled `numpy.ndarray`."""
    match value:
        case Call(state=(_, tuple(shape), *_)):
            return numbers(shape, "shape")
    raise CorruptFileError("a tensor made from an array that is none")


REBUILDS: Mapping[str, Rebuild] = MappingProxyType(
    {
        "torch._utils._rebuild_tensor": rebuild_tensor,
        "torch._utils._rebuild_tensor_v2": rebuild_tensor_v2,
        "torch._utils._rebuild_tensor_v3": rebuild_tensor_v3,
        "torch._utils._rebuild_qtensor": rebuild_quantized,
        "torch._utils._rebuild_parameter": rebuild_parameter,
        "torch._utils._rebuild_parameter_with_state": rebuild_parameter,
        "torch.nn.parameter.Parameter": rebuild_parameter,
        "torch.nn.parameter.UninitializedParameter": uninitialized,
        "torch.nn.parameter.UninitializedBuffer": uninitialized,
        "torch._utils._rebuild_sparse_tensor": rebuild_sparse,
        "torch._utils._rebuild_sparse_csr_tensor": rebuild_sparse_csr,
        "torch._utils._rebuild_nested_tensor": rebuild_nested,
        "torch._utils._rebuild_meta_tensor_no_storage": rebuild_meta,
        "torch._utils._rebuild_wrapper_subclass": rebuild_wrapper,
        "torch._tensor._rebuild_from_type": rebuild_from_type,
        "torch._tensor._rebuild_from_type_v2": rebuild_from_type,
        "torch._utils._rebuild_device_tensor_from_cpu_tensor": rebuild_on_device,
        "torch._utils._rebuild_device_tensor_from_numpy": rebuild_on_device,
        "torch._utils._rebuild_xla_tensor": rebuild_on_device,
    }
)
