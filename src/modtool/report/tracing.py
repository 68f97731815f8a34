"""The report of `trace`: a row for every call, in order."""

from collections.abc import Sequence
from dataclasses import asdict

from modtool.report.calls import Row, rows_of, runs_in
from modtool.report.columns import chosen
from modtool.report.tables import Column, Report, Table, Total
from modtool.traces import ModuleCall, Trace, TracedTensor

__all__ = ["trace_report"]

CONVENTION = (
    "MACs: multiply-accumulates of matrix products, convolutions and attention; "
    "FLOPs are twice that"
)
MOST_NAMES = 20
MOST_TENSORS = 8


def trace_report(
    trace: Trace,
    *,
    columns: Sequence[str] = (),
    depth: int | None = None,
    only: Sequence[str] = (),
    leaves: bool = False,
    collapse: bool = False,
) -> Report:
    """What one forward pass did. The JSON document has every call, whatever the table leaves out.

    Args:
        trace: The pass.
        columns: Keys of `COLUMNS["calls"]`; none means the usual ones.
        depth: Calls deeper than this are left out of the table.
        only: Patterns of module names: other calls are left out of the table.
        leaves: Calls that others ran inside of are left out of the table.
        collapse: A run of identical blocks is one row, with figures of all together.
    """
    shown = chosen("calls", columns or usual(trace))
    rows = rows_of(
        trace.calls,
        depth=depth,
        only=only,
        leaves=leaves,
        collapse=collapse,
        never_called=trace.never_called,
    )

    def tables() -> tuple[Table, ...]:
        cells = [call_row(row, shown) for row in (*whole(trace), *rows)]
        return (Table(shown, tuple(cells)), *gradient_tables(trace))

    time = () if trace.seconds is None else (Total("time", trace.seconds, "seconds"),)
    return Report(
        lambda: document(trace),
        tables,
        totals=(
            Total("parameters", trace.parameters),
            Total("trainable", trace.trainable),
            Total("MACs", trace.macs),
            *time,
        ),
        notes=trace.notes,
        sentences=tuple(sentences(trace)),
    )


def usual(trace: Trace) -> tuple[str, ...]:
    """The columns that fit what was asked for."""
    statistics = any(tensor.statistics for tensor in outputs_of(trace))
    has_dead = any(call.dead for call in trace.calls)
    has_gradients = any(call.gradients is not None for call in trace.calls)
    norms = ("norms",) if trace.gradient_norms else ()
    return (
        *(("call", "outputs") if statistics else ("call", "inputs", "outputs")),
        *(STATISTICS if statistics else ()),
        *(("dead",) if has_dead else ()),
        *(("gradients", *norms) if has_gradients else ()),
        *(() if statistics else ("parameters", "macs")),
        *(("seconds",) if trace.seconds is not None else ()),
    )


def outputs_of(trace: Trace) -> list[TracedTensor]:
    """Everything that came out of a call."""
    return [tensor for call in trace.calls for tensor in call.outputs] + list(trace.outputs)


def whole(trace: Trace) -> tuple[Row, ...]:
    """The pass itself as the row that all others lie below; none where it is a row already."""
    if (trace.calls and trace.calls[0].depth == 0) or not has_rows(trace):
        return ()
    call = ModuleCall(
        index=-1,
        path="",
        type="(model)",
        call=1,
        depth=0,
        inputs=trace.inputs,
        outputs=trace.outputs,
        parameters=trace.parameters,
        macs=trace.macs,
        seconds=trace.seconds,
    )
    return (Row(call, "", 0, (), ""),)


def has_rows(trace: Trace) -> bool:
    """False for a pass that failed before any call came to an end."""
    return trace.error is None or bool(trace.calls)


def sentences(trace: Trace) -> list[str]:
    """What a person should know beside the rows."""
    executed = "without arithmetic (fake tensors)" if trace.executed == "fake" else "for real"
    loss = f", gradients of {trace.loss}" if trace.loss else ""
    lines = [CONVENTION] if has_rows(trace) else []
    lines.append(f"{trace.mode} mode, run {executed}{loss}")
    if trace.never_called and not trace.error:  # of a failure, all that comes after it
        lines.append(f"never called: {listed(runs_in(trace.never_called))}")
    if trace.uncounted:
        lines.append(f"not counted, no formula: {', '.join(trace.uncounted)}")
    if trace.error:
        lines.append(failure(trace))
    return lines


def listed(names: Sequence[str]) -> str:
    """Names, as many as one reads."""
    return cut(names, MOST_NAMES)


def cut(texts: Sequence[str], most: int) -> str:
    """The first of some texts, and how many more there are."""
    more = f", … ({len(texts) - most:,} more)" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def failure(trace: Trace) -> str:
    """Where the pass stopped, on one line."""
    error = trace.error
    assert error is not None
    where = f"{error.path or 'the model'}: {error.type}({error.settings})"
    given = f" given {shapes(error.inputs)}" if error.inputs else ""
    source = f" from {error.produced_by}" if error.produced_by else ""
    source = f" from the input {error.from_input}" if error.from_input else source
    return f"failed in {where}{given}{source}: {' '.join(error.message.split())}"


def shapes(tensors: Sequence[TracedTensor]) -> str:
    """`[32, 784], mask [32]`: positions are not repeated, names are."""
    return cut(
        [
            f"{list(tensor.shape)}"
            if not tensor.path or tensor.path.isdecimal()
            else f"{tensor.path} {list(tensor.shape)}"
            for tensor in tensors
        ],
        MOST_TENSORS,
    )


def call_row(row: Row, columns: Sequence[Column]) -> tuple[object, ...]:
    """The cells of one row."""
    call = row.call
    again = f" (call {call.call})" if call.call > 1 else ""
    named = f"{row.label}: {call.type}{again}" if row.label else f"{call.type}{again}"
    values: dict[str, object] = {
        "call": (row.depth, named),
        "index": call.index,
        "path": call.path,
        "type": call.type,
        "depth": call.depth,
        "inputs": shapes(call.inputs),
        "outputs": shapes(call.outputs),
        "dtypes": ", ".join(dict.fromkeys(tensor.dtype for tensor in call.outputs)),
        "bytes": call.activation_bytes,
        "gradients": None if call.gradients is None else shapes(call.gradients),
        "norms": one_or_all([tensor.norm for tensor in call.gradients or ()]),
        "parameters": call.parameters,
        "macs": call.macs,
        "seconds": call.seconds,
        "dead": None if call.dead is None else f"{call.dead[0]} of {call.dead[1]}",
    }
    found = [tensor.statistics for tensor in call.outputs]
    for key in STATISTICS:
        values[key] = one_or_all([getattr(each, key, None) for each in found])
    return tuple(values[column.key] for column in columns)


STATISTICS = ("mean", "std", "min", "max", "zeros", "nan", "inf")


def one_or_all(values: Sequence[float | None]) -> object:
    """The one figure of a call; where it has several outputs, the list of theirs."""
    if len(values) == 1:
        return values[0]
    return cut(["–" if each is None else f"{each:.4g}" for each in values], MOST_TENSORS) or None


GRADIENT_COLUMNS = (
    Column("name", "parameter", "name of the parameter"),
    Column("gradient", "gradient", "shape of its gradient; – where it got none", "shape"),
    Column("norm", "norm", "Euclidean norm of its gradient", "number"),
)


def gradient_tables(trace: Trace) -> tuple[Table, ...]:
    """With --backward: the gradient of every parameter."""
    if trace.parameter_gradients is None:
        return ()
    norms = trace.gradient_norms
    columns = GRADIENT_COLUMNS if norms else GRADIENT_COLUMNS[:2]
    rows = tuple(
        (name, shape, norms.get(name)) if norms else (name, shape)
        for name, shape in trace.parameter_gradients.items()
    )
    return (Table(columns, rows, "parameter gradients"),)


# -- JSON --------------------------------------------------------------------------------------


def document(trace: Trace) -> dict[str, object]:
    """The JSON document, key by key as the contract has it."""
    measured = any(tensor.statistics for tensor in outputs_of(trace))
    return {
        "target": trace.target,
        "mode": trace.mode,
        "executed": trace.executed,
        "inputs": [
            {"name": tensor.path, "shape": tensor.shape, "dtype": tensor.dtype}
            for tensor in trace.inputs
        ],
        "outputs": leaves(trace.outputs, statistics=measured),
        "calls": [call_document(call, statistics=measured) for call in trace.calls],
        "totals": {
            "parameters": trace.parameters,
            "trainable": trace.trainable,
            "macs": trace.macs,
        },
        "uncounted": trace.uncounted,
        "never_called": trace.never_called,
        "parameter_gradients": trace.parameter_gradients,
        "gradient_norms": trace.gradient_norms,
        "unused_parameters": trace.unused,
        "loss": trace.loss,
        "seconds": trace.seconds,
        "error": asdict(trace.error) if trace.error else None,
        "notes": [asdict(note) for note in trace.notes],
    }


def call_document(call: ModuleCall, *, statistics: bool) -> dict[str, object]:
    """One call for JSON."""
    return {
        "index": call.index,
        "path": call.path,
        "type": call.type,
        "call": call.call,
        "depth": call.depth,
        "inputs": leaves(call.inputs),
        "outputs": leaves(call.outputs, statistics=statistics),
        "parameters": call.parameters,
        "macs": call.macs,
        "activation_bytes": call.activation_bytes,
        "gradients": None if call.gradients is None else leaves(call.gradients),
        "seconds": call.seconds,
        "dead": call.dead,
    }


def leaves(tensors: Sequence[TracedTensor], *, statistics: bool = False) -> list[dict[str, object]]:
    """Tensor leaves for JSON; statistics that were asked for and are not known are null."""
    return [leaf(tensor, statistics=statistics) for tensor in tensors]


def leaf(tensor: TracedTensor, *, statistics: bool) -> dict[str, object]:
    """One leaf, with what is known of its values."""
    made: dict[str, object] = {
        "path": tensor.path,
        "shape": tensor.shape,
        "dtype": tensor.dtype,
    }
    if tensor.norm is not None:
        made["norm"] = tensor.norm
    if statistics:
        made["statistics"] = asdict(tensor.statistics) if tensor.statistics else None
    return made
