"""One forward pass, fake or real, from which the model comes back as it was."""

import contextlib
import contextvars
import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from modtool.live.counter import Overwritten, watch
from modtool.live.fake import mode_of
from modtool.live.gradients import Gradients, backward
from modtool.live.inputs import Inputs, bound_names, make_inputs
from modtool.live.keeping import globals_kept
from modtool.live.leaves import described
from modtool.live.losses import Loss
from modtool.live.memory import spare_memory
from modtool.live.observer import Observer
from modtool.live.recorder import Recorder
from modtool.live.statistics import with_statistics
from modtool.live.swapping import copy_buffers, fake_tensors, writable_tensors
from modtool.live.timing import Times, time_calls
from modtool.live.untouched import untouched
from modtool.live.walk import every_module
from modtool.traces import ModuleCall, TracedTensor

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
        loss: What the backward pass begins with; None means the sum of the outputs.
        statistics: In a real pass: what every output is like.
        repeat: In a real pass: how many more passes to time; 0 times none.
        keep_all: In a real pass: keep every byte of the model, as what writes to it is not known.
        observer: Who else looks at the pass.
    """

    training: bool = False
    backward: bool = False
    device: str | None = None
    gradients: bool = False
    loss: Loss | None = None
    statistics: bool = False
    repeat: int = 0
    keep_all: bool = False
    observer: Observer = field(default_factory=Observer)


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
    from_input: str | None = None


@dataclass(frozen=True, slots=True)
class Culprit:
    """The call that first gave NaN or Inf, and those of its own parameters that hold some."""

    path: str
    call: int
    parameters: tuple[str, ...]


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
    gradients: Gradients | None
    failure: Failure | None
    peak: int
    made: int
    culprit: Culprit | None = None
    seconds: float | None = None


def run_pass(model: nn.Module, inputs: Inputs, settings: Settings, executed: Executed) -> Pass:
    """Run a model once.

    Args:
        model: It is left as it was, also when the pass is interrupted.
        inputs: What to give it.
        settings: How to run it.
        executed: `fake` replaces its tensors by fake ones for the pass.
    """
    # In a context of its own: nothing else takes away again what a context variable was given.
    return contextvars.copy_context().run(prepared, model, inputs, settings, executed)


def prepared(model: nn.Module, inputs: Inputs, settings: Settings, executed: Executed) -> Pass:
    """Prepare a model, and run it."""
    real = executed == "real"
    with untouched(model), contextlib.redirect_stdout(sys.stderr), contextlib.ExitStack() as stack:
        names = {type(module).__module__ for module in every_module(model)}
        stack.enter_context(globals_kept(names))
        mode = None if real else mode_of(model)
        if real:
            copy_buffers(model)
        else:
            stack.enter_context(fake_tensors(model))
        overwritten = Overwritten(writable_tensors(model))
        stack.callback(overwritten.restore)
        if settings.keep_all and overwritten.nbytes <= spare_memory():
            overwritten.save_all()
        recorder = Recorder(
            model,
            watch(overwritten),
            backward=settings.backward,
            statistics=settings.statistics and real,
            norms=real,
        )
        stack.callback(recorder.detach)
        model.train(settings.training)
        make = functools.partial(make_inputs, inputs, device_for(model, settings), mode=mode)
        return observed(model, make, settings, executed, recorder)


def observed(
    model: nn.Module,
    make: Callable[[], Inputs],
    settings: Settings,
    executed: Executed,
    recorder: Recorder,
) -> Pass:
    """Run a prepared model, and write down what is seen."""
    watch, failure, output, gradients = recorder.watch, None, None, None
    made = make()
    named = bound_names(model, made)
    inputs = tuple(each for name, value in named.items() for each in described(value, name))
    recorder.name_inputs(named)
    times: Times = {}
    with torch.set_grad_enabled(settings.backward or settings.gradients):
        try:
            recorder.attach()
            with settings.observer.watching(recorder), unoptimised(), watch:
                output = model(*made.args, **made.kwargs)
            recorder.recording = False  # a checkpoint runs modules again in the backward pass
        except (Exception, SystemExit) as error:
            failure = failure_of(error, model, recorder)
        if settings.backward and failure is None:
            try:
                norms = executed == "real"
                gradients = backward(model, output, norms=norms, loss=settings.loss)
            except Exception as error:
                failure = backward_failure(error, model, output, settings)
        if settings.repeat and failure is None and executed == "real":
            recorder.detach()
            try:
                times = timed(model, made, settings.repeat, recorder)
            except Exception as error:  # of torch's compiler, which ran for nothing before
                failure = failure_of(error, model, recorder)
        if failure is None and executed == "real":
            recorder.detach()
            settings.observer.repeated(recorder, lambda: run_once(model, make()))
    outputs = described(output, into="caches")
    parameters = list(model.parameters())
    return Pass(
        executed=executed,
        inputs=inputs,
        outputs=with_statistics(outputs, output) if recorder.statistics else outputs,
        calls=recorder.records(times),
        parameters=sum(map(recorder.elements, parameters)),
        trainable=sum(recorder.elements(each) for each in parameters if each.requires_grad),
        macs=watch.macs,
        uncounted=tuple(watch.unknown),
        never_called=recorder.never_called(),
        gradients=gradients,
        failure=failure,
        peak=watch.alive.peak,
        made=watch.alive.made,
        culprit=culprit_of(recorder),
        seconds=times.get(("", 1)),
    )


@contextlib.contextmanager
def unoptimised() -> Iterator[None]:
    """Have TorchScript and torch.compile run what is written, call by call.

    Optimised, TorchScript merges calls that are equal; torch's compiler would compile our hooks.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.jit.optimized_execution(False))  # type: ignore[attr-defined]
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def run_once(model: nn.Module, made: Inputs) -> object:
    """What the model gives."""
    return model(*made.args, **made.kwargs)


def timed(model: nn.Module, made: Inputs, repeat: int, recorder: Recorder) -> Times:
    """The median time of each call in passes without a watch."""
    modules = {path: module for module in recorder.modules if (path := recorder.paths[id(module)])}
    compiled = [path for path, module in {"": model, **modules}.items() if is_compiled(module)]
    inside = tuple(f"{path}._orig_mod".lstrip(".") for path in compiled)
    run = functools.partial(run_once, model, made)
    if compiled:  # which happens in the first of these passes
        run()
    return time_calls(
        {path: module for path, module in modules.items() if not path.startswith(inside)},
        run,
        repeat,
        on_cuda=any(each.is_cuda for each in (*model.parameters(), *model.buffers())),
    )


def is_compiled(module: nn.Module) -> bool:
    """True for what torch.compile made; what it compiled is no longer run call by call."""
    dynamo = sys.modules.get("torch._dynamo")
    return dynamo is not None and isinstance(module, dynamo.OptimizedModule)


def culprit_of(recorder: Recorder) -> Culprit | None:
    """The call that first gave NaN or Inf."""
    call = recorder.culprit
    if call is None:
        return None
    own = call.module._parameters.items()
    bad = (name for name, each in own if each is not None and not bool(each.isfinite().all()))
    return Culprit(call.path, call.number, tuple(bad))


def failure_of(error: BaseException, model: nn.Module, recorder: Recorder) -> Failure:
    """Where an exception came from."""
    call = recorder.failing_call(error)
    if call is None:
        source = recorder.input_named(recorder.watch.source)
        return Failure(error, model, "", 1, (), None, recorder.watch.last, source)
    return Failure(
        error=error,
        module=call.module,
        path=call.path,
        call=call.number,
        inputs=call.inputs,
        produced_by=recorder.origin(call),
        operator=recorder.watch.last,
        from_input=recorder.input_behind(call),
    )


def backward_failure(
    error: BaseException, model: nn.Module, output: object, settings: Settings
) -> Failure:
    """What a loss or a backward pass raised."""
    loss = settings.loss
    if loss is None:
        return Failure(error, model, "", 1, (), None, "")
    module = loss.compute if isinstance(loss.compute, nn.Module) else model
    return Failure(error, module, "(loss)", 1, described(output), None, "")


def device_for(model: nn.Module, settings: Settings) -> torch.device:
    """Where the inputs go."""
    if settings.device is not None:
        return torch.device(settings.device)
    tensors = (*model.parameters(), *model.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))
