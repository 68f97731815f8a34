"""What differs between two checkpoints: structure and equality to the bit, without torch."""

from modtool.diffs.blocks import parts_of
from modtool.diffs.compare import (
    IGNORABLE,
    Ignorable,
    Options,
    comparable,
    compare_structure,
    in_one_shape,
    with_values,
)
from modtool.diffs.contents import compare_bytes, first_of_each, read_into
from modtool.diffs.records import (
    Differences,
    Fit,
    Measure,
    ModuleChange,
    Pair,
    Renaming,
    Single,
    Tie,
    Tolerance,
    ValueChange,
)
from modtool.diffs.renamings import likely_renamings
from modtool.diffs.workers import Meter, in_parallel, workers_for

__all__ = [
    "IGNORABLE",
    "Differences",
    "Fit",
    "Ignorable",
    "Measure",
    "Meter",
    "ModuleChange",
    "Options",
    "Pair",
    "Renaming",
    "Single",
    "Tie",
    "Tolerance",
    "ValueChange",
    "comparable",
    "compare_bytes",
    "compare_structure",
    "first_of_each",
    "in_one_shape",
    "in_parallel",
    "likely_renamings",
    "parts_of",
    "read_into",
    "with_values",
    "workers_for",
]
