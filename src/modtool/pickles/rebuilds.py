"""One function for each of torch's rebuild calls, with its own arguments.

Signatures: torch 2.13, `torch/_utils.py`, `torch/_tensor.py`, `torch/nn/parameter.py`.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from modtool.errors import CorruptFileError
from modtool.pickles.plain import breadth, mapping_of
from modtool.pickles.symbols import Call, Global
from modtool.pickles.torch_values import BITS, TensorFacts, device_named, dtype_named, numbers

if TYPE_CHECKING:
    from modtool.pickles.torch_objects import Tensors

__all__ = ["REBUILDS", "Rebuild"]

Rebuild = Callable[..., TensorFacts | None]


def rebuild_tensor(
    tensors: "Tensors", storage: object, offset: object, shape: object, stride: object
) -> TensorFacts:
    return tensors.strided(storage, offset, shape, stride)


def rebuild_tensor_v2(
    tensors: "Tensors",
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
    tensors: "Tensors",
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
    tensors: "Tensors",
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
    tensors: "Tensors",
    data: object,
    requires_grad: object = True,
    hooks: object = None,
    state: object = None,
) -> TensorFacts | None:
    refuse_replacement(state)
    inner = tensors.facts(data)
    return inner and inner._replace(requires_grad=bool(requires_grad))


def refuse_replacement(state: object) -> None:
    """Attributes that torch sets on a tensor must not replace what it is.

    Source: `torch._utils._set_obj_state`.
    """
    for attributes in attributes_in(state):
        if any(name in attributes for name in REPLACING):
            raise CorruptFileError("a tensor whose attributes replace its data")


def attributes_in(state: object) -> Iterator[Mapping[object, object]]:
    """The attributes that a tensor is given: those of its dict, and those in slots."""
    for part in state[:2] if isinstance(state, tuple) else (state,):
        if isinstance(part, Call) and breadth(part) > MAX_ATTRIBUTES:
            raise CorruptFileError("a tensor with too many attributes")
        yield mapping_of(part) or {}


MAX_ATTRIBUTES = 10_000
REPLACING = frozenset({"data", "requires_grad", "__class__", "__dict__"})


def uninitialized(
    tensors: "Tensors", requires_grad: object = True, *ignored: object
) -> TensorFacts:
    return TensorFacts(
        "float32", (0,), requires_grad=bool(requires_grad), layout="uninitialized", device="cpu"
    )


def rebuild_sparse(tensors: "Tensors", layout: object, data: object) -> TensorFacts:
    # coo: (indices, values, size[, is_coalesced]); compressed: (outer, inner, values, size)
    name = sparse_layout(layout)
    count = 2 if name == "sparse_coo" else 3
    if not isinstance(data, tuple) or len(data) not in (count + 1, count + 2):
        raise CorruptFileError(f"a {name} tensor of {type(data).__name__}")
    parts, size = data[:count], data[count]
    facts = [tensors.facts(part) for part in parts]
    if any(part is None for part in facts):
        raise CorruptFileError(f"a {name} tensor whose parts are no tensors")
    known = [part for part in facts if part is not None]
    shape = numbers(size, "shape")
    stored = sum(nbytes(part) for part in known)
    device = known[-1].storage.location if known[-1].storage else None
    return TensorFacts(
        known[-1].dtype,
        shape,
        layout=name,
        device=device,
        stored_bytes=stored,
        parts=places_of(*known),
    )


def rebuild_sparse_csr(tensors: "Tensors", data: object) -> TensorFacts:
    return rebuild_sparse(tensors, "torch.sparse_csr", data)


def sparse_layout(value: object) -> str:
    """`sparse_coo` from `torch.serialization._get_layout('torch.sparse_coo')`."""
    if isinstance(value, Call) and value.arguments:
        value = value.arguments[0]
    if isinstance(value, Global):
        value = value.name
    name = value.removeprefix("torch.") if isinstance(value, str) else ""
    if name not in SPARSE_LAYOUTS:
        raise CorruptFileError("a sparse tensor of an unknown layout")
    return name


SPARSE_LAYOUTS = ("sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc")


def nbytes(facts: TensorFacts) -> int:
    """Bytes that the elements take."""
    return math.prod(facts.shape) * BITS[facts.dtype] // 8


def rebuild_nested(
    tensors: "Tensors", buffer: object, sizes: object, strides: object, offsets: object
) -> TensorFacts:
    data, shapes = tensors.facts(buffer), tensors.facts(sizes)
    if data is None or shapes is None:
        raise CorruptFileError("a nested tensor whose parts are no tensors")
    # The inner sizes are data, not header: only the number of components is known here.
    stored = nbytes(data)
    return data._replace(shape=shapes.shape[:1], stride=None, layout="nested", stored_bytes=stored)


def rebuild_jagged(tensors: "Tensors", parts: object) -> TensorFacts:
    # {"values": …, "offsets": …}: where each component begins in `values` is data, not header.
    entries = mapping_of(parts) or {}
    values, offsets = tensors.facts(entries.get("values")), tensors.facts(entries.get("offsets"))
    if values is None or offsets is None or not offsets.shape:
        raise CorruptFileError("a jagged tensor whose parts are no tensors")
    components = (max(offsets.shape[0] - 1, 0),)
    grad = True if entries.get("requires_grad") is True else None
    return TensorFacts(
        values.dtype,
        components,
        requires_grad=grad,
        layout="jagged",
        device=values.storage.location if values.storage else values.device,
        stored_bytes=nbytes(values),
        parts=places_of(values, offsets),
    )


def rebuild_meta(
    tensors: "Tensors", dtype: object, shape: object, stride: object, requires_grad: object
) -> TensorFacts:
    grad = True if requires_grad is True else None
    sizes, steps = numbers(shape, "shape"), numbers(stride, "stride")
    return TensorFacts(dtype_named(dtype), sizes, None, 0, steps, grad, device="meta")


def rebuild_wrapper(
    tensors: "Tensors",
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
    tensors: "Tensors", function: object, cls: object, arguments: object, state: object
) -> TensorFacts | None:
    refuse_replacement(state)
    if type(arguments) is not tuple:
        raise CorruptFileError("call arguments that are no tuple")
    made = Call(function, arguments)
    inner = tensors.rebuilt(made)  # no call of the file's: not to be remembered
    if inner is None or made.callee != WRAPPER:
        return inner
    return inner._replace(parts=places_of(*wrapped(tensors, state)))


WRAPPER = "torch._utils._rebuild_wrapper_subclass"
MAX_WRAPPED = 100


def wrapped(tensors: "Tensors", state: object) -> Iterator[TensorFacts]:
    """The tensors that a wrapper is given as attributes: `_local_tensor` of a DTensor."""
    for attributes in attributes_in(state):
        for value in attributes.values() if len(attributes) <= MAX_WRAPPED else ():
            facts = tensors.facts(value)
            if facts is not None:
                yield facts


def places_of(*parts: TensorFacts) -> tuple[object, ...]:
    """Where the parts of a tensor lie; nothing where that cannot be told of each."""
    places = tuple(
        (part.storage.key, part.offset, part.shape, part.stride) for part in parts if part.storage
    )
    return places if len(places) == len(parts) else ()


def rebuild_on_device(
    tensors: "Tensors", data: object, dtype: object, device: object, requires_grad: object
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
        "torch.nn.parameter.UninitializedParameter": uninitialized,
        "torch.nn.parameter.UninitializedBuffer": uninitialized,
        "torch._utils._rebuild_sparse_tensor": rebuild_sparse,
        "torch._utils._rebuild_sparse_csr_tensor": rebuild_sparse_csr,
        "torch._utils._rebuild_nested_tensor": rebuild_nested,
        "torch.nested._internal.nested_tensor._rebuild_njt": rebuild_jagged,
        "torch._utils._rebuild_meta_tensor_no_storage": rebuild_meta,
        WRAPPER: rebuild_wrapper,
        "torch.tensor._rebuild_from_type": rebuild_from_type,  # torch 1.8 and before
        "torch._tensor._rebuild_from_type": rebuild_from_type,
        "torch._tensor._rebuild_from_type_v2": rebuild_from_type,
        "torch._utils._rebuild_device_tensor_from_cpu_tensor": rebuild_on_device,
        "torch._utils._rebuild_device_tensor_from_numpy": rebuild_on_device,
        "torch._utils._rebuild_xla_tensor": rebuild_on_device,
    }
)
