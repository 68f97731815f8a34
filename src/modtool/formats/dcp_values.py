"""Values of a distributed checkpoint that lie in items of their own, brought into its object."""

from dataclasses import replace

from modtool.errors import ModtoolError
from modtool.formats.dcp import NAME, StoredValue
from modtool.formats.dcp_items import read_item
from modtool.records import Checkpoint

__all__ = ["with_values"]


def with_values(checkpoint: Checkpoint) -> Checkpoint:
    """A distributed checkpoint with every stored value read; any other as it is.

    A value that cannot be read stays unknown.
    """
    if checkpoint.format != NAME or checkpoint.root is None:
        return checkpoint
    return replace(checkpoint, root=filled(checkpoint.root))


def filled(value: object) -> object:
    """A value with what it refers to."""
    if isinstance(value, dict):
        return {key: filled(item) for key, item in value.items()}
    if not isinstance(value, StoredValue):
        return value
    try:
        return read_item(value.item).root
    except ModtoolError:
        return value
