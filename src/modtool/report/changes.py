"""The reports of what was written: conversions, flags that changed, tensors filled anew."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from modtool.plan import Plan, PlannedTensor, flags_of
from modtool.report.tables import Column, Report, Table, Total
from modtool.sharing import share

__all__ = ["conversion_report", "flags_report", "reinit_report"]

TENSOR_COLUMNS = (
    Column("name", "tensor", "name in the output"),
    Column("shape", "shape", "size along each dimension", "shape"),
    Column("dtype", "dtype", "element type in the output"),
    Column("bytes", "bytes", "bytes of its elements in the output", "bytes"),
)
FLAG_COLUMNS = (
    Column("name", "parameter", "name of the parameter"),
    Column("shape", "shape", "size along each dimension", "shape"),
    Column("numel", "elements", "number of elements", "count"),
    Column("before", "before", "trainable, frozen, or – where the source does not record it"),
    Column("after", "after", "trainable or frozen"),
)
FILL_COLUMNS = (
    Column("name", "tensor", "name of the tensor"),
    Column("shape", "shape", "size along each dimension", "shape"),
    Column("scheme", "scheme", "how it is filled"),
    Column("arguments", "arguments", "of the scheme"),
)


def conversion_report(plan: Plan, written: Sequence[str], *, dry_run: bool) -> Report:
    """What `convert` made; after a dry run, every tensor that it would write."""

    def document() -> Mapping[str, object]:
        return {
            "source": plan.source.target,
            "written": list(written),
            "to": plan.form,
            "tensors": len(plan.tensors),
            "bytes": plan.nbytes,
            "dropped": dropped_document(plan),
            "notes": [asdict(note) for note in plan.notes],
        }

    rows = tuple(
        (full_name(tensor), tensor.source.shape, tensor.dtype, tensor.nbytes)
        for tensor in plan.tensors
    )
    return Report(
        document,
        lambda: (Table(TENSOR_COLUMNS, rows),) if dry_run else (),
        totals=(Total("tensors", len(plan.tensors)), Total("size", plan.nbytes, "bytes")),
        notes=plan.notes,
        sentences=tuple(sentences(plan)),
        written=tuple(written),
    )


def full_name(tensor: PlannedTensor) -> str:
    """The name with its section."""
    return f"{tensor.section}.{tensor.name}" if tensor.section else tensor.name


def dropped_document(plan: Plan) -> list[dict[str, str]]:
    """What is left out, and why."""
    return [{"name": dropped.name, "why": dropped.why} for dropped in plan.dropped]


def sentences(plan: Plan) -> Iterator[str]:
    """A line for everything that is left out."""
    for dropped in plan.dropped:
        yield f"left out {dropped.name}: {dropped.why}"


def flags_report(plan: Plan, written: Sequence[str]) -> Report:
    """What `freeze` and `unfreeze` changed, and the counts before and after."""
    after = flags_of(plan)
    parameters = [tensor for tensor in plan.model_tensors if tensor.name in after]
    rows = tuple(
        (
            tensor.name,
            tensor.source.shape,
            tensor.source.numel,
            state(tensor.source.requires_grad),
            state(after[tensor.name]),
        )
        for tensor in parameters
        if tensor.source.requires_grad is not after[tensor.name]
        and not (tensor.source.requires_grad is None and after[tensor.name])
    )
    counts = {
        "trainable_before": elements(parameters, {}),
        "trainable": elements(parameters, after),
        "frozen": elements(parameters, {}, every=True) - elements(parameters, after),
    }

    def document() -> Mapping[str, object]:
        keys = [column.key for column in FLAG_COLUMNS]
        return {
            "target": plan.source.target,
            "written": list(written),
            "changed": [dict(zip(keys, row, strict=True)) for row in rows],
            "requires_grad": after,
            **counts,
            "dropped": dropped_document(plan),
            "notes": [asdict(note) for note in plan.notes],
        }

    return Report(
        document,
        lambda: (Table(FLAG_COLUMNS, rows),),
        totals=(
            Total("trainable before", counts["trainable_before"]),
            Total("now", counts["trainable"]),
            Total("frozen", counts["frozen"]),
        ),
        notes=plan.notes,
        sentences=(*sentences(plan), *(() if rows else ("nothing changed",))),
        written=tuple(written),
    )


def state(flag: bool | None) -> str | None:
    """A flag in words."""
    return None if flag is None else "trainable" if flag else "frozen"


def elements(
    parameters: Sequence[PlannedTensor], flags: Mapping[str, bool], *, every: bool = False
) -> int:
    """Trainable elements, shared ones once; without a word a parameter is trainable."""
    counted = [
        tensor.source
        for tensor in parameters
        if every or flags.get(tensor.name, tensor.source.requires_grad is not False)
    ]
    return sum(share(counted).fresh)


def reinit_report(plan: Plan, written: Sequence[str]) -> Report:
    """What `reinit` filled anew."""
    filled = [tensor for tensor in plan.tensors if tensor.fill is not None]
    rows = tuple(
        (tensor.name, tensor.source.shape, tensor.fill.scheme, settings(tensor.fill.arguments))
        for tensor in filled
        if tensor.fill is not None
    )

    def document() -> Mapping[str, object]:
        return {
            "target": plan.source.target,
            "written": list(written),
            "filled": [fill_document(tensor) for tensor in filled],
            "tensors": len(plan.tensors),
            "dropped": dropped_document(plan),
            "notes": [asdict(note) for note in plan.notes],
        }

    return Report(
        document,
        lambda: (Table(FILL_COLUMNS, rows),),
        totals=(Total("filled", len(rows)), Total("unchanged", len(plan.tensors) - len(rows))),
        notes=plan.notes,
        sentences=tuple(sentences(plan)),
        written=tuple(written),
    )


def settings(arguments: Mapping[str, object]) -> str:
    """`a=0, mode=fan_in`."""
    return ", ".join(f"{name}={value}" for name, value in arguments.items())


def fill_document(tensor: PlannedTensor) -> dict[str, object]:
    """One filled tensor for JSON."""
    assert tensor.fill is not None
    return {
        "name": tensor.name,
        "shape": tensor.source.shape,
        "scheme": tensor.fill.scheme,
        "arguments": dict(tensor.fill.arguments),
        "seed": tensor.fill.seed,
    }
