"""Storages of a file that no tensor shown is made of: the tensors of objects nobody can look into.

What a class of the user's own is made from lies in the arguments of a call; only the call could
tell what becomes of it.
"""

from collections.abc import Iterator

from modtool.formats import torch_legacy, torch_zip
from modtool.notes import note
from modtool.pickles.torch_objects import storage_ids_in
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
    origins = [tensor.origin for tensor in checkpoint.tensors if is_of_several(tensor)]
    used.update(identifier.key for identifier in storage_ids_in(origins))
    left = [each for key, each in checkpoint.storages.items() if key not in used and each.nbytes]
    if left:
        size = sum(storage.nbytes for storage in left)
        what = "a storage" if len(left) == 1 else f"{len(left):,} storages"
        yield note("unshown-tensors", "", f"{what} of {size:,} bytes, of no tensor that is shown")


def is_of_several(tensor: TensorInfo) -> bool:
    """True for a tensor that is made of others: sparse, nested, quantized, distributed."""
    return tensor.storage is None or tensor.layout != "strided"
