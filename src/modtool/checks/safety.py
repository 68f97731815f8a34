"""What loading a file for real would run."""

from collections.abc import Iterator

from modtool.notes import note
from modtool.pickles.callables import findings
from modtool.records import CallableUse, Checkpoint, Note

__all__ = ["dangerous", "unknown"]


def dangerous(checkpoint: Checkpoint) -> Iterator[Note]:
    """Callables that are known to execute code when a real load calls them."""
    for use in findings(checkpoint):
        if use.severity == "executes-code":
            yield note("executes-code", use.where, f"loading it for real {done_with(use)}")


def unknown(checkpoint: Checkpoint) -> Iterator[Note]:
    """Callables that ordinary checkpoints do not need, and of which nothing is known."""
    for use in findings(checkpoint):
        if use.severity == "unknown-callable":
            yield note("unknown-callable", use.where, f"loading it for real {done_with(use)}")


def done_with(use: CallableUse) -> str:
    """`calls os.system('ls')`, or `imports os.system`."""
    if not use.calls:
        return f"imports {use.name}"
    times = f" ({use.calls:,} times)" if use.calls > 1 else ""
    return f"calls {use.name}({use.arguments}){times}"
