"""The backward pass of a trace: gradients of parameters, none of them accumulated."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from modtool.live.leaves import leaves
from modtool.live.recorder import norm_of

__all__ = ["Gradients", "backward"]


@dataclass(frozen=True, slots=True)
class Gradients:
    """What a backward pass gave.

    Attributes:
        shapes: Of each parameter's gradient; None where it got none.
        norms: The Euclidean norm of each gradient; empty in a fake pass.
        unused: Trainable parameters that got no gradient.
    """

    shapes: Mapping[str, tuple[int, ...] | None]
    norms: Mapping[str, float] = field(default_factory=dict)
    unused: tuple[str, ...] = ()


def backward(
    model: nn.Module,
    output: object,
    *,
    norms: bool,
    loss: Callable[[object], torch.Tensor] | None = None,
) -> Gradients:
    """The gradients of the loss, or else of the sum of the outputs."""
    named = dict(model.named_parameters())
    wanted = {name: each for name, each in named.items() if each.requires_grad}
    ends = [tensor for _, tensor in leaves(output if loss is None else loss(output))]
    ends = [tensor for tensor in ends if tensor.requires_grad]
    if not wanted or not ends:
        return Gradients(dict.fromkeys(named), unused=tuple(wanted))
    found = gradients_of(ends, list(wanted.values()))
    got = {name: each for name, each in zip(wanted, found, strict=True) if each is not None}
    return Gradients(
        shapes={name: tuple(got[name].shape) if name in got else None for name in named},
        norms={name: norm_of(each) for name, each in got.items()} if norms else {},
        unused=tuple(name for name in wanted if name not in got),
    )


def gradients_of(
    ends: Sequence[torch.Tensor], tensors: Sequence[torch.Tensor]
) -> Sequence[torch.Tensor | None]:
    """The gradient of the sum of some ends; of what a reentrant checkpoint hides, in `grad`, too.

    Whoever calls this puts `grad` back.
    """
    seeds = [torch.ones_like(end) for end in ends]
    if not reenters(ends):
        return torch.autograd.grad(ends, tensors, seeds, allow_unused=True)
    for tensor in tensors:
        tensor.grad = None
    torch.autograd.backward(ends, seeds)
    return [tensor.grad for tensor in tensors]


def reenters(ends: Sequence[torch.Tensor]) -> bool:
    """True where `torch.utils.checkpoint` is to run a part again and start its own backward pass.

    The graph does not lead to the parameters of that part, so `autograd.grad` would not find them.
    """
    todo = [end.grad_fn for end in ends]
    seen: set[object] = {None}
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name().startswith("CheckpointFunction"):
            return True
        todo.extend(following for following, _ in node.next_functions)
    return False
