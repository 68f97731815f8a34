"""`--loss`: what a backward pass begins with, and the target that it is given."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from types import MappingProxyType

import torch
from torch import nn
from torch.nn import functional

from modtool.errors import UsageError, a_kind
from modtool.live.choose import value_named
from modtool.live.importing import attempt, import_target, surroundings_of
from modtool.live.inputs import Inputs, InputSpec, make_inputs, parse_shape
from modtool.live.leaves import leaves
from modtool.live.targets import is_model_target, parse_target

__all__ = ["Loss", "find_loss"]


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss.

    Attributes:
        name: What the user named.
        compute: Takes the model's scores, and the target where it wants one.
        target: The target's shape and dtype; None where they follow from the output.
        is_own: It is the user's, and takes whatever the model gives.
    """

    name: str
    compute: Callable[..., object]
    target: InputSpec | None = None
    is_own: bool = False

    def __call__(self, output: object) -> torch.Tensor:
        """The loss of a model's output, against a target made for it."""
        scores = scores_of(output)
        arguments = [output if self.is_own else scores]
        if wants_target(self.compute):
            arguments.append(self.target_for(scores))
        loss = self.compute(*arguments)
        if not isinstance(loss, torch.Tensor):
            raise TypeError(f"the loss {self.name} gave {a_kind(loss)}, not a tensor")
        return loss.sum()

    def target_for(self, scores: object) -> torch.Tensor:
        """Random classes for what chooses among classes; else numbers from 0 to 1."""
        if not isinstance(scores, torch.Tensor):
            raise TypeError(f"the model gave no floating tensor to compute {self.name} of")
        spec = self.target or default_target(self.name, scores)
        classes = scores.shape[1] if scores.dim() > 1 else max(scores.numel(), 1)
        sized = InputSpec(spec.shape, spec.dtype, max(classes, 1))
        (made,) = make_inputs(Inputs((sized,)), scores.device, seed=1).args
        assert isinstance(made, torch.Tensor)
        return made.sigmoid() if made.is_floating_point() else made


def scores_of(output: object) -> object:
    """What a loss is computed of: the output, its `logits`, or else its first floating tensor."""
    if isinstance(output, torch.Tensor):
        return output
    found = dict(leaves(output))
    floating = [tensor for tensor in found.values() if tensor.dtype.is_floating_point]
    return found.get("logits", floating[0] if floating else output)


CLASSES = ("crossentropy", "nll", "multimargin")


def chooses_class(name: str) -> bool:
    """True for a loss whose target is the index of a class."""
    short = name.rpartition(":")[2].rpartition(".")[2].lower().replace("_", "")
    return short.startswith(CLASSES)


def default_target(name: str, scores: torch.Tensor) -> InputSpec:
    """A class for each position where the loss chooses among classes; else the output's shape."""
    if chooses_class(name):
        shape = tuple(scores.shape)
        return InputSpec((*shape[:1], *shape[2:]) if len(shape) > 1 else (), torch.int64)
    return InputSpec(tuple(scores.shape), scores.dtype)


def wants_target(compute: Callable[..., object]) -> bool:
    """False for a function of the output alone."""
    try:
        asked = compute.forward if isinstance(compute, nn.Module) else compute
        signature = inspect.signature(asked)
    except (TypeError, ValueError):
        return True
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [each for each in signature.parameters.values() if each.kind in kinds]
    return len(positional) != 1


def find_loss(name: str, target_shape: str | None = None) -> Loss:
    """The loss that a name means.

    Args:
        name: A class of torch.nn (`CrossEntropyLoss`), a function of torch.nn.functional
            (`mse_loss`), or one of the user's own (`losses.py:focal`, `pkg.losses:Focal`).
        target_shape: `32:int64`; None lets it follow from the output.

    Raises:
        UsageError: There is no such loss.
        ModelError: The user's code raised.
    """
    is_own = is_model_target(name)
    compute = own_loss(name) if is_own else known_loss(name)
    if target_shape is None:
        return Loss(name, compute, is_own=is_own)
    _, shape, dtype = parse_shape(target_shape)
    guess = torch.int64 if chooses_class(name) else torch.float32
    return Loss(name, compute, InputSpec(shape, dtype or guess), is_own)


def known_loss(name: str) -> Callable[..., object]:
    """A loss of torch's."""
    short = name.removeprefix("torch.").removeprefix("nn.").removeprefix("functional.")
    found = KNOWN.get(short)
    if found is None:
        nearest = get_close_matches(short, list(KNOWN), n=3, cutoff=0.4) or list(KNOWN)[:3]
        raise UsageError(
            f"--loss {name}: torch has no loss of this name",
            f"nearest: {', '.join(nearest)}; your own is FILE.py:NAME",
        )
    if not inspect.isclass(found):
        return found
    made = found()
    assert callable(made)
    return made


KNOWN: Mapping[str, Callable[..., object]] = MappingProxyType(
    {
        **{name: getattr(nn, name) for name in sorted(dir(nn)) if name.endswith("Loss")},
        **{
            name: getattr(functional, name)
            for name in sorted(dir(functional))
            if name.endswith("_loss") or name.startswith(("cross_entropy", "binary_cross_entropy"))
        },
    }
)


def own_loss(name: str) -> Callable[..., object]:
    """A loss of the user's: a class is built, a function or a module stands for itself."""
    target = parse_target(name)
    if not target.name:
        raise UsageError(f"--loss {name}: name the loss in it: {name}:my_loss")
    surroundings = surroundings_of(target)
    module = import_target(target, surroundings)
    found = value_named(module, target)
    if not callable(found):
        raise UsageError(f"--loss {name} is {a_kind(found)}, not a loss")
    if not isinstance(found, type):
        return found
    with surroundings.entered():
        made: object = attempt(partial(found), f"building {name}")
    if not callable(made):
        raise UsageError(f"--loss {name} is no loss: what it builds cannot be called")
    return made
