"""GGUF files built by hand, field by field, as `docs/gguf.md` of ggml has them."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
CODES = {
    U8: "B",
    I8: "b",
    U16: "H",
    I16: "h",
    U32: "I",
    I32: "i",
    F32: "f",
    BOOL: "?",
    U64: "Q",
    I64: "q",
    F64: "d",
}


@dataclass(frozen=True)
class Writer:
    """How numbers and lengths are written: versions 1, 2 and 3, little- and big-endian."""

    version: int = 3
    order: str = "<"

    def pack(self, code: str, *values: object) -> bytes:
        return struct.pack(self.order + code, *values)

    def count(self, value: int) -> bytes:
        return self.pack("I" if self.version == 1 else "Q", value)

    def text(self, text: str) -> bytes:
        data = text.encode()
        return self.count(len(data)) + data

    def value(self, kind: int, value: object) -> bytes:
        """A value without its type; an array is (type of its elements, elements)."""
        if kind == STRING:
            return self.text(str(value))
        if kind == ARRAY:
            assert isinstance(value, tuple)
            inner, items = value
            body = b"".join(self.value(inner, item) for item in items)
            return self.pack("I", inner) + self.count(len(items)) + body
        return self.pack(CODES[kind], value)

    def tensor(self, name: str, dimensions: Sequence[int], kind: int, offset: int) -> bytes:
        sizes = b"".join(map(self.count, dimensions))
        head = self.text(name) + self.pack("I", len(dimensions)) + sizes
        return head + self.pack("IQ", kind, offset)

    def file(
        self,
        values: Mapping[str, tuple[int, object]],
        tensors: Sequence[tuple[str, Sequence[int], int, int]] = (),
        data: int = 0,
        alignment: int = 32,
    ) -> bytes:
        """A whole file, with `data` bytes of tensors."""
        head = b"GGUF" + self.pack("I", self.version)
        head += self.count(len(tensors)) + self.count(len(values))
        for key, (kind, value) in values.items():
            head += self.text(key) + self.pack("I", kind) + self.value(kind, value)
        for tensor in tensors:
            head += self.tensor(*tensor)
        return head + bytes(-len(head) % alignment) + bytes(data)
