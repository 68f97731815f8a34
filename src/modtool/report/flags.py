"""The reports of `freeze` and `unfreeze`: what trains, before and after."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from modtool.plan import Plan, PlannedTensor, bn_eval_of, flags_of
from modtool.records import Note
from modtool.report.changes import dropped_document, sentences
from modtool.report.tables import Column, Report, Table, Total
from modtool.sharing import share

__all__ = ["flags_report", "state_report"]

NAME_COLUMNS = (
    Column("name", "parameter", "name of the parameter"),
    Column("shape", "shape", "size along each dimension", "shape"),
    Column("numel", "elements", "number of elements", "count"),
)
FLAG_COLUMNS = (
    *NAME_COLUMNS,
    Column("before", "before", "trainable, frozen, or – where the source does not record it"),
    Column("after", "after", "trainable or frozen"),
)
STATE_COLUMNS = (
    *NAME_COLUMNS,
    Column("state", "state", "trainable, frozen, or – where nothing records it"),
)

Flags = Mapping[str, bool | None]


def flags_report(plan: Plan, written: Sequence[str]) -> Report:
    """What `freeze` and `unfreeze` changed, and the counts before and after."""
    after = flags_of(plan)
    parameters = [tensor for tensor in plan.model_tensors if tensor.name in after]
    before = {tensor.name: tensor.source.requires_grad for tensor in parameters}
    rows = tuple(
        (*facts(tensor), state(before[tensor.name]), state(after[tensor.name]))
        for tensor in parameters
        if (before[tensor.name] is not False) != after[tensor.name]
    )
    counts = {
        "trainable_before": elements(parameters, before, True),
        "frozen_before": elements(parameters, before, False),
        "trainable": elements(parameters, after, True),
        "frozen": elements(parameters, after, False),
    }
    kept = bn_eval_of(plan)

    def document() -> Mapping[str, object]:
        keys = [column.key for column in FLAG_COLUMNS]
        return {
            "target": plan.source.target,
            "written": list(written),
            "changed": [dict(zip(keys, row, strict=True)) for row in rows],
            "requires_grad": after,
            "bn_eval": kept,
            **counts,
            "dropped": dropped_document(plan),
            "notes": [asdict(note) for note in notes_of(plan)],
        }

    return Report(
        document,
        lambda: (Table(FLAG_COLUMNS, rows),),
        totals=tuple(Total(name.replace("_", " "), value) for name, value in counts.items()),
        notes=notes_of(plan),
        sentences=(
            *sentences(plan),
            *(f"kept in eval mode: {path or 'the model itself'}" for path in kept),
            *(() if rows else ("nothing changed",)),
        ),
        written=tuple(written),
    )


def state_report(plan: Plan, names: frozenset[str]) -> Report:
    """Which of the named parameters train, as the source has it; nothing is changed."""
    parameters = [tensor for tensor in plan.model_tensors if tensor.name in names]
    now = {tensor.name: tensor.source.requires_grad for tensor in parameters}
    kept = bn_eval_of(plan)
    counts = {
        "trainable": elements(parameters, now, True),
        "frozen": elements(parameters, now, False),
    }

    def document() -> Mapping[str, object]:
        return {
            "target": plan.source.target,
            "parameters": [
                {
                    "name": tensor.name,
                    "shape": tensor.source.shape,
                    "numel": tensor.source.numel,
                    "requires_grad": now[tensor.name],
                }
                for tensor in parameters
            ],
            "bn_eval": kept,
            **counts,
            "notes": [asdict(note) for note in notes_of(plan)],
        }

    rows = tuple((*facts(tensor), state(now[tensor.name])) for tensor in parameters)
    return Report(
        document,
        lambda: (Table(STATE_COLUMNS, rows),),
        totals=tuple(Total(name, value) for name, value in counts.items()),
        notes=notes_of(plan),
        sentences=tuple(f"kept in eval mode: {path or 'the model itself'}" for path in kept),
    )


def notes_of(plan: Plan) -> tuple[Note, ...]:
    """What is worth telling of the source and of the plan."""
    return (*plan.source.notes, *plan.notes)


def facts(tensor: PlannedTensor) -> tuple[object, ...]:
    """Name, shape, elements."""
    return tensor.name, tensor.source.shape, tensor.source.numel


def state(flag: bool | None) -> str | None:
    """A flag in words."""
    return None if flag is None else "trainable" if flag else "frozen"


def elements(parameters: Sequence[PlannedTensor], flags: Flags, wanted: bool) -> int | None:
    """Elements of the parameters with this flag, shared ones once; None where one is unknown."""
    if any(flags[tensor.name] is None for tensor in parameters):
        return None
    counted = [tensor.source for tensor in parameters if flags[tensor.name] is wanted]
    return sum(share(counted).fresh)
