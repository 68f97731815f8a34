"""A plan to disk: laid out first, then streamed, atomic, in a few megabytes of memory."""

import os

from modtool.plan import Plan
from modtool.records import FileRange
from modtool.write import safetensors_file, torch_file
from modtool.write.atomic import atomic_file, output_path
from modtool.write.payload import Compute
from modtool.write.streams import Progress, Sink, Sources

__all__ = ["Compute", "Progress", "write", "write_text"]


def write(
    plan: Plan,
    path: str,
    *,
    force: bool = False,
    in_place: bool = False,
    compute: Compute | None = None,
    progress: Progress | None = None,
) -> tuple[str, ...]:
    """Write a plan.

    Args:
        plan: What goes where.
        path: The file to write.
        force: An existing file may be replaced.
        in_place: The source itself may be replaced; it is kept until the new file is complete.
        compute: What gathers, casts and fills elements; needed only where a plan asks for it.
        progress: Called with bytes done, bytes in all and the name of the tensor at hand.

    Returns:
        The paths that were written.

    Raises:
        OutputError: It could not be written, or something would be overwritten.
        CorruptFileError: A source ended too early.
    """
    path = os.fspath(path)
    target = output_path(path, source_files(plan), force=force, in_place=in_place)
    file = safetensors_file if plan.form == "safetensors" else torch_file
    head, payloads = file.layout(plan)
    total = sum(payload.nbytes for payload in payloads)
    with Sources() as sources, atomic_file(target, replace=force or in_place) as descriptor:
        sink = Sink(descriptor, sources, total, progress)
        if plan.form == "safetensors":
            safetensors_file.write_safetensors(head, payloads, sink, compute)
        else:
            torch_file.write_torch(head, payloads, sink, compute, target)
        sink.flush()
    return (path,)


def write_text(text: str, path: str, *, force: bool = False) -> tuple[str, ...]:
    """Write a small text, atomically.

    Raises:
        OutputError: It could not be written, or something would be overwritten.
    """
    target = output_path(path, (), force=force, in_place=False)
    with atomic_file(target, replace=force) as descriptor:
        os.write(descriptor, text.encode("utf-8"))
    return (path,)


def source_files(plan: Plan) -> set[str]:
    """Every file that is read for the plan."""
    storages = (tensor.source.storage for tensor in plan.tensors)
    ranges = (storage.data for storage in storages if storage is not None)
    return {plan.source.target, *(data.path for data in ranges if isinstance(data, FileRange))}
