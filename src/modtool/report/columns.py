"""The columns that a report can show, in order; `--columns`, help and README follow from here."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from modtool.errors import UsageError
from modtool.report.tables import Column

__all__ = ["COLUMNS", "chosen"]

MODULE_COLUMNS = (
    Column("module", "module", "the tree as print(model) says it: name, type, settings", "tree"),
    Column("path", "path", "dotted name of the module"),
    Column("type", "type", "class of the module"),
    Column("settings", "settings", "what the module says of itself in print(model)"),
    Column("shape", "shape", "the module's own parameters and buffers with their shapes"),
    Column(
        "chunks", "chunks", "how the module's own tensors are split, in a distributed checkpoint"
    ),
    Column("dtype", "dtype", "element types of the module's own tensors"),
    Column("parameters", "parameters", "parameters of the module and all below it", "count"),
    Column("trainable", "trainable", "those of them with requires_grad", "count"),
    Column("own_parameters", "own", "parameters of the module itself", "count"),
    Column("bytes", "bytes", "bytes of parameters and buffers, all below included", "bytes"),
    Column("mode", "mode", "train or eval, for modules that behave differently in the two"),
    Column("training", "training", "the train/eval flag of every module", "flag"),
)
TENSOR_COLUMNS = (
    Column("tensor", "tensor", "name of the tensor, as a tree of names", "tree"),
    Column("name", "name", "dotted name of the tensor"),
    Column("section", "section", "part of the checkpoint that it belongs to"),
    Column("role", "role", "parameter, buffer, state or tensor"),
    Column("dtype", "dtype", "element type"),
    Column("shape", "shape", "size along each dimension", "shape"),
    Column("chunks", "chunks", "how it is split in a distributed checkpoint: 4×2 of [256, 512]"),
    Column("numel", "elements", "number of elements", "count"),
    Column("bytes", "bytes", "bytes of its elements", "bytes"),
    Column("device", "device", "device it was saved from"),
    Column("requires_grad", "requires_grad", "whether it is trained, where that is known", "flag"),
    Column("stride", "stride", "elements between neighbours along each dimension", "shape"),
    Column("shares_with", "shares with", "first tensor that it has elements in common with"),
)
CALL_COLUMNS = (
    Column("call", "call", "the module that was called, indented by depth", "tree"),
    Column("index", "index", "order in which the calls began", "count"),
    Column("path", "path", "dotted name of the module"),
    Column("type", "type", "class of the module"),
    Column("depth", "depth", "how many calls it runs inside of", "count"),
    Column("inputs", "input", "shapes of the tensors that went in"),
    Column("outputs", "output", "shapes of the tensors that came out"),
    Column("dtypes", "dtype", "element types of the tensors that came out"),
    Column("bytes", "activations", "bytes of the tensors that came out", "bytes"),
    Column("gradients", "gradient", "with --backward: shapes of the gradients of its outputs"),
    Column("norms", "norm", "with --backward: Euclidean norms of these gradients", "number"),
    Column("parameters", "parameters", "parameters of the module and all below it", "count"),
    Column("macs", "MACs", "multiply-accumulates, calls within included", "count"),
    Column("seconds", "time", "with --time: median of all repeats", "seconds"),
    Column("mean", "mean", "with --stats: mean of the finite elements that came out", "number"),
    Column("std", "std", "with --stats: their standard deviation, over n and not n - 1", "number"),
    Column("min", "min", "with --stats: the smallest", "number"),
    Column("max", "max", "with --stats: the largest", "number"),
    Column("zeros", "zeros", "with --stats: share of zeros, from 0 to 1", "number"),
    Column("nan", "NaN", "with --stats: share of NaN", "number"),
    Column("inf", "Inf", "with --stats: share of infinities", "number"),
    Column("dead", "dead", "with --stats: units of a ReLU that gave nothing but zeros"),
)
COLUMNS: Mapping[str, tuple[Column, ...]] = MappingProxyType(
    {"modules": MODULE_COLUMNS, "tensors": TENSOR_COLUMNS, "calls": CALL_COLUMNS}
)


def chosen(kind: str, keys: Sequence[str]) -> tuple[Column, ...]:
    """The columns of one kind of row that the keys name, in the order of the keys."""
    known = {column.key: column for column in COLUMNS[kind]}
    unknown = [key for key in keys if key not in known]
    if unknown:
        raise UsageError(f"no column {unknown[0]!r} here", f"columns: {', '.join(known)}")
    return tuple(known[key] for key in keys)
