"""`reinit`: parameters initialised anew."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from modtool import plan as plans
from modtool.api.targets import is_file, load_target, open_target
from modtool.api.writing import PLAIN, Outcome, Writing, carry_out, first_plan
from modtool.errors import UsageError
from modtool.plan import Plan, Rule
from modtool.records import Checkpoint

if TYPE_CHECKING:
    from torch import nn

__all__ = ["reinit"]


def reinit(
    target: "str | os.PathLike[str] | nn.Module",
    output: str,
    *,
    scheme: str,
    scheme_arguments: Mapping[str, object] | None = None,
    patterns: Sequence[str] = (),
    seed: int = 0,
    skip_unfit: bool = False,
    arguments: Mapping[str, object] | None = None,
    weights: str | None = None,
    edits: Sequence[Callable[[Plan], Plan]] = (),
    writing: Writing = PLAIN,
) -> Outcome:
    """Write the target with the selected parameters initialised anew.

    Args:
        target: A model or a checkpoint.
        output: The file to write.
        scheme: A key of `modtool.live.initialise.SCHEMES`; `default` lets modules reset themselves.
        scheme_arguments: Of the scheme.
        patterns: What to select; none means every parameter.
        seed: The same seed gives a tensor the same bits whatever else is selected.
        skip_unfit: Leave tensors that the scheme does not fit as they are.
        arguments: Of the model's constructor.
        weights: A checkpoint to load into the model first.
        edits: Further changes, as `modtool.plan` has them.
        writing: How to write.
    """
    from modtool.live.filling import fitted
    from modtool.live.initialise import parse_arguments

    values = parse_arguments(scheme, scheme_arguments)
    if scheme == "default":
        checkpoint = reset_modules(target, patterns, seed, arguments, weights)
        plan = first_plan(checkpoint, output, "state_dict")
    else:
        checkpoint = open_target(target, arguments=arguments, weights=weights, values=True)
        plan = first_plan(checkpoint, output, "state_dict")
        plan = plans.reinit(plan, [Rule(tuple(patterns), scheme, values)], seed)
        plan = fitted(plan, skip=skip_unfit)
    for edit in edits:
        plan = edit(plan)
    return carry_out(plan, output, writing)


def reset_modules(
    target: "str | os.PathLike[str] | nn.Module",
    patterns: Sequence[str],
    seed: int,
    arguments: Mapping[str, object] | None,
    weights: str | None,
) -> Checkpoint:
    """The model with the selected parameters reset by their own modules."""
    if is_file(target):
        raise UsageError(
            f"{target}: the scheme `default` runs the modules' own reset_parameters, "
            "and a checkpoint has none",
            "name the model definition, or choose another scheme",
        )
    from modtool.live.reset import reset
    from modtool.live.state import checkpoint_of

    loaded, _ = load_target(target, arguments, weights=weights, real=True)
    plan = plans.plan_conversion(checkpoint_of(loaded.model, loaded.target), to="state_dict")
    reset(loaded.model, sorted(plans.chosen_parameters(plan, patterns)), seed)
    return checkpoint_of(loaded.model, loaded.target)
