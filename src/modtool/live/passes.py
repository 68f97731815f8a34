"""One forward pass, fake or real, from which the model comes back as it was."""

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from modtool.live.counter import OperatorWatch, Origins, Overwritten
from modtool.live.fake import fake_tensors_only, is_uninitialized, mode_of
from modtool.live.inputs import Inputs, bound_names, make_inputs
from modtool.live.leaves import described, leaves, substitute
from modtool.live.recorder import Recorder
from modtool.live.untouched import untouched
from modtool.live.walk import every_module
from modtool.records import ModuleCall, TracedTensor

__all__ = ["Executed", "Failure", "Pass", "Settings", "run_pass"]

Executed = Literal["fake", "real"]


@dataclass(frozen=True, slots=True)
class Settings:
    """How to run a pass.

    Attributes:
        training: Train mode; else eval mode.
        backward: Run a backward pass too.
        device: Where the inputs go; None means where the model's first tensor is.
        gradients: Record the graph in the forward pass, which some models need themselves.
    """

    training: bool = False
    backward: bool = False
    device: str | None = None
    gradients: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """What a pass raised, and the innermost call that it came from (None: from none)."""

    error: BaseException
    module: nn.Module
    path: str
    call: int
    inputs: tuple[TracedTensor, ...]
    produced_by: str | None
    operator: str


@dataclass(frozen=True, slots=True)
class Pass:
    """What a pass gave."""

    executed: Executed
    inputs: tuple[TracedTensor, ...]
    outputs: tuple[TracedTensor, ...]
    calls: tuple[ModuleCall, ...]
    parameters: int
    trainable: int
    macs: int
    uncounted: tuple[str, ...]
    never_called: tuple[str, ...]
    gradients: dict[str, tuple[int, ...] | None] | None
    failure: Failure | None
    largest: int


def run_pass(model: nn.Module, inputs: Inputs, settings: Settings, executed: Executed) -> Pass:
    """Run a model once.

    Args:
        model: It is left as it was, also when the pass is interrupted.
        inputs: What to give it.
        settings: How to run it.
        executed: `fake` replaces its tensors by fake ones for the pass.
    """
    with untouched(model), contextlib.redirect_stdout(sys.stderr), contextlib.ExitStack() as stack:
        if executed == "fake":
            stack.enter_context(fake_tensors(model))
        else:
            copy_buffers(model)
        overwritten = Overwritten(model_tensors(model) if executed == "real" else iter(()))
        stack.callback(overwritten.restore)
        watch = OperatorWatch(Origins(), overwritten)
        recorder = Recorder(model, watch, settings.backward)
        stack.callback(recorder.detach)
        model.train(settings.training)
        made = make_inputs(inputs, device_for(model, settings))
        return observed(model, made, settings, executed, recorder)


def observed(
    model: nn.Module, made: Inputs, settings: Settings, executed: Executed, recorder: Recorder
) -> Pass:
    """Run a prepared model, and write down what is seen."""
    watch, failure, output, gradients = recorder.watch, None, None, None
    named = bound_names(model, made)
    try:
        with torch.set_grad_enabled(settings.backward or settings.gradients):
            recorder.attach()
            with watch:
                output = model(*made.args, **made.kwargs)
            if settings.backward:
                gradients = backward(model, output)
    except (Exception, SystemExit) as error:
        failure = failure_of(error, model, recorder)
    parameters = list(model.parameters())
    return Pass(
        executed=executed,
        inputs=tuple(each for name, value in named.items() for each in described(value, name)),
        outputs=described(output),
        calls=recorder.records(),
        parameters=sum(map(recorder.elements, parameters)),
        trainable=sum(recorder.elements(each) for each in parameters if each.requires_grad),
        macs=watch.macs,
        uncounted=tuple(watch.unknown),
        never_called=recorder.never_called(),
        gradients=gradients,
        failure=failure,
        largest=watch.largest,
    )


def failure_of(error: BaseException, model: nn.Module, recorder: Recorder) -> Failure:
    """Where an exception came from."""
    call = recorder.failing_call(error)
    if call is None:
        return Failure(error, model, "", 1, (), None, recorder.watch.last)
    return Failure(
        error=error,
        module=call.module,
        path=call.path,
        call=call.number,
        inputs=call.inputs,
        produced_by=recorder.origin(call),
        operator=recorder.watch.last,
    )


def backward(model: nn.Module, output: object) -> dict[str, tuple[int, ...] | None]:
    """The shape of each parameter's gradient of the sum of the outputs; nothing is accumulated."""
    named = dict(model.named_parameters())
    wanted = {name: each for name, each in named.items() if each.requires_grad}
    ends = [tensor for _, tensor in leaves(output) if tensor.requires_grad]
    if not wanted or not ends:
        return dict.fromkeys(named)
    found = torch.autograd.grad(
        ends, list(wanted.values()), [torch.ones_like(end) for end in ends], allow_unused=True
    )
    shapes = dict(zip(wanted, found, strict=True))
    return {
        name: None if (gradient := shapes.get(name)) is None else tuple(gradient.shape)
        for name in named
    }


def device_for(model: nn.Module, settings: Settings) -> torch.device:
    """Where the inputs go."""
    if settings.device is not None:
        return torch.device(settings.device)
    tensors = (*model.parameters(), *model.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


@contextlib.contextmanager
def fake_tensors(model: nn.Module) -> Iterator[None]:
    """Replace every tensor of a model by a fake one; whoever calls this puts them back."""
    mode = mode_of(model)

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        return mode.from_tensor(tensor)

    # What torch or the model warns of concerns the real thing.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        replace_tensors(model, fake)
        with fake_tensors_only(mode):
            yield


def copy_buffers(model: nn.Module) -> None:
    """Give a model copies of its buffers: batch_norm does not announce that it writes to them."""
    buffers = {id(buffer) for module in every_module(model) for buffer in module.buffers()}
    copies: dict[int, torch.Tensor] = {}

    def copied(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in buffers or is_uninitialized(tensor):
            return tensor
        if id(tensor) not in copies:
            copies[id(tensor)] = tensor.detach().clone()
        return copies[id(tensor)]

    replace_tensors(model, copied)


def replace_tensors(model: nn.Module, replace: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Replace the tensors among the attributes of every module."""
    for module in every_module(model):
        attributes = vars(module)
        for name, value in list(attributes.items()):
            attributes[name] = substitute(value, replace)


def model_tensors(model: nn.Module) -> Iterator[torch.Tensor]:
    """Every tensor among the attributes of every module."""
    for module in every_module(model):
        for value in vars(module).values():
            yield from (tensor for _, tensor in leaves(value))
