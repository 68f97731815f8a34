"""Watches every operator of a forward pass: what it multiplies, makes, and writes over."""

import weakref
from collections.abc import Iterator, Sequence

import torch
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from modtool.live.operators import cost_of, macs_of, name_of

__all__ = ["OperatorWatch", "Origins", "Overwritten"]


class Origins:
    """Which module call a tensor comes from: by the call's index, through operators between."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[weakref.ref[torch.Tensor], int, bool]] = {}

    def of(self, tensor: torch.Tensor) -> int | None:
        """The index of the call that a tensor comes from; None for the model's own inputs."""
        entry = self.known.get(id(tensor))
        return entry[1] if entry is not None and entry[0]() is tensor else None

    def is_output(self, tensor: torch.Tensor) -> bool:
        """True for a tensor that is the very output of a call."""
        entry = self.known.get(id(tensor))
        return entry is not None and entry[0]() is tensor and entry[2]

    def set(self, tensor: torch.Tensor, call: int, is_output: bool) -> None:
        """Remember where a tensor comes from."""
        self.known[id(tensor)] = (weakref.ref(tensor), call, is_output)

    def latest(self, tensors: Sequence[torch.Tensor]) -> int | None:
        """The latest call that any of the tensors comes from."""
        return max((call for call in map(self.of, tensors) if call is not None), default=None)

    def pass_on(
        self, call: int | None, given: Sequence[torch.Tensor], made: Sequence[torch.Tensor]
    ) -> None:
        """What an operator makes comes from the call that its arguments come from."""
        if call is None:
            return
        for tensor in made:
            if not any(tensor is each for each in given):
                self.set(tensor, call, is_output=False)


class Overwritten:
    """Keeps the bytes of watched storages from before an operator writes over them."""

    def __init__(self, tensors: Iterator[torch.Tensor]) -> None:
        self.watched = {key: tensor for tensor in tensors if (key := storage_key(tensor))}
        self.saved: dict[int, torch.UntypedStorage] = {}

    def before(self, operator: OpOverload, arguments: Sequence[object]) -> None:
        """Save what an operator is about to write over."""
        if not operator._schema.is_mutable:
            return
        for argument in tensors_in(arguments):
            key = storage_key(argument)
            if key in self.watched and key not in self.saved:
                self.saved[key] = self.watched[key].untyped_storage().clone()  # type: ignore[no-untyped-call]

    def restore(self) -> None:
        """Put the bytes back."""
        for key, storage in self.saved.items():
            self.watched[key].untyped_storage().copy_(storage)
        self.saved.clear()


class OperatorWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts multiply-accumulates, and keeps an eye on where tensors come from.

    Attributes:
        parameters: Ids of the model's parameters.
        used: Those that an operator was given.
        macs: All that were run so far.
        unknown: Operators that compute and have no formula, in order of appearance.
        last: The operator that ran last, or is running.
        source: The call that its arguments come from.
        largest: Bytes of the largest tensor that an operator made.
    """

    def __init__(self, origins: Origins, overwritten: Overwritten) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.origins = origins
        self.overwritten = overwritten
        self.parameters: frozenset[int] = frozenset()
        self.used: set[int] = set()
        self.macs = 0
        self.unknown: dict[str, None] = {}
        self.last = ""
        self.source: int | None = None
        self.largest = 0

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        cost = cost_of(func)
        if cost == "unknown":
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        self.last = name_of(func)
        given = list(tensors_in((*args, *kwargs.values())))
        self.source = self.origins.latest(given)
        self.used |= self.parameters.intersection(map(id, given))
        self.overwritten.before(func, args)
        result = func(*args, **kwargs)
        if cost == "counted":
            self.macs += macs_of(func, args, result)
        elif cost == "unknown":
            self.unknown.setdefault(self.last)
        made = list(tensors_in([result]))
        self.largest = max([self.largest, *(each.numel() * each.element_size() for each in made)])
        self.origins.pass_on(self.source, given, made)
        return result


def tensors_in(values: Sequence[object]) -> Iterator[torch.Tensor]:
    """The tensors among an operator's arguments or results, lists entered."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(value)


def storage_key(tensor: torch.Tensor) -> int:
    """What tensors that share bytes have in common; 0 where there is no plain storage."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError, ValueError):
        return 0
