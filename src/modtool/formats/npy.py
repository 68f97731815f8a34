"""NumPy arrays: a magic number, a header that is a Python literal, and the elements.

Format: NumPy's `numpy/lib/format.py`, versions 1.0 to 3.0. The header is read as text of a few
kinds of tokens; nothing of NumPy is needed.
"""

import ast
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from modtool.errors import CorruptFileError, UnsafeFileError
from modtool.formats.files import Reader
from modtool.notes import note
from modtool.records import Checkpoint, FileRange, Note, Storage, TensorInfo, contiguous_stride

__all__ = ["MAX_START", "NAME", "SUFFIXES", "ArrayHeader", "array_tensor", "parse_header"]
__all__ += ["pickled_note", "read", "sniff"]

NAME = "npz"
SUFFIXES = (".npy",)
MAGIC = b"\x93NUMPY"

MAX_HEADER = 65_536
MAX_START = MAX_HEADER + 12
MAX_DIMENSIONS = 64
MAX_FIELDS = 1000
MAX_SHOWN = 60
# What a header is made of. No name but these three, no sign, no escape: nothing to be evaluated.
TOKENS = re.compile(
    r"""(?:[\s{}()\[\],:]|[0-9]+\b|(?:True|False|None)\b|'[^'"\\\n]*'|"[^'"\\\n]*")*+"""
)
PYTHON2_LONG = re.compile(r"([0-9])L\b")

KINDS: Mapping[str, str] = MappingProxyType(
    {"f2": "float16", "f4": "float32", "f8": "float64", "c8": "complex64", "c16": "complex128"}
    | {f"i{size}": f"int{8 * size}" for size in (1, 2, 4, 8)}
    | {f"u{size}": f"uint{8 * size}" for size in (1, 2, 4, 8)}
    | {"b1": "bool"}
)
SIMPLE = re.compile(r"([<>|=]?)([a-zA-Z])([0-9]{0,9})(\[[0-9]{0,9}[a-zA-Z]{1,9}\])?\Z")
UNITS = {"U": 4}


@dataclass(frozen=True, slots=True)
class ArrayHeader:
    """What the header of an array says.

    Attributes:
        dtype: A key of `DTYPES`, or NumPy's own description.
        itemsize: Bytes of an element; None where they are pickled objects.
        byteorder: `little` or `big`.
        fortran: True when the first dimension varies fastest.
        shape: Elements along each dimension.
        start: Where the elements begin, in bytes from the beginning of the array.
    """

    dtype: str
    itemsize: int | None
    byteorder: str
    fortran: bool
    shape: tuple[int, ...]
    start: int

    @property
    def nbytes(self) -> int:
        """Bytes of all elements; 0 where they are pickled."""
        return math.prod(self.shape) * (self.itemsize or 0)


def sniff(head: bytes) -> bool:
    """True for the magic number."""
    return head.startswith(MAGIC)


def read(reader: Reader) -> Checkpoint:
    """Read the header of one array.

    Raises:
        CorruptFileError: It contradicts itself, or the file.
    """
    header = parse_header(reader.head(MAX_START), reader.path)
    length = reader.size - header.start
    if length < header.nbytes:
        raise CorruptFileError(
            f"{reader.path}: truncated: its elements should end at byte "
            f"{header.start + header.nbytes:,}, the file at {reader.size:,}"
        )
    notes: list[Note] = []
    if header.itemsize is None:
        notes.append(pickled_note(""))
    elif length > header.nbytes:
        extra = f"{length - header.nbytes:,} bytes after the array belong to nothing"
        notes.append(note("stray-bytes", "", extra))
    place = FileRange(reader.path, header.start, header.nbytes)
    tensor = array_tensor("", header, place, length)
    return Checkpoint(reader.path, NAME, "tensors", (tensor,), notes=tuple(notes))


def array_tensor(
    name: str, header: ArrayHeader, place: FileRange | None, stored: int
) -> TensorInfo:
    """An array as a tensor; `stored` is how many bytes a pickled one takes."""
    known = header.dtype in KINDS.values()
    is_strided = header.fortran and len(header.shape) > 1
    stride = contiguous_stride(header.shape[::-1])[::-1] if is_strided else None
    pickled = header.itemsize is None
    return TensorInfo(
        name,
        header.dtype,
        header.shape,
        None if pickled else Storage(name, header.nbytes, "cpu", place, header.byteorder),
        stride=stride,
        role="parameter" if name else "tensor",
        layout="pickled" if pickled else "strided" if known else "numpy",
        device="cpu",
        stored_bytes=None if known else stored if pickled else header.nbytes,
    )


def pickled_note(name: str) -> Note:
    """The note on an array of Python objects."""
    message = "an array of Python objects, which only unpickling would load: named, not read"
    return note("pickled-array", name, message)


# -- the header ----------------------------------------------------------------------------------


def parse_header(data: bytes, where: str) -> ArrayHeader:
    """The header at the beginning of some bytes.

    Raises:
        CorruptFileError: There is none, or it is damaged.
        UnsafeFileError: It is too large.
    """
    if len(data) < 10 or not sniff(data) or not 1 <= data[6] <= 3:
        raise CorruptFileError(f"{where}: no header of a NumPy array")
    width = 2 if data[6] == 1 else 4
    length = int.from_bytes(data[8 : 8 + width], "little")
    start = 8 + width + length
    if length > MAX_HEADER:
        raise UnsafeFileError(f"{where}: an array header of {length:,} bytes is too large")
    if start > len(data):
        raise CorruptFileError(f"{where}: truncated inside the header of an array")
    text = data[8 + width : start].decode("utf-8" if data[6] == 3 else "latin-1", "replace")
    return header_of(literal(text, where), start, where)


def literal(text: str, where: str) -> object:
    """The value of a Python literal of plain tokens; numbers may be Python 2's `3L`."""
    text = PYTHON2_LONG.sub(r"\1", text).strip()
    if TOKENS.fullmatch(text):
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            pass
    raise CorruptFileError(f"{where}: the header of an array is damaged")


def header_of(value: object, start: int, where: str) -> ArrayHeader:
    """The three entries of a header, checked."""
    match value:
        case {"descr": descr, "fortran_order": bool(fortran), "shape": tuple(shape), **rest}:
            sizes = tuple(size for size in shape if type(size) is int and 0 <= size < 2**63)
            if not rest and len(sizes) == len(shape) <= MAX_DIMENSIONS:
                dtype, itemsize, order = described(descr, where)
                if math.prod(sizes) * max(itemsize or 1, 1) < 2**63:
                    return ArrayHeader(dtype, itemsize, order, fortran, sizes, start)
    raise CorruptFileError(f"{where}: the header of an array contradicts itself")


def described(descr: object, where: str) -> tuple[str, int | None, str]:
    """(dtype, bytes of an element, byte order) of NumPy's description of a type."""
    size = itemsize(descr, 0)
    if size is None and not has_objects(descr, 0):
        raise CorruptFileError(f"{where}: an array of an unknown type: {str(descr)[:MAX_SHOWN]}")
    found = SIMPLE.match(descr) if isinstance(descr, str) else None
    order = "big" if found and found[1] == ">" else "little"
    if found and found[2] + found[3] in KINDS:
        return KINDS[found[2] + found[3]], size, order
    if found and found[2] == "O":
        return "object", size, order
    text = str(descr)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…", size, order


def itemsize(descr: object, depth: int) -> int | None:
    """Bytes of an element; None for objects, and for what is no type at all."""
    match descr:
        case str():
            found = SIMPLE.match(descr)
            if found is None or found[2] == "O":
                return None
            return int(found[3] or 1) * UNITS.get(found[2], 1)
        case [*fields] if isinstance(descr, list) and depth < 4 and len(fields) <= MAX_FIELDS:
            sizes = [field_size(field, depth) for field in fields]
            known = [size for size in sizes if size is not None]
            return sum(known) if len(known) == len(sizes) else None
    return None


def field_size(field: object, depth: int) -> int | None:
    """Bytes of one field of a structure: `(name, type)` or `(name, type, shape)`."""
    match field:
        case (_, inner):
            return itemsize(inner, depth + 1)
        case (_, inner, tuple(shape)) if all(type(size) is int for size in shape):
            size = itemsize(inner, depth + 1)
            return None if size is None or len(shape) > MAX_DIMENSIONS else size * math.prod(shape)
    return None


def has_objects(descr: object, depth: int) -> bool:
    """True when there are Python objects in a type."""
    if isinstance(descr, str):
        found = SIMPLE.match(descr)
        return found is not None and found[2] == "O"
    if not isinstance(descr, list) or depth > 4:
        return False
    return any(
        isinstance(field, tuple) and len(field) > 1 and has_objects(field[1], depth + 1)
        for field in descr
    )
