"""Sets of files that hold one state_dict, behind an index or numbered.

Format: `{"metadata": {"total_size": …}, "weight_map": {name: file}}`, as transformers,
huggingface_hub and `HuggingFaceStorageWriter` of torch 2.13 write it.
"""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from modtool.errors import TargetError, UnknownFormatError, UnsafeFileError
from modtool.formats.files import Reader
from modtool.formats.foreign import what_it_is
from modtool.formats.json_text import read_json
from modtool.formats.members import (
    is_missing,
    link_notes,
    path_inside,
)
from modtool.formats.parts import read_part
from modtool.notes import first_names, note
from modtool.pickles.roles import buffer_names
from modtool.pickles.tensor_calls import is_bare
from modtool.records import CallableUse, Checkpoint, Kind, Note, Section, Storage, TensorInfo

__all__ = ["NAME", "SUFFIXES", "TORCH_NAME", "read", "read_files", "read_truncated", "sniff"]

NAME = "safetensors-sharded"
TORCH_NAME = "torch-sharded"
SUFFIXES = (".index.json",)

MAX_FILES = 20_000

Key = tuple[str | None, str]
ReadFile = Callable[[str], Checkpoint]


def sniff(head: bytes) -> bool:
    """True for a JSON object, of which an index is one kind."""
    return head.lstrip(b" \t\r\n").startswith(b"{")


def read(reader: Reader) -> Checkpoint:
    """Read an index and the headers of the files that it names.

    Raises:
        UnknownFormatError: A JSON text that is no index.
        UnsafeFileError: It names files outside its folder.
        TargetError: None of the files is there.
    """
    return read_set(reader, read_part)


def read_truncated(reader: Reader) -> Checkpoint:
    """Read a set of which files end too early; tensors beyond their ends have no data."""
    return read_set(reader, partial(read_part, truncated=True))


def read_set(reader: Reader, read_file: ReadFile) -> Checkpoint:
    """Read an index, and each file that it names with `read_file`."""
    weight_map, metadata = parse_index(reader)
    folder = os.path.dirname(reader.path)
    files = sorted(set(weight_map.values()))
    return read_files(reader.path, folder, files, weight_map, metadata, read_file=read_file)


def index_of(reader: Reader) -> dict[str, object]:
    """The JSON object of an index.

    Raises:
        UnknownFormatError: It has no weight map.
    """
    found = read_json(reader, "the index")
    if isinstance(found, dict) and isinstance(found.get("weight_map"), dict):
        return found
    what, hint = what_it_is(reader.head(4096), reader.size)
    raise UnknownFormatError(f"{reader.path}: {what}", hint)


def parse_index(reader: Reader) -> tuple[dict[str, str], dict[str, str]]:
    """The weight map, every file name proved to stay in the folder, and the metadata as text."""
    found = index_of(reader)
    folder = os.path.dirname(reader.path)
    weight_map: dict[str, str] = {}
    known: set[object] = set()
    items = found["weight_map"]
    for name, file in items.items() if isinstance(items, dict) else ():
        if not isinstance(file, str) or file not in known:
            path_inside(folder, file, reader.path)
            known.add(file)
            if len(known) > MAX_FILES:
                raise UnsafeFileError(f"{reader.path}: it names more than {MAX_FILES:,} files")
        weight_map[name] = str(file)
    metadata = found.get("metadata")
    texts = metadata.items() if isinstance(metadata, dict) else ()
    return weight_map, {
        key: str(value) for key, value in texts if isinstance(value, str | int | float)
    }


def read_files(
    target: str,
    folder: str,
    files: Sequence[str],
    weight_map: Mapping[str, str] | None = None,
    metadata: Mapping[str, str] | None = None,
    *,
    read_file: ReadFile = read_part,
) -> Checkpoint:
    """Read the headers of the files of a set, as one checkpoint.

    Args:
        target: What the user named.
        folder: Where the files lie.
        files: Their names; a file that is not there becomes a note.
        weight_map: Which file should have which tensor; None where nothing tells.
        metadata: What the index says of the whole.
        read_file: What reads one of them.

    Raises:
        TargetError: None of them is there.
        CorruptFileError: One of them contradicts itself.
    """
    union = Union(weight_map, dict(metadata or {}))
    promised = Counter((weight_map or {}).values())
    for file in files:
        path = path_inside(folder, file, target)
        if is_missing(path):
            union.notes.append(missing(file, promised[file]))
            continue
        union.notes.extend(link_notes(folder, path))
        union.add(file, read_file(path))
    if not union.present:
        raise TargetError(
            f"{target}: of its {len(files):,} files none is there: {first_names([*files])}",
            "put them into the same folder",
        )
    return union.checkpoint(target)


def missing(file: str, promised: int) -> Note:
    """The note on a file that is not there."""
    lost = f", and with it {promised:,} tensor{'s' * (promised > 1)}" if promised else ""
    return note("missing-shard", file, f"{file} is not there{lost}")


@dataclass(slots=True)
class Union:
    """The files of a set, one after the other."""

    weight_map: Mapping[str, str] | None
    metadata: dict[str, str]
    tensors: dict[Key, TensorInfo] = field(default_factory=dict)
    home: dict[Key, str] = field(default_factory=dict)
    sections: dict[str, Section] = field(default_factory=dict)
    values: dict[str, object] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    present: dict[str, str] = field(default_factory=dict)
    pickles: dict[str, object] = field(default_factory=dict)
    callables: list[CallableUse] = field(default_factory=list)
    kinds: set[Kind] = field(default_factory=set)

    def add(self, file: str, part: Checkpoint) -> None:
        """Take in the tensors of one file."""
        self.present[file] = part.format
        self.kinds.add(part.kind)
        self.sections.update({section.name: section for section in part.sections})
        self.values.update(part.values)
        self.metadata.update(part.metadata)
        self.notes.extend(part.notes)
        self.pickles.update(in_part(part.pickles, file))
        self.callables.extend(part.callables)
        repeated = []
        for tensor in in_file(part.tensors, file):
            key = tensor.section, tensor.name
            if key in self.tensors:
                repeated.append(tensor.name)
                if self.expected(tensor.name) != file:
                    continue
            self.tensors[key] = tensor
            self.home[key] = file
        if repeated:
            names = first_names(repeated)
            self.notes.append(note("repeated-tensor", file, f"{file} has once more: {names}"))

    def expected(self, name: str) -> str | None:
        """The file that should have a tensor."""
        return self.weight_map.get(name) if self.weight_map is not None else None

    def checkpoint(self, target: str) -> Checkpoint:
        """The whole."""
        if self.weight_map is not None:
            self.compare(self.weight_map)
        plain = set(self.present.values()) == {"safetensors"}
        kind: Kind = next(iter(self.kinds)) if len(self.kinds) == 1 else "checkpoint"
        return Checkpoint(
            target,
            NAME if plain else TORCH_NAME,
            kind,
            with_buffers(tuple(self.tensors.values()))
            if kind == "state_dict"
            else tuple(self.tensors.values()),
            sections=tuple(self.sections.values()),
            values=self.values,
            metadata=self.metadata,
            notes=tuple(self.notes),
            pickles=self.pickles,
            callables=tuple(self.callables),
            lost=self.lost(),
        )

    def lost(self) -> dict[str, str]:
        """The tensors that the index lists and no file has, and why."""
        names = {name for _, name in self.home}
        return {
            name: f"lost: {file} {'lacks it' if file in self.present else 'is not there'}"
            for name, file in (self.weight_map or {}).items()
            if name not in names
        }

    def compare(self, weight_map: Mapping[str, str]) -> None:
        """Note where the files and the index disagree."""
        names = {name: self.home[section, name] for section, name in self.home}
        keys = {
            tensor.storage.key
            for tensor in self.tensors.values()
            if tensor.storage is not None and tensor.name in weight_map
        }
        lost: dict[tuple[str, str | None], list[str]] = {}
        for name, file in weight_map.items():
            if file in self.present and names.get(name) != file:
                lost.setdefault((file, names.get(name)), []).append(name)
        extra: dict[str, list[str]] = {}
        for tensor in self.tensors.values():
            if tensor.name in weight_map:
                continue
            if (
                tensor.storage is None or tensor.storage.key not in keys
            ):  # else tied to a listed one
                extra.setdefault(names[tensor.name], []).append(tensor.name)
        for (file, other), found in lost.items():
            those = "them" if len(found) > 1 else "it"
            message = f"the index lists {first_names(found)} in {file}, which lacks {those}"
            message += f": {other} has {those}" if other else ""
            self.notes.append(note("missing-tensor", file, message))
        for file, found in extra.items():
            message = f"{file} has {first_names(found)}, which the index does not list"
            self.notes.append(note("unlisted-tensor", file, message))


def in_file(tensors: Sequence[TensorInfo], file: str) -> list[TensorInfo]:
    """The tensors with storage keys that no other file of the set has."""
    made: dict[str, Storage] = {}
    found = []
    for tensor in tensors:
        if tensor.storage is not None:
            key = tensor.storage.key
            if key not in made:
                made[key] = replace(tensor.storage, key=f"{file}:{key}")
            origin = None if is_bare(tensor.origin) else tensor.origin
            tensor = replace(tensor, storage=made[key], origin=origin)
        if tensor.parts:
            tensor = replace(tensor, parts=(file, *tensor.parts))
        found.append(tensor)
    return found


def in_part(pickles: Mapping[str, object], file: str) -> dict[str, object]:
    """The pickles of one file, under names that no other file of the set has."""
    return {f"{file}/{name}": pickle for name, pickle in pickles.items()}


def with_buffers(tensors: tuple[TensorInfo, ...]) -> tuple[TensorInfo, ...]:
    """The tensors with roles that the names of all files together tell."""
    buffers = buffer_names([tensor.name for tensor in tensors])
    return tuple(
        replace(tensor, role="buffer")
        if tensor.name in buffers and tensor.role == "parameter"
        else tensor
        for tensor in tensors
    )
