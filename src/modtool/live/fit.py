"""Which schemes fit which tensors; needs no torch, so that a plan can be checked before it runs."""

import math
from collections.abc import Mapping
from types import MappingProxyType

from modtool.live.initialise import Scheme, scheme_named
from modtool.live.scheme_arguments import number

__all__ = ["LARGEST", "unfit"]

Shape = tuple[int, ...]

# The largest value of each type that can be filled; `torch.finfo(...).max`.
LARGEST: Mapping[str, float] = MappingProxyType(
    {
        "float64": (2 - 2**-52) * 2.0**1023,
        "float32": (2 - 2**-23) * 2.0**127,
        "bfloat16": (2 - 2**-7) * 2.0**127,
        "float16": 65504.0,
        "float8_e4m3fn": 448.0,
        "float8_e4m3fnuz": 240.0,
        "float8_e5m2": 57344.0,
        "float8_e5m2fnuz": 57344.0,
    }
)

WHOLE_RANGES: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "bool": (0, 1),
        **{f"uint{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
        **{f"int{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    }
)


def unfit(
    scheme: str, shape: Shape, dtype: str, arguments: Mapping[str, object] | None = None
) -> str | None:
    """Why the scheme cannot fill such a tensor, or None when it can.

    Args:
        scheme: Its name.
        shape: The tensor's.
        dtype: A key of `DTYPES`, or what else a container calls it.
        arguments: With them, `groups` and `val` are held against the tensor too.
    """
    entry = scheme_named(scheme)
    return (
        unfit_shape(entry, shape, arguments or {})
        or unfit_dtype(entry, dtype)
        or unfit_value(entry, dtype, arguments or {})
    )


def unfit_shape(scheme: Scheme, shape: Shape, arguments: Mapping[str, object]) -> str | None:
    """Why the shape does not do."""
    least, most = scheme.dimensions
    if len(shape) < least or (most is not None and len(shape) > most):
        wanted = f"{least} or more" if most is None else f"{least}"
        wanted += f" to {most}" if most not in (None, least) else ""
        return f"{scheme.name} needs {wanted} dimensions, this has {len(shape)}"
    groups = arguments.get("groups")
    if scheme.name == "dirac" and groups and shape[0] % int(str(groups)):
        return f"dirac cannot split {shape[0]} channels into {groups} groups"
    return None


def unfit_dtype(scheme: Scheme, dtype: str) -> str | None:
    """Why the element type does not do."""
    if dtype in LARGEST:
        return None
    if dtype in WHOLE_RANGES or dtype.startswith("complex"):
        return None if scheme.any_number else f"{scheme.name} makes real numbers, this is {dtype}"
    return f"nothing can be filled into {dtype}"


def unfit_value(scheme: Scheme, dtype: str, arguments: Mapping[str, object]) -> str | None:
    """Why the numbers that the scheme is given do not do."""
    numbers = {name: number(value) for name, value in arguments.items()}
    size = max((abs(value) for value in numbers.values() if value is not None), default=0.0)
    constant = numbers.get("val")
    if dtype in WHOLE_RANGES and constant is not None:
        low, high = WHOLE_RANGES[dtype]
        fits = constant.is_integer() and low <= constant <= high
        return None if fits else f"{dtype} has no {constant:g}"
    # torch wants the width of an interval inside the type's range too; xavier's is 2·√3·gain.
    largest = LARGEST.get(dtype, math.inf) if constant is not None else widest(dtype) / 4
    return None if size <= largest else f"{size:g} is too large for {dtype}"


def widest(dtype: str) -> float:
    """The largest value of the type in which this one is filled."""
    return LARGEST["float64" if dtype == "float64" else "float32"]
