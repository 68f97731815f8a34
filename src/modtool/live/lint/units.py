"""Which layer is given what another gave, unit by unit, as the functions of a pass show it."""

import weakref
from collections import Counter
from typing import Any

import torch
from torch import nn
from torch.nn import functional

__all__ = ["Units"]

LAYERS = frozenset(
    {
        functional.linear,
        *(getattr(torch, f"conv{size}d") for size in (1, 2, 3)),
        *(getattr(torch, f"conv_transpose{size}d") for size in (1, 2, 3)),
    }
)
ACTIVATIONS = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "tanh"),
    *("sigmoid", "softplus", "hardtanh", "hardswish", "hardsigmoid"),
)
# What treats equal units equally; the methods and functions of one name alike.
BETWEEN = frozenset(
    found
    for holder in (functional, torch, torch.Tensor)
    for name in (*ACTIVATIONS, "relu_", "tanh_", "sigmoid_", "flatten")
    if (found := getattr(holder, name, None)) is not None
)
# What is zero for zero, and so is its gradient.
RECTIFIERS = frozenset(
    {functional.relu, torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_}
)
RESHAPING = frozenset({torch.Tensor.view, torch.Tensor.reshape, torch.reshape})


def is_flattened(given: list[torch.Tensor], made: object) -> bool:
    """True where each sample became one row: all that is of it stays together."""
    if len(given) != 1 or not isinstance(made, torch.Tensor):
        return False
    return made.ndim == 2 and given[0].shape[:1] == made.shape[:1]


class Units:
    """Follows what layers give through activations to the layer that is given it.

    Attributes:
        pairs: (id of a layer's weight, its path, id of the next one's, its path).
        used: How often what a layer gave was used, by its path.
        weights: How often each parameter was used, by its id.
        known: Tensors that hold the units of a layer, by id, with the layer's path and weight, and
            whether they are what the layer itself gave.
        direct: How often what a layer itself gave was used, by its path.
        rectified: The path of a layer that a ReLU was given the output of -> id of its weight.
    """

    def __init__(self) -> None:
        self.pairs: list[tuple[int, str, int, str]] = []
        self.used: Counter[str] = Counter()
        self.weights: Counter[int] = Counter()
        self.known: dict[int, tuple[weakref.ref[torch.Tensor], str, int, bool]] = {}
        self.kept: set[str] = set()
        self.direct: Counter[str] = Counter()
        self.rectified: dict[str, int] = {}

    def see(
        self, path: str, module: nn.Module, func: Any, given: list[torch.Tensor], made: object
    ) -> None:
        """A function ran inside a module, was given tensors, and made something."""
        sources = [source for source in map(self.source_of, given) if source is not None]
        self.weights.update(id(each) for each in given if isinstance(each, nn.Parameter))
        for layer, weight_id, own in sources:
            self.direct[layer] += own
            if own and func in RECTIFIERS:
                self.rectified[layer] = weight_id
        between = func in BETWEEN or (func in RESHAPING and is_flattened(given, made))
        if between and len(sources) == 1 and isinstance(made, torch.Tensor):
            self.known[id(made)] = (weakref.ref(made), *sources[0][:2], False)
            return
        self.used.update(source for source, *_ in sources)
        weight = module._parameters.get("weight")
        if func in LAYERS and weight is not None and isinstance(made, torch.Tensor):
            source = self.source_of(given[0])
            if source is not None:
                self.pairs.append((source[1], source[0], id(weight), path))
            self.known[id(made)] = (weakref.ref(made), path, id(weight), True)

    def source_of(self, tensor: torch.Tensor) -> tuple[str, int, bool] | None:
        """The path and the weight of the layer whose units a tensor holds; is it what that gave?"""
        entry = self.known.get(id(tensor))
        return entry[1:] if entry is not None and entry[0]() is tensor else None

    def end(self) -> None:
        """The pass is over: what is still there was given back, or is kept for something else."""
        self.direct.update(
            path for tensor, path, _, own in self.known.values() if own and tensor() is not None
        )
        self.kept = {path for tensor, path, *_ in self.known.values() if tensor() is not None}

    def chained(self) -> set[tuple[str, str]]:
        """Pairs of layers of which the second alone uses what the first gave, each used once."""
        return {
            (first, second)
            for one, first, other, second in self.pairs
            if self.used[first] == self.weights[one] == self.weights[other] == 1
        }

    def rectified_alone(self) -> set[str]:
        """Layers used once, of which a ReLU alone uses what they gave."""
        return {
            path
            for path, weight in self.rectified.items()
            if self.direct[path] == self.weights[weight] == 1
        }
