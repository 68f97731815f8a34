"""A plan as a distributed checkpoint: a folder that `torch.distributed.checkpoint` writes.

That package is the only writer of the format, so torch does the writing, through a callable: it is
given the object with planned tensors in it, and asks for their elements block by block. The folder
is hidden until it is whole.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from modtool.errors import UsageError
from modtool.plan import Plan, PlannedTensor, check
from modtool.plan.distributed import flat_names
from modtool.write.atomic import Sync, check_space, sync_folder
from modtool.write.payload import Compute, elements
from modtool.write.sets import (
    ALONE,
    DCP_INDEX,
    Names,
    publish_set,
    refuse_overwriting,
    staged,
)
from modtool.write.streams import Data, Progress, Sources
from modtool.write.trees import Tree
from modtool.write.verifying import verify

__all__ = ["SaveDistributed", "write_distributed"]

SaveDistributed = Callable[[object, str, Callable[[PlannedTensor], Iterable[Data]]], None]
"""Saves an object of symbols, with `PlannedTensor` for tensors, in a folder."""

FILES = ("__0_0.distcp",)


def write_distributed(
    plan: Plan,
    path: str,
    *,
    save: SaveDistributed,
    force: bool = False,
    verified: bool = False,
    sync: Sync = "now",
    compute: Compute | None = None,
    progress: Progress | None = None,
) -> tuple[str, ...]:
    """Write a plan as a distributed checkpoint.

    Args:
        plan: What is to be written, of form `dcp`.
        path: The folder.
        save: What writes it.
        force: What an older distributed checkpoint left in the folder may be replaced.
        verified: Read the folder back and compare it with its source before it gets its name.
        sync: When its names are made lasting; `save` sees to the rest.
        compute: What gathers, casts and fills elements.
        progress: Called with bytes done, bytes in all and the name of the tensor at hand.

    Returns:
        The folder.

    Raises:
        OutputError: It could not be written, or something would be overwritten.
        UsageError: Two things in it have one name.
        CorruptFileError: A source ended too early.
    """
    check(plan)
    tree = Tree(plan, lambda tensor: tensor).root()
    refuse_repeated(tree)
    names = Names(path, FILES, DCP_INDEX)
    refuse_overwriting([plan], names, force=force)
    total = sum(tensor.nbytes for tensor in plan.tensors)
    check_space(path, total)
    with staged(names, [plan], ALONE) as folder, Sources() as sources:
        watch = Watch(progress, total)
        save(tree, folder, lambda tensor: watch.pieces(tensor, elements(tensor, sources, compute)))
        if verified:
            verify(plan, folder, sources, compute, progress)
        if sync == "now":
            sync_folder(folder)
        publish_set(folder, names, force=force, sync=sync)
    return (path,)


def refuse_repeated(tree: object) -> None:
    """See that every name of the flattened object is there once.

    Raises:
        UsageError: One is there twice.
    """
    name, count = next(iter(Counter(chain(flat_names(tree))).most_common(1)), ("", 0))
    if count > 1:
        raise UsageError(f"{name}: two things of the output have this name", "rename one of them")


class Watch:
    """Tells how far the whole is, as the elements of one tensor after the other go by."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress = progress
        self.total = total
        self.done = 0

    def pieces(self, tensor: PlannedTensor, pieces: Iterable[Data]) -> Iterator[Data]:
        """The pieces, counted."""
        for piece in pieces:
            self.done += memoryview(piece).nbytes
            if self.progress is not None:
                self.progress(self.done, self.total, tensor.name)
            yield piece
