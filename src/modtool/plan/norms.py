"""Modules with running statistics: those recorded to stay in eval mode, and those that should."""

import json
from collections.abc import Iterator

from modtool.pickles.plain import items_of, mapping_of
from modtool.plan.owners import owner
from modtool.plan.records import Plan
from modtool.records import Checkpoint

__all__ = [
    "BN_EVAL_KEY",
    "BN_EVAL_METADATA",
    "bn_eval_of",
    "frozen_norms",
    "norm_paths",
    "recorded_bn_eval",
]

# Beside the `requires_grad` map: a list of module paths in torch files, JSON text in safetensors.
BN_EVAL_KEY = "bn_eval"
BN_EVAL_METADATA = "modtool.bn_eval"


def recorded_bn_eval(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The paths of modules that a checkpoint records as to be kept in eval mode."""
    found: object = (mapping_of(checkpoint.root) or {}).get(BN_EVAL_KEY)
    if BN_EVAL_METADATA in checkpoint.metadata:
        try:
            found = json.loads(checkpoint.metadata[BN_EVAL_METADATA])
        except (ValueError, RecursionError):
            return ()
    return tuple(path for path in items_of(found) or () if isinstance(path, str))


def bn_eval_of(plan: Plan) -> list[str]:
    """The paths to record in the output, as its names have them."""
    recorded = frozenset(plan.bn_eval or ())
    found = {output: None for source, output in norm_paths(plan) if source in recorded}
    return list(found)


def norm_paths(plan: Plan) -> Iterator[tuple[str, str]]:
    """(path in the source, path in the output) of each module that keeps running statistics."""
    for tensor in plan.model_tensors:
        if tensor.source.name.rpartition(".")[2] == "running_mean":
            yield tensor.source.name.rpartition(".")[0], tensor.name.rpartition(".")[0]


def frozen_norms(plan: Plan) -> tuple[str, ...]:
    """The modules with running statistics that are frozen, by their paths in the source.

    That is: all parameters of the module are, or, where it has none, all of what it lies in.
    """
    flags = plan.requires_grad or {}
    below: dict[str, bool] = {}
    for tensor in plan.model_tensors:
        if tensor.name in flags:
            path = owner(tensor.source.name)[0]
            for prefix in ("", *prefixes_of(path)):
                below[prefix] = below.get(prefix, False) or flags[tensor.name]
    return tuple(
        source for source, _ in norm_paths(plan) if not below.get(nearest(source, below), True)
    )


def prefixes_of(path: str) -> Iterator[str]:
    """`a.b` -> `a`, `a.b`."""
    parts = path.split(".") if path else []
    return (".".join(parts[: end + 1]) for end in range(len(parts)))


def nearest(path: str, known: dict[str, bool]) -> str:
    """The path itself, or the nearest one around it that has parameters."""
    while path and path not in known:
        path = path.rpartition(".")[0]
    return path
