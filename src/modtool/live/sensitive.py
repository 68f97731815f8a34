"""Which modules compute differently in train and in eval mode."""

import functools
from collections.abc import Iterator
from types import CodeType, FunctionType

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

__all__ = ["is_mode_sensitive"]

# These set or show the flag; they do not compute with it.
NOT_COMPUTING = frozenset({"__init__", "train", "eval", "extra_repr", "__repr__", "__setstate__"})


def is_mode_sensitive(module: nn.Module) -> bool:
    """True when the module itself, not what it contains, depends on its `training` flag.

    For the classes of torch.nn this is known; any other class is where one of its methods reads an
    attribute called `training`.
    """
    if isinstance(module, _DropoutNd):
        return module.p > 0
    if isinstance(module, _NormBase):
        # Without running statistics it uses those of the batch in either mode.
        return bool(module.track_running_stats)
    if isinstance(module, nn.MultiheadAttention):
        return bool(module.dropout > 0)
    if isinstance(module, nn.RNNBase):
        return module.dropout > 0 and module.num_layers > 1
    if isinstance(module, nn.RReLU):
        return module.lower != module.upper
    return reads_training(type(module))  # type: ignore[arg-type]


@functools.cache
def reads_training(kind: type[nn.Module]) -> bool:
    """True when a method of a class, or of a base outside torch.nn, reads `training`."""
    return any(
        "training" in code.co_names
        for base in kind.__mro__
        if not base.__module__.startswith("torch.nn.modules.") and base is not object
        for name, function in vars(base).items()
        if isinstance(function, FunctionType) and name not in NOT_COMPUTING
        for code in codes(function.__code__)
    )


def codes(code: CodeType) -> Iterator[CodeType]:
    """A function's code and that of the functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)
