"""What every verb that writes shares: how to write, what came of it, in which form."""

from collections.abc import Iterator
from dataclasses import dataclass

from modtool import plan as plans
from modtool.plan import Form, Plan, PlannedTensor
from modtool.records import Checkpoint
from modtool.write import Progress, write

__all__ = ["Outcome", "Writing", "carry_out", "first_plan", "form_for"]


@dataclass(frozen=True, slots=True)
class Writing:
    """How a verb writes.

    Attributes:
        force: An existing file may be replaced.
        in_place: The source itself may be replaced.
        dry_run: Nothing is written.
        progress: Called with bytes done, bytes in all, and the name of the tensor at hand.
    """

    force: bool = False
    in_place: bool = False
    dry_run: bool = False
    progress: Progress | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a verb planned, and the paths that it wrote (none after a dry run)."""

    plan: Plan
    written: tuple[str, ...]


PLAIN = Writing()


def form_for(output: str | None, otherwise: Form) -> Form:
    """The form that an output's suffix means."""
    return "safetensors" if output and output.endswith(".safetensors") else otherwise


def first_plan(checkpoint: Checkpoint, output: str, otherwise: Form) -> Plan:
    """The plan that writes a target back in the form it has, or the one that OUT's suffix means.

    Modules in a file are kept to the letter; a checkpoint stays one; the rest becomes `otherwise`.
    """
    if checkpoint.modules and checkpoint.root is not None and not output.endswith(".safetensors"):
        return plans.plan_rewrite(checkpoint)
    kept: Form = "checkpoint" if checkpoint.kind == "checkpoint" else otherwise
    return plans.plan_conversion(checkpoint, to=form_for(output, kept))


def carry_out(plan: Plan, output: str, writing: Writing) -> Outcome:
    """Write a plan, unless it is only to be shown; torch is imported only where it computes."""
    if writing.dry_run:
        return Outcome(plan, ())
    written = write(
        plan,
        output,
        force=writing.force,
        in_place=writing.in_place,
        compute=compute,
        progress=writing.progress,
    )
    return Outcome(plan, written)


def compute(tensor: PlannedTensor) -> Iterator[memoryview]:
    """The bytes of a tensor that is gathered, cast or filled."""
    from modtool.live.compute import compute as compute_elements

    return compute_elements(tensor)
