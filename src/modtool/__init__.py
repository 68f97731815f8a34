"""modtool: what is inside any PyTorch model or checkpoint, and how to get it into another form.

The names below are loaded when they are first used; importing modtool imports no torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what type checkers and editors see of `PUBLIC`
    from modtool.api import (
        Outcome,
        Writing,
        check,
        convert,
        count,
        freeze,
        reinit,
        summary,
        trace,
        unfreeze,
    )
    from modtool.errors import ModtoolError
    from modtool.formats import open_checkpoint
    from modtool.live.freeze import apply_freeze, param_groups
    from modtool.records import Checkpoint, Trace
    from modtool.report import Report, Totals

# Public name -> the module that has it.
PUBLIC = {
    "Outcome": "modtool.api",
    "Writing": "modtool.api",
    "apply_freeze": "modtool.live.freeze",
    "check": "modtool.api",
    "convert": "modtool.api",
    "diff": "modtool.api",
    "freeze": "modtool.api",
    "param_groups": "modtool.live.freeze",
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
    "apply_freeze",
    "check",
    "convert",
    "count",
    "diff",
    "freeze",
    "open_checkpoint",
    "param_groups",
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
