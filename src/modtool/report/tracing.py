"""The report of `trace`: a row for every call, in order."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from modtool.records import ModuleCall, Trace, TracedTensor
from modtool.report.columns import chosen
from modtool.report.tables import Column, Report, Table, Total

__all__ = ["trace_report"]

DEFAULT = ("call", "inputs", "outputs", "parameters", "macs")
WITH_GRADIENTS = ("call", "inputs", "outputs", "gradients", "parameters", "macs")
CONVENTION = (
    "MACs: multiply-accumulates of matrix products, convolutions and attention; "
    "FLOPs are twice that"
)


def trace_report(trace: Trace, *, columns: Sequence[str] = (), depth: int | None = None) -> Report:
    """What one forward pass did.

    Args:
        trace: The pass.
        columns: Keys of `COLUMNS["calls"]`; none means the usual ones.
        depth: Calls deeper than this are left out of the table.
    """
    backward = any(call.gradients is not None for call in trace.calls)
    keys = columns or (WITH_GRADIENTS if backward else DEFAULT)
    shown = chosen("calls", keys)

    def tables() -> tuple[Table, ...]:
        calls = [call for call in trace.calls if depth is None or call.depth <= depth]
        rows = [call_row(call, shown) for call in (*whole(trace), *calls)]
        return (Table(shown, tuple(rows)), *gradient_tables(trace))

    return Report(
        lambda: document(trace),
        tables,
        totals=(
            Total("parameters", trace.parameters),
            Total("trainable", trace.trainable),
            Total("MACs", trace.macs),
        ),
        notes=trace.notes,
        sentences=tuple(sentences(trace)),
    )


def whole(trace: Trace) -> tuple[ModuleCall, ...]:
    """The pass itself as the row that all others lie below; none where it is a row already."""
    if not trace.calls or trace.calls[0].depth == 0:
        return ()
    row = ModuleCall(
        -1, "", "(model)", 1, 0, trace.inputs, trace.outputs, trace.parameters, trace.macs
    )
    return (row,)


def sentences(trace: Trace) -> list[str]:
    """What a person should know beside the rows."""
    executed = "without arithmetic (fake tensors)" if trace.executed == "fake" else "for real"
    lines = [CONVENTION, f"{trace.mode} mode, run {executed}"]
    if trace.never_called:
        lines.append(f"never called: {', '.join(trace.never_called)}")
    if trace.uncounted:
        lines.append(f"not counted, no formula: {', '.join(trace.uncounted)}")
    if trace.error:
        lines.append(failure(trace))
    return lines


def failure(trace: Trace) -> str:
    """Where the pass stopped, on one line."""
    error = trace.error
    assert error is not None
    where = f"{error.path or 'the model'}: {error.type}({error.settings})"
    given = f" given {shapes(error.inputs)}" if error.inputs else ""
    source = f" from {error.produced_by}" if error.produced_by else ""
    return f"failed in {where}{given}{source}: {' '.join(error.message.split())}"


def shapes(tensors: Sequence[TracedTensor]) -> str:
    """`[32, 784], mask [32]`: positions are not repeated, names are."""
    return ", ".join(
        f"{list(tensor.shape)}"
        if not tensor.path or tensor.path.isdecimal()
        else f"{tensor.path} {list(tensor.shape)}"
        for tensor in tensors
    )


def call_row(call: ModuleCall, columns: Sequence[Column]) -> tuple[object, ...]:
    """The cells of one call."""
    again = f" (call {call.call})" if call.call > 1 else ""
    name = call.path.rpartition(".")[2]
    values: Mapping[str, object] = {
        "call": (call.depth, f"{name}: {call.type}{again}" if name else f"{call.type}{again}"),
        "index": call.index,
        "path": call.path,
        "type": call.type,
        "depth": call.depth,
        "inputs": shapes(call.inputs),
        "outputs": shapes(call.outputs),
        "gradients": None if call.gradients is None else shapes(call.gradients),
        "parameters": call.parameters,
        "macs": call.macs,
    }
    return tuple(values[column.key] for column in columns)


GRADIENT_COLUMNS = (
    Column("name", "parameter", "name of the parameter"),
    Column("gradient", "gradient", "shape of its gradient; – where it got none", "shape"),
)


def gradient_tables(trace: Trace) -> tuple[Table, ...]:
    """With --backward: the gradient of every parameter."""
    if trace.parameter_gradients is None:
        return ()
    return (
        Table(GRADIENT_COLUMNS, tuple(trace.parameter_gradients.items()), "parameter gradients"),
    )


# -- JSON --------------------------------------------------------------------------------------


def document(trace: Trace) -> dict[str, object]:
    """The JSON document, key by key as the contract has it."""
    return {
        "target": trace.target,
        "mode": trace.mode,
        "executed": trace.executed,
        "inputs": [
            {"name": tensor.path, "shape": tensor.shape, "dtype": tensor.dtype}
            for tensor in trace.inputs
        ],
        "outputs": leaves(trace.outputs),
        "calls": [call_document(call) for call in trace.calls],
        "totals": {
            "parameters": trace.parameters,
            "trainable": trace.trainable,
            "macs": trace.macs,
        },
        "uncounted": trace.uncounted,
        "never_called": trace.never_called,
        "parameter_gradients": trace.parameter_gradients,
        "error": asdict(trace.error) if trace.error else None,
        "notes": [asdict(note) for note in trace.notes],
    }


def call_document(call: ModuleCall) -> dict[str, object]:
    """One call for JSON."""
    return {
        "index": call.index,
        "path": call.path,
        "type": call.type,
        "call": call.call,
        "depth": call.depth,
        "inputs": leaves(call.inputs),
        "outputs": leaves(call.outputs),
        "parameters": call.parameters,
        "macs": call.macs,
        "gradients": None if call.gradients is None else leaves(call.gradients),
    }


def leaves(tensors: Sequence[TracedTensor]) -> list[dict[str, object]]:
    """Tensor leaves for JSON."""
    return [
        {"path": tensor.path, "shape": tensor.shape, "dtype": tensor.dtype} for tensor in tensors
    ]
