"""Every error that modtool raises on purpose.

    ModtoolError                  could not do it: exit code 2
    ├── UsageError                an argument that does not fit, a pattern that selects nothing
    ├── TargetError               no such file, folder, object or name
    │   └── UnknownFormatError    a file that is something else: says what, and what to do
    ├── CorruptFileError          a file that contradicts itself or ends too early
    │   ├── DamagedFileError      a file of which a part is lost, whose rest may still be read
    │   │   └── TruncatedFileError  a file that ends too early
    │   └── UnsafeFileError       a file whose reading would cost more than it may
    ├── ModelError                the user's own code raised: file, line, message
    └── OutputError               nothing could be written, or something would be overwritten

The message says what and where; the hint, on a line of its own, what to do.
"""

__all__ = [
    "CorruptFileError",
    "DamagedFileError",
    "ModelError",
    "ModtoolError",
    "OutputError",
    "TargetError",
    "TruncatedFileError",
    "UnknownFormatError",
    "UnsafeFileError",
    "UsageError",
    "a_kind",
]


def a_kind(value: object) -> str:
    """`an int`, `a dict`: what a message calls a value that is of the wrong kind."""
    name = type(value).__name__
    return f"an {name}" if name.lower().startswith(("a", "e", "i", "o", "nd")) else f"a {name}"


class ModtoolError(Exception):
    """The root of the tree: a message for a person, and a hint of what to do about it.

    Attributes:
        REMEDY: The hint where none is given.
    """

    REMEDY = ""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint or self.REMEDY

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(ModtoolError):
    """An argument that does not fit, or a pattern that selects nothing."""


class TargetError(ModtoolError):
    """The target does not exist, or does not hold what was asked for."""


class UnknownFormatError(TargetError):
    """The file is no checkpoint that modtool reads; the message names what it is."""


class CorruptFileError(ModtoolError):
    """The file contradicts itself, or ends before it should."""

    REMEDY = "the file is damaged, or was cut short: download or save it again"


class DamagedFileError(CorruptFileError):
    """A part of the file is lost; what is left of it may still be read."""

    REMEDY = (
        "download or save it again; if torch.save wrote it, `modtool convert --salvage` writes the "
        "tensors that are whole, where any is"
    )


class TruncatedFileError(DamagedFileError):
    """The file ends before it should; what is left of it may still be read."""

    REMEDY = (
        "download or save it again; `modtool convert --salvage` writes the tensors that are whole, "
        "where any is"
    )


class UnsafeFileError(CorruptFileError):
    """Reading the file would cost more time or memory than a file of its size may."""

    REMEDY = "modtool reads no more than that: load it with torch only if you know who made it"


class ModelError(ModtoolError):
    """The user's own model code raised while it was imported or constructed."""


class OutputError(ModtoolError):
    """The output could not be written, or would overwrite something."""
