"""`trace`: one forward pass, call by call."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from modtool.api.targets import is_configuration, is_file, load_target
from modtool.errors import UsageError, a_kind
from modtool.notes import note
from modtool.records import Note
from modtool.traces import Trace

if TYPE_CHECKING:
    from torch import nn

    from modtool.live.inputs import Inputs
    from modtool.live.load import Built, LoadedModel

__all__ = ["trace"]


def trace(
    target: "str | os.PathLike[str] | nn.Module",
    *input_shapes: str,
    arguments: Mapping[str, object] | None = None,
    weights: str | None = None,
    device: str | None = None,
    mode: str = "eval",
    backward: bool = False,
    input_files: Sequence[str] = (),
    input_functions: Sequence[str] = (),
    values: Mapping[str, object] | None = None,
    loss: str | None = None,
    target_shape: str | None = None,
    statistics: bool = False,
    repeat: int = 0,
    real: bool = False,
    trust: bool = False,
) -> Trace:
    """One forward pass under hooks: every call's shapes, in order. The model is left as it was.

    Args:
        target: A model, or a `config.json` of transformers.
        input_shapes: `32,784`, or named and typed: `input_ids=1,128:int64`.
        arguments: Of the model's constructor.
        weights: A checkpoint to load into the model first.
        device: Where to run.
        mode: `train` or `eval`.
        backward: Also gradients: their shapes, and their norms where the pass runs for real.
        input_files: Inputs from files: .pt, .npz, .npy, .safetensors or .json.
        input_functions: Inputs that functions make: `inputs.py:make_inputs`.
        values: Arguments of `forward` that are no tensors.
        loss: What the backward pass begins with; None means the sum of the outputs.
        target_shape: Of what the loss is given beside the output.
        statistics: Also what every output is like: mean, zeros, NaN and Inf.
        repeat: Also the time of each call, the median of so many passes; 0 times none.
        real: Run with values, also where shapes alone would do.
        trust: Load a full-model save or a TorchScript file for real, which runs what it holds.

    Raises:
        ModtoolError: The model or its inputs could not be made. A forward pass that raises is no
            error: the trace says where it stopped.
    """
    from modtool.live.affording import is_cheap
    from modtool.live.losses import find_loss
    from modtool.live.trace import Request
    from modtool.live.trace import trace as trace_model
    from modtool.live.untouched import random_states_kept

    if mode not in ("train", "eval"):
        raise UsageError(f"mode is train or eval, not {mode!r}")
    if repeat < 0:
        raise UsageError(f"a pass cannot be repeated {repeat} times")
    if target_shape is not None and loss is None:
        raise UsageError("a target's shape is for a loss", "name one: --loss CrossEntropyLoss")
    for shape in input_shapes:
        if not isinstance(shape, str):
            raise UsageError(
                f"the shape of an input is text, not {a_kind(shape)}",
                'one text for each: trace(model, "32,784", "32:int64")',
            )
    request = Request(
        mode="train" if mode == "train" else "eval",
        backward=backward or loss is not None,
        device=device,
        loss=find_loss(loss, target_shape) if loss is not None else None,
        statistics=statistics,
        repeat=repeat,
        real=real,
    )

    # A model that initialises itself at random is the same one in every trace.
    @random_states_kept()
    def load(build: "Built") -> tuple["LoadedModel", tuple[Note, ...]]:
        return load_target(
            target, arguments, device=device, weights=weights, build=build, trust=trust
        )

    # On the meta device a model is measured without what fake tensors have torch import.
    loaded, notes = load("meta" if request.needs_values and device is None else "fake")
    inputs = inputs_for(loaded, input_shapes, values, input_files, input_functions)
    if loaded.built == "meta" and device is None and not is_cheap(loaded.model, inputs):
        loaded, notes = load("fake")
    with loaded.entered():
        traced = trace_model(
            loaded.model,
            inputs,
            target=loaded.target,
            rebuild=None if device == "meta" else random_states_kept()(loaded.rebuild),
            request=request,
        )
    if weights is None and (request.statistics or traced.gradient_norms is not None):
        notes = (*notes, *initial_values(target))
    return replace(traced, notes=(*notes, *traced.notes))


def initial_values(target: "str | os.PathLike[str] | nn.Module") -> tuple[Note, ...]:
    """A note on values of a model that was built from a configuration alone."""
    if not (is_file(target) and is_configuration(os.fspath(target))):  # type: ignore[arg-type]
        return ()
    message = "these are initial values: the model's configuration has no weights; add --weights"
    return (note("initial-values", "", message),)


def inputs_for(
    loaded: "LoadedModel",
    shapes: Sequence[str],
    values: Mapping[str, object] | None,
    files: Sequence[str],
    functions: Sequence[str],
) -> "Inputs":
    """What the model is given: what files and functions give first, then shapes and values."""
    from modtool.live.input_files import call_for_inputs, read_input
    from modtool.live.inputs import parse_inputs

    model = loaded.model
    given = [
        *(read_input(path, model) for path in files),
        *(call_for_inputs(text, model) for text in functions),
    ]
    return parse_inputs(shapes, model, values, given)
