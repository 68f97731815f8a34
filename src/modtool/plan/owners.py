"""Which module and parameter a stored tensor stands for, where it is stored under another name.

A parametrized, weight-normed, spectral-normed or pruned parameter is stored under other names:
`fc.parametrizations.weight.original1`, `fc.weight_v` and `fc.weight_orig` are `fc`, `weight`.
"""

import re

__all__ = ["direction_of", "is_bias", "owner"]


def owner(name: str) -> tuple[str, str]:
    """The module's path and the parameter that a tensor's name stands for."""
    path, _, rest = name.partition("parametrizations.")
    if rest:
        return path.rstrip("."), rest.partition(".")[0]
    path, _, parameter = name.rpartition(".")
    found = re.fullmatch(r"(weight\w*?)_(?:g|v|orig)|(bias\w*?)_orig", parameter)
    return path, (found[1] or found[2]) if found else parameter


def direction_of(name: str) -> str | None:
    """The tensor whose norms a weight norm's magnitude holds; None when `name` is no magnitude."""
    if re.search(r"(?:^|\.)parametrizations\.\w+\.original0$", name):
        return name.removesuffix("0") + "1"
    if re.search(r"(?:^|\.)weight\w*_g$", name):
        return name.removesuffix("g") + "v"
    return None


def is_bias(name: str, dimensions: int) -> bool:
    """True for a vector that is called a bias: `bias`, `bias_ih_l0`, `in_proj_bias`."""
    return dimensions <= 1 and bool(re.search(r"(?:^|_)bias(?:_|$)", owner(name)[1]))
