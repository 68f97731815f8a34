"""What is wrong with a model on given inputs: passes are run, and notes made of what they show."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.loss import _Loss

from modtool.errors import UsageError
from modtool.live.inputs import Inputs
from modtool.live.lint.biases import bias_note
from modtool.live.lint.subject import Subject, and_others, joined
from modtool.live.lint.values import LAYERS, constant_pair, silent_layer
from modtool.live.lint.variation import Twice, Variation
from modtool.live.lint.watcher import Dropped, Watcher
from modtool.live.trace import Mode, Request, trace
from modtool.notes import note
from modtool.records import Note
from modtool.traces import Trace, TraceError

__all__ = ["FORWARD", "Passes", "run_passes"]

# Multiply-accumulates of a pass that is worth running three times more for one question: seconds.
MOST_MACS = 10**11


@dataclass(frozen=True, slots=True)
class Passes:
    """What the passes of a model showed.

    Attributes:
        subject: The model.
        eval: The pass in eval mode.
        train: The pass in train mode with gradients; in eval mode where that failed.
        in_train: Why the pass in train mode failed; None where it did not.
        watchers: What was noticed, pass by pass: the eval pass first.
        variation: How the outputs of two more passes in eval mode differ; None where they do not.
        not_repeated: Why there were no more passes; "" where there were.
    """

    subject: Subject
    eval: Trace
    train: Trace
    in_train: TraceError | None = None
    watchers: tuple[Watcher, ...] = ()
    variation: Variation | None = None
    not_repeated: str = ""


def run_passes(subject: Subject, inputs: Inputs, rebuild: Callable[[], nn.Module] | None) -> Passes:
    """Run a model in eval and in train mode, on shapes where that will do.

    Raises:
        UsageError: A pass needs values, and there are none, or no memory for them.
    """

    def run(mode: Mode, watcher: Watcher, *, backward: bool = False, real: bool = False) -> Trace:
        request = Request(mode, backward, real=real, norms=False, observer=watcher)
        return trace(subject.model, inputs, rebuild=rebuild, request=request)

    first, second, twice = Watcher(), Watcher(), Twice()
    in_eval = run("eval", first)
    not_repeated = "" if subject.hollow else costly(in_eval)
    if in_eval.error is None and not subject.hollow and not not_repeated:
        try:  # fake tensors are more lenient than kernels: what those refuse counts
            real = run("eval", twice, real=True)
            in_eval = real if real.error is not None else in_eval
        except UsageError as error:
            not_repeated = error.message
    if in_eval.error is not None:
        return Passes(subject, in_eval, in_eval)
    in_train = run("train", second, backward=True)
    failed = in_train.error
    if failed is not None:
        in_train = run("eval", second, backward=True)
    watchers = (first, second)
    return Passes(subject, in_eval, in_train, failed, watchers, twice.variation, not_repeated)


def costly(in_eval: Trace) -> str:
    """Why a pass is not run again and again; "" for one that takes seconds."""
    if in_eval.macs <= MOST_MACS:
        return ""
    return f"one pass takes {in_eval.macs:,} multiply-accumulates, more than {MOST_MACS:,}"


def failed_forward(passes: Passes) -> Iterator[Note]:
    """A pass that raised."""
    if passes.eval.error is not None:
        yield failure_note("eval", passes.eval.error)
    elif passes.in_train is not None and not wants_a_batch(passes.in_train):
        yield failure_note("train", passes.in_train)


def failure_note(mode: Mode, error: TraceError) -> Note:
    """Where a pass stopped, and what to run for more."""
    given = ", ".join(str(list(each.shape)) for each in error.inputs)
    was_given = f"was given {given} and" if given and error.path else "the forward pass"
    message = f"{was_given} failed in {mode} mode: {error.message}"
    remedy = f"`modtool trace --mode {mode}` with the same inputs shows what led there"
    return note("forward-failed", error.path, message, remedy)


def wants_a_batch(error: TraceError) -> bool:
    """True where batch normalisation refused a single value; source: `_verify_batch_size`."""
    return "Expected more than 1 value per channel when training" in error.message


def single_value_norms(passes: Passes) -> Iterator[Note]:
    """Batch normalisations that are given one value of each channel, which train mode refuses."""
    if passes.in_train is None or not wants_a_batch(passes.in_train):
        return
    modules = dict(passes.subject.paths)
    found = {
        call.path: list(call.inputs[0].shape)
        for call in passes.eval.calls
        if isinstance(modules.get(call.path), _BatchNorm) and call.inputs
        if values_per_channel(call.inputs[0].shape) == 1
    }
    places = list(found) or [passes.in_train.path]
    shape = found.get(places[0], "one sample")
    yield from and_others(
        "single-value-batchnorm",
        places,
        f"given {shape}, one value of each channel, it raises in train mode",
    )


def values_per_channel(shape: tuple[int, ...]) -> int:
    """Elements of one channel in (batch, channels, …)."""
    return math.prod(shape) // max(shape[1], 1) if len(shape) > 1 else 0


def never_called(passes: Passes) -> Iterator[Note]:
    """Modules that no pass called, and nobody asked for: one note for each module above."""
    modules, by_parent = dict(passes.subject.paths), dict[str, list[str]]()
    for path in uncalled(passes):
        if isinstance(modules[path], _Loss):
            continue  # it waits for labels, which a pass that predicts is not given
        by_parent.setdefault(path.rpartition(".")[0], []).append(path)
    for places in by_parent.values():
        yield from and_others(
            "never-called",
            places,
            "no pass on these inputs called it or read it, in train mode or in eval mode",
        )


def uncalled(passes: Passes) -> list[str]:
    """The paths of modules that no pass called, and nobody asked for; outermost ones."""
    missed = set(passes.eval.never_called) & set(passes.train.never_called)
    read = set().union(*(watcher.read for watcher in passes.watchers))
    missed -= {path for path, module in passes.subject.modules if id(module) in read}
    return [
        path
        for path, _ in passes.subject.modules
        if path in missed and not any(path.startswith(f"{each}.") for each in missed)
    ]


def unused_parameters(passes: Passes) -> Iterator[Note]:
    """Trainable parameters that no gradient reaches, in modules that were called."""
    unused = set(passes.train.unused)
    trainable = {name for name, each in passes.subject.parameters() if each.requires_grad}
    if not trainable:
        return
    if trainable <= unused:
        yield note("no-gradient", "", "no output depends on a trainable parameter")
        return
    missed = uncalled(passes)
    for path, module in passes.subject.modules:
        own = [joined(path, name) for name, each in module.named_parameters() if each.requires_grad]
        whole = bool(own) and unused.issuperset(own)
        if whole and not any(is_within(path, each) for each in missed):
            shown = ", ".join(own[:4]) + ", …" * (len(own) > 4)
            message = (
                f"no gradient reaches {shown}: an optimizer leaves it as it is, and "
                "DistributedDataParallel refuses it"
            )
            yield note("unused-parameters", path, message)
        unused -= set(own) if whole else set()
    for name in sorted(unused):
        if not any(is_within(name, each) for each in missed):
            message = (
                "no gradient reaches this parameter: an optimizer leaves it as it is, and "
                "DistributedDataParallel refuses it"
            )
            yield note("unused-parameters", name, message)


def is_within(path: str, above: str) -> bool:
    """True for a path itself and what lies below it."""
    return path == above or path.startswith(f"{above}.")


def dropped_in_eval(passes: Passes) -> Iterator[Note]:
    """Functional dropout that does not ask in which mode the model is: a note for each module."""
    by_line: dict[tuple[str, str], list[Dropped]] = {}
    for each in passes.watchers[0].dropped if passes.watchers else ():
        by_line.setdefault((each.function, each.line or each.path), []).append(each)
    by_module: dict[str, list[list[Dropped]]] = {}
    for found in by_line.values():
        by_module.setdefault(found[0].path, []).append(found)
    for same_line, *others in by_module.values():
        first = same_line[0]
        place = f" at {first.line}" if first.line else ""
        yield from and_others(
            "dropout-in-eval",
            list(dict.fromkeys(each.path for each in same_line)),
            f"{first.function}{place} drops elements with probability {first.probability:g} in "
            f"eval mode too{and_lines([found[0] for found in others])}",
            "; ".join(dict.fromkeys(map(flag_of, (first, *(found[0] for found in others))))),
        )


def and_lines(others: Sequence[Dropped]) -> str:
    """`, and 2 more: model.py:7, model.py:9`."""
    if not others:
        return ""
    shown = ", ".join(each.line or each.function for each in others[:4]) + ", …" * (len(others) > 4)
    return f", and {len(others)} more: {shown}"


def flag_of(dropped: Dropped) -> str:
    """What makes a function heed the mode."""
    if dropped.function == "scaled_dot_product_attention":
        return "pass dropout_p=p if self.training else 0.0"
    return "pass training=self.training"


def not_repeated(passes: Passes) -> Iterator[Note]:
    """That nobody knows whether the model gives the same twice."""
    if passes.not_repeated:
        yield note("checks-left-out", "", f"varying-output was not checked: {passes.not_repeated}")


def varying_output(passes: Passes) -> Iterator[Note]:
    """A model that gives two results for one input in eval mode, and does not drop elements."""
    if passes.variation is not None and not passes.watchers[0].dropped:
        yield note(
            "varying-output",
            passes.variation.path,
            f"in eval mode, on the same inputs, {passes.variation.what}",
        )


def biases_before_norms(passes: Passes) -> Iterator[Note]:
    """Layers whose bias the batch normalisation behind them takes away again."""
    pairs = dict.fromkeys(pair for watcher in passes.watchers for pair in watcher.biased)
    for layer, norm in pairs:
        yield bias_note(layer, norm)


def constant_in_order(passes: Passes) -> Iterator[Note]:
    """Layers that hold one value each, and of which one alone is given what the other gave."""
    if not passes.watchers:
        return
    in_eval, in_train = (watcher.units for watcher in passes.watchers)
    modules = dict(passes.subject.paths)
    for first, second in sorted(in_eval.chained() & in_train.chained()):
        one, other = modules[first], modules[second]
        if first not in in_eval.kept and isinstance(one, LAYERS) and isinstance(other, LAYERS):
            yield from constant_pair(first, one, second, other)


def silent_layers(passes: Passes) -> Iterator[Note]:
    """Layers of zeros in front of a ReLU, which lets no gradient through where it is given zero."""
    if not passes.watchers:
        return
    in_eval, in_train = (watcher.units for watcher in passes.watchers)
    modules = dict(passes.subject.paths)
    told = {each.where for each in constant_in_order(passes)}
    for path in sorted((in_eval.rectified_alone() & in_train.rectified_alone()) - told):
        yield from silent_layer(path, modules[path])


FORWARD: tuple[Callable[[Passes], Iterator[Note]], ...] = (
    failed_forward,
    single_value_norms,
    never_called,
    unused_parameters,
    dropped_in_eval,
    varying_output,
    not_repeated,
    biases_before_norms,
    constant_in_order,
    silent_layers,
)
