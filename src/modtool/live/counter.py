"""Watches every operator of a forward pass: what it multiplies, makes, and writes over."""

import sys
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from threading import Lock, get_ident

import torch
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from modtool.live.operators import Operator, cost_of, macs_of, name_of
from modtool.live.refusals import hold_types, run

__all__ = ["FIRST_INPUT", "OperatorWatch", "Overwritten", "watch"]

FIRST_INPUT = -2


class Origins:
    """Which module call a tensor comes from: by the call's index, through operators between.

    The model's inputs have indices from `FIRST_INPUT` downwards; -1 is the model's own call.
    """

    def __init__(self) -> None:
        self.known: dict[int, tuple[weakref.ref[torch.Tensor], int, bool]] = {}

    def of(self, tensor: torch.Tensor) -> int | None:
        """The index of the call or the input that a tensor comes from; None where neither."""
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

    @property
    def nbytes(self) -> int:
        """Bytes of everything that is watched."""
        return sum(tensor.untyped_storage().nbytes() for tensor in self.watched.values())

    def save_all(self) -> None:
        """Save everything: numpy writes through a view and no operator tells of it."""
        for key in self.watched:
            self.save(key)

    def save(self, key: int) -> None:
        """Save one storage, once."""
        if key in self.watched and key not in self.saved:
            with _disable_current_modes():  # what no module holds is real in a fake pass too
                storage = self.watched[key].untyped_storage().clone()  # type: ignore[no-untyped-call]
            self.saved[key] = storage

    def before(self, operator: Operator, arguments: Sequence[object]) -> None:
        """Save what an operator is about to write over."""
        if not isinstance(operator, OpOverload) or not operator._schema.is_mutable:
            return
        for argument in tensors_in(arguments):
            self.save(storage_key(argument))

    def restore(self) -> None:
        """Put the bytes back."""
        with _disable_current_modes():
            for key, storage in self.saved.items():
                self.watched[key].untyped_storage().copy_(storage)
        self.saved.clear()


class OperatorWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts multiply-accumulates, and keeps an eye on where tensors come from.

    Attributes:
        parameters: Ids of the model's parameters.
        used: Those that an operator was given.
        counts: The multiply-accumulates that each thread ran so far.
        unknown: Operators that compute and have no formula, in order of appearance.
        split: Those that are being taken apart into simpler ones.
        last: The operator that ran last, or is running.
        ran: How many operators ran, the last included.
        source: The call that its arguments come from.
        peak: Most bytes that tensors made by operators took at a time.
    """

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: to be left alone by torch's compiler would import it, as long as torch itself."""
        return False

    def __init__(self, origins: Origins, overwritten: Overwritten) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.origins = origins
        self.overwritten = overwritten
        self.parameters: frozenset[int] = frozenset()
        self.used: set[int] = set()
        self.counts: dict[int, int] = {}
        self.lock = Lock()
        self.unknown: dict[str, None] = {}
        self.split: set[Operator] = set()
        self.last = ""
        self.ran = 0
        self.source: int | None = None
        self.alive = Alive()

    @property
    def macs(self) -> int:
        """All multiply-accumulates so far."""
        return sum(self.counts.values())

    @property
    def macs_here(self) -> int:
        """Those of this thread."""
        return self.counts.get(get_ident(), 0)

    def hand_over(self, thread: int) -> None:
        """Count what this thread ran as another's, which waits for it."""
        with self.lock:
            self.counts[thread] = self.counts.get(thread, 0) + self.counts.pop(get_ident(), 0)

    def __torch_dispatch__(
        self,
        func: Operator,
        types: Collection[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        given = list(tensors_in((*args, *kwargs.values())))
        self.used |= self.parameters.intersection(map(id, given))
        if any(map(dispatches, types)):
            return NotImplemented  # what a subclass of Tensor makes of it comes here again
        cost = cost_of(func)
        if cost == "unknown" and (result := self.taken_apart(func, args, kwargs)) is not None:
            return result
        self.last = name_of(func)
        self.ran += 1
        self.source = self.origins.latest(given)
        hold_types(func, args, kwargs)
        self.overwritten.before(func, args)
        result = run(func, args, kwargs)
        macs = macs_of(func, args, result) if cost == "counted" else None
        if macs:
            self.counts[get_ident()] = self.macs_here + macs
        if macs is None and cost != "left out":
            self.unknown.setdefault(self.last)
        made = list(tensors_in([result]))
        self.alive.add(made)
        self.origins.pass_on(self.source, given, made)
        return result

    def taken_apart(
        self, func: Operator, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> object:
        """What an operator gives that is made of others, which are watched; None: it is not."""
        if func in self.split or not isinstance(func, OpOverload):
            return None
        self.split.add(func)
        try:
            with self:
                result = func.decompose(*args, **kwargs)
        finally:
            self.split.discard(func)
        return None if result is NotImplemented else result


class UncompiledWatch(OperatorWatch):  # type: ignore[no-untyped-call]
    """The same for a process that has loaded torch's compiler, which is to leave it alone."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return True

    __torch_dispatch__ = OperatorWatch.__torch_dispatch__


def watch(overwritten: Overwritten) -> OperatorWatch:
    """A new watch."""
    kind = UncompiledWatch if "torch._dynamo" in sys.modules else OperatorWatch
    return kind(Origins(), overwritten)


def dispatches(kind: type) -> bool:
    """True for a subclass of Tensor that makes other operators of those it is given."""
    own = getattr(kind, "__torch_dispatch__", DISABLED)
    return own is not DISABLED and not issubclass(kind, FakeTensor)


DISABLED = torch._C._disabled_torch_dispatch_impl


class Alive:
    """Adds up the bytes of tensors as long as someone holds them.

    Attributes:
        peak: The most that it came to.
        made: All that was made, whether or not someone still holds it.
    """

    def __init__(self) -> None:
        self.now = 0
        self.made = 0
        self.peak = 0
        self.holders: dict[int, int] = {}
        self.known: dict[int, weakref.ref[torch.Tensor]] = {}

    def add(self, made: Sequence[torch.Tensor]) -> None:
        """Count what an operator made; views of the same storage once."""
        for tensor in made:
            key = storage_key(tensor)
            entry = self.known.get(id(tensor))
            if not key or (entry is not None and entry() is tensor):
                continue
            size = tensor.untyped_storage().nbytes()
            if key not in self.holders:
                self.now += size
                self.made += size
                self.peak = max(self.peak, self.now)
            self.holders[key] = self.holders.get(key, 0) + 1
            self.known[id(tensor)] = weakref.ref(tensor, self.forget(id(tensor), key, size))

    def forget(self, name: int, key: int, size: int) -> Callable[[object], None]:
        """What happens when a tensor is no more."""

        def gone(_: object) -> None:
            self.known.pop(name, None)
            self.holders[key] -= 1
            if self.holders[key] == 0:
                del self.holders[key]
                self.now -= size

        return gone


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
