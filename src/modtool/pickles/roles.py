"""What names tell: which section is the model's, which tensors are buffers."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from modtool.pickles.modules import module_parts
from modtool.pickles.plain import mapping_of
from modtool.pickles.torch_objects import Tensors
from modtool.records import Section

__all__ = ["buffer_names", "is_model_name", "primary", "role_of"]

# Buffers that torch.nn, torch.nn.utils and torch.ao register (torch 2.13), by their last names.
BUFFER_NAMES = frozenset(
    {
        "running_mean",
        "running_var",
        "num_batches_tracked",
        "weight_mask",
        "bias_mask",
        "weight_u",
        "fake_quant_enabled",
        "observer_enabled",
        "min_val",
        "max_val",
        "_extra_state",
    }
)
PARAMETRIZED_BUFFER = re.compile(r"(?:^|\.)parametrizations\.\w+\.\d+\._[uv]\Z")

# Where the model lies, most telling first; compared with the last part of a section's name.
MODEL_NAMES = (
    "model_state_dict",
    "model_state",
    "state_dict",
    "model",
    "net",
    "network",
    "module",
    "weights",
    "params",
    "model_weights",
    "net_state_dict",
)

AVERAGED = re.compile(r"(?:^|[._])(?:ema|averaged?|swa)(?:[._]|$)")
AUXILIARY = re.compile(r"loss|criterion|metric")


def is_model_name(name: str) -> bool:
    """True for `model`, `trainer.model` and `model0`, of which Megatron has several."""
    return name.rpartition(".")[2].rstrip("0123456789") in MODEL_NAMES


def buffer_names(names: Collection[str]) -> frozenset[str]:
    """Those of a state_dict's names that torch itself gives to buffers.

    `weight_v` is a buffer beside `weight_u` (spectral_norm), a parameter else (weight_norm).
    """
    known = set(names)
    return frozenset(
        name
        for name in names
        if name.rpartition(".")[2] in BUFFER_NAMES
        or (name.endswith("weight_v") and f"{name[:-1]}u" in known)
        or PARAMETRIZED_BUFFER.search(name)
    )


def role_of(name: str, value: object, tensors: Tensors) -> str:
    """What a section is: model, ema, optimizer, scheduler, scaler or other."""
    lower = name.lower()
    mapping = mapping_of(value) or {}
    if "param_groups" in mapping or "optim" in lower:
        return "optimizer"
    if "scheduler" in lower or "last_epoch" in mapping:
        return "scheduler"
    if "scaler" in lower or "growth_factor" in mapping:
        return "scaler"
    if AVERAGED.search(lower):
        return "ema"
    if AUXILIARY.search(lower):
        return "other"
    if module_parts(value) is not None or (mapping and is_model_name(name)):
        return "model"
    return "model" if mapping and is_flat(mapping, tensors) else "other"


def is_flat(mapping: Mapping[object, object], tensors: Tensors) -> bool:
    """True when there are tensors by name and nothing else, but for what `state_dict()` adds."""
    return all(
        isinstance(key, str)
        and (item is None or key.endswith("_extra_state") or tensors.facts(item) is not None)
        for key, item in mapping.items()
    )


def primary(sections: Sequence[Section]) -> tuple[Section, ...]:
    """The sections, with the role of model left to the best named; to all when none is named so.

    A generator and a discriminator are both the model; `model` beside `best_model` is alone.
    """
    candidates = [section for section in sections if section.role == "model"]
    named = [section for section in candidates if rank(section) < len(MODEL_NAMES)]
    if not named:
        return tuple(sections)
    # The outermost first: a teacher's `model` lies deeper than the `net` that is trained.
    chosen = min(named, key=lambda section: (section.name.count("."), rank(section)))
    return tuple(
        replace(section, role="other") if section in candidates and section != chosen else section
        for section in sections
    )


def rank(section: Section) -> int:
    """How telling a section's name is: 0 the most."""
    last = section.name.rpartition(".")[2]
    return MODEL_NAMES.index(last) if last in MODEL_NAMES else len(MODEL_NAMES)
