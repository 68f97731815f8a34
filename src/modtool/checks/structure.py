"""What names, modes and metadata say: wrappers' prefixes, train mode, what loaders look for."""

from collections.abc import Iterator, Sequence

from modtool.names import WRAPPERS, Renamer, stripped
from modtool.notes import first_names, note
from modtool.records import Checkpoint, Note

__all__ = [
    "missing_metadata",
    "number_of",
    "saved_hooks",
    "saved_in_train_mode",
    "some",
    "wrapped_names",
]

# What puts hooks on modules that belong there: weight norm, pruning, adapters, offloading.
LIBRARIES = (
    *("torch.", "torchvision.", "transformers.", "timm.", "diffusers.", "peft.", "accelerate."),
    *("lightning.", "pytorch_lightning.", "deepspeed."),
)
PREFIXES = ("module.", "_orig_mod.")
SHOWN = 4


def some(names: list[str]) -> str:
    """The first few names."""
    return first_names(names, SHOWN)


def number_of(count: int, word: str) -> str:
    """`1 name`, `2,000 names`."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def wrapped_names(checkpoint: Checkpoint) -> Iterator[Note]:
    """Names that a wrapper prefixed: the bare model does not load them."""
    names = [tensor.name for tensor in checkpoint.model_tensors]
    found = {prefix: [name for name in names if has_part(name, prefix)] for prefix in PREFIXES}
    prefixes = [prefix for prefix, wrapped in found.items() if wrapped]
    for prefix in prefixes:
        wrapped = found[prefix]
        yield note(
            "wrapped-names",
            wrapped[0],
            f"{len(wrapped):,} of {len(names):,} names contain{'s' * (len(wrapped) == 1)} "
            f"{prefix!r}, which {WRAPPERS[prefix]} puts there",
            f"modtool convert {unwrapping(names, prefixes)} takes "
            f"{'them' if len(prefixes) > 1 else 'it'} away",
        )


def has_part(name: str, part: str) -> bool:
    """True for a name with a part, at its beginning or behind a dot."""
    return f".{part}" in f".{name}"


def unwrapping(names: Sequence[str], prefixes: Sequence[str]) -> str:
    """The options of convert that take wrappers' prefixes off names, wherever they stand."""

    def is_clean(change: Renamer) -> bool:
        return not any(has_part(change(name), prefix) for name in names for prefix in prefixes)

    if is_clean(lambda name: stripped(name, prefixes)):
        return " ".join(f"--strip-prefix {prefix}" for prefix in prefixes)
    parts = "|".join(prefix.removesuffix(".") for prefix in prefixes)
    parts = f"({parts})" if len(prefixes) > 1 else parts
    return rf"--rename 're:\b{parts}\.='"


def saved_in_train_mode(checkpoint: Checkpoint) -> Iterator[Note]:
    """Modules of a saved model that compute otherwise in train mode, and are in it."""
    if checkpoint.format == "python":
        return
    modules = [
        node
        for node in checkpoint.model_modules
        if node.mode_sensitive and node.training and node.alias_of is None
    ]
    if modules:
        kinds = ", ".join(dict.fromkeys(str(node.type) for node in modules))
        paths = some([node.path or "(model)" for node in modules])
        message = f"{kinds} saved in train mode: {paths}"
        yield note("saved-in-train-mode", modules[0].path, message)


def saved_hooks(checkpoint: Checkpoint) -> Iterator[Note]:
    """Hooks that were saved with a model, and are no library's and none of its own classes'."""
    own = {f"{node.class_name}." for node in checkpoint.model_modules if node.class_name}
    for node in checkpoint.model_modules:
        for kind, name in node.hooks if node.alias_of is None else ():
            if not name.startswith((*LIBRARIES, *own)):
                message = f"a {kind} was saved with it ({name}), and runs in every pass"
                yield note("leftover-hook", node.path, message)


def missing_metadata(checkpoint: Checkpoint) -> Iterator[Note]:
    """A safetensors file that does not say which framework wrote it."""
    if checkpoint.format == "safetensors" and "format" not in checkpoint.metadata:
        message = "__metadata__ has no 'format', where loaders of several frameworks look for 'pt'"
        yield note("missing-metadata", "__metadata__", message)
