"""The verbs: what each command does, as a function. The library returns values, prints nothing."""

from modtool.api.checking import Checked, check
from modtool.api.converting import convert
from modtool.api.diffing import diff
from modtool.api.freezing import flags, freeze, unfreeze
from modtool.api.inspecting import count, summary
from modtool.api.reinitialising import recipe_for, reinit
from modtool.api.targets import open_target
from modtool.api.tracing import trace
from modtool.api.writing import Outcome, Writing
from modtool.live.initialise import SCHEMES, arguments_help
from modtool.live.recipe import recipe_document, recipe_text

SCHEME_NAMES = tuple(SCHEMES)
SCHEME_ARGUMENTS = arguments_help()

__all__ = [
    "SCHEME_ARGUMENTS",
    "SCHEME_NAMES",
    "Checked",
    "Outcome",
    "Writing",
    "check",
    "convert",
    "count",
    "diff",
    "flags",
    "freeze",
    "open_target",
    "recipe_document",
    "recipe_for",
    "recipe_text",
    "reinit",
    "summary",
    "trace",
    "unfreeze",
]
