"""What every verb that writes shares: how to write, what came of it, in which form."""

from dataclasses import dataclass
from functools import partial

from modtool import plan as plans
from modtool.live.overflowing import Overflows
from modtool.plan import Form, Overflow, Plan
from modtool.records import Checkpoint
from modtool.report.fills import Filling
from modtool.write import (
    ALONE,
    Compute,
    Progress,
    Ranks,
    Sync,
    write,
    write_distributed,
    write_set,
)

__all__ = ["Outcome", "Writing", "carry_out", "first_plan", "form_for"]


@dataclass(frozen=True, slots=True)
class Writing:
    """How a verb writes.

    Attributes:
        force: An existing file may be replaced.
        in_place: The source itself may be replaced.
        dry_run: Nothing is written.
        verified: What was written is read back and compared with its source.
        sync: When what was written is made lasting: `now`, before it gets its name, or `never`,
            that is by the system when it sees fit.
        max_shard_size: Write files of at most so many bytes; None for no limit.
        sharded: Write a set: into a folder that may have to be made, with an index where there
            are several files.
        ranks: Which of several processes this is; each writes its share of a set.
        progress: Called with bytes done, bytes in all, and the name of the tensor at hand.
    """

    force: bool = False
    in_place: bool = False
    dry_run: bool = False
    verified: bool = False
    sync: Sync = "now"
    max_shard_size: int | None = None
    sharded: bool = False
    ranks: Ranks = ALONE
    progress: Progress | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a verb planned, and the paths that it wrote (none after a dry run).

    Attributes:
        plan: What was to be written.
        written: Paths.
        filling: What came of filling tensors; None where that is not what the verb does.
        overflows: Tensors of which finite values did not fit into the type they were cast to;
            where several processes write, those that this one wrote.
    """

    plan: Plan
    written: tuple[str, ...]
    filling: Filling | None = None
    overflows: tuple[Overflow, ...] = ()


PLAIN = Writing()


def form_for(output: str | None, otherwise: Form) -> Form:
    """The form that an output's suffix means."""
    return "safetensors" if output and is_safetensors(output) else otherwise


def is_safetensors(output: str) -> bool:
    """True for a name that promises safetensors."""
    return output.lower().endswith(".safetensors")


def first_plan(checkpoint: Checkpoint, output: str, otherwise: Form) -> Plan:
    """The plan that writes a target back in the form it has, or the one that OUT's suffix means.

    Modules in a file are kept to the letter; a checkpoint stays one; the rest becomes `otherwise`.
    """
    if checkpoint.modules and checkpoint.root is not None and not is_safetensors(output):
        return plans.plan_rewrite(checkpoint)
    kept: Form = "checkpoint" if checkpoint.kind == "checkpoint" else otherwise
    return plans.plan_conversion(checkpoint, to=form_for(output, kept))


def carry_out(plan: Plan, output: str, writing: Writing, compute: Compute | None = None) -> Outcome:
    """Write a plan, unless it is only to be shown; torch is imported only where it computes."""
    plans.check(plan)
    if writing.dry_run:
        return Outcome(plan, ())
    overflows = Overflows(plan)
    written = put(plan, output, writing, compute or overflows.compute)
    return Outcome(plan, written, overflows=tuple(overflows.found.values()))


def put(plan: Plan, output: str, writing: Writing, compute: Compute) -> tuple[str, ...]:
    """Write a plan as what it is to be: a set of files, a folder, or one file."""
    if writing.sharded:
        return write_shards(plan, output, writing, compute)
    if writing.ranks.rank:
        return ()  # one file is the first process's work
    if plan.form == "dcp":
        return write_folder(plan, output, writing, compute)
    return write(
        plan,
        output,
        force=writing.force,
        in_place=writing.in_place,
        verified=writing.verified,
        sync=writing.sync,
        compute=compute,
        progress=writing.progress,
    )


def write_shards(plan: Plan, output: str, writing: Writing, compute: Compute) -> tuple[str, ...]:
    """Write a plan as a set of files."""
    largest = writing.max_shard_size
    shards = (plan,) if largest is None else plans.shards_of(plan, largest)
    return write_set(
        shards,
        output,
        force=writing.force,
        verified=writing.verified,
        sync=writing.sync,
        compute=compute,
        progress=writing.progress,
        ranks=writing.ranks,
    )


def write_folder(plan: Plan, output: str, writing: Writing, compute: Compute) -> tuple[str, ...]:
    """Write a plan as a distributed checkpoint, which takes torch."""
    from modtool.live.distributed import save_distributed

    return write_distributed(
        plan,
        output,
        save=partial(save_distributed, synced=writing.sync == "now"),
        force=writing.force,
        verified=writing.verified,
        sync=writing.sync,
        compute=compute,
        progress=writing.progress,
    )
