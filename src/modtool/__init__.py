"""modtool: what is inside any PyTorch model or checkpoint, and how to get it into another form.

The names below are loaded when they are first used; importing modtool imports no torch.
"""

import importlib

TYPE_CHECKING = False  # as typing has it, which is not imported where Ctrl-C is not caught yet

if TYPE_CHECKING:  # what type checkers and editors see of `PUBLIC`
    from modtool.api.checking import check
    from modtool.api.converting import convert
    from modtool.api.diffing import diff
    from modtool.api.freezing import freeze, unfreeze
    from modtool.api.inspecting import count, summary
    from modtool.api.reinitialising import reinit
    from modtool.api.tracing import trace
    from modtool.api.writing import Outcome, Writing
    from modtool.errors import ModtoolError
    from modtool.formats import open_checkpoint
    from modtool.live.freeze import apply_freeze, param_groups
    from modtool.records import Checkpoint
    from modtool.report.tables import Report
    from modtool.report.totals import Totals
    from modtool.traces import Trace

# Public name -> the module that has it.
PUBLIC = {
    "Outcome": "modtool.api.writing",
    "Writing": "modtool.api.writing",
    "apply_freeze": "modtool.live.freeze",
    "check": "modtool.api.checking",
    "convert": "modtool.api.converting",
    "diff": "modtool.api.diffing",
    "freeze": "modtool.api.freezing",
    "param_groups": "modtool.live.freeze",
    "reinit": "modtool.api.reinitialising",
    "unfreeze": "modtool.api.freezing",
    "Checkpoint": "modtool.records",
    "ModtoolError": "modtool.errors",
    "Report": "modtool.report.tables",
    "Totals": "modtool.report.totals",
    "Trace": "modtool.traces",
    "count": "modtool.api.inspecting",
    "open_checkpoint": "modtool.formats",
    "summary": "modtool.api.inspecting",
    "trace": "modtool.api.tracing",
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
