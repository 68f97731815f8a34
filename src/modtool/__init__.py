"""modtool: what is inside any PyTorch model or checkpoint, and how to get it into another form.

The names below are loaded when they are first used; importing modtool imports no torch.
"""

import importlib

# Public name -> the module that has it.
PUBLIC = {
    "Outcome": "modtool.api",
    "Writing": "modtool.api",
    "convert": "modtool.api",
    "freeze": "modtool.api",
    "reinit": "modtool.api",
    "unfreeze": "modtool.api",
    "Checkpoint": "modtool.records",
    "ModtoolError": "modtool.errors",
    "Report": "modtool.report",
    "Totals": "modtool.report",
    "Trace": "modtool.records",
    "count": "modtool.api",
    "open_checkpoint": "modtool.formats",
    "summary": "modtool.api",
    "trace": "modtool.api",
}

__all__ = [
    "Checkpoint",
    "ModtoolError",
    "Outcome",
    "Report",
    "Totals",
    "Trace",
    "Writing",
    "convert",
    "count",
    "freeze",
    "open_checkpoint",
    "reinit",
    "summary",
    "trace",
    "unfreeze",
]


def __getattr__(name: str) -> object:
    """Load a public name."""
    if name not in PUBLIC:
        raise AttributeError(f"module 'modtool' has no attribute {name!r}")
    return getattr(importlib.import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
