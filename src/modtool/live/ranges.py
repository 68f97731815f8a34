"""Which finite values a floating-point type has no place for."""

import math

import torch

__all__ = ["edge_of", "lost", "reaches"]


def edge_of(source: torch.dtype, target: torch.dtype) -> float | None:
    """The least magnitude that may not fit; None where all that `source` can hold fits.

    What lies less than half a step above the largest number of a type is rounded down to it.
    """
    limits = torch.finfo(target)
    _, exponent = math.frexp(limits.max)
    edge = limits.max + math.ldexp(limits.eps, exponent - 2)
    return None if torch.finfo(source).max < edge else edge


def reaches(values: torch.Tensor, edge: float) -> bool:
    """True when a magnitude is that large, or one of them is NaN: a quick look at many."""
    if not values.numel():
        return False
    wide = values if values.element_size() > 1 else values.float()  # of float8 torch has none
    least, greatest = (float(end) for end in torch.aminmax(wide))
    return not (-edge < least and greatest < edge)


def lost(values: torch.Tensor, target: torch.dtype, edge: float) -> int:
    """How many finite elements become infinite, NaN, or the largest number that there is."""
    exact = values.double()
    fits = (exact.abs() <= edge) & values.to(target).double().isfinite()
    return int((exact.isfinite() & ~fits).sum())
