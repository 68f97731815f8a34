"""Functions that drop elements, and whether a call of them heeds the model's mode."""

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch.nn import functional

__all__ = ["probability_always_used"]

# (name of the probability, name of the flag) of each function's parameters.
WITH_FLAG: Mapping[Any, tuple[str, str]] = MappingProxyType(
    {
        functional.dropout: ("p", "training"),
        functional.dropout1d: ("p", "training"),
        functional.dropout2d: ("p", "training"),
        functional.dropout3d: ("p", "training"),
        functional.alpha_dropout: ("p", "training"),
        functional.feature_alpha_dropout: ("p", "training"),
        functional.multi_head_attention_forward: ("dropout_p", "training"),
    }
)
BUILT_IN = (torch.dropout, torch.alpha_dropout, torch.feature_dropout, torch.feature_alpha_dropout)


def probability_always_used(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> float:
    """With which probability a call drops elements; 0 where it does not drop."""
    if func in BUILT_IN:
        values = (*args[1:3], *(kwargs[name] for name in ("p", "train") if name in kwargs))
        return float(values[0]) if len(values) == 2 and values[1] else 0.0
    if func is functional.scaled_dot_product_attention:
        return float(kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0))
    if func not in WITH_FLAG:
        return 0.0
    probability, flag = WITH_FLAG[func]
    bound = inspect.signature(func).bind(*args, **kwargs)
    bound.apply_defaults()
    return float(bound.arguments[probability]) if bound.arguments[flag] else 0.0
