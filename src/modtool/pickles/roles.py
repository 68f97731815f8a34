"""What names tell: which section is the model's, which tensors are buffers."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from modtool.pickles.modules import module_parts
from modtool.pickles.plain import attributes_of, items_of, mapping_of
from modtool.pickles.torch_objects import Tensors
from modtool.records import Section, TensorInfo

__all__ = [
    "are_random_states",
    "buffer_names",
    "is_model_name",
    "is_opaque",
    "is_parameter_name",
    "packed_entries",
    "primary",
    "role_of",
    "role_without_tensors",
    "training_role",
]

# Buffers that torch.nn, torch.ao and swa_utils register (torch 2.13), by their last names.
BUFFER_NAMES = frozenset(
    {
        "running_mean",
        "running_var",
        "num_batches_tracked",
        "n_averaged",
        "pos_weight",
        "_random_samples",
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
# Endings that parameters have, too: buffers where the same name with the other ending is there.
# `weight_v` alone is a parameter of weight_norm. Source: torch.nn.utils, torch.ao.quantization.
BESIDE = (
    ("_mask", "_orig"),
    ("_u", "_orig"),
    ("_v", "_orig"),
    ("weight_v", "weight_u"),
    ("scale", "zero_point"),
    ("zero_point", "scale"),
    ("eps", "min_val"),
    ("histogram", "min_val"),
)
ENDINGS = tuple(ending for ending, _ in BESIDE)
# What quantized modules pack their weights in. Source: torch 2.13, `torch/ao/nn/quantized`.
PACKED = r"(?:_packed_params|_packed_weight_[ih]h|_all_weight_values\.\d+\.param)"
PACKED_TENSOR = re.compile(rf"\A((?:.*\.)?{PACKED})(?:\.\d+)+\Z")
OPAQUE = re.compile(rf"(?:\A|\.)(?:_extra_state|_packed_params\.dtype|{PACKED})\Z")
PARAMETRIZED_BUFFER = re.compile(r"(?:^|\.)parametrizations\.\w+\.\d+\.(?:_u|_v|base)\Z")

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
    "student",
    "model_state_dicts",
    "state_dicts",
    "models",
    "nets",
    "networks",
    "modules",
)
FRACTIONS = ("float", "bfloat", "complex")
# What has fewer elements than this share of the largest part is no model beside it.
SMALL = 0.1

# What `state_dict()` calls a tensor: a module's path and a name, or that of a lone layer.
PARAMETER_NAME = re.compile(r"\A(?:(?:[^.\s/]+\.)+[^\W\d]\w*|weight(?:_\w+)?)\Z")
AVERAGED = re.compile(r"(?:^|[._])(?:ema|averaged?|swa|shadow)(?:[._]|$)")
AUXILIARY = re.compile(r"loss|criterion|metric")
TEACHER = re.compile(r"(?:^|[._])teacher(?:[._]|$)")


def is_model_name(name: str) -> bool:
    """True for `model`, `trainer.model` and `model0`, of which Megatron has several."""
    return name.rpartition(".")[2].rstrip("0123456789") in MODEL_NAMES


def is_parameter_name(name: str) -> bool:
    """True for `encoder.0.weight` and `weight`; not for `loss`, which stands beside a model."""
    return PARAMETER_NAME.match(name) is not None


def buffer_names(names: Collection[str]) -> frozenset[str]:
    """Those of a state_dict's names that torch itself gives to buffers."""
    known = set(names)
    return frozenset(name for name in names if is_buffer_name(name, known))


def is_buffer_name(name: str, known: Collection[str]) -> bool:
    """True for a name that torch gives to a buffer, or for what lies inside an extra state."""
    if name.rpartition(".")[2] in BUFFER_NAMES:
        return True
    if "parametrizations." in name and PARAMETRIZED_BUFFER.search(name):
        return True
    if "_extra_state." in name and "._extra_state." in f".{name}":
        return True
    return name.endswith(ENDINGS) and any(
        name.endswith(ending) and name.removesuffix(ending) + beside in known
        for ending, beside in BESIDE
    )


def is_opaque(key: object) -> bool:
    """True for the key of an entry of a state_dict that need not be a tensor.

    So is what `get_extra_state()` returned, and what a quantized module packed.
    """
    return isinstance(key, str) and OPAQUE.search(key) is not None


def packed_entries(names: Iterable[str]) -> list[str]:
    """The entries of quantized modules that numbered tensors were packed in, each once."""
    told = (name for name in names if "_packed_" in name or "_all_weight_values" in name)
    found = (PACKED_TENSOR.match(name) for name in told)
    return list(dict.fromkeys(match[1] for match in found if match is not None))


def role_of(name: str, value: object, tensors: Tensors) -> str:
    """What a section is: model, ema, optimizer, scheduler, scaler or other."""
    lower = name.lower()
    mapping = mapping_of(value) or {}
    training = training_role(lower, mapping or attributes_of(value) or {})
    if training is not None:
        return training
    if AVERAGED.search(lower):
        return "ema"
    if AUXILIARY.search(lower):
        return "other"
    if module_parts(value) is not None:
        return "model"
    if is_model_name(name) and (mapping or is_list_of_weights(value, tensors)):
        return "model"
    is_model = mapping and is_flat(mapping, tensors) and can_be_trained(mapping, tensors)
    return "model" if is_model else "other"


# What `torch.get_rng_state()` gives, a Mersenne Twister and two numbers (torch 2.13,
# `aten/src/ATen/CPUGeneratorImpl.cpp`).
RANDOM_STATE = (5056,)


def can_be_trained(mapping: Mapping[object, object], tensors: Tensors) -> bool:
    """True where a tensor has a parameter's name, or numbers with a fraction: no others can be."""
    return any(
        fact.dtype.startswith(FRACTIONS) or is_parameter_name(str(key))
        for key, item in mapping.items()
        if (fact := tensors.facts(item)) is not None
    )


def are_random_states(mapping: Mapping[object, object], tensors: Tensors) -> bool:
    """True for `{"cpu": torch.get_rng_state(), …}` as Trainer writes it: vectors of bytes alone."""
    facts = [fact for item in mapping.values() if (fact := tensors.facts(item)) is not None]
    are_bytes = all(fact.dtype == "uint8" and len(fact.shape) == 1 for fact in facts)
    has_state = any(fact.shape == RANDOM_STATE for fact in facts)
    return are_bytes and has_state and not can_be_trained(mapping, tensors)


def is_list_of_weights(value: object, tensors: Tensors) -> bool:
    """True for `[net.state_dict() for net in nets]` or `list(net.parameters())`."""

    def are_weights(item: object) -> bool:
        facts, mapping = tensors.facts(item), mapping_of(item)
        if facts is not None:
            return facts.requires_grad is True
        return bool(mapping) and is_flat(mapping or {}, tensors)

    items = items_of(value)
    return bool(items) and all(map(are_weights, items or ()))


def training_role(lower: str, mapping: Mapping[Any, object]) -> str | None:
    """What only training needs: an optimizer, a scheduler or a scaler; None for anything else."""
    for keys, role in TRAINING_KEYS.items():
        if all(key in mapping for key in keys):
            return role
    return next((role for part, role in TRAINING_NAMES.items() if part in lower), None)


# What the state of each has, as torch and fastai write it; and what it is called.
TRAINING_KEYS = {
    ("param_groups",): "optimizer",
    ("state", "hypers"): "optimizer",
    ("last_epoch",): "scheduler",
    ("growth_factor",): "scaler",
}
TRAINING_NAMES = {"optim": "optimizer", "scheduler": "scheduler", "scaler": "scaler"}


def role_without_tensors(name: str, value: object) -> str | None:
    """What a part without a tensor is; None for a plain value.

    An optimizer that took no step has its groups alone; the state of schedulers and scalers is
    numbers. A list may hold several of them.
    """
    items = items_of(value)
    mapping = mapping_of(items[0] if items else value)
    if not mapping:
        return None
    role = training_role(name.lower(), mapping)
    return role if role != "optimizer" or "param_groups" in mapping else None


def is_flat(mapping: Mapping[object, object], tensors: Tensors) -> bool:
    """True when there are tensors by name and nothing else, but for what `state_dict()` adds."""
    return all(
        isinstance(key, str) and (item is None or is_opaque(key) or tensors.facts(item) is not None)
        for key, item in mapping.items()
    )


def primary(sections: Sequence[Section], tensors: Iterable[TensorInfo]) -> tuple[Section, ...]:
    """The sections, with the role of model left to what is the model, by these rules in order.

    1. Averaged weights are the model where nothing else is. A teacher never is beside others.
    2. What lies outside goes before what lies inside, but for parts that are too small.
    3. Among those, the name that tells most; all of them where none tells: a generator and a
       discriminator are both the model, `model` beside `best_model` is alone.

    Args:
        sections: In the file's order.
        tensors: Those of all sections; what has few elements may be too small.
    """
    elements = Counter[str | None]()
    for tensor in tensors:
        elements[tensor.section] += tensor.numel
    candidates = [section for section in sections if section.role == "model"]
    candidates = candidates or [section for section in sections if section.role == "ema"]
    candidates = [each for each in candidates if not TEACHER.search(each.name)] or candidates
    least = SMALL * max((elements[section.name] for section in candidates), default=0)
    depth = min((level(each) for each in candidates if elements[each.name] >= least), default=0)
    chosen = [section for section in candidates if level(section) == depth]
    best = min(map(rank, chosen), default=UNNAMED)
    if best < UNNAMED:
        chosen = [next(section for section in chosen if rank(section) == best)]
    return tuple(
        replace(section, role="model" if section in chosen else "other")
        if section.role == "model" or section in chosen
        else section
        for section in sections
    )


def level(section: Section) -> int:
    """How deep a section lies: 0 for the root's own tensors."""
    return section.name.count(".") + 1 if section.name else 0


UNNAMED = len(MODEL_NAMES)


def rank(section: Section) -> int:
    """How telling a section's name is: 0 the most."""
    last = section.name.rpartition(".")[2]
    return MODEL_NAMES.index(last) if last in MODEL_NAMES else UNNAMED
