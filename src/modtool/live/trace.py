"""One forward pass under hooks: every call's shapes in order, and what it multiplies.

The pass runs on fake tensors, which cost no memory and no arithmetic. Where it needs values
(`if x.sum() > 0`, `.item()`, numpy), it is run again for real. Afterwards the model is what it was.
"""

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
)
from torch.nn.parameter import UninitializedBuffer

from modtool.errors import UsageError
from modtool.live.affording import CHEAP, is_cheap, is_hollow, size_for_real, size_of_inputs
from modtool.live.blame import user_line
from modtool.live.fake import is_uninitialized
from modtool.live.input_types import real_dtype
from modtool.live.inputs import Inputs, bound_names, with_dtype
from modtool.live.losses import Loss
from modtool.live.memory import available_memory, shown_bytes
from modtool.live.observer import Observer
from modtool.live.passes import Executed, Failure, Pass, Settings, run_pass
from modtool.live.settings import settings_of, type_of
from modtool.live.walk import modules_by_path
from modtool.notes import note
from modtool.records import Note
from modtool.traces import Trace, TraceError

__all__ = ["Mode", "Request", "trace"]

Mode = Literal["train", "eval"]


@dataclass(frozen=True, slots=True)
class Request:
    """What a trace is to tell.

    Attributes:
        mode: Train or eval, for the whole model; every module's own flag is restored.
        backward: Also gradients of each call's outputs and of each parameter: their shapes, and
            their norms where a real pass is cheap.
        device: Where the inputs go; None means where the model's first tensor is.
        loss: What the backward pass begins with; None means the sum of the outputs.
        statistics: What every output is like. Needs a real pass.
        repeat: Also time every call, in so many more passes. Needs a real pass.
        real: Run with values, also where shapes alone would do.
        norms: Of gradients; without, a fake pass tells all of them that is asked.
        observer: Who else looks at the pass; where there are several, at each of them.
    """

    mode: Mode = "eval"
    backward: bool = False
    device: str | None = None
    loss: Loss | None = None
    statistics: bool = False
    repeat: int = 0
    real: bool = False
    norms: bool = True
    observer: Observer = field(default_factory=Observer)

    @property
    def needs_values(self) -> bool:
        """True where a fake pass cannot tell what is asked."""
        return self.real or self.statistics or self.repeat > 0


def trace(
    model: nn.Module,
    inputs: Inputs,
    *,
    target: str = "",
    rebuild: Callable[[], nn.Module] | None = None,
    request: Request | None = None,
    **options: Any,
) -> Trace:
    """Run one forward pass and write down every call.

    Args:
        model: Its tensors may be real, fake or on the meta device. It is left as it was.
        inputs: What it is given, as `parse_inputs` makes it.
        target: What the user named.
        rebuild: Gives the same model with real tensors; asked for only where a pass needs values
            and `model` has none.
        request: What to tell.
        options: Attributes of the request, where none is given.

    Returns:
        The trace. A forward pass that raises is one too: its `error` says where and why.

    Raises:
        UsageError: The pass needs values, and there are none, or no memory for them.
    """
    asked = request or Request(**options)
    settings = Settings(
        training=asked.mode == "train",
        backward=asked.backward,
        device=asked.device,
        loss=asked.loss,
        statistics=asked.statistics,
        repeat=asked.repeat,
        observer=asked.observer,
    )
    fake = None
    if not is_lazy(model) and not (asked.needs_values and is_cheap(model, inputs)):
        fake, inputs = run_typed(model, inputs, settings, "fake")
        if is_answer(model, fake, rebuild, asked, settings):
            return report(fake, target, asked, (*left_out(fake, asked), *scripted(model)))
    throwaway = is_hollow(model)
    chosen = with_values(model, inputs, fake, rebuild, settings)
    settings = replace(settings, keep_all=not throwaway and (fake is None or bool(fake.failure)))
    real, _ = run_typed(chosen, inputs, settings, "real")
    notes = () if asked.needs_values or is_confirmed(fake, real) else (why_real(fake),)
    return report(real, target, asked, (*notes, *scripted(chosen)))


def is_confirmed(fake: Pass | None, real: Pass) -> bool:
    """True where a real pass says no more than the fake one before it, if with values or norms."""
    if fake is None:
        return False
    if fake.failure is None:
        return True
    return real.failure is not None and not needs_values(fake.failure.error)


def is_answer(
    model: nn.Module,
    fake: Pass,
    rebuild: Callable[[], nn.Module] | None,
    asked: Request,
    settings: Settings,
) -> bool:
    """True when a fake pass tells all that is asked, or all that can be had."""
    if fake.failure is not None:
        return is_settled(model, fake, rebuild, settings)
    if asked.needs_values:
        return False
    without = is_hollow(model) and rebuild is None
    gradients = asked.backward and asked.norms
    return not gradients or without or size_for_real(model, fake, settings) > CHEAP


def left_out(fake: Pass, asked: Request) -> tuple[Note, ...]:
    """A note where gradients have shapes and no norms."""
    if not asked.backward or fake.gradients is None or not fake.gradients.shapes:
        return ()
    return (note("norms-left-out", "", "the backward pass ran for shapes; --real has norms too"),)


def scripted(model: nn.Module) -> tuple[Note, ...]:
    """A note for each outermost scripted module."""
    paths: list[str] = []
    for path, module in modules_by_path(model):
        inside = any(not above or path.startswith(f"{above}.") for above in paths)
        if isinstance(module, torch.jit.ScriptModule) and not inside:
            paths.append(path)
    message = "runs as TorchScript, which takes no hooks: no rows for it, its MACs are counted"
    return tuple(note("scripted-module", path, message) for path in paths)


def run_typed(
    model: nn.Module, inputs: Inputs, settings: Settings, executed: Executed
) -> tuple[Pass, Inputs]:
    """A pass, again with another dtype for an input of which it turns out to be the wrong one."""
    done = run(model, inputs, settings, executed)
    tried: set[tuple[str, torch.dtype]] = set()
    for _ in range(MOST_INPUTS):
        failure = done.failure
        dtype = wanted_dtype(failure, model) if failure else None
        if failure is None or failure.from_input is None or dtype is None:
            break
        path = position_of(model, inputs, failure.from_input)
        changed = with_dtype(inputs, path, dtype)
        if changed == inputs or (path, dtype) in tried:
            break
        tried.add((path, dtype))
        inputs = changed
        done = run(model, inputs, settings, executed)
    return done, inputs


MOST_INPUTS = 20
TYPES_DIFFER = re.compile("dtype|scalar type|[Ii]nput type|ComplexFloat")
LOOK_UPS = ("embedding", "index", "gather", "scatter", "one_hot", "take", "nll_loss")


def wanted_dtype(failure: Failure, model: nn.Module) -> torch.dtype | None:
    """The dtype that a pass wants of what it failed on; None where it failed for another reason."""
    if wants_indices(failure):
        return torch.int64
    return real_dtype(model) if TYPES_DIFFER.search(str(failure.error)) else None


def wants_indices(failure: Failure) -> bool:
    """True when a pass failed because positions in a table have to be integers."""
    text = str(failure.error)
    operator = failure.operator.partition(".")[2]
    looks_up = operator.lstrip("_").startswith(LOOK_UPS) or "indices" in text
    return looks_up and any(sign in text for sign in ("Long", "long", "Int", "int64", "integ"))


def position_of(model: nn.Module, inputs: Inputs, name: str) -> str:
    """The path of an input inside the arguments, from the name that `forward` gives it."""
    first, dot, rest = name.partition(".")
    names = list(bound_names(model, inputs))
    index = names.index(first) if first in names else len(names)
    return f"{index}{dot}{rest}" if index < len(inputs.args) else name


def run(model: nn.Module, inputs: Inputs, settings: Settings, executed: Executed) -> Pass:
    """A pass without gradients; with them where the forward itself turns out to need them."""
    done = run_pass(model, inputs, settings, executed)
    error = done.failure.error if done.failure else None
    if isinstance(error, RuntimeError) and "does not require grad" in str(error):
        return run_pass(model, inputs, replace(settings, gradients=True), executed)
    return done


def is_lazy(model: nn.Module) -> bool:
    """True for a model with tensors that get their shape from the first input."""
    tensors = (*model.parameters(), *model.buffers())
    return any(is_uninitialized(each) for each in tensors)


def is_settled(
    model: nn.Module,
    fake: Pass,
    rebuild: Callable[[], nn.Module] | None,
    settings: Settings,
) -> bool:
    """True when the failure of a fake pass is the answer, and no real pass is to confirm it."""
    if fake.failure is None or needs_values(fake.failure.error):
        return False
    return (is_hollow(model) and rebuild is None) or size_for_real(model, fake, settings) > CHEAP


def needs_values(error: BaseException) -> bool:
    """True for what only a pass without values raises."""
    kinds = (
        DataDependentOutputException,
        DynamicOutputShapeException,
        UnsupportedOperatorException,
    )
    if isinstance(error, kinds):
        return True
    text = str(error)
    return isinstance(error, RuntimeError | NotImplementedError | TypeError) and any(
        sign in text for sign in ("FakeTensor", "meta tensor", "tensor subclasses", "data pointer")
    )


def with_values(
    model: nn.Module,
    inputs: Inputs,
    fake: Pass | None,
    rebuild: Callable[[], nn.Module] | None,
    settings: Settings,
) -> nn.Module:
    """The model to run for real."""
    if fake is None and is_lazy(model):
        # A lazy module becomes another class in its first pass: that happens to a copy.
        refuse_beyond_memory(size_of_inputs(inputs), why_real(None).message)
        return copied(model)
    if fake is None:
        return real_tensors(model, rebuild, NEEDED)
    cause = why_real(fake).message if fake.failure else NEEDED
    refuse_beyond_memory(size_for_real(model, fake, settings), cause)
    return real_tensors(model, rebuild, cause)


NEEDED = "what is asked needs values"


def refuse_beyond_memory(needed: int, cause: str) -> None:
    """Refuse a real pass that takes so many bytes at least, where fewer are free."""
    free = available_memory()
    if free is not None and needed > free:
        raise UsageError(
            f"{cause}; that takes {shown_bytes(needed)} of memory or more, and "
            f"{shown_bytes(free)} are free",
            "trace a smaller configuration of the model, or smaller inputs",
        )


def real_tensors(
    model: nn.Module, rebuild: Callable[[], nn.Module] | None, cause: str
) -> nn.Module:
    """The model, built again where its tensors have no bytes."""
    if not is_hollow(model):
        return model
    if rebuild is None:
        raise UsageError(
            f"{cause}, and the model's tensors have none",
            "leave out --device meta, or have the model built on the CPU",
        )
    return rebuild()


def copied(model: nn.Module) -> nn.Module:
    """A deep copy of a lazy model; torch cannot copy a lazy buffer.

    Raises:
        UsageError: Something in the model refuses to be copied.
    """
    fresh: Any = UninitializedBuffer
    memo: dict[int, Any] = {
        id(each): fresh(device=each.device, dtype=each.dtype)
        for each in model.buffers()
        if is_uninitialized(each)
    }
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:  # the tensors of the old weight_norm, and whatever users write
        raise UsageError(
            f"the first pass of a lazy model is run on a copy, and it cannot be copied: {error}",
            "run one forward pass where the model is built",
        ) from error


def why_real(fake: Pass | None) -> Note:
    """A note that says what asked for values."""
    if fake is None or fake.failure is None:
        return note("ran-for-real", "", "lazy modules take their shapes from real inputs")
    failure = fake.failure
    line = user_line(failure.error)
    place = f" at {line}" if line else ""
    operator = getattr(failure.error, "func", None)
    cause = str(operator) if operator is not None else " ".join(str(failure.error).split())[:200]
    return note("ran-for-real", failure.path, f"the forward pass needs values{place} ({cause})")


def report(done: Pass, target: str, asked: Request, notes: tuple[Note, ...] = ()) -> Trace:
    """A pass as a record."""
    gradients = done.gradients
    return Trace(
        target=target,
        mode=asked.mode,
        executed=done.executed,
        inputs=done.inputs,
        outputs=done.outputs,
        calls=done.calls,
        parameters=done.parameters,
        trainable=done.trainable,
        macs=done.macs,
        uncounted=done.uncounted,
        never_called=done.never_called,
        parameter_gradients=gradients.shapes if gradients else None,
        error=error_of(done.failure) if done.failure else None,
        notes=(*notes, *gradient_notes(done), *value_notes(done)),
        gradient_norms=gradients.norms if gradients and gradients.norms else None,
        unused=gradients.unused if gradients else (),
        loss=asked.loss.name if asked.loss else None,
        seconds=done.seconds,
    )


def error_of(failure: Failure) -> TraceError:
    """A failure as a record."""
    error = failure.error
    line = user_line(error)
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return TraceError(
        path=failure.path,
        type=type_of(failure.module),
        message=f"{text} ({line})" if line else text,
        call=failure.call,
        inputs=failure.inputs,
        produced_by=failure.produced_by,
        settings=settings_of(failure.module),
        from_input=failure.from_input,
    )


def gradient_notes(done: Pass) -> tuple[Note, ...]:
    """Notes where a backward pass reached nothing, or not all."""
    found = done.gradients
    if found is None:
        return ()
    if all(shape is None for shape in found.shapes.values()):
        message = "no output depends on a trainable parameter: there is no gradient to show"
        return (note("no-gradient", "", message),)
    if not found.unused:
        return ()
    shown = ", ".join(found.unused[:4]) + (", …" if len(found.unused) > 4 else "")
    message = f"{len(found.unused)} trainable parameters got no gradient: {shown}"
    return (note("unused-parameters", "", message),)


def value_notes(done: Pass) -> tuple[Note, ...]:
    """Notes on NaN, Inf and dead units."""
    return (*non_finite(done), *dead(done))


def non_finite(done: Pass) -> Iterator[Note]:
    """A note on the first module that produced a NaN or an infinity."""
    culprit = done.culprit
    if culprit is None:
        return
    again = f" in call {culprit.call}" if culprit.call > 1 else ""
    own = f"; its own {', '.join(culprit.parameters)} held some" if culprit.parameters else ""
    message = f"gave NaN or Inf{again}, though what it was given had none{own}"
    yield note("non-finite", culprit.path, message)


def dead(done: Pass) -> Iterator[Note]:
    """A note on ReLUs with units that gave nothing but zeros."""
    found = [
        f"{call.path} ({call.dead[0]} of {call.dead[1]})"
        for call in done.calls
        if call.dead is not None and call.dead[0]
    ]
    if found:
        shown = ", ".join(found[:4]) + (f", … ({len(found)} in all)" if len(found) > 4 else "")
        yield note("dead-units", "", f"units that gave nothing but zeros: {shown}")
