"""What names, modes and metadata say: wrappers' prefixes, train mode, what loaders look for."""

from collections.abc import Iterator

from modtool.names import WRAPPERS
from modtool.notes import note
from modtool.records import Checkpoint, Note

__all__ = ["missing_metadata", "number_of", "saved_in_train_mode", "some", "wrapped_names"]

PREFIXES = ("module.", "_orig_mod.")
SHOWN = 4


def some(names: list[str]) -> str:
    """The first few names."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def number_of(count: int, word: str) -> str:
    """`1 name`, `2,000 names`."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def wrapped_names(checkpoint: Checkpoint) -> Iterator[Note]:
    """Names that a wrapper prefixed: the bare model does not load them."""
    names = [tensor.name for tensor in checkpoint.model_tensors]
    for prefix in PREFIXES:
        wrapped = [name for name in names if f".{prefix}" in f".{name}"]
        if wrapped:
            yield note(
                "wrapped-names",
                wrapped[0],
                f"{len(wrapped):,} of {len(names):,} names contain {prefix!r}, "
                f"which {WRAPPERS[prefix]} puts there",
                f"modtool convert --strip-prefix {prefix} takes it away",
            )


def saved_in_train_mode(checkpoint: Checkpoint) -> Iterator[Note]:
    """Modules of a saved model that compute otherwise in train mode, and are in it."""
    if checkpoint.format == "python":
        return
    modules = [
        node
        for node in checkpoint.modules
        if node.mode_sensitive and node.training and node.alias_of is None
    ]
    if modules:
        kinds = ", ".join(dict.fromkeys(str(node.type) for node in modules))
        paths = some([node.path or "(model)" for node in modules])
        message = f"{kinds} saved in train mode: {paths}"
        yield note("saved-in-train-mode", modules[0].path, message)


def missing_metadata(checkpoint: Checkpoint) -> Iterator[Note]:
    """A safetensors file that does not say which framework wrote it."""
    if checkpoint.format == "safetensors" and "format" not in checkpoint.metadata:
        message = "__metadata__ has no 'format', where loaders of several frameworks look for 'pt'"
        yield note("missing-metadata", "__metadata__", message)
