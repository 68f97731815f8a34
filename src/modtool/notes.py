"""The stable codes of notes and what each one means; README and --help are made from here."""

from collections.abc import Mapping
from types import MappingProxyType

from modtool.records import Level, Note

__all__ = ["CODES", "note"]

CODES: Mapping[str, tuple[Level, str]] = MappingProxyType(
    {
        "unregistered-module": (
            "warning",
            "a module or parameter kept in a plain list, dict or tuple, which PyTorch does not see",
        ),
        "uninitialized-parameter": (
            "note",
            "a lazy parameter or buffer that has no shape before the first forward pass",
        ),
        "state-dict-failed": (
            "warning",
            "the model's own state_dict() raised: names are those of its parameters and buffers",
        ),
        "not-a-tensor": (
            "note",
            "an entry of state_dict() that is no tensor",
        ),
        "ran-for-real": (
            "note",
            "the forward pass needed values, so it was run for real and not on fake tensors",
        ),
        "no-gradient": (
            "warning",
            "a backward pass was asked for, and no output depends on a trainable parameter",
        ),
        "stray-bytes": (
            "note",
            "bytes before or after an archive that belong to nothing in it",
        ),
        "missing-weights": ("warning", "names of the model that --weights did not have"),
        "unexpected-weights": ("warning", "names in --weights that the model does not have"),
        "mismatched-weights": ("warning", "names in --weights whose shape is not the model's"),
        "tied-stored-once": (
            "note",
            "tensors that share their elements, stored under one name; the metadata has the other",
        ),
        "tied-together": (
            "note",
            "a parameter that is frozen, unfrozen or filled because one tied to it is",
        ),
        "frozen-batchnorm": (
            "note",
            "a frozen module whose running statistics still change in train mode",
        ),
        "optimizer-holds-frozen": (
            "note",
            "the optimizer's state in the same checkpoint still holds frozen parameters",
        ),
        "guessed-fans": (
            "warning",
            "fan-in and fan-out guessed from the shape, as the layer's type is not known",
        ),
        "left-unfilled": (
            "note",
            "selected tensors that the scheme does not fit, left as they are by --skip-unfit",
        ),
    }
)


def note(code: str, where: str, message: str) -> Note:
    """A note with the level that its code has in `CODES`."""
    return Note(code, CODES[code][0], where, message)
