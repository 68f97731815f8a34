"""Bytes in a pickle, however its protocol wrote them."""

from modtool.pickles.symbols import Call

__all__ = ["bytes_of", "encoded", "from_codec"]

BYTES = frozenset({"builtins.bytes", "__builtin__.bytes"})


def encoded(arguments: tuple[object, ...]) -> bytes | None:
    """`_codecs.encode(text, 'latin1')`, `bytes()`, `bytearray(text, 'latin-1')`.

    So protocols 0 to 2 write bytes.
    """
    match arguments:
        case ():
            return b""
        case (bytes(data),):
            return data
        case (str(source), "latin1" | "latin-1"):
            return source.encode("latin-1")
        case (Call() as inner,):
            return bytes_of(inner)
    return None


def from_codec(call: Call) -> bytes | None:
    """`_codecs.encode`: a function, and with two arguments always."""
    return encoded(call.arguments) if len(call.arguments) == 2 and call.how != "new" else None


def bytes_of(value: object, size: int | None = None) -> bytes:
    """Bytes, however the protocol wrote them.

    Python 2 wrote them as it wrote text, and as text they are read: as UTF-8 where they are that,
    which has fewer letters than bytes. So their `size` tells how they were read.
    """
    if isinstance(value, Call) and value.callee == "_codecs.encode":
        value = from_codec(value)
    elif isinstance(value, Call) and value.callee in BYTES and not value.arguments:
        value = b""
    if isinstance(value, str):
        value = value.encode("latin-1" if size is None or len(value) == size else "utf-8")
    if not isinstance(value, bytes):
        raise TypeError
    return value
