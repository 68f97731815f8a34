"""`reinit`: parameters initialised anew."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from modtool import plan as plans
from modtool.api.targets import is_file, load_target, open_target
from modtool.api.writing import PLAIN, Outcome, Writing, carry_out, first_plan, form_for
from modtool.errors import UsageError
from modtool.formats.dcp_values import with_values
from modtool.live.filling import fitted, misfits, warn_of_guesses, with_layer_types
from modtool.live.measuring import Measuring, measured_before
from modtool.live.recipe import Recipe, read_recipe, rule_of
from modtool.plan import Plan
from modtool.records import Checkpoint
from modtool.report.fills import Filling

if TYPE_CHECKING:
    from torch import nn

__all__ = ["recipe_for", "reinit"]

Edits = Sequence[Callable[[Plan], Plan]]
Moments = tuple[float, float]


def recipe_for(
    scheme: str | None,
    *,
    arguments: Mapping[str, object] | None = None,
    patterns: str | Sequence[str] = (),
    bias: object = None,
    seed: int | None = None,
    skip_unfit: bool = False,
    recipe: "str | os.PathLike[str] | None" = None,
) -> Recipe:
    """The recipe that a file has, or that these words mean; `seed` and `skip_unfit` go before it.

    Raises:
        UsageError: Neither or both are given, or there is something wrong with them.
    """
    if recipe is not None:
        if scheme is not None or arguments or patterns or bias is not None:
            raise UsageError(
                "a recipe has its own schemes, arguments, patterns and biases",
                "write them into its rules, or leave it out",
            )
        read = read_recipe(os.fspath(recipe))
        seed = read.seed if seed is None else seed
        return Recipe(read.rules, seed, read.skip_unfit or skip_unfit)
    if scheme is None:
        raise UsageError(
            "no scheme given", "name one, as in --scheme kaiming_normal, or a file with --recipe"
        )
    return Recipe((rule_of(scheme, arguments, patterns, bias),), seed or 0, skip_unfit)


def reinit(
    target: "str | os.PathLike[str] | nn.Module",
    output: str,
    *,
    scheme: str | None = None,
    scheme_arguments: Mapping[str, object] | None = None,
    patterns: str | Sequence[str] = (),
    bias: object = None,
    recipe: "Recipe | str | os.PathLike[str] | None" = None,
    seed: int | None = None,
    skip_unfit: bool = False,
    arguments: Mapping[str, object] | None = None,
    weights: str | None = None,
    edits: Edits = (),
    writing: Writing = PLAIN,
) -> Outcome:
    """Write the target with the selected parameters initialised anew; a model itself is unchanged.

    Args:
        target: A model or a checkpoint.
        output: The file to write.
        scheme: A key of `modtool.live.initialise.SCHEMES`; `default` lets modules reset themselves.
        scheme_arguments: Of the scheme.
        patterns: What to select, a pattern or several; none means every parameter.
        bias: A scheme or a number for the biases among the selected.
        recipe: Rules, or a file of them, in place of scheme, arguments, patterns and bias.
        seed: The same seed gives a tensor the same bits whatever else is selected; default 0.
        skip_unfit: Leave tensors that the scheme does not fit as they are.
        arguments: Of the model's constructor.
        weights: A checkpoint to load into the model first.
        edits: Further changes, as `modtool.plan` has them.
        writing: How to write.
    """
    if not isinstance(recipe, Recipe):
        recipe = recipe_for(
            scheme,
            arguments=scheme_arguments,
            patterns=patterns,
            bias=bias,
            seed=seed,
            skip_unfit=skip_unfit,
            recipe=recipe,
        )
    job = Job(output, recipe, edits)
    if is_file(target):
        checkpoint = open_target(target, arguments=arguments, weights=weights)
        refuse_default(checkpoint, recipe)
        if form_for(output, "checkpoint") != "safetensors":
            checkpoint = with_values(checkpoint)
        return finished(job.planned(checkpoint), job, writing, {})
    return reinit_model(target, job, arguments, weights, writing)


@dataclass(slots=True)
class Job:
    """What is asked for, and what was left out of it."""

    output: str
    recipe: Recipe
    edits: Edits
    skipped: dict[str, str] = field(default_factory=dict)

    def planned(self, checkpoint: Checkpoint, model: "nn.Module | None" = None) -> Plan:
        """The plan, with the tensors that are to be filled."""
        plan = first_plan(checkpoint, self.output, "state_dict")
        plan = plans.reinit(plan, self.recipe.rules, self.recipe.seed)
        if model is not None:
            plan = with_layer_types(plan, model)
        self.skipped = misfits(plan) | (without_reset(plan, model) if model is not None else {})
        plan = warn_of_guesses(fitted(plan, self.skipped, skip=self.recipe.skip_unfit))
        for edit in self.edits:
            plan = edit(plan)
        return plan


def finished(
    plan: Plan, job: Job, writing: Writing, before: Mapping[str, Moments | None]
) -> Outcome:
    """The plan carried out, with the measures of what was filled."""
    measuring = Measuring(before)
    outcome = carry_out(plan, job.output, writing, compute=measuring.compute)
    measures = measured_before(plan, before) if writing.dry_run else measuring.measures
    return replace(outcome, filling=Filling(measures, job.skipped))


# -- models ------------------------------------------------------------------------------------


def reinit_model(
    target: "str | os.PathLike[str] | nn.Module",
    job: Job,
    arguments: Mapping[str, object] | None,
    weights: str | None,
    writing: Writing,
) -> Outcome:
    """The same of a model, where modules can reset themselves."""
    from modtool.live.measuring import moments_of_model
    from modtool.live.state import checkpoint_of

    loaded, notes = load_target(target, arguments, weights=weights)
    model = loaded.model

    def described() -> Checkpoint:
        made = checkpoint_of(model, loaded.target)
        return replace(made, notes=(*made.notes, *notes))

    plan = job.planned(described(), model)
    names = resets_of(plan)
    before = moments_of_model(model, names)
    with reset_meanwhile(model, names, job.recipe.seed, restore=loaded.model is target):
        if names:
            plan = job.planned(described(), model)
        return finished(plan, job, writing, before)


def resets_of(plan: Plan) -> list[str]:
    """The names of the tensors that modules reset themselves."""
    found = {
        tensor.source.name: None
        for tensor in plan.tensors
        if tensor.fill is not None and tensor.fill.scheme == "default"
    }
    return list(found)


def without_reset(plan: Plan, model: "nn.Module") -> dict[str, str]:
    """Output name -> why it cannot be reset, for those whose modules have nothing to do it with."""
    from modtool.live import reset

    stubborn = frozenset(reset.without_reset(model, resets_of(plan)))
    return {
        tensor.name: "its module has no reset_parameters"
        for tensor in plan.tensors
        if tensor.fill is not None and tensor.source.name in stubborn
    }


@contextmanager
def reset_meanwhile(
    model: "nn.Module", names: Sequence[str], seed: int, *, restore: bool
) -> Iterator[None]:
    """The named tensors reset by their modules; as they were afterwards, where that matters."""
    if not names:
        yield
        return
    from modtool.live.reset import reset, restored

    with restored(model, names if restore else ()):
        reset(model, names, seed)
        yield


def refuse_default(checkpoint: Checkpoint, recipe: Recipe) -> None:
    """An error for `default` where there are no modules that could reset themselves."""
    schemes = {rule.scheme for rule in recipe.rules}
    schemes |= {rule.bias[0] for rule in recipe.rules if rule.bias is not None}
    if "default" in schemes:
        raise UsageError(
            f"{checkpoint.target}: the scheme default runs the modules' own reset_parameters, "
            "and a checkpoint has none",
            f"name the definition too: modtool reinit MODEL.py --weights {checkpoint.target} …",
        )
