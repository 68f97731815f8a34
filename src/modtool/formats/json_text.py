"""JSON of strangers: bounded before it is parsed, ambiguous keys refused."""

import json

from modtool.errors import CorruptFileError, UnsafeFileError
from modtool.formats.files import Reader

__all__ = ["parse_json", "read_json"]

MAX_BYTES = 100_000_000
# A file of 300,000 tensors has 900,000 containers in its header, and 4 million values at most.
MAX_CONTAINERS = 1_200_000
MAX_VALUES = 6_000_000


def read_json(reader: Reader, what: str) -> object:
    """The JSON that a whole file holds.

    Raises:
        CorruptFileError: It is no JSON.
        UnsafeFileError: It is too large.
    """
    if reader.size > MAX_BYTES:
        raise UnsafeFileError(f"{reader.path}: {what} of {reader.size:,} bytes is too large")
    return parse_json(reader.read(0, reader.size, what), reader.path, what)


def parse_json(data: bytes, path: str, what: str) -> object:
    """The value of a JSON text; an object with a key that occurs twice is refused."""
    containers = data.count(b"[") + data.count(b"{")
    values = containers + data.count(b",") + data.count(b":")
    if containers > MAX_CONTAINERS or values > MAX_VALUES:
        raise UnsafeFileError(f"{path}: {what} has too many values")
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        reason = str(error).partition(";")[0][:120]
        raise CorruptFileError(f"{path}: {what} is no valid JSON: {reason}") from None


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of JSON."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key occurs twice")
    return made
