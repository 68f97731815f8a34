"""Hooks that write down every call of every module, and how to take them off again."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import hypot
from threading import get_ident

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from modtool.live.counter import FIRST_INPUT, OperatorWatch
from modtool.live.fake import is_uninitialized
from modtool.live.leaves import described, leaves
from modtool.live.settings import type_of
from modtool.live.statistics import dead_units, is_finite, own_axis, unwatched, with_statistics
from modtool.live.timing import Times
from modtool.live.walk import modules_by_path
from modtool.traces import ModuleCall, TracedTensor

__all__ = ["Call", "Recorder", "norm_of"]


@dataclass(slots=True)
class Call:
    """A call that is being written down."""

    index: int
    path: str
    module: nn.Module
    number: int
    depth: int
    inputs: tuple[TracedTensor, ...]
    given: tuple[object, ...]
    macs: int
    ran: int = 0
    outputs: tuple[TracedTensor, ...] = ()
    finished: bool = False
    gradients: dict[str, TracedTensor] = field(default_factory=dict)
    finite: bool = True
    dead: tuple[int, int] | None = None
    axis: int | None = None


class Recorder:
    """Writes down calls while its hooks are on.

    Attributes:
        calls: Every call in the order in which they began; the model's own is the first.
        failed: The innermost call that saw an exception, by the exception's id.
        recording: Whether calls are written down; the hooks may stay on for their gradients.
    """

    def __init__(
        self,
        model: nn.Module,
        watch: OperatorWatch,
        *,
        backward: bool = False,
        statistics: bool = False,
        norms: bool = False,
    ) -> None:
        self.watch = watch
        watch.parameters = frozenset(map(id, model.parameters()))
        self.backward = backward
        self.statistics = statistics
        self.norms = norms
        self.culprit: Call | None = None
        self.input_names: list[str] = []
        self.paths: dict[int, str] = {}
        self.modules: list[nn.Module] = []
        for path, module in modules_by_path(model):
            # A scripted module takes no hooks, and calls nothing that does.
            if id(module) not in self.paths and not isinstance(module, torch.jit.ScriptModule):
                self.paths[id(module)] = path
                self.modules.append(module)
        self.calls: list[Call] = []
        self.failed: dict[int, tuple[BaseException, Call]] = {}
        self.recording = True
        self.thread = get_ident()
        self.stacks: dict[int, list[Call]] = {self.thread: []}
        self.counts: dict[int, int] = {}
        self.handles: list[RemovableHandle] = []
        self.sizes: dict[int, int] = {}

    @property
    def open(self) -> list[Call]:
        """The calls that this thread is in, the innermost last."""
        return self.stacks.setdefault(get_ident(), [])

    @property
    def is_elsewhere(self) -> bool:
        """True in a thread that the forward pass has started."""
        return get_ident() != self.thread

    def __deepcopy__(self, memo: object) -> "Recorder":
        """A model that copies a part of itself copies that part's hooks."""
        return self

    def name_inputs(self, inputs: Mapping[str, object]) -> None:
        """Remember which tensors are the model's own inputs."""
        for name, value in inputs.items():
            for path, tensor in leaves(value, name):
                index = FIRST_INPUT - len(self.input_names)
                self.watch.origins.set(tensor, index, is_output=True)
                self.input_names.append(path)

    def attach(self) -> None:
        """Put the hooks on."""
        for module in self.modules:
            self.handles.append(
                module.register_forward_pre_hook(self.begin, prepend=True, with_kwargs=True)
            )
            self.handles.append(
                module.register_forward_hook(self.end, with_kwargs=True, always_call=True)
            )

    def detach(self) -> None:
        """Take every hook off that was put on."""
        for handle in self.handles:
            handle.remove()
        self.handles.clear()

    def begin(self, module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        """A call begins; those of a copy that was made under way are not told apart."""
        if not self.recording or id(module) not in self.paths:
            return
        if self.is_elsewhere and not self.open:
            self.watch.__enter__()  # type: ignore[no-untyped-call] # a new thread has no modes
        number = self.counts[id(module)] = self.counts.get(id(module), 0) + 1
        call = Call(
            index=len(self.calls) - 1,
            path=self.paths[id(module)],
            module=module,
            number=number,
            depth=len(self.open) + (len(self.stacks[self.thread]) if self.is_elsewhere else 0),
            inputs=(*described(args), *described(kwargs)),
            given=(args, kwargs),
            macs=self.watch.macs_here,
            ran=self.watch.ran,
            finite=not self.statistics or is_finite((args, kwargs)),
        )
        self.calls.append(call)
        self.open.append(call)

    def end(
        self,
        module: nn.Module,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        result: object,
    ) -> None:
        """A call ends, with a result or with an exception."""
        if all(call.module is not module for call in self.open):
            return
        while self.open[-1].module is not module:
            self.close(self.open[-1])
        call = self.open[-1]
        error = sys.exc_info()[1]
        if result is None and error is not None:
            self.failed.setdefault(id(error), (error, call))
        else:
            self.finish(call, result)
        self.close(call)

    def close(self, call: Call) -> None:
        """No more operators belong to this call."""
        call.macs = self.watch.macs_here - call.macs
        self.open.remove(call)
        if self.is_elsewhere and not self.open:
            self.watch.hand_over(self.thread)
            self.watch.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        if not self.failed_at(call):
            call.given = ()

    def failed_at(self, call: Call) -> bool:
        """True for a call in which an exception began."""
        return any(where is call for _, where in self.failed.values())

    def finish(self, call: Call, result: object) -> None:
        """Write down what a call gave back."""
        call.finished = True
        call.outputs = described(result, into="caches")
        if self.statistics:
            self.measure(call, result)
        origins = self.watch.origins
        for path, tensor in leaves(result):
            if not origins.is_output(tensor):
                origins.set(tensor, call.index, is_output=True)
            if self.backward and tensor.requires_grad:
                hook = keep_gradient(call, path, norm=self.norms)
                self.handles.append(tensor.register_hook(hook))  # type: ignore[no-untyped-call]

    def measure(self, call: Call, result: object) -> None:
        """Write down what the elements of a result are like."""
        call.outputs = with_statistics(call.outputs, result)
        dimensions = max((len(each.shape) for each in call.outputs), default=0)
        call.axis = own_axis(call.module, dimensions) or self.axis_behind(call)
        call.dead = dead_units(call.module, result, call.axis)
        if self.culprit is None and call.finite and not is_finite(result):
            self.culprit = call

    def axis_behind(self, call: Call) -> int | None:
        """Which dimension of what a call was given are units; None where no layer tells."""
        given = next((tensor for _, tensor in leaves(call.given)), None)
        index = None if given is None else self.watch.origins.of(given)
        if given is None or index is None or index <= FIRST_INPUT:
            return None
        source = self.calls[index + 1]
        axis, sizes = source.axis, tuple(given.shape)
        found = axis is not None and all(
            any(has_size(each.shape, axis, sizes) for each in one.outputs) for one in (source, call)
        )
        return axis if found else None

    def failing_call(self, error: BaseException) -> Call | None:
        """The innermost call in which an exception began; None where it was not in one."""
        seen: BaseException | None = error
        while seen is not None:
            if id(seen) in self.failed:
                return self.failed[id(seen)][1]
            seen = seen.__cause__ or seen.__context__
        return None

    def source(self, call: Call) -> int | None:
        """The index of the call, or of the input, that a failing call got what it failed on."""
        if self.watch.ran > call.ran and self.watch.source is not None:
            return self.watch.source
        given = [tensor for _, tensor in leaves(call.given)]
        return next((each for each in map(self.watch.origins.of, given) if each is not None), None)

    def origin(self, call: Call) -> str | None:
        """The call that produced what a failing call was given, with its number from the second."""
        index = self.source(call)
        if index is None or index <= FIRST_INPUT:
            return None
        source = self.calls[index + 1]
        return source.path + (f" (call {source.number})" if source.number > 1 else "")

    def input_behind(self, call: Call) -> str | None:
        """The model's own input that a failing call was given; None where there was a call."""
        index = self.source(call)
        return self.input_named(index)

    def input_named(self, index: int | None) -> str | None:
        """The name of the input with an index; None where that is no input's."""
        return self.input_names[FIRST_INPUT - index] if (index or 0) <= FIRST_INPUT else None  # type: ignore[operator]

    def records(self, times: Times | None = None) -> tuple[ModuleCall, ...]:
        """The calls of submodules that finished, or ran in part around one that did."""
        times = times or {}
        parts = {id(each) for each in self.calls if each.finished or self.contains_more(each)}
        return tuple(
            ModuleCall(
                index=call.index,
                path=call.path,
                type=type_of(call.module),
                call=call.number,
                depth=call.depth,
                inputs=call.inputs,
                outputs=call.outputs,
                parameters=self.parameters(call.module),
                macs=call.macs,
                gradients=tuple(call.gradients.values()) if self.backward else None,
                seconds=times.get((call.path, call.number)),
                dead=call.dead,
            )
            for call in self.calls[1:]
            if id(call) in parts
        )

    def contains_more(self, call: Call) -> bool:
        """True when another call ran inside of this one."""
        after = self.calls[call.index + 2 : call.index + 3]
        return bool(after) and after[0].depth > call.depth

    def parameters(self, module: nn.Module) -> int:
        """Elements of the unique parameters of a module and everything below it."""
        if id(module) not in self.sizes:
            self.sizes[id(module)] = sum(map(self.elements, module.parameters()))
        return self.sizes[id(module)]

    @staticmethod
    def elements(tensor: torch.Tensor) -> int:
        """Elements of a tensor; none while a lazy one has no shape."""
        return 0 if is_uninitialized(tensor) else tensor.numel()

    def never_called(self) -> tuple[str, ...]:
        """Paths of the modules that can be called and were not.

        A module whose own parameters were all used ran in all but name: attention multiplies by
        the weight of its `out_proj` and does not call it.
        """
        return tuple(
            self.paths[id(module)]
            for module in self.modules
            if id(module) not in self.counts and can_be_called(module) and not self.used(module)
        )

    def used(self, module: nn.Module) -> bool:
        """True for a module with parameters of its own that operators were given, all of them."""
        own = [id(each) for each in module._parameters.values() if each is not None]
        return bool(own) and self.watch.used.issuperset(own)


def has_size(shape: tuple[int, ...], axis: int, like: tuple[int, ...]) -> bool:
    """True for a shape of as many dimensions as another, that has the same size along one."""
    return len(shape) == len(like) and shape[axis] == like[axis]


def can_be_called(module: nn.Module) -> bool:
    """False for a module without a `forward` of its own, such as ModuleList, and packed weights."""
    holds_weights = type(module).__name__ == "LinearPackedParams"  # torch.ao's, dear to import
    return getattr(type(module), "forward", None) is not nn.Module.forward and not holds_weights


def keep_gradient(call: Call, path: str, *, norm: bool) -> Callable[[torch.Tensor], None]:
    """A hook that writes down the gradient of one output of a call."""

    def keep(gradient: torch.Tensor) -> None:
        (traced,) = described(gradient, path)
        call.gradients[path] = replace(traced, norm=norm_of(gradient)) if norm else traced

    return keep


def norm_of(gradient: torch.Tensor) -> float:
    """The Euclidean norm, summed in float64 where the element type is smaller."""
    with unwatched():
        values = gradient.detach()
        if values.is_nested:
            return hypot(*map(norm_of, values.unbind()))
        values = values.to_dense() if values.layout is not torch.strided else values
        kind = torch.complex128 if values.is_complex() else torch.float64
        return float(torch.linalg.vector_norm(values, dtype=kind))
