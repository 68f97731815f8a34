"""Storages of which the tensors use little: a slice drags along all that it was cut from."""

from collections import Counter
from collections.abc import Iterator

from modtool.notes import note
from modtool.records import Checkpoint, Note, Storage, TensorInfo
from modtool.sharing import element_bits, share, stored_elements

__all__ = ["oversized_storages"]

# Less than a page is not worth a word.
LEAST_WASTE = 4096


def oversized_storages(checkpoint: Checkpoint) -> Iterator[Note]:
    """A note for every storage of which more is wasted than used."""
    suspects = {
        tensor.storage.key
        for tensor in checkpoint.tensors
        if tensor.storage is not None and leaves_much(tensor, tensor.storage)
    }
    if not suspects:
        return
    views = [each for each in checkpoint.tensors if each.storage and each.storage.key in suspects]
    used: Counter[str] = Counter()
    for tensor, fresh in zip(views, share(views).fresh, strict=True):
        assert tensor.storage is not None
        used[tensor.storage.key] += fresh * element_bits(tensor) // 8
    for tensor in views:
        storage = tensor.storage
        if storage is not None and storage.key in used:
            bytes_used = used.pop(storage.key)  # told of once, under the first name
            wasted = storage.nbytes - bytes_used
            if wasted >= max(LEAST_WASTE, bytes_used):
                yield note(
                    "oversized-storage",
                    tensor.name,
                    f"uses {bytes_used:,} of the {storage.nbytes:,} bytes saved with it: "
                    f"{wasted:,} are wasted",
                    "modtool convert --shrink leaves them out",
                )


def leaves_much(tensor: TensorInfo, storage: Storage) -> bool:
    """True when a tensor by itself leaves a part of its storage unused that is worth a word."""
    if storage.nbytes < LEAST_WASTE:
        return False
    return storage.nbytes - stored_elements(tensor) * element_bits(tensor) // 8 >= LEAST_WASTE
