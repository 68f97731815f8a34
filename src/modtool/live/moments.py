"""Mean and standard deviation: what theory says of each scheme, and what a tensor has.

Standard deviations are those of the whole tensor (divided by n, not n − 1). The functions named
after schemes take the shape, the fans and the scheme's arguments.
"""

import math
from typing import TYPE_CHECKING

from modtool.live.fans import Fans
from modtool.live.scheme_arguments import gain as gain_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Moments", "Running", "measured"]

Moments = tuple[float, float]
"""Mean and standard deviation."""

Shape = tuple[int, ...]

# Small enough for a core's own cache: ten times as fast as chunks of a megabyte.
CHUNK = 1 << 15

# Where the density hardly changes between the bounds, its formula only loses digits.
NARROW = 1e-3


def measured(tensor: "Tensor") -> Moments | None:
    """Mean and standard deviation of a real tensor's elements, in float64; None without elements.

    It works in chunks: a tensor of any size costs a few megabytes beside itself.
    """
    running = Running(str(tensor.dtype).removeprefix("torch."))
    running.add(tensor.detach())
    return running.moments()


class Running:
    """Mean and standard deviation of elements that come piece by piece, in float64.

    Pieces are merged by the formula of Chan, Golub and LeVeque (1979), which loses no digits where
    the mean is large beside the deviation.

    Args:
        dtype: The elements' type; complex numbers are not measured.
    """

    def __init__(self, dtype: str) -> None:
        self.complex = dtype.startswith("complex")
        self.count = 0
        self.mean = 0.0
        self.squares = 0.0

    def add(self, piece: "Tensor") -> None:
        """Take more elements into account."""
        flat = piece.reshape(-1)
        for start in range(0, 0 if self.complex else len(flat), CHUNK):
            self.merge(flat[start : start + CHUNK])

    def merge(self, chunk: "Tensor") -> None:
        """Take a chunk of at least one element into account."""
        import torch

        wide = chunk.to(torch.float64)
        mean = wide.mean().item()
        squares = (wide - mean).square_().sum().item()
        total = self.count + len(chunk)
        shift = mean - self.mean
        self.squares += squares + shift * shift * self.count * len(chunk) / total
        self.mean += shift * len(chunk) / total
        self.count = total

    def moments(self) -> Moments | None:
        """What was found so far; None without elements."""
        return (self.mean, math.sqrt(self.squares / self.count)) if self.count else None


def uniform(shape: Shape, fans: Fans | None, a: float, b: float) -> Moments:
    """U(a, b)."""
    return (a + b) / 2, (b - a) / math.sqrt(12.0)


def normal(shape: Shape, fans: Fans | None, mean: float, std: float) -> Moments:
    """N(mean, std²)."""
    return mean, std


def trunc_normal(
    shape: Shape, fans: Fans | None, mean: float, std: float, a: float, b: float
) -> Moments:
    """N(mean, std²) given that it lies in [a, b]."""
    low, high = (a - mean) / std, (b - mean) / std
    if high - low < NARROW:
        return uniform(shape, fans, a, b)
    mass = (math.erf(high / math.sqrt(2.0)) - math.erf(low / math.sqrt(2.0))) / 2
    shift = (density(low) - density(high)) / mass
    variance = 1 + (low * density(low) - high * density(high)) / mass - shift**2
    return mean + std * shift, std * math.sqrt(max(variance, 0.0))


def density(x: float) -> float:
    """The density of the standard normal distribution."""
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def constant(shape: Shape, fans: Fans | None, val: float) -> Moments:
    """All elements alike."""
    return val, 0.0


def ones(shape: Shape, fans: Fans | None) -> Moments:
    """All elements 1."""
    return 1.0, 0.0


def zeros(shape: Shape, fans: Fans | None) -> Moments:
    """All elements 0."""
    return 0.0, 0.0


def eye(shape: Shape, fans: Fans | None) -> Moments:
    """Ones on the diagonal."""
    return share(min(shape) / math.prod(shape))


def dirac(shape: Shape, fans: Fans | None, groups: int) -> Moments:
    """In each group, as many ones as it has channels on both sides."""
    return share(groups * min(shape[0] // groups, shape[1]) / math.prod(shape))


def share(part: float) -> Moments:
    """A tensor of zeros with this share of ones."""
    return part, math.sqrt(part * (1 - part))


def xavier(shape: Shape, fans: Fans | None, gain: float) -> Moments:
    """Glorot and Bengio (2010): the variance is gain² · 2 / (fan_in + fan_out)."""
    assert fans is not None
    return 0.0, gain * math.sqrt(2.0 / float(fans.fan_in + fans.fan_out))


def kaiming(shape: Shape, fans: Fans | None, a: float, mode: str, nonlinearity: str) -> Moments:
    """He et al. (2015): the variance is gain² / fan."""
    assert fans is not None
    fan = fans.fan_in if mode == "fan_in" else fans.fan_out
    return 0.0, gain_of(nonlinearity, a) / math.sqrt(fan)


def orthogonal(shape: Shape, fans: Fans | None, gain: float) -> Moments:
    """Saxe et al. (2013): the rows, or the columns if they are fewer, have norm `gain`."""
    return 0.0, gain / math.sqrt(max(shape[0], math.prod(shape[1:])))


def sparse(shape: Shape, fans: Fans | None, sparsity: float, std: float) -> Moments:
    """Martens (2010): N(0, std²) with ceil(sparsity · rows) zeros in each column."""
    return 0.0, std * math.sqrt(1 - math.ceil(sparsity * shape[0]) / shape[0])


def unknown(shape: Shape, fans: Fans | None) -> None:
    """What a module does for itself, nobody else knows."""
