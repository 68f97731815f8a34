"""Whether everything in a plan can be written, seen before anything is."""

import math
from collections.abc import Iterator

from modtool.errors import CorruptFileError, UsageError
from modtool.plan.records import Plan, PlannedTensor
from modtool.plan.tree import entries, joined, place_of
from modtool.plan.views import has_data
from modtool.records import DTYPES, FLOAT4_PAIR, TensorInfo

__all__ = ["check"]


def check(plan: Plan) -> None:
    """See that the output can hold every tensor of a plan, and that the source has it.

    Raises:
        UsageError: A tensor of a kind that the output has no place for.
        CorruptFileError: Some elements of a tensor are in none of the source's files.
    """
    check_program(plan)
    check_places(plan)
    names: set[tuple[str | None, str]] = set()
    for tensor in plan.tensors:
        check_kind(plan, tensor)
        check_blocks(tensor)
        if (tensor.section, tensor.name) in names:
            raise UsageError(
                f"{place_of(tensor.section, tensor.name)}: two tensors have this name, such as of "
                "the keys 0 and '0'",
                "give one of them another key before you save them; convert cannot tell them apart",
            )
        names.add((tensor.section, tensor.name))


def check_places(plan: Plan) -> None:
    """See that no new name is that of something else that goes along.

    Raises:
        UsageError: One is.
    """
    renamed = {
        place_of(tensor.section, tensor.name): place_of(tensor.section, tensor.source.name)
        for tensor in plan.tensors
        if tensor.name != tensor.source.name
    }
    taken = renamed.keys() & set(others(plan.tree, "", set())) if renamed else set()
    for place in sorted(taken):
        raise UsageError(
            f"{renamed[place]} cannot become {place}, which is there already and no tensor",
            "give it another name",
        )


def others(tree: object, path: str, seen: set[int]) -> Iterator[str]:
    """The places of what is no tensor, in all dicts of a tree."""
    found = entries(tree)
    if found is None or id(tree) in seen:
        return
    seen.add(id(tree))
    for key, item in found.items():
        if not isinstance(item, TensorInfo):
            yield joined(path, key)
            yield from others(item, joined(path, key), seen)


def check_program(plan: Plan) -> None:
    """See that a TorchScript file which is to stay one has its flags changed and no more."""
    if plan.form != "full_model" or plan.source.format != "torchscript":
        return
    if any(each.is_computed or each.location != each.source.location for each in plan.tensors):
        raise UsageError(
            f"{plan.source.target} is TorchScript, in which only flags can be changed",
            "torch.jit.load(FILE, map_location=…) moves it; -o OUT.safetensors takes its weights",
        )


def check_kind(plan: Plan, tensor: PlannedTensor) -> None:
    """See that the output has a place for tensors of this kind."""
    source = tensor.source
    hint = f"leave it out with --drop {source.name!r}, or choose another form"
    if source.dtype not in DTYPES:
        raise UsageError(
            f"{source.name}: its elements are {source.dtype}, which only {plan.source.format} has",
            f"leave it out with --drop {source.name!r}",
        )
    if source.layout == "partitioned" and tensor.fill is None:
        raise UsageError(
            f"{source.name}: its elements lie in pieces in the files of the ranks",
            "put them together with DeepSpeed's own zero_to_fp32.py, and convert what it writes",
        )
    if plan.form not in ("safetensors", "dcp") or tensor.fill is not None:
        if not has_data(source) and source.origin is None and tensor.fill is None:
            raise UsageError(f"{source.name}: {missing(tensor)}", hint)
        return
    if source.layout != "strided":
        raise UsageError(f"{source.name}: {plan.form} has no {source.layout} tensors", hint)
    if plan.form == "safetensors" and not DTYPES[tensor.dtype].safetensors:
        raise UsageError(f"{source.name}: safetensors has no {tensor.dtype} tensors", hint)
    if plan.form == "safetensors" and tensor.dtype == FLOAT4_PAIR and not source.shape:
        raise UsageError(f"{source.name}: safetensors has no {tensor.dtype} scalars", hint)
    if plan.form == "dcp" and tensor.dtype.startswith("bits"):
        raise UsageError(f"{source.name}: torch.distributed saves no {tensor.dtype} tensors", hint)
    if not has_data(source):
        raise UsageError(f"{source.name}: {missing(tensor)}", hint)


def missing(tensor: PlannedTensor) -> str:
    """Why the bytes of a tensor cannot be had."""
    if tensor.source.storage is not None:
        return "its bytes are packed in the source and cannot be copied"
    return "the source holds no data for it"


def check_blocks(tensor: PlannedTensor) -> None:
    """See that the blocks of a tensor make up the whole."""
    chunks = tensor.source.chunks
    stored = sum(
        math.prod(chunk.sizes)
        for chunk in chunks
        if chunk.item is not None or chunk.storage.data is not None
    )
    if chunks and stored < tensor.source.numel:
        raise CorruptFileError(
            f"{tensor.source.name}: {tensor.source.numel - stored:,} of its "
            f"{tensor.source.numel:,} elements are not stored",
            "is a file of the checkpoint missing?",
        )
