"""A plan as one file."""

import os
from collections.abc import Iterator

from modtool.errors import OutputError
from modtool.plan import Plan, check
from modtool.records import FileRange, TensorInfo
from modtool.write import safetensors_file, torch_file
from modtool.write.atomic import (
    Sync,
    Temporary,
    atomic_file,
    check_space,
    output_path,
    write_all,
)
from modtool.write.blocks import Blocks
from modtool.write.in_place import copy_with, patches_of
from modtool.write.leftovers import sweep
from modtool.write.payload import Compute
from modtool.write.streams import Progress, Sink, Sources
from modtool.write.verifying import verify

__all__ = ["put_file", "source_files", "write", "write_text"]


def write(
    plan: Plan,
    path: str,
    *,
    force: bool = False,
    in_place: bool = False,
    verified: bool = False,
    sync: Sync = "now",
    compute: Compute | None = None,
    progress: Progress | None = None,
) -> tuple[str, ...]:
    """Write a plan.

    Args:
        plan: What goes where.
        path: The file to write.
        force: An existing file may be replaced.
        in_place: The source itself may be replaced; it is kept until the new file is complete.
        verified: Read the file back and compare it with its source before it gets its name.
        sync: When it is made lasting.
        compute: What gathers, casts and fills elements; needed only where a plan asks for it.
        progress: Called with bytes done, bytes in all and the name of the tensor at hand.

    Returns:
        The paths that were written.

    Raises:
        OutputError: It could not be written, or something would be overwritten.
        CorruptFileError: A source ended too early.
    """
    check(plan)
    path = os.fspath(path)
    target = output_path(path, source_files(plan), force=force, in_place=in_place)
    sweep(os.path.dirname(target))
    with Sources() as sources:
        put_file(
            plan,
            target,
            sources,
            replace=force or in_place,
            verified=verified,
            sync=sync,
            compute=compute,
            progress=progress,
        )
    return (path,)


def put_file(
    plan: Plan,
    target: str,
    sources: Sources,
    *,
    replace: bool,
    verified: bool,
    compute: Compute | None,
    progress: Progress | None,
    named: bool = False,
    sync: Sync = "now",
) -> None:
    """Write a plan to a place that is known to be allowed; `named`, `sync` as in `atomic_file`.

    Raises:
        OutputError: It could not be written.
        CorruptFileError: A source ended too early.
    """
    with atomic_file(target, replace=replace, named=named, sync=sync) as temporary:
        fill_file(plan, target, temporary, sources, compute, progress, cached=sync == "never")
        if verified:
            if sync != "never":
                os.fsync(temporary.descriptor)
            verify(plan, temporary.path, sources, compute, progress)


def fill_file(
    plan: Plan,
    target: str,
    temporary: Temporary,
    sources: Sources,
    compute: Compute | None,
    progress: Progress | None,
    *,
    cached: bool,
) -> None:
    """Put all bytes of a plan into a new file; `cached` as in `Blocks`."""
    patches = patches_of(plan)
    if patches is not None:
        size = os.path.getsize(plan.source.target)
        check_space(target, size)
        with Blocks(temporary.descriptor, size, cached=cached) as blocks:
            copy_with(patches, plan.source.target, size, Sink(blocks, sources, size, progress))
            blocks.finish()
        return
    if plan.form == "full_model" and plan.source.format == "torchscript":
        raise OutputError(
            f"{plan.source.target} is TorchScript, whose flags are not bytes of their own",
            "write them alone with -o plan.json, and give it to modtool.apply_freeze",
        )
    file = safetensors_file if plan.form == "safetensors" else torch_file
    head, payloads = file.layout(plan)
    total = sum(payload.nbytes for payload in payloads)
    check_space(target, total)
    with Blocks(temporary.descriptor, total, cached=cached) as blocks:
        sink = Sink(blocks, sources, total, progress)
        if plan.form == "safetensors":
            safetensors_file.write_safetensors(head, payloads, sink, compute)
        else:
            torch_file.write_torch(head, payloads, sink, compute, target)
        blocks.finish()


def write_text(text: str, path: str, *, force: bool = False) -> tuple[str, ...]:
    """Write a small text, atomically.

    Raises:
        OutputError: It could not be written, or something would be overwritten.
    """
    target = output_path(path, (), force=force, in_place=False)
    with atomic_file(target, replace=force) as temporary:
        write_all(temporary.descriptor, text.encode("utf-8"))
    return (path,)


def source_files(plan: Plan) -> set[str]:
    """Every file that is read for the plan."""
    found = {path for tensor in plan.tensors for path in files_of(tensor.source)}
    return {plan.source.target, *found}


def files_of(tensor: TensorInfo) -> Iterator[str]:
    """The files that hold a tensor."""
    storages = [tensor.storage, *(chunk.storage for chunk in tensor.chunks)]
    ranges = [storage.data for storage in storages if storage is not None]
    for place in (*ranges, *(chunk.item for chunk in tensor.chunks)):
        if isinstance(place, FileRange):
            yield place.path
