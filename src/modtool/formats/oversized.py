"""Storages of which the tensors use little: a slice drags along all that it was cut from."""

from collections.abc import Iterator

from modtool.notes import note
from modtool.records import Checkpoint, Note, TensorInfo
from modtool.sharing import span

__all__ = ["oversized_storages"]

# Less than a page is not worth a word.
LEAST_WASTE = 4096


def oversized_storages(checkpoint: Checkpoint) -> Iterator[Note]:
    """A note for every storage of which more is wasted than used."""
    views: dict[str, list[TensorInfo]] = {}
    for tensor in checkpoint.tensors:
        storage = tensor.storage
        if storage is not None and storage.nbytes - tensor.nbytes >= LEAST_WASTE:
            views.setdefault(storage.key, []).append(tensor)
    for group in views.values():
        storage = group[0].storage
        assert storage is not None
        used = covered(group)
        if storage.nbytes - used >= max(LEAST_WASTE, used):
            yield note(
                "oversized-storage",
                group[0].name,
                f"uses {used:,} of the {storage.nbytes:,} bytes saved with it: "
                f"{storage.nbytes - used:,} are wasted",
                "modtool convert --shrink leaves them out",
            )


def covered(tensors: list[TensorInfo]) -> int:
    """Bytes of the storage that lie in the span of some tensor."""
    total = end = 0
    for begin, stop in sorted(map(span, tensors)):
        total += max(0, stop - max(begin, end))
        end = max(end, stop)
    return total
