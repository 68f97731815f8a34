"""The verbs: what each command does, as a function. The library returns values, prints nothing."""

from modtool.api.converting import convert
from modtool.api.freezing import freeze, unfreeze
from modtool.api.inspecting import count, summary, trace
from modtool.api.reinitialising import reinit
from modtool.api.targets import open_target
from modtool.api.writing import Outcome, Writing
from modtool.live.initialise import SCHEMES

SCHEME_NAMES = tuple(SCHEMES)

__all__ = [
    "SCHEME_NAMES",
    "Outcome",
    "Writing",
    "convert",
    "count",
    "freeze",
    "open_target",
    "reinit",
    "summary",
    "trace",
    "unfreeze",
]
