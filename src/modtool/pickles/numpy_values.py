"""NumPy's arrays and numbers in a pickle, read without NumPy.

Source: NumPy 2, `ndarray.__reduce__`, `ndarray.__reduce_ex__` (protocol 5), `dtype.__reduce__`.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from modtool.pickles.packed import bytes_of
from modtool.pickles.symbols import Call, Global

__all__ = ["ARRAY_DTYPES", "NUMPY_ARRAYS", "NUMPY_SCALARS", "SavedArray", "numpy_scalar"]
__all__ += ["array_content", "saved_array"]

MAX_DIMENSIONS = 64
MAX_SIZE = 2**63
CORES = ("core", "_core")
NUMPY_SCALARS = frozenset(f"numpy.{core}.multiarray.scalar" for core in CORES)
FROM_BUFFER = frozenset(f"numpy.{core}.numeric._frombuffer" for core in CORES)
NUMPY_ARRAYS = FROM_BUFFER | {f"numpy.{core}.multiarray._reconstruct" for core in CORES}

# NumPy's letters -> keys of `modtool.records.DTYPES`.
ARRAY_DTYPES: Mapping[str, str] = MappingProxyType(
    {"f2": "float16", "f4": "float32", "f8": "float64", "c8": "complex64", "c16": "complex128"}
    | {f"i{size}": f"int{8 * size}" for size in (1, 2, 4, 8)}
    | {f"u{size}": f"uint{8 * size}" for size in (1, 2, 4, 8)}
    | {"b1": "bool"}
)
CODES: Mapping[str, str] = MappingProxyType(
    {"f2": "e", "f4": "f", "f8": "d", "b1": "?", "c8": "ff", "c16": "dd"}
    | {f"i{size}": code for size, code in ((1, "b"), (2, "h"), (4, "i"), (8, "q"))}
    | {f"u{size}": code for size, code in ((1, "B"), (2, "H"), (4, "I"), (8, "Q"))}
)


@dataclass(frozen=True, slots=True)
class SavedArray:
    """A pickled array.

    Attributes:
        kind: Its element type in NumPy's letters: `f8`, `U5`, `O8`.
        byteorder: `little` or `big`.
        shape: Elements along each dimension.
        fortran: True when the first dimension varies fastest.
        data: Its elements; None where they are no plain numbers.
    """

    kind: str
    byteorder: str
    shape: tuple[int, ...]
    fortran: bool
    data: memoryview | None


def numpy_dtype(value: object) -> tuple[str, str]:
    """(`f8`, byte order) of a pickled `numpy.dtype`."""
    if isinstance(value, Call) and value.callee == "numpy.dtype":
        kind = value.arguments[0]
        order = value.state[1] if isinstance(value.state, tuple) else "<"
        if isinstance(kind, str):
            return kind, ">" if order == ">" else "<"
    raise TypeError


def numpy_scalar(call: Call) -> object:
    """The number or text in `numpy.core.multiarray.scalar(dtype, bytes)`."""
    kind, order = numpy_dtype(call.arguments[0])
    data = bytes_of(call.arguments[1], int(kind[1:]) * (4 if kind.startswith("U") else 1))
    if kind.startswith("U"):
        return data.decode("utf-32-be" if order == ">" else "utf-32-le").rstrip("\0")
    if kind.startswith("S"):
        return data.rstrip(b"\0")
    found = struct.unpack(order + CODES[kind], data)
    return complex(*found) if kind.startswith("c") else found[0]


def saved_array(call: Call) -> SavedArray | None:
    """What a pickled array holds; None for what is none, or contradicts itself."""
    try:
        if call.callee in FROM_BUFFER:
            data, dtype, shape, order = call.arguments
            return array_of(data, dtype, shape, fortran=order == "F")
        kind = call.arguments[0]
        if isinstance(kind, Global) and kind.qualified == "numpy.ndarray":
            state = call.state if isinstance(call.state, tuple) else ()
            _, shape, dtype, order, data = state
            return array_of(data, dtype, shape, fortran=order is True)
    except (LookupError, TypeError, ValueError, AttributeError):
        pass
    return None


def array_content(call: Call) -> object:
    """What tells arrays of one type and shape apart: byte order, layout, bytes; else None."""
    found = saved_array(call)
    if found is None or found.data is not None:
        return found
    try:  # text, dates and the like, of which only the bytes are known
        data = call.arguments[0] if call.callee in FROM_BUFFER else call.state[4]  # type: ignore[index]
        return found, bytes(data) if isinstance(data, bytearray) else bytes_of(data)
    except (LookupError, TypeError, ValueError):
        return None  # objects


def array_of(data: object, dtype: object, shape: object, *, fortran: bool) -> SavedArray:
    """An array of a shape, its bytes seen to be as many as that needs."""
    kind, order = numpy_dtype(dtype)
    if not isinstance(shape, tuple) or len(shape) > MAX_DIMENSIONS:
        raise TypeError
    sizes = tuple(size for size in shape if type(size) is int and 0 <= size < MAX_SIZE)
    if len(sizes) < len(shape):
        raise ValueError
    byteorder = "big" if order == ">" else "little"
    if kind not in ARRAY_DTYPES:
        return SavedArray(kind, byteorder, sizes, fortran, None)
    nbytes = math.prod(sizes) * int(kind[1:])
    elements = memoryview(data if isinstance(data, bytearray) else bytes_of(data, nbytes))
    if len(elements) != nbytes:
        raise ValueError
    return SavedArray(kind, byteorder, sizes, fortran, elements)
