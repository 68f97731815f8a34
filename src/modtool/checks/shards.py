"""Sets of files: what lies beside one as if it were a part, and what its index says of its size."""

import os
from collections.abc import Iterator

from modtool.checks.structure import some
from modtool.errors import TargetError
from modtool.formats.folders import NUMBERED, list_folder
from modtool.notes import note
from modtool.records import Checkpoint, FileRange, Note

__all__ = ["unlisted_shards", "wrong_total_size"]

SETS = ("safetensors-sharded", "torch-sharded")
# Where these are told, nobody expects the size to be right.
INCOMPLETE = ("missing-shard", "missing-tensor", "unlisted-tensor", "repeated-tensor")


def unlisted_shards(checkpoint: Checkpoint) -> Iterator[Note]:
    """Numbered files of the same stem in the folder of an index that does not list them."""
    files = files_of(checkpoint) if checkpoint.format in SETS else set()
    matches = [found for found in map(NUMBERED.match, files) if found]
    if not matches:
        return
    kinds = {match.group(1, 4) for match in matches}
    totals = {int(match[3]) for match in matches}
    extra = []
    for name in names_beside(checkpoint):
        found = NUMBERED.match(name)
        # Those that are missing from the index alone are told of where it is read.
        if found and name not in files and found.group(1, 4) in kinds:
            extra.append(name)
    if extra:
        message = f"{some(extra)}: beside a set of {max(totals)}, and not of it"
        yield note("unlisted-shard", extra[0], message)


def wrong_total_size(checkpoint: Checkpoint) -> Iterator[Note]:
    """The `total_size` of an index that is neither the bytes of its tensors nor those stored."""
    told = checkpoint.metadata.get("total_size")
    if told is None or checkpoint.format not in SETS:
        return
    if any(each.code in INCOMPLETE for each in checkpoint.notes):
        return
    stored = {each.storage.key: each.storage.nbytes for each in checkpoint.tensors if each.storage}
    sizes = sum(stored.values()), sum(tensor.nbytes for tensor in checkpoint.tensors)
    # Some writers give a float.
    if told not in {text for size in sizes for text in (str(size), str(float(size)))}:
        message = f"the index says total_size {told:.40}, and its tensors take {sizes[0]:,} bytes"
        yield note("wrong-total-size", os.path.basename(checkpoint.target), message)


def files_of(checkpoint: Checkpoint) -> set[str]:
    """The names of the files that the tensors lie in."""
    places = (tensor.storage.data for tensor in checkpoint.tensors if tensor.storage is not None)
    return {os.path.basename(place.path) for place in places if isinstance(place, FileRange)}


def names_beside(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The files in the folder of the set."""
    target = checkpoint.target
    folder = target if os.path.isdir(target) else os.path.dirname(target) or "."
    try:
        return list_folder(folder).files
    except TargetError:
        return ()
