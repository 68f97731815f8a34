"""What names and sections say: prefixes of wrappers, optimizer state that fits no model."""

from collections.abc import Iterator

from modtool.names import WRAPPERS
from modtool.notes import note
from modtool.records import Checkpoint, Note

__all__ = ["optimizer_without_model", "wrapped_names"]

PREFIXES = ("module.", "_orig_mod.")


def wrapped_names(checkpoint: Checkpoint) -> Iterator[Note]:
    """Names that a wrapper prefixed: the bare model does not load them."""
    names = [tensor.name for tensor in checkpoint.model_tensors]
    for prefix in PREFIXES:
        wrapped = [name for name in names if prefix in name]
        if wrapped:
            yield note(
                "wrapped-names",
                wrapped[0],
                f"{len(wrapped):,} names contain {prefix!r}, which {WRAPPERS[prefix]} puts there",
                f"modtool convert --strip-prefix {prefix} takes it away",
            )


def optimizer_without_model(checkpoint: Checkpoint) -> Iterator[Note]:
    """Optimizer state for more tensors than the model has."""
    sections = {part.name for part in checkpoint.sections if part.role == "optimizer"}
    kept = {
        tensor.name.rpartition(".")[0]
        for tensor in checkpoint.tensors
        if tensor.section in sections
    }
    parameters = sum(tensor.role == "parameter" for tensor in checkpoint.model_tensors)
    if checkpoint.sections and parameters and len(kept) > parameters:
        yield note(
            "optimizer-mismatch",
            ", ".join(sorted(sections)),
            f"state for {len(kept):,} parameters, and the model has {parameters:,}",
        )
