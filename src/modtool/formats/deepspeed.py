"""Folders that DeepSpeed writes: `latest`, and in `global_stepN` a file for each rank.

The model-states files tell every parameter's name and shape. With ZeRO 1 and 2 they hold the
16-bit weights too; with ZeRO 3 those lie, as float32, in the flat partitions of the optimizer's
files, so that a parameter has a shape and no bytes of its own.
Names of files and keys: DeepSpeed 0.19, `runtime/engine.py`, `runtime/pipe/module.py`,
`checkpoint/constants.py`.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from modtool.errors import TargetError
from modtool.formats.files import open_reader
from modtool.formats.members import (
    errors_name,
    link_notes,
    path_inside,
)
from modtool.formats.parts import read_part
from modtool.formats.sharded import in_file, in_part
from modtool.notes import first_names, note
from modtool.pickles.plain import items_of, mapping_of
from modtool.pickles.torch_values import numbers
from modtool.records import Checkpoint, Note, Section, Storage, TensorInfo

__all__ = ["LATEST", "NAME", "is_deepspeed", "read", "with_recorded_shapes"]

NAME = "deepspeed"
LATEST = "latest"
SCRIPT = "zero_to_fp32.py"
MODEL = "module"

MODEL_FILE = re.compile(r"(?:zero_pp_rank_(\d+)_)?mp_rank_(\d+)(?:_\d+)?_model_states\.pt\Z")
LAYER_FILE = re.compile(r"layer_(\d+)(?:-model_(\d+))?-model_states\.pt\Z")
EXPERT_FILE = re.compile(r"(?:layer_\d+_)?expert_(\d+)_mp_rank_(\d+)_model_states\.pt\Z")
OPTIMIZER_FILE = re.compile(
    r"(?:\w+_)?(?:zero_pp|expp)_rank_(\d+)_mp_rank_(\d+)_optim_states\.pt\Z"
)
STEP = re.compile(r"global_step(\d+)\Z")
# Shapes of parameters are shown as tensors and not once more as values.
SHAPES = ("param_shapes", "frozen_param_shapes")
MAX_LATEST = 4096
MAX_RANKS = 20_000
REBUILD = f"recover them with DeepSpeed's own {SCRIPT}, which lies beside `{LATEST}`"


def is_deepspeed(files: Iterable[str], folders: Iterable[str]) -> bool:
    """True when a folder with these in it is one that DeepSpeed wrote, or a step of one."""
    known = {LATEST, SCRIPT} <= set(files) or {LATEST, "checkpoint"} <= {*files, *folders}
    return known or any(map(STEP.match, folders)) or any(map(MODEL_FILE.match, files))


def read(folder: str) -> Checkpoint:
    """Read the headers of the files of one step.

    Raises:
        TargetError: It has several steps and does not say which is the latest, or no model.
        UnsafeFileError: `latest` names something outside the folder.
    """
    step, notes = step_folder(folder)
    names = sorted(os.listdir(step))
    model = [name for name in names if MODEL_FILE.match(name)]
    if not model:
        raise TargetError(f"{step}: a DeepSpeed folder without a model-states file")
    union = Union(step, list(notes))
    path = os.path.join(step, model[0])
    with errors_name(path):
        union.take_model(model[0], read_part(path))
    for name in names:
        if name != model[0]:
            union.take(name)
    union.count_ranks(names)
    return union.checkpoint(folder)


def with_recorded_shapes(found: Checkpoint) -> Checkpoint:
    """A file; of a model-states file of ZeRO 3, with parameters that are empty in it and recorded.

    Raises:
        CorruptFileError: What it records is no shape.
    """
    name = os.path.basename(found.target)
    if not MODEL_FILE.match(name) or MODEL not in found.model_sections:
        return found
    inside = {tensor.name: tensor for tensor in found.tensors if tensor.section == MODEL}
    with errors_name(found.target):
        recorded = tuple(model_tensors(inside, mapping_of(found.root) or {}))
    pieces = tuple(notes_on_pieces(recorded))
    others = (tensor for tensor in found.tensors if tensor.section != MODEL)
    if not pieces:
        return found
    return replace(
        found,
        tensors=(*recorded, *others),
        root=None,  # it says that they are empty
        values=values_without_shapes(found),
        notes=(*found.notes, *pieces),
    )


def step_folder(folder: str) -> tuple[str, list[Note]]:
    """The folder of the step that `latest` names, or that is the only one."""
    names = os.listdir(folder)
    if any(MODEL_FILE.match(name) for name in names):
        return folder, []
    if LATEST in names:
        path = os.path.join(folder, LATEST)
        with open_reader(path) as reader:
            name = reader.head(MAX_LATEST).decode("utf-8", "replace").strip()
        step = path_inside(folder, name, path)
        if not os.path.isdir(step):
            raise TargetError(f"{path}: it names {name!r}, which is not there")
        return step, link_notes(folder, step)
    steps = sorted(name for name in names if STEP.match(name))
    if len(steps) != 1:
        raise TargetError(
            f"{folder}: {len(steps)} steps, and no file that says which is the latest",
            f"name one of them: {first_names(steps)}",
        )
    return os.path.join(folder, steps[0]), []


@dataclass(slots=True)
class Union:
    """The files of one step."""

    folder: str
    notes: list[Note]
    tensors: list[TensorInfo] = field(default_factory=list)
    sections: list[Section] = field(default_factory=lambda: [Section(MODEL, "model")])
    values: dict[str, object] = field(default_factory=dict)
    other_ranks: list[str] = field(default_factory=list)
    pickles: dict[str, object] = field(default_factory=dict)

    def take_model(self, name: str, found: Checkpoint) -> None:
        """Take the file that tells of the model: its tensors, shapes and values."""
        root = mapping_of(found.root) or {}
        self.pickles.update(in_part(found.pickles, name))
        stored = in_file(found.tensors, name)
        inside = {tensor.name: tensor for tensor in stored if tensor.section == MODEL}
        self.tensors.extend(model_tensors(inside, root))
        self.tensors.extend(tensor for tensor in stored if tensor.section != MODEL)
        self.sections.extend(
            section for section in found.sections if section.name not in (MODEL, *SHAPES)
        )
        self.values = values_without_shapes(found)
        self.notes.extend(notes_on_pieces(self.tensors))

    def take(self, name: str) -> None:
        """Take one of the other files, each kind in its own way."""
        layer, expert = LAYER_FILE.match(name), EXPERT_FILE.match(name)
        role = "optimizer" if OPTIMIZER_FILE.match(name) else "other"
        if not (layer or expert or role == "optimizer" or MODEL_FILE.match(name)):
            return
        path = os.path.join(self.folder, name)
        self.notes.extend(link_notes(self.folder, path))
        read = read_part(path)
        self.pickles.update(in_part(read.pickles, name))
        found = in_file(read.tensors, name)
        rank = int((layer and layer[2]) or (expert and expert[2]) or 0)
        if (layer or expert) and not rank:
            prefix = f"{int(layer[1])}." if layer else ""
            self.tensors.extend(
                replace(tensor, name=prefix + tensor.name, section=MODEL) for tensor in found
            )
            return
        if layer or expert or is_other_model_rank(name):
            self.other_ranks.append(name)
        section = name.removesuffix(".pt")
        self.sections.append(Section(section, role))
        self.tensors.extend(inside_section(found, section))

    def count_ranks(self, names: Iterable[str]) -> None:
        """Note ranks whose files are not there, and slices that are not shown as one."""
        ranks = [found for name in names if (found := OPTIMIZER_FILE.match(name))]
        expected = self.values.get("dp_world_size")
        if ranks and type(expected) is int and 0 < expected <= MAX_RANKS:
            for parallel in sorted({int(rank[2]) for rank in ranks}):
                present = {int(rank[1]) for rank in ranks if int(rank[2]) == parallel}
                lost = [str(rank) for rank in range(expected) if rank not in present]
                if lost and "expp" not in ranks[0][0]:
                    message = f"optimizer files of ranks {first_names(lost)} are not there"
                    self.notes.append(note("missing-shard", f"mp_rank_{parallel:02d}", message))
        if self.other_ranks:
            message = "every rank holds slices of the same tensors; shapes are those of rank 0"
            self.notes.append(note("tensor-parallel", self.other_ranks[0], message))

    def checkpoint(self, target: str) -> Checkpoint:
        """The whole."""
        return Checkpoint(
            target,
            NAME,
            "checkpoint",
            tuple(self.tensors),
            sections=tuple(self.sections),
            values=self.values,
            metadata={"step": os.path.basename(os.path.normpath(self.folder))},
            notes=tuple(self.notes),
            pickles=self.pickles,
        )


def is_other_model_rank(name: str) -> bool:
    """True for the model-states file of a tensor-parallel rank other than the first."""
    found = MODEL_FILE.match(name)
    return found is not None and int(found[2]) > 0


def inside_section(tensors: Iterable[TensorInfo], section: str) -> Iterator[TensorInfo]:
    """Tensors of another file, the sections they had there put before their names."""
    for tensor in tensors:
        parts = [part for part in (tensor.section, tensor.name) if part]
        yield replace(tensor, section=section, name=".".join(parts), role="state")


# -- parameters ----------------------------------------------------------------------------------


def model_tensors(
    stored: Mapping[str, TensorInfo], root: Mapping[object, object]
) -> Iterator[TensorInfo]:
    """The model's tensors, with the shapes that the file records for partitioned ones."""
    shapes = dict(shapes_in(root.get("param_shapes"), requires_grad=True))
    shapes.update(shapes_in(root.get("frozen_param_shapes"), requires_grad=False))
    shared = mapping_of(root.get("shared_params")) or {}
    buffers = set(map(str, items_of(root.get("buffer_names")) or ()))
    for name in dict.fromkeys((*stored, *shapes, *map(str, shared))):
        first = str(shared.get(name, name))
        tensor = stored.get(name)
        shape, grad = shapes.get(first, (None, None))
        if shape is not None and (tensor is None or tensor.shape != shape):
            tensor = partitioned(name, first, shape)
        if tensor is not None:
            role = "buffer" if name in buffers else tensor.role
            yield replace(tensor, role=role, requires_grad=None if role == "buffer" else grad)


def partitioned(name: str, first: str, shape: tuple[int, ...]) -> TensorInfo:
    """A parameter whose float32 elements lie in pieces in the optimizer's files."""
    tensor = TensorInfo(name, "float32", shape, section=MODEL, layout="partitioned")
    return replace(tensor, storage=Storage(f"partitioned:{first}", tensor.nbytes))


def notes_on_pieces(tensors: Iterable[TensorInfo]) -> Iterator[Note]:
    """A note where parameters have a shape and no bytes of their own."""
    names = [tensor.name for tensor in tensors if tensor.layout == "partitioned"]
    if names:
        message = f"{len(names):,} parameters lie in pieces in the ranks' files; {REBUILD}"
        yield note("partitioned-weights", names[0], message)


def values_without_shapes(found: Checkpoint) -> dict[str, object]:
    """The values of a model-states file, but for the shapes, which are shown as tensors."""
    return {
        key: value for key, value in found.values.items() if key.partition(".")[0] not in SHAPES
    }


def shapes_in(
    value: object, *, requires_grad: bool
) -> Iterator[tuple[str, tuple[tuple[int, ...], bool]]]:
    """Name -> shape: one dict for each group of the optimizer, or a single dict."""
    groups = [value] if mapping_of(value) is not None else items_of(value) or []
    for group in groups:
        for name, size in (mapping_of(group) or {}).items():
            yield str(name), (numbers(size, "shape"), requires_grad)
