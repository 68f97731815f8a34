"""What torch's own globals mean in a pickle: storages, tensors and parameters.

A real load would call `torch._utils._rebuild_tensor_v2(storage, …)`; here the arguments of that
call are read as what they say. Signatures: torch 2.13, `torch/_utils.py`, `torch/_tensor.py`.
"""

from collections.abc import Callable
from math import prod
from operator import mul

from modtool.errors import CorruptFileError
from modtool.pickles.old_tensors import OLD_TENSORS
from modtool.pickles.rebuilds import REBUILDS
from modtool.pickles.symbols import ABSENT, Call, PersistentId
from modtool.pickles.torch_values import (
    BITS,
    Sound,
    StorageId,
    TensorFacts,
    dtype_named,
    number,
    numbers,
    storage_id,
    storage_ids_in,
    unwrap_storage,
)
from modtool.records import Storage

__all__ = [
    "StorageId",
    "TensorFacts",
    "Tensors",
    "dtype_named",
    "numbers",
    "storage_id",
    "storage_ids_in",
]

UNREAD = TensorFacts("", ())  # stands for what was not looked at yet
# Functions have no `__new__` that makes a tensor.
FUNCTIONS = ("torch._utils.", "torch._tensor.", "torch.tensor.")


class Tensors:
    """Reads rebuild calls; `storages` says where the bytes of a storage id are."""

    def __init__(self, storages: Callable[[StorageId], Storage]) -> None:
        self.storages = storages
        self.known: dict[int, TensorFacts | None] = {}
        self.located: dict[int, tuple[StorageId, Storage]] = {}
        self.dtypes: dict[str, str] = {}
        self.key_type: type | None = None
        self.shapes, self.strides = Sound("shape"), Sound("stride")

    def facts(self, value: object) -> TensorFacts | None:
        """What a value says of a tensor; None when it is no tensor."""
        if type(value) is Call:
            key = id(value)
            found = self.known.get(key, UNREAD)
            if found is UNREAD:
                self.known[key] = None  # a tensor inside itself is none
                found = self.known[key] = self.rebuilt(value)
            return found
        return self.bare_storage(value) if type(value) is PersistentId else None

    def rebuilt(self, call: Call) -> TensorFacts | None:
        """The facts of one call; arguments that do not fit are an error."""
        callee = call.callee
        rebuild = REBUILDS.get(callee)
        if rebuild is None:
            found = OLD_TENSORS[callee](self, call) if callee in OLD_TENSORS else None
        elif call.how == "new" and callee.startswith(FUNCTIONS):
            return None
        else:
            try:
                found = rebuild(self, *call.arguments)
            except (TypeError, ValueError) as error:
                raise CorruptFileError(
                    f"{callee} with arguments that do not fit: {error}"
                ) from None
            if found is not None and call.state is not ABSENT:
                raise CorruptFileError("a tensor that gets a state which torch never saves")
        if found is not None and (call.items is not None or call.appended is not None):
            raise CorruptFileError("a tensor whose elements are set after it was made")
        return found

    def located_storage(self, symbol: object) -> tuple[StorageId, Storage] | None:
        """What a persistent id says, and where its bytes are; None when it names no storage."""
        found = self.located.get(id(symbol))
        if found is None:
            found = self.locate(symbol)
            if found is not None:
                self.located[id(symbol)] = found
        return found

    def locate(self, symbol: object) -> tuple[StorageId, Storage] | None:
        """Find a storage. Of two types for one storage, `torch.load` takes the first for both."""
        identifier = storage_id(symbol)
        if identifier is None:
            return None
        if identifier.view is not None:
            check_view(*identifier.view[1:], identifier)
        self.check_key(symbol)
        if identifier.numel:
            dtype = self.dtypes.setdefault(identifier.key, identifier.dtype)
            if dtype != identifier.dtype:
                raise CorruptFileError(
                    f"storage {identifier.key} is {dtype} and {identifier.dtype} at once"
                )
        return identifier, self.storages(identifier)

    def check_key(self, symbol: object) -> None:
        """Refuse keys of two types: for `torch.load`, 0 and "0" are two storages of one record."""
        if type(symbol) is PersistentId and type(symbol.value) is tuple:
            kind = type(symbol.value[2])
            if self.key_type is None:
                self.key_type = kind
            elif kind is not self.key_type:
                raise CorruptFileError("storages whose keys are text and numbers at once")

    def bare_storage(self, symbol: PersistentId) -> TensorFacts | None:
        """A storage that stands on its own, as a tensor of one dimension."""
        located = self.located_storage(symbol)
        if located is None:
            return None
        identifier, storage = located
        start, size = (0, identifier.numel) if identifier.view is None else identifier.view[1:]
        return TensorFacts(identifier.dtype, (size,), storage, start, layout="storage")

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
        symbol = storage if type(storage) is PersistentId else unwrap_storage(storage)
        located = self.located_storage(symbol)
        if located is None:
            raise CorruptFileError("a tensor without a storage")
        identifier, found = located
        name = dtype or identifier.dtype
        sizes, steps = self.shapes.numbers(shape), self.strides.numbers(stride)
        start = number(offset, "offset")
        if len(sizes) != len(steps):
            raise CorruptFileError(f"a tensor of shape {sizes} with stride {steps}")
        packed = PACKED.get(name, 1)
        capacity = found.nbytes * 8 * packed // BITS[name]
        if identifier.view is not None:  # offsets count from the beginning of the view
            start += identifier.view[1]
            capacity = (identifier.view[1] + identifier.view[2]) * packed
        last = start + sum(map(mul, sizes, steps)) - sum(steps)
        if last >= capacity and 0 not in sizes:
            raise CorruptFileError(
                f"a tensor of shape {list(sizes)} claims more than its storage {identifier.key} "
                f"of {capacity:,} elements holds"
            )
        # False may also mean "detached by state_dict()": only True tells something.
        grad = True if requires_grad is True else None
        facts = TensorFacts(name, sizes, found, start, steps, grad, layout)
        if packed == 1 or not sizes:
            return facts
        *rows, last_size = sizes
        return facts._replace(stored_bytes=prod(rows) * -(-last_size // packed))


# Elements in a byte of the quantized types below one byte, each row of which begins a new byte
# (torch 2.13, `aten/src/ATen/quantized/Quantizer.cpp`, `get_sub_byte_tensor_size`).
PACKED = {"quint4x2": 2, "quint2x4": 4}


def check_view(offset: int, size: int, identifier: StorageId) -> None:
    """Refuse a legacy view that reaches beyond its storage."""
    if offset + size > identifier.numel:
        raise CorruptFileError(f"a view that reaches beyond its storage {identifier.key}")
