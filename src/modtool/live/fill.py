"""Filling one tensor by a scheme, each tensor on its own.

What a tensor is filled with depends on the seed, its name, shape, dtype, scheme and arguments, and
on nothing else: not on what else is filled, nor in which order, in which process or on how many
threads. torch's global random state is neither read nor moved. (The bits are those of one release
of torch on one kind of processor: torch promises no more.)
"""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from modtool.errors import UsageError
from modtool.live.fans import Fans
from modtool.live.fans import fans as fans_of
from modtool.live.fit import LARGEST, unfit
from modtool.live.initialise import Draw, parse_arguments, scheme_named
from modtool.live.moments import Moments
from modtool.records import DTYPES

if TYPE_CHECKING:
    import torch

__all__ = ["expected", "fill", "fill_magnitude", "generator_for"]

Shape = tuple[int, ...]


def expected(
    scheme: str,
    arguments: Mapping[str, object] | None,
    shape: Shape,
    fans: Fans | None = None,
) -> Moments | None:
    """The mean and standard deviation that the scheme should give, or None where nobody knows.

    Args:
        scheme: Its name.
        arguments: As for `parse_arguments`.
        shape: The tensor's; the scheme must fit it.
        fans: Guessed from the shape where they are not given.
    """
    if 0 in shape or scheme == "default":
        return None
    values = parse_arguments(scheme, arguments)
    return scheme_named(scheme).theory(shape, fans or fans_of(shape), **values)


def fill(
    name: str,
    shape: Shape,
    dtype: str,
    scheme: str,
    arguments: Mapping[str, object] | None = None,
    *,
    seed: int = 0,
    fans: Fans | None = None,
) -> "torch.Tensor":
    """A new tensor in memory, filled: the same bits for the same arguments, always.

    Types narrower than float32 are filled in float32 and rounded. Memory, at its peak: the tensor
    once as it is filled and once as it is returned where that differs; trunc_normal and orthogonal
    take four to five times the tensor as it is filled.

    Args:
        name: The tensor's own name; a tied tensor is filled under one of its names.
        shape: Its shape.
        dtype: A key of `DTYPES`.
        scheme: A key of `SCHEMES`.
        arguments: As for `parse_arguments`.
        seed: Any whole number.
        fans: Guessed from the shape where they are not given.

    Raises:
        UsageError: The scheme does not fit, or its values are too large for the type.
    """
    import torch

    values = parse_arguments(scheme, arguments)
    if reason := unfit(scheme, shape, dtype, values):
        raise UsageError(f"{name}: {reason}")
    target: torch.dtype = getattr(torch, dtype)
    working = torch.float32 if dtype in LARGEST and DTYPES[dtype].bits < 32 else target
    tensor = torch.empty(shape, dtype=working, device="cpu")
    draw = Draw(tensor, generator_for(name, seed), fans or fans_of(shape) or Fans(0, 0))
    if tensor.numel() or scheme == "default":
        with torch.no_grad():
            scheme_named(scheme).fill(draw, **values)
    return rounded(tensor, target, f"{name}: {scheme}")


def rounded(tensor: "torch.Tensor", dtype: "torch.dtype", what: str) -> "torch.Tensor":
    """The tensor in its own type; a value that would become infinite is an error."""
    import torch

    name = str(dtype).removeprefix("torch.")
    if tensor.numel() and name in LARGEST:
        low, high = (end.item() for end in torch.aminmax(tensor))
        if not max(-low, high) <= LARGEST[name]:
            raise UsageError(f"{what} gives values beyond {name}, whose last is {LARGEST[name]:g}")
    return tensor.to(dtype)


def generator_for(name: str, seed: int) -> "torch.Generator":
    """The source of randomness of one tensor (torch's Mersenne Twister takes 32 bits of it)."""
    import torch

    digest = hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogatepass")).digest()
    return torch.Generator(device="cpu").manual_seed(int.from_bytes(digest[:4], "little"))


def fill_magnitude(direction: "torch.Tensor", shape: Shape, dtype: str) -> "torch.Tensor":
    """The magnitude that makes a weight-normed weight equal to its freshly filled direction.

    Args:
        direction: What the tensor named by `fans.direction_of` was filled with.
        shape: The magnitude's: 1 where the norm is taken, or () where it is taken over all.
        dtype: The magnitude's.

    Raises:
        UsageError: The shapes do not belong together, or a norm is 0, which would divide by 0.
    """
    import torch

    if shape and (
        len(shape) != direction.ndim
        or any(size not in (1, whole) for size, whole in zip(shape, direction.shape, strict=True))
    ):
        raise UsageError(f"{list(shape)} holds no norms of {list(direction.shape)}")
    over = [index for index, size in enumerate(shape) if size == 1] or None
    wide = direction.to(torch.float64)
    norms = (
        wide.abs()
        if shape and over is None
        else torch.linalg.vector_norm(wide, dim=over, keepdim=bool(shape))
    )
    if not norms.all():
        raise UsageError("a weight norm cannot hold rows of zeros", "name another scheme")
    return norms.to(getattr(torch, dtype))
