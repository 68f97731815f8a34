"""Plans: what is to be written, from which bytes, decided before the first byte is written."""

from modtool.plan.checks import check
from modtool.plan.conversion import (
    FLAGS_KEY,
    FLAGS_METADATA,
    FORMS,
    MODEL_KEY,
    flags_of,
    plan_conversion,
    plan_flags,
    plan_rewrite,
)
from modtool.plan.edits import (
    AS_ASKED,
    NOT_KEPT,
    cast,
    chosen_parameters,
    drop,
    drop_optimizer,
    keep,
    map_location,
    set_value,
    shrink,
    tied,
    types_of,
)
from modtool.plan.freezing import freeze, keep_norms_in_eval, unfreeze, warn_of_norms
from modtool.plan.norms import BN_EVAL_KEY, BN_EVAL_METADATA, bn_eval_of, recorded_bn_eval
from modtool.plan.optimizer import prune_optimizer, warn_of_dropped, warn_of_optimizer
from modtool.plan.overflows import Overflow, notes_of_overflows
from modtool.plan.records import Dropped, Fill, Form, Plan, PlannedTensor, Rule
from modtool.plan.reinitialising import reinit
from modtool.plan.renames import add_prefix, rename, strip_prefix
from modtool.plan.salvage import salvage
from modtool.plan.shards import shards_of, weight_map
from modtool.plan.ties import notes_of, stored_once
from modtool.plan.views import view_of

__all__ = [
    "AS_ASKED",
    "BN_EVAL_KEY",
    "BN_EVAL_METADATA",
    "FLAGS_KEY",
    "FLAGS_METADATA",
    "FORMS",
    "MODEL_KEY",
    "NOT_KEPT",
    "Dropped",
    "Fill",
    "Form",
    "Overflow",
    "Plan",
    "PlannedTensor",
    "Rule",
    "add_prefix",
    "bn_eval_of",
    "cast",
    "check",
    "chosen_parameters",
    "drop",
    "drop_optimizer",
    "flags_of",
    "freeze",
    "keep",
    "keep_norms_in_eval",
    "map_location",
    "notes_of",
    "notes_of_overflows",
    "plan_conversion",
    "plan_flags",
    "plan_rewrite",
    "prune_optimizer",
    "recorded_bn_eval",
    "reinit",
    "rename",
    "salvage",
    "set_value",
    "shards_of",
    "shrink",
    "stored_once",
    "strip_prefix",
    "tied",
    "types_of",
    "unfreeze",
    "view_of",
    "warn_of_dropped",
    "warn_of_norms",
    "warn_of_optimizer",
    "weight_map",
]
