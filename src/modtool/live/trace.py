"""One forward pass under hooks: every call's shapes in order, and what it multiplies.

The pass runs on fake tensors, which cost no memory and no arithmetic. Where it needs values
(`if x.sum() > 0`, `.item()`, numpy), it is run again for real. Afterwards the model is what it was.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
)
from torch.nn.parameter import UninitializedBuffer

from modtool.errors import UsageError
from modtool.live.blame import user_line
from modtool.live.fake import is_fake, is_uninitialized
from modtool.live.inputs import Inputs
from modtool.live.memory import available_memory, shown_bytes
from modtool.live.passes import Executed, Failure, Pass, Settings, run_pass
from modtool.live.settings import settings_of, type_of
from modtool.notes import note
from modtool.records import Note, Trace, TraceError

__all__ = ["Mode", "trace"]

Mode = Literal["train", "eval"]

# A pass that failed on fake tensors for a plain reason is confirmed for real below this size.
CHEAP = 2 * 10**9


def trace(
    model: nn.Module,
    inputs: Inputs,
    *,
    target: str = "",
    mode: Mode = "eval",
    backward: bool = False,
    device: str | None = None,
    rebuild: Callable[[], nn.Module] | None = None,
) -> Trace:
    """Run one forward pass and write down every call.

    Args:
        model: Its tensors may be real, fake or on the meta device. It is left as it was.
        inputs: What it is given, as `parse_inputs` makes it.
        target: What the user named.
        mode: Train or eval, for the whole model; every module's own flag is restored.
        backward: Also write down gradient shapes of each call's outputs and of each parameter.
        device: Where the inputs go; None means where the model's first tensor is.
        rebuild: Gives the same model with real tensors; asked for only where a pass needs values
            and `model` has none.

    Returns:
        The trace. A forward pass that raises is one too: its `error` says where and why.

    Raises:
        UsageError: The pass needs values, and there are none, or no memory for them.
    """
    settings = Settings(mode == "train", backward, device)
    fake = None
    if not is_lazy(model):
        fake = run(model, inputs, settings, "fake")
        if fake.failure is None or is_settled(model, fake, rebuild):
            return report(fake, target, mode)
    real = run(with_values(model, fake, rebuild), inputs, settings, "real")
    return report(real, target, mode, () if real.failure else (why_real(fake),))


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


def is_settled(model: nn.Module, fake: Pass, rebuild: Callable[[], nn.Module] | None) -> bool:
    """True when the failure of a fake pass is the answer, and no real pass is to confirm it."""
    if fake.failure is None or needs_values(fake.failure.error):
        return False
    return (is_hollow(model) and rebuild is None) or size_for_real(model, fake) > CHEAP


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


def is_hollow(model: nn.Module) -> bool:
    """True when a tensor of the model has no bytes."""
    return any(is_fake(each) for each in (*model.parameters(), *model.buffers()))


def size_for_real(model: nn.Module, fake: Pass) -> int:
    """Bytes that a real pass takes at least, beside what is in memory already."""
    tensors = {id(each): each for each in (*model.parameters(), *model.buffers())}
    built = sum(each.nbytes for each in tensors.values() if is_fake(each))
    return built + sum(each.nbytes for each in fake.inputs) + 2 * fake.largest


def with_values(
    model: nn.Module, fake: Pass | None, rebuild: Callable[[], nn.Module] | None
) -> nn.Module:
    """The model to run for real."""
    if fake is None:
        # A lazy module becomes another class in its first pass: that happens to a copy.
        return copied(model)
    free = available_memory()
    needed = size_for_real(model, fake)
    if free is not None and needed > free:
        raise UsageError(
            f"{why_real(fake).message}; that takes {shown_bytes(needed)} of memory or more, and "
            f"{shown_bytes(free)} are free",
            "trace a smaller configuration of the model, or smaller inputs",
        )
    if not is_hollow(model):
        return model
    if rebuild is None:
        raise UsageError(f"{why_real(fake).message}, and the model's tensors have none")
    return rebuild()


def copied(model: nn.Module) -> nn.Module:
    """A deep copy of a lazy model; torch cannot copy a lazy buffer."""
    fresh: Any = UninitializedBuffer
    memo: dict[int, Any] = {
        id(each): fresh(device=each.device, dtype=each.dtype)
        for each in model.buffers()
        if is_uninitialized(each)
    }
    return copy.deepcopy(model, memo)


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


def report(done: Pass, target: str, mode: Mode, notes: tuple[Note, ...] = ()) -> Trace:
    """A pass as a record."""
    return Trace(
        target=target,
        mode=mode,
        executed=done.executed,
        inputs=done.inputs,
        outputs=done.outputs,
        calls=done.calls,
        parameters=done.parameters,
        trainable=done.trainable,
        macs=done.macs,
        uncounted=done.uncounted,
        never_called=done.never_called,
        parameter_gradients=done.gradients,
        error=error_of(done.failure) if done.failure else None,
        notes=(*notes, *no_gradient(done)),
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
    )


def no_gradient(done: Pass) -> tuple[Note, ...]:
    """A note where a backward pass found nothing to do."""
    if done.gradients is None or any(shape is not None for shape in done.gradients.values()):
        return ()
    message = "no output depends on a trainable parameter: there is no gradient to show"
    return (note("no-gradient", "", message),)
