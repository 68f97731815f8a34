"""The schemes that fill a tensor, as `torch.nn.init` has them.

A new scheme is a function here, its theory in `moments`, and its line in `SCHEMES`. torch is
imported when a tensor is filled, not before: `--help` lists the schemes without it.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from modtool.errors import UsageError
from modtool.live import moments
from modtool.live.fans import Fans
from modtool.live.moments import Moments
from modtool.live.scheme_arguments import Argument, Values, read_values

if TYPE_CHECKING:
    import torch

__all__ = [
    "SCHEMES",
    "Draw",
    "Scheme",
    "arguments_help",
    "parse_arguments",
    "scheme_named",
]


@dataclass(frozen=True, slots=True)
class Draw:
    """What a scheme works with: an empty tensor, where its randomness comes from, its fans."""

    tensor: "torch.Tensor"
    generator: "torch.Generator"
    fans: Fans


@dataclass(frozen=True, slots=True)
class Scheme:
    """One initialiser.

    Attributes:
        name: As in `torch.nn.init`, without the underscore at the end.
        fill: Fills `draw.tensor`; takes the arguments by name. Its docstring is the scheme's help.
        theory: Shape, fans and arguments -> mean and standard deviation; None where unknown.
        arguments: What it may be told, with defaults.
        dimensions: The least and the most dimensions of a tensor that it fits.
        uses_fans: True when it scales by fan-in or fan-out.
        any_number: True when its values are known beforehand, so that integers can hold them.
    """

    name: str
    fill: Callable[..., None]
    theory: Callable[..., Moments | None]
    arguments: tuple[Argument, ...] = ()
    dimensions: tuple[int, int | None] = (0, None)
    uses_fans: bool = field(default=False, kw_only=True)
    any_number: bool = field(default=False, kw_only=True)

    @property
    def help(self) -> str:
        """One line about it."""
        return (self.fill.__doc__ or "").partition("\n")[0]


def uniform(draw: Draw, a: float, b: float) -> None:
    """Uniform between a and b."""
    draw.tensor.uniform_(a, b, generator=draw.generator)


def normal(draw: Draw, mean: float, std: float) -> None:
    """Normal with this mean and standard deviation."""
    draw.tensor.normal_(mean, std, generator=draw.generator)


def trunc_normal(draw: Draw, mean: float, std: float, a: float, b: float) -> None:
    """Normal, redrawn until it lies between a and b."""
    from torch.nn import init

    init.trunc_normal_(draw.tensor, mean, std, a, b, generator=draw.generator)


def constant(draw: Draw, val: float) -> None:
    """The value val everywhere."""
    draw.tensor.fill_(val)


def ones(draw: Draw) -> None:
    """1 everywhere."""
    draw.tensor.fill_(1)


def zeros(draw: Draw) -> None:
    """0 everywhere."""
    draw.tensor.zero_()


def eye(draw: Draw) -> None:
    """The identity matrix, or as much of it as there is room for."""
    draw.tensor.zero_().fill_diagonal_(1)


def dirac(draw: Draw, groups: int) -> None:
    """A convolution that passes its channels through, in each of its groups."""
    from torch.nn import init

    init.dirac_(draw.tensor, groups)


def xavier_uniform(draw: Draw, gain: float) -> None:
    """Glorot's: uniform, scaled by fan-in and fan-out."""
    bound = math.sqrt(3.0) * moments.xavier((), draw.fans, gain)[1]
    draw.tensor.uniform_(-bound, bound, generator=draw.generator)


def xavier_normal(draw: Draw, gain: float) -> None:
    """Glorot's: normal, scaled by fan-in and fan-out."""
    std = moments.xavier((), draw.fans, gain)[1]
    draw.tensor.normal_(0.0, std, generator=draw.generator)


def kaiming_uniform(draw: Draw, a: float, mode: str, nonlinearity: str) -> None:
    """He's: uniform, scaled by one fan and the nonlinearity (a: leaky_relu's slope)."""
    bound = math.sqrt(3.0) * moments.kaiming((), draw.fans, a, mode, nonlinearity)[1]
    draw.tensor.uniform_(-bound, bound, generator=draw.generator)


def kaiming_normal(draw: Draw, a: float, mode: str, nonlinearity: str) -> None:
    """He's: normal, scaled by one fan and the nonlinearity (a: leaky_relu's slope)."""
    std = moments.kaiming((), draw.fans, a, mode, nonlinearity)[1]
    draw.tensor.normal_(0.0, std, generator=draw.generator)


def orthogonal(draw: Draw, gain: float) -> None:
    """A (semi-)orthogonal matrix, trailing dimensions flattened."""
    from torch.nn import init

    with one_thread():
        init.orthogonal_(draw.tensor, gain, generator=draw.generator)


def sparse(draw: Draw, sparsity: float, std: float) -> None:
    """Normal, with this share of each column set to 0."""
    import torch

    rows, columns = draw.tensor.shape
    zero_rows = math.ceil(sparsity * rows)
    draw.tensor.normal_(0.0, std, generator=draw.generator)
    # torch's own sparse_ takes the rows from the global random state, whatever generator it gets.
    for column in range(columns):
        order = torch.randperm(rows, generator=draw.generator, device="cpu")
        draw.tensor[order[:zero_rows], column] = 0


def default(draw: Draw) -> None:
    """The module's own reset_parameters."""
    raise UsageError(
        "'default' asks a module to reset its own parameters, and a file has no modules",
        "reinitialise the model definition, or name another scheme",
    )


GAIN = Argument("gain", "gain", 1.0)
KAIMING = (
    Argument("a", "number", 0.0),
    Argument("mode", "mode", "fan_in"),
    Argument("nonlinearity", "nonlinearity", "leaky_relu"),
)

# Arguments and defaults are those of torch.nn.init (torch 2.13); sparsity and val have none there.
SCHEMES: Mapping[str, Scheme] = MappingProxyType(
    {
        scheme.name: scheme
        for scheme in (
            Scheme(
                "uniform",
                uniform,
                moments.uniform,
                (Argument("a", "number", 0.0), Argument("b", "number", 1.0)),
            ),
            Scheme(
                "normal",
                normal,
                moments.normal,
                (Argument("mean", "number", 0.0), Argument("std", "non-negative", 1.0)),
            ),
            Scheme(
                "trunc_normal",
                trunc_normal,
                moments.trunc_normal,
                (
                    Argument("mean", "number", 0.0),
                    Argument("std", "positive", 1.0),
                    Argument("a", "number", -2.0),
                    Argument("b", "number", 2.0),
                ),
            ),
            Scheme(
                "constant",
                constant,
                moments.constant,
                (Argument("val", "number"),),
                any_number=True,
            ),
            Scheme("ones", ones, moments.ones, any_number=True),
            Scheme("zeros", zeros, moments.zeros, any_number=True),
            Scheme("eye", eye, moments.eye, (), (2, 2)),
            Scheme("dirac", dirac, moments.dirac, (Argument("groups", "count", 1),), (3, 5)),
            Scheme(
                "xavier_uniform", xavier_uniform, moments.xavier, (GAIN,), (2, None), uses_fans=True
            ),
            Scheme(
                "xavier_normal", xavier_normal, moments.xavier, (GAIN,), (2, None), uses_fans=True
            ),
            Scheme(
                "kaiming_uniform",
                kaiming_uniform,
                moments.kaiming,
                KAIMING,
                (2, None),
                uses_fans=True,
            ),
            Scheme(
                "kaiming_normal",
                kaiming_normal,
                moments.kaiming,
                KAIMING,
                (2, None),
                uses_fans=True,
            ),
            Scheme("orthogonal", orthogonal, moments.orthogonal, (GAIN,), (2, None)),
            Scheme(
                "sparse",
                sparse,
                moments.sparse,
                (Argument("sparsity", "fraction"), Argument("std", "non-negative", 0.01)),
                (2, 2),
            ),
            Scheme("default", default, moments.unknown, any_number=True),
        )
    }
)


def scheme_named(name: str) -> Scheme:
    """The scheme of this name; a UsageError lists them all."""
    if name not in SCHEMES:
        raise UsageError(f"there is no scheme {name!r}", f"schemes: {', '.join(SCHEMES)}")
    return SCHEMES[name]


def parse_arguments(scheme: str, given: Mapping[str, object] | None = None) -> Values:
    """The scheme's arguments, checked and complete; `gain=relu` becomes its number.

    Raises:
        UsageError: No such scheme or argument, one is missing, or a value that makes no sense.
    """
    entry = scheme_named(scheme)
    values = read_values(scheme, entry.arguments, given or {})
    if "b" in values:
        a, b = float(values["a"]), float(values["b"])
        if a > b or (a == b and scheme == "trunc_normal"):
            raise UsageError(f"{scheme}: a={a:g} is not below b={b:g}")
    if scheme == "trunc_normal":
        mean, reach = float(values["mean"]), 2 * float(values["std"])
        if not a - reach <= mean <= b + reach:
            raise UsageError(f"{scheme}: mean={mean:g} is more than 2 std outside [{a:g}, {b:g}]")
    return values


def arguments_help() -> str:
    """Which schemes take which arguments, in one line; those without a default have no `=`."""
    takers: dict[tuple[Argument, ...], list[str]] = {}
    for scheme in SCHEMES.values():
        if scheme.arguments:
            takers.setdefault(scheme.arguments, []).append(scheme.name)
    parts = [f"{', '.join(names)}: {' '.join(map(str, each))}" for each, names in takers.items()]
    return f"{'; '.join(parts)}."


@contextmanager
def one_thread() -> Iterator[None]:
    """Linear algebra splits its work by threads, and the last bits depend on how many there are."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
