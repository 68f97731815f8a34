"""What names tell: which section is the model's, which tensors are buffers."""

import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from modtool.pickles.modules import module_parts
from modtool.pickles.plain import mapping_of
from modtool.pickles.torch_objects import Tensors
from modtool.records import Section

__all__ = ["MODEL_NAMES", "buffer_names", "primary", "role_of"]

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
    if re.search(r"(?:^|[._])(?:ema|averaged?|swa)(?:[._]|$)", lower):
        return "ema"
    if module_parts(value) is not None:
        return "model"
    flat = bool(mapping) and all(
        isinstance(key, str) and (item is None or tensors.facts(item) is not None)
        for key, item in mapping.items()
    )
    return "model" if flat else "other"


def primary(sections: Sequence[Section]) -> tuple[Section, ...]:
    """The sections, with the role of model left to the best named; to all when none is named so.

    A generator and a discriminator are both the model; `model` beside `best_model` is alone.
    """
    candidates = [section for section in sections if section.role == "model"]
    best = min((rank(section) for section in candidates), default=len(MODEL_NAMES))
    if best == len(MODEL_NAMES):
        return tuple(sections)
    chosen = next(section for section in candidates if rank(section) == best)
    return tuple(
        replace(section, role="other") if section in candidates and section != chosen else section
        for section in sections
    )


def rank(section: Section) -> int:
    """How telling a section's name is: 0 the most."""
    last = section.name.rpartition(".")[2]
    return MODEL_NAMES.index(last) if last in MODEL_NAMES else len(MODEL_NAMES)
