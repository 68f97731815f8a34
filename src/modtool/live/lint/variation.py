"""Whether a model gives the same twice, and where it first does not."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from modtool.live.leaves import leaves
from modtool.live.lint.watcher import Watcher
from modtool.live.recorder import Recorder

__all__ = ["Twice", "Variation"]

# Relative to the largest element: the order of a sum changes less than this.
TOLERANCE = 1e-4
Digest = tuple[str, tuple[float, ...], tuple[float, ...]]
"""The path of a module, and a few numbers of what it was given and what it gave."""


@dataclass(frozen=True, slots=True)
class Variation:
    """How two passes on the same inputs differ.

    Attributes:
        path: The first module that gave something else for the same; "" for the model itself.
        what: How the model's outputs differed.
    """

    path: str
    what: str


class Twice(Watcher):
    """A watcher that has the model run twice more, and compares.

    Attributes:
        variation: What differed; None where nothing did.
    """

    variation: Variation | None = None

    def repeated(self, recorder: Recorder, again: Callable[[], object]) -> None:
        """Run twice more, and once more each to find the place where that differs."""
        try:
            what = difference(again(), again())
            if what:
                first, second = outlined(recorder, again), outlined(recorder, again)
                self.variation = Variation(first_difference(first, second), what)
        except Exception as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            self.variation = Variation("", f"another pass on the same inputs raised {text}")


def difference(one: object, other: object) -> str:
    """How two results differ, in words; "" where they are the same."""
    first, second = dict(leaves(one)), dict(leaves(other))
    shapes = [{path: tuple(each.shape) for path, each in side.items()} for side in (first, second)]
    if shapes[0] != shapes[1]:
        return "its outputs have other shapes the second time"
    largest = max((distance(first[path], second[path]) for path in first), default=0.0)
    return f"its outputs differ by up to {largest:.2g} of the largest element" if largest else ""


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference, relative to the largest element; 0 below what rounding explains."""
    one, other = plain(one), plain(other)
    if torch.equal(one, other) or not one.numel():
        return 0.0
    apart = (one - other).abs().nan_to_num(0.0, 0.0)
    apart[one.isnan() != other.isnan()] = float("inf")
    scale = max(float(one.nan_to_num(0.0, 0.0, 0.0).abs().max()), 1e-30)
    relative = float(apart.max()) / scale
    return relative if relative > TOLERANCE else 0.0


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor as float64 numbers; magnitudes of complex ones."""
    tensor = tensor.detach()
    tensor = tensor.dequantize() if tensor.is_quantized else tensor
    if tensor.is_nested:
        tensor = torch.cat([row.flatten() for row in tensor.unbind()])
    tensor = tensor.to_dense() if tensor.layout is not torch.strided else tensor
    return tensor.abs().double() if tensor.is_complex() else tensor.double()


def outlined(recorder: Recorder, again: Callable[[], object]) -> list[Digest]:
    """What each module was given and gave in one pass, in the order in which they ended."""
    found: list[Digest] = []

    def write(module: nn.Module, args: object, kwargs: object, result: object) -> None:
        found.append((recorder.paths[id(module)], numbers([args, kwargs]), numbers(result)))

    handles = [module.register_forward_hook(write, with_kwargs=True) for module in recorder.modules]
    try:
        again()
    finally:
        for handle in handles:
            handle.remove()
    return found


def numbers(value: object) -> tuple[float, ...]:
    """A few numbers that tell nested values apart."""
    tensors = [plain(tensor) for _, tensor in leaves(value)]
    return tuple(float(moment) for each in tensors for moment in (each.sum(), each.norm()))


def first_difference(one: list[Digest], other: list[Digest]) -> str:
    """The path of the first module that gave another result for the same arguments."""
    pairs = zip(one, other, strict=False)
    return next((here[0] for here, there in pairs if here[:2] == there[:2] and here != there), "")
