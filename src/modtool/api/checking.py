"""`check`: what is wrong with checkpoints and models, or unsafe in them."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING

from modtool.api.pools import at_once, in_threads, one_by_one
from modtool.api.targets import is_configuration, is_file, load_target, opened
from modtool.checks import check_checkpoint, worst_first
from modtool.checks.assertions import Assertion, parse_assertion
from modtool.checks.records import Checked, Failure, Questions
from modtool.checks.selection import selection_of
from modtool.diffs.loading import notes_on_loading
from modtool.errors import ModelError, ModtoolError, UsageError
from modtool.formats.further_pickles import further_callables
from modtool.notes import note
from modtool.pickles.callables import callables_of, weights_only_of
from modtool.records import Checkpoint, Note
from modtool.report.totals import totals_of
from modtool.write import Progress

if TYPE_CHECKING:
    from torch import nn

__all__ = ["check", "check_all", "targets_in"]

# A file more or less is no reason to start another process.
WORTH = 4


def check(
    target: "str | os.PathLike[str] | nn.Module",
    *,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    assertions: Sequence[str] = (),
    values: bool = False,
    model: "str | os.PathLike[str] | nn.Module | None" = None,
    arguments: Mapping[str, object] | None = None,
    weights: str | None = None,
    device: str | None = None,
    input_shapes: Sequence[str] = (),
    input_values: Mapping[str, object] | None = None,
    input_files: Sequence[str] = (),
    input_functions: Sequence[str] = (),
    progress: Progress | None = None,
) -> Checked:
    """Find what is wrong with a checkpoint or a model, and what loading a file would run.

    Args:
        target: A checkpoint, of which nothing is executed, or a model, whose code is run.
        select: Codes to look for; none means all. A beginning of a code stands for all such.
        ignore: Codes to leave out, likewise.
        assertions: Expressions over the keys of `count` that are to hold: `params <= 5e6`.
        values: Read every element of a checkpoint.
        model: A definition that a checkpoint is to load into.
        arguments: Of the constructor of a model.
        weights: A checkpoint to load into a model first.
        device: Where to put a model.
        input_shapes: Of the inputs that a model is run with; without any input it is not run.
        input_values: Arguments of `forward` that are no tensors.
        input_files: Inputs from files: .pt, .npz, .npy, .safetensors or .json.
        input_functions: Inputs that functions make: `inputs.py:make_inputs`.
        progress: Called with bytes done, bytes in all and a name, while values are read.

    Raises:
        ModtoolError: The target cannot be read, or the options do not fit it.
    """
    questions = Questions(
        selection=selection_of(select, ignore),
        assertions=tuple(assertions),
        values=values,
        model=None if model is None else definition(model, arguments),
        arguments=arguments or {},
        weights=weights,
        device=device,
        input_shapes=tuple(input_shapes),
        input_values=input_values or {},
        input_files=tuple(input_files),
        input_functions=tuple(input_functions),
    )
    prove_fitting([target], questions)
    return checked(target, questions, progress)


def check_all(
    targets: Iterable[str],
    questions: Questions,
    *,
    processes: int = 1,
    progress: Progress | None = None,
) -> tuple[Checked, ...]:
    """Check several targets. One that cannot be read does not keep the others from it.

    Args:
        targets: Checkpoints, models, and folders, which are searched.
        questions: What is asked of each.
        processes: How many may work at once. With more than one, the program that calls this has
            to be importable, as `multiprocessing` wants it. Threads, where values are read.
        progress: Called with what is done, all there is, and a name: bytes where values are read,
            else files.

    Returns:
        One for each target, in their order; those of a folder in the order of their names.
    """
    for text in questions.assertions:
        parse_assertion(text)
    known: dict[str, None] = {}
    failed: dict[str, Checked] = {}
    for target in targets:
        try:
            known.update(dict.fromkeys(targets_in(target)))
        except ModtoolError as error:
            known[target] = None
            failed[target] = Checked(target, failure=Failure(error.message, error.hint))
    readable = [target for target in known if target not in failed]
    prove_fitting(readable, questions)
    asked = partial(checked_or_failed, questions=questions)
    files = all(map(is_file, readable))
    if questions.values and len(readable) == 1:
        done = one_by_one(readable, partial(asked, progress=progress), None)
    elif questions.values:
        done = in_threads(readable, asked, processes if files else 1, progress)
    elif questions.model is not None or not files or processes == 1 or len(readable) < WORTH:
        done = one_by_one(readable, asked, progress)
    else:
        done = at_once(readable, asked, min(processes, len(readable)), progress)
    found = {each.target: each for each in done} | failed
    return tuple(found[target] for target in known)


def prove_fitting(
    targets: "Sequence[str | os.PathLike[str] | nn.Module]", questions: Questions
) -> None:
    """Nothing, when there is a target for all that is asked.

    Raises:
        UsageError: What is asked of models is asked of checkpoints alone, or the other way round.
    """
    models = [not is_file(each) or is_configuration(str(each)) for each in targets]
    options = {
        "--arg": questions.arguments and questions.model is None,
        "--weights": questions.weights,
        "--device": questions.device,
        "an input": has_inputs(questions),
    }
    given = [option for option, value in options.items() if value]
    if given and targets and not any(models):
        raise UsageError(f"{given[0]} is for models, and {targets[0]} is a checkpoint")
    if targets and all(models) and (questions.values or questions.model is not None):
        option = "--values" if questions.values else "--model"
        raise UsageError(f"{option} is for checkpoints, and {targets[0]} is a model")


def targets_in(target: str) -> Iterator[str]:
    """The target itself, or what a folder that is no target holds, or what a file is a part of.

    Raises:
        TargetError: There is nothing in the folder.
    """
    whole = os.path.join(os.path.dirname(target), ".metadata")
    if target.endswith(".distcp") and os.path.isfile(whole):
        yield whole  # a hook of pre-commit names the files that changed
        return
    if not is_file(target) or not os.path.isdir(target) or is_configuration(target):
        yield target
        return
    from modtool.formats.searching import find_checkpoints, nothing_below

    found = list(find_checkpoints(target))
    if not found:
        raise nothing_below(target)
    yield from found


def checked_or_failed(
    target: str, questions: Questions, progress: Progress | None = None
) -> Checked:
    """What was found in a target, under the name that was asked for, or why nothing was."""
    try:
        return replace(checked(target, questions, progress), target=target)
    except ModtoolError as error:
        return Checked(target, failure=Failure(error.message, error.hint))


# -- one target --------------------------------------------------------------------------------


def checked(
    target: "str | os.PathLike[str] | nn.Module",
    questions: Questions,
    progress: Progress | None = None,
) -> Checked:
    """What was found in a target.

    Raises:
        ModtoolError: It cannot be read, or what is asked does not fit it.
    """
    checkpoint = opened(os.fspath(target)) if is_file(target) else None  # type: ignore[arg-type]
    if checkpoint is None:
        return checked_model(target, questions)
    # What `weights_only=True` would say is of the pickles that a load reads, not of all.
    verdict = weights_only_of(checkpoint)
    checkpoint = replace(
        checkpoint, callables=(*checkpoint.callables, *further_callables(checkpoint))
    )
    found = [*check_checkpoint(checkpoint)]
    if questions.model is not None:
        found += notes_on_loading(questions.model, checkpoint)
    if questions.values:
        found += value_notes(checkpoint, progress)
    made = told(checkpoint, found, questions)
    return replace(made, callables=callables_of(checkpoint), verdict=verdict)


def checked_model(target: "str | os.PathLike[str] | nn.Module", questions: Questions) -> Checked:
    """What was found in a model; its code is run."""
    from modtool.api.tracing import inputs_for
    from modtool.live.lint import construction_note, lint_model, unfinished
    from modtool.live.lint.places import places_of
    from modtool.live.state import checkpoint_of
    from modtool.live.untouched import random_states_kept
    from modtool.live.walk import modules_by_path

    try:
        with random_states_kept():
            loaded, notes = load_target(
                target,
                questions.arguments,
                device=questions.device,
                weights=questions.weights,
                build="fake",
            )
    except ModelError as error:
        reason = construction_note(error)
        if reason is None or not questions.selection.takes(reason.code):
            raise
        return Checked(str(target), (reason,), places=places_of({}, (reason,)))
    unusable = tuple(unfinished(loaded.model))
    if unusable and not questions.selection.takes(unusable[0].code):
        raise ModelError(f"{loaded.target}: {unusable[0].message}", unusable[0].remedy)
    if unusable:
        return Checked(loaded.target, unusable, places=places_of({"": loaded.model}, unusable))
    inputs = None
    if has_inputs(questions):
        inputs = inputs_for(
            loaded,
            questions.input_shapes,
            questions.input_values,
            questions.input_files,
            questions.input_functions,
        )
    checkpoint = checkpoint_of(loaded.model, loaded.target, device=loaded.device, values=False)
    with loaded.entered():
        found = lint_model(loaded.model, inputs, rebuild=random_states_kept()(loaded.rebuild))
    made = told(checkpoint, [*checkpoint.notes, *notes, *found], questions)
    return replace(made, places=places_of(dict(modules_by_path(loaded.model)), made.findings))


def has_inputs(questions: Questions) -> bool:
    """True when a model is to be run."""
    return bool(questions.input_shapes or questions.input_files or questions.input_functions)


def told(checkpoint: Checkpoint, notes: Sequence[Note], questions: Questions) -> Checked:
    """What is to be told of a target: the notes that were selected, and every assertion."""
    assertions = asserted(checkpoint, questions.assertions)
    selected = [each for each in notes if questions.selection.takes(each.code)]
    failed = [failed_note(each) for each in assertions if not each.holds]
    return Checked(checkpoint.target, worst_first([*failed, *selected]), assertions=assertions)


def asserted(checkpoint: Checkpoint, texts: Sequence[str]) -> tuple[Assertion, ...]:
    """What became of each assertion."""
    if not texts:
        return ()
    figures = asdict(totals_of(checkpoint.model_tensors))
    return tuple(parse_assertion(text).of(figures, checkpoint.target) for text in texts)


def failed_note(assertion: Assertion) -> Note:
    """The finding that an assertion does not hold."""
    figures = ", ".join(f"{name} = {value:,}" for name, value in assertion.values.items())
    reason = figures or "it names no key of count"
    return note("assertion-failed", "", f"{assertion.text} does not hold: {reason}")


def definition(
    model: "str | os.PathLike[str] | nn.Module", arguments: Mapping[str, object] | None
) -> Checkpoint:
    """The structure of a model that checkpoints are to load into; its code is run."""
    from modtool.api.targets import open_target

    found = open_target(model, arguments=arguments, lazy=True)
    if found.kind != "model":
        raise UsageError(f"--model {model}: that is a checkpoint", "name a definition: model.py")
    return found


def value_notes(checkpoint: Checkpoint, progress: Progress | None) -> Iterator[Note]:
    """What the elements of a checkpoint say; all of them are read."""
    from modtool.checks.values import candidates, notes_on_values
    from modtool.diffs import compare_bytes
    from modtool.live.scanning import scan

    tensors = checkpoint.tensors
    facts = scan(tensors, progress)
    alike = list(candidates(tensors, facts))
    equal = compare_bytes([(tensors[a], tensors[b]) for a, b in alike])
    copies = [pair for pair, same in zip(alike, equal, strict=True) if same]
    unread = [i for i, tensor in enumerate(tensors) if i not in facts and tensor.numel]
    yield from notes_on_values(checkpoint, facts, copies, unread)
