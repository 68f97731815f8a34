"""The report of `summary`: the module tree, or the tree of names, with what each part holds."""

import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from functools import partial
from types import MappingProxyType

from modtool.notes import first_names
from modtool.records import Checkpoint, ModuleNode, TensorInfo, section_label
from modtool.report.beside import section_tables, value_tables
from modtool.report.columns import chosen
from modtool.report.figures import Figures, ancestors, module_figures, owner_of
from modtool.report.tables import Column, Report, Table
from modtool.report.totals import (
    Totals,
    add_up,
    closing_line,
    sections_document,
    totals_of,
)
from modtool.sharing import Sharing, share

__all__ = ["summary_report"]

MODULE_DEFAULT = ("module", "parameters", "trainable", "mode", "shape")
NAMES_DEFAULT = ("module", "parameters", "bytes", "dtype", "shape")
TENSOR_DEFAULT = ("tensor", "shape", "dtype", "bytes")


def summary_report(
    checkpoint: Checkpoint,
    *,
    columns: Sequence[str] = (),
    depth: int | None = None,
    tensors: bool = False,
) -> Report:
    """What a checkpoint or a model holds.

    Args:
        checkpoint: What was opened.
        columns: Keys of `COLUMNS`; none means the usual ones.
        depth: Rows deeper than this are folded into the ones above; None shows all.
        tensors: A row for every tensor instead of one for every module.
    """
    inside = checkpoint.model_tensors
    sharing = share(checkpoint.tensors)
    alone = inside is checkpoint.tensors
    totals = add_up(inside, sharing.fresh) if alone else totals_of(inside)

    def tables() -> tuple[Table, ...]:
        several = len(checkpoint.model_sections) > 1
        drawn = below_sections(inside) if several else inside
        split = any(len(tensor.chunks) > 1 for tensor in inside)
        modules = module_trees(checkpoint) or modules_named(drawn)
        if tensors or not modules:
            main = tensor_table(inside, columns or tensor_default(several=several, split=split))
        else:
            main = module_table(modules, drawn, columns, depth, split=split)
        extra = (*section_tables(checkpoint), *value_tables(checkpoint))
        return (main, *extra) if main.rows or not extra else extra

    return Report(
        partial(document, checkpoint, sharing, totals),
        tables,
        totals=closing_line(totals),
        notes=checkpoint.notes,
    )


def tensor_default(*, several: bool, split: bool) -> tuple[str, ...]:
    """The usual columns: with sections where several are shown, with blocks where there are any."""
    return (*(("section",) if several else ()), *TENSOR_DEFAULT, *(("chunks",) if split else ()))


def below_sections(tensors: Sequence[TensorInfo]) -> tuple[TensorInfo, ...]:
    """Tensors of several models under the names that they have in one tree of all."""
    return tuple(replace(each, name=each.full_name) for each in tensors)


def module_trees(checkpoint: Checkpoint) -> tuple[ModuleNode, ...]:
    """The modules of the model; those of several models below a root without a type."""
    modules = checkpoint.model_modules
    if not modules or len(checkpoint.model_sections) < 2:
        return modules
    trees = (tree_of(checkpoint, section) for section in checkpoint.model_sections)
    return (ModuleNode(""), *(node for tree in trees for node in tree))


def tree_of(checkpoint: Checkpoint, section: str) -> list[ModuleNode]:
    """One of several models in the tree of all: its modules, or what its names draw."""
    modules = [node for node in checkpoint.model_modules if node.section == section]
    if not modules:
        tensors = [each for each in checkpoint.model_tensors if each.section == section]
        return list(modules_named(below_sections(tensors))[1:])
    return [
        replace(
            node,
            path=below(section, node.path),
            alias_of=None if node.alias_of is None else below(section, node.alias_of),
        )
        for node in modules
    ]


def below(section: str, path: str) -> str:
    """The path of a module in one tree of several models."""
    return f"{section}.{path}" if path else section


def modules_named(tensors: Sequence[TensorInfo]) -> tuple[ModuleNode, ...]:
    """The tree that dotted names draw, in the file's order; none where no name has a dot."""
    children: dict[str, dict[str, None]] = {"": {}}
    for tensor in tensors:
        parent = ""
        for path in ancestors(tensor.name)[1:]:
            children[parent][path] = None
            children.setdefault(path, {})
            parent = path
    if len(children) == 1:
        return ()
    nodes, open_paths = [], [""]
    while open_paths:
        path = open_paths.pop()
        nodes.append(ModuleNode(path))
        open_paths += reversed(in_order(list(children[path])))
    return tuple(nodes)


def in_order(siblings: list[str]) -> list[str]:
    """The children of one module: numbered ones by number, others as they stand in the file."""
    numbers = [path.rpartition(".")[2] for path in siblings]
    if not all(number.isdecimal() and len(number) < 20 for number in numbers):
        return siblings
    return sorted(siblings, key=lambda path: int(path.rpartition(".")[2]))


# -- JSON --------------------------------------------------------------------------------------


def document(checkpoint: Checkpoint, sharing: Sharing, totals: Totals) -> dict[str, object]:
    """The JSON document, key by key as the contract has it."""
    return {
        "target": checkpoint.target,
        "format": checkpoint.format,
        "kind": checkpoint.kind,
        "totals": asdict(totals),
        "sections": sections_document(checkpoint),
        "modules": modules_document(checkpoint),
        "tensors": tensors_document(checkpoint.tensors, sharing),
        "values": dict(checkpoint.values),
        "metadata": dict(checkpoint.metadata),
        "notes": [asdict(note) for note in checkpoint.notes],
    }


def modules_document(checkpoint: Checkpoint) -> list[dict[str, object]]:
    trees: dict[str | None, list[ModuleNode]] = {}
    for node in checkpoint.model_modules:
        trees.setdefault(node.section, []).append(node)
    tensors: dict[str | None, list[TensorInfo]] = {}
    for tensor in checkpoint.model_tensors if trees else ():
        tensors.setdefault(tensor.section, []).append(tensor)
    return [
        module_document(node, measured[node.path])
        for section, nodes in trees.items()
        for measured in [module_figures(nodes, tensors.get(section, ()))]
        for node in nodes
    ]


def module_document(node: ModuleNode, figures: Figures) -> dict[str, object]:
    return {
        "path": node.path,
        "section": node.section,
        "type": node.type,
        "settings": node.settings,
        "depth": node.depth,
        "parameters": figures.parameters,
        "trainable": figures.trainable,
        "own_parameters": figures.own,
        "training": node.training,
        "mode_sensitive": node.mode_sensitive,
        "alias_of": node.alias_of,
        "class": node.class_name,
    }


def tensors_document(tensors: Sequence[TensorInfo], sharing: Sharing) -> list[dict[str, object]]:
    return [
        {
            "name": tensor.name,
            "section": tensor.section,
            "role": tensor.role,
            "dtype": tensor.dtype,
            "shape": tensor.shape,
            "numel": tensor.numel,
            "bytes": tensor.nbytes,
            "device": tensor.location,
            "requires_grad": tensor.requires_grad,
            "shares_with": None if first is None else tensors[first].name,
            "layout": tensor.layout,
            "stride": None if tensor.is_contiguous else tensor.stride,
            "persistent": tensor.persistent,
            "chunks": chunks_document(tensor),
        }
        for tensor, first in zip(tensors, sharing.first, strict=True)
    ]


def chunks_document(tensor: TensorInfo) -> list[dict[str, object]] | None:
    """The blocks of a tensor of a distributed checkpoint; None where it lies in one piece."""
    if not tensor.chunks:
        return None
    return [{"offsets": chunk.offsets, "sizes": chunk.sizes} for chunk in tensor.chunks]


def blocks_of(tensor: TensorInfo) -> str | None:
    """`4×2 of [256, 512]`: how many blocks along each dimension, and the shape of the largest."""
    chunks = [chunk for chunk in tensor.chunks if all(chunk.sizes)]  # a rank may hold nothing
    if len(chunks) < 2:
        return "whole" if tensor.chunks else None
    begins = [len(set(along)) for along in zip(*(chunk.offsets for chunk in chunks), strict=True)]
    largest = [max(along) for along in zip(*(chunk.sizes for chunk in chunks), strict=True)]
    regular = math.prod(begins) == len(chunks)
    count = "×".join(map(str, begins)) if regular else f"{len(chunks):,} blocks"
    return f"{count} of {'' if regular else 'up to '}{largest}"


# -- modules -----------------------------------------------------------------------------------


def module_table(
    modules: Sequence[ModuleNode],
    tensors: Sequence[TensorInfo],
    keys: Sequence[str],
    depth: int | None,
    *,
    split: bool,
) -> Table:
    """A row for every module that is not folded away."""
    typed = any(node.type is not None for node in modules)
    usual = (*(MODULE_DEFAULT if typed else NAMES_DEFAULT), *(("chunks",) if split else ()))
    columns = chosen("modules", keys or usual)
    own = by_owner(tensors)
    beyond = outside_modules(own, {node.path for node in modules})
    measured = module_figures(modules, tensors)
    cells = [MODULE_CELLS[column.key] for column in columns]
    lines = (
        Line(node, measured[node.path], own.get(node.path, ()), beyond.get(node.path, ()))
        for node in modules
        if depth is None or node.depth <= depth
    )
    table = Table(columns, tuple(tuple(cell(line) for cell in cells) for line in lines))
    return table if keys else without_empty(table)


def by_owner(tensors: Sequence[TensorInfo]) -> dict[str, list[TensorInfo]]:
    """The tensors of each module, or of what else holds some."""
    owners: dict[str, list[TensorInfo]] = {}
    for tensor in tensors:
        owners.setdefault(owner_of(tensor), []).append(tensor)
    return owners


def outside_modules(
    owners: Mapping[str, Sequence[TensorInfo]], paths: Set[str]
) -> dict[str, list[TensorInfo]]:
    """Tensors that no module holds, by the innermost one around: constants, packed weights."""
    found: dict[str, list[TensorInfo]] = {}
    for owner, held in owners.items():
        around = () if owner in paths else [path for path in ancestors(owner) if path in paths]
        if around:
            found.setdefault(around[-1], []).extend(held)
    return found


def without_empty(table: Table) -> Table:
    """The table without columns that say nothing in any row."""
    kept = [
        index
        for index in range(len(table.columns))
        if any(row[index] not in ("", None) for row in table.rows)
    ]
    return Table(
        tuple(table.columns[index] for index in kept),
        tuple(tuple(row[index] for index in kept) for row in table.rows),
        table.title,
    )


@dataclass(frozen=True, slots=True)
class Line:
    """What a row of the module table is made of.

    Attributes:
        node: The module.
        figures: Its own, and those of all below it.
        own: Its tensors.
        beyond: Those that lie in it and in no module.
    """

    node: ModuleNode
    figures: Figures
    own: Sequence[TensorInfo]
    beyond: Sequence[TensorInfo] = ()


def last_name(tensor: TensorInfo) -> str:
    """The tensor's name inside its module."""
    return tensor.name.rpartition(".")[2]


def shapes_of(line: Line) -> str:
    """`weight [2, 3], bias [2]`; of what no module holds, the first few."""
    own = [f"{last_name(tensor)} {list(tensor.shape)}" for tensor in line.own]
    begin = f"{line.node.path}." if line.node.path else ""
    beyond = [f"{each.name.removeprefix(begin)} {list(each.shape)}" for each in line.beyond]
    return ", ".join([*own, first_names(beyond)] if beyond else own)


def module_label(node: ModuleNode) -> str:
    """`(fc1): Linear(in_features=784, …)`, as print(model) says it."""
    if node.type is None:
        return node.path.rpartition(".")[2] or "(all)"
    name = f"({node.path.rpartition('.')[2]}): " if node.path else ""
    again = f" = {node.alias_of or '(root)'}" if node.alias_of is not None else ""
    return f"{name}{node.type}({' '.join(node.settings.split())}){again}"


def mode_of(node: ModuleNode) -> str | None:
    """`train` or `eval` for a module that heeds it."""
    if not node.mode_sensitive:
        return ""
    return None if node.training is None else "train" if node.training else "eval"


MODULE_CELLS: Mapping[str, Callable[[Line], object]] = MappingProxyType(
    {
        "module": lambda line: (line.node.depth, module_label(line.node)),
        "path": lambda line: line.node.path,
        "type": lambda line: line.node.type,
        "settings": lambda line: line.node.settings,
        "shape": shapes_of,
        "chunks": lambda line: ", ".join(
            f"{last_name(tensor)} {blocks_of(tensor)}" for tensor in line.own if tensor.chunks
        ),
        "dtype": lambda line: ", ".join(
            dict.fromkeys(tensor.dtype for tensor in (*line.own, *line.beyond))
        ),
        "parameters": lambda line: line.figures.parameters,
        "trainable": lambda line: line.figures.trainable,
        "own_parameters": lambda line: line.figures.own,
        "bytes": lambda line: line.figures.nbytes,
        "mode": lambda line: mode_of(line.node),
        "training": lambda line: line.node.training,
    }
)


# -- tensors -----------------------------------------------------------------------------------


def tensor_table(tensors: Sequence[TensorInfo], keys: Sequence[str]) -> Table:
    """A row for every tensor."""
    columns = chosen("tensors", keys or TENSOR_DEFAULT)
    first = share(tensors).first
    rows = [
        tensor_row(tensor, None if index is None else tensors[index].name, columns)
        for tensor, index in zip(tensors, first, strict=True)
    ]
    return Table(columns, tuple(rows))


def tensor_row(
    tensor: TensorInfo, shares_with: str | None, columns: Sequence[Column]
) -> tuple[object, ...]:
    values: Mapping[str, object] = {
        "tensor": (0, tensor.name or "(the tensor)"),
        "name": tensor.name,
        "section": None if tensor.section is None else section_label(tensor.section),
        "role": tensor.role,
        "dtype": tensor.dtype if tensor.layout == "strided" else f"{tensor.dtype} {tensor.layout}",
        "shape": tensor.shape,
        "chunks": blocks_of(tensor),
        "numel": tensor.numel,
        "bytes": tensor.nbytes,
        "device": tensor.location,
        "requires_grad": tensor.requires_grad,
        "stride": tensor.stride,
        "shares_with": shares_with,
    }
    return tuple(values[column.key] for column in columns)
