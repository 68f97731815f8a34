"""Storages of a file that no tensor shown is made of: the tensors of objects nobody can look into.

What a class of the user's own is made from lies in the arguments of a call; only the call could
tell what becomes of it.
"""

from collections.abc import Iterable, Iterator, Mapping

from modtool.formats import torch_legacy, torch_zip
from modtool.notes import note
from modtool.pickles.symbols import Call, PersistentId
from modtool.pickles.torch_objects import storage_id
from modtool.records import Checkpoint, Note, TensorInfo

__all__ = ["unshown_storages"]

# Formats of one pickle, whose storages have the keys that it calls them by.
FORMATS = (torch_zip.NAME, torch_legacy.NAME)


def unshown_storages(checkpoint: Checkpoint) -> Iterator[Note]:
    """A note where the file holds bytes of tensors that are not shown.

    Not beside modules, whose plain attributes are no part of a state_dict.
    """
    if checkpoint.format not in FORMATS or checkpoint.modules:
        return
    used = {tensor.storage.key for tensor in checkpoint.tensors if tensor.storage is not None}
    if len(used) >= len(checkpoint.storages):
        return
    used |= keys_in(tensor.origin for tensor in checkpoint.tensors if is_of_several(tensor))
    left = [each for key, each in checkpoint.storages.items() if key not in used and each.nbytes]
    if left:
        size = sum(storage.nbytes for storage in left)
        what = "a storage" if len(left) == 1 else f"{len(left):,} storages"
        yield note("unshown-tensors", "", f"{what} of {size:,} bytes, of no tensor that is shown")


def is_of_several(tensor: TensorInfo) -> bool:
    """True for a tensor that is made of others: sparse, nested, quantized, distributed."""
    return tensor.storage is None or tensor.layout != "strided"


def keys_in(symbols: Iterable[object]) -> set[str]:
    """The keys of all storages that symbols refer to."""
    keys: set[str] = set()
    seen: set[int] = set()
    pending = list(symbols)
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, PersistentId):
            identifier = storage_id(value)
            if identifier is not None:
                keys.add(identifier.key)
        elif isinstance(value, Call):
            pending += (*value.arguments, value.state, value.items, value.appended)
        elif isinstance(value, Mapping):
            pending += value.values()
        elif isinstance(value, list | tuple):
            pending += value
    return keys
