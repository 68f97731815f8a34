"""A copy of a torch file in which nothing but flags is different, byte for byte.

Where a plan changes only what is trainable, and the file says so in bytes of their own, these are
changed and all else is copied: the pickle, the order of the records, the identifier, the source
text of classes in legacy files. In a zip the checksum of the pickle follows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from zlib_ng.zlib_ng import crc32

from modtool.formats.archive_storages import archive_root
from modtool.formats.files import Reader, open_reader
from modtool.formats.zip_directory import checksums, member_range, read_directory
from modtool.pickles.machine import Pickle
from modtool.pickles.patching import patched
from modtool.plan import Plan
from modtool.records import FileRange
from modtool.write.rewriting import flagged
from modtool.write.streams import Sink

__all__ = ["Patch", "copy_with", "patches_of"]

# Format -> the pickle that holds the parameters, by its name in `Checkpoint.pickles`.
BODIES: Mapping[str, str] = MappingProxyType(
    {"torch-zip": "data.pkl", "torch-legacy": "object", "torchscript": "data.pkl"}
)


@dataclass(frozen=True, slots=True)
class Patch:
    """Bytes that take the place of as many bytes of the source."""

    offset: int
    data: bytes


def patches_of(plan: Plan) -> tuple[Patch, ...] | None:
    """What is different in a copy of the source; None where a plan asks for more than flags.

    Raises:
        TargetError: The source is gone.
        CorruptFileError: The source was changed meanwhile.
    """
    if not changes_flags_alone(plan):
        return None
    replace = flagged(plan, {})
    with open_reader(plan.source.target) as reader:
        if plan.source.format == "torch-legacy":
            return legacy_patches(plan, reader, replace)
        return archive_patches(plan, reader, replace)


def changes_flags_alone(plan: Plan) -> bool:
    """True for a rewrite that keeps all elements, devices and storages."""
    return (
        plan.form == "full_model"
        and plan.source.format in BODIES
        and plan.requires_grad is not None
        and plan.tied == "keep"
        and not plan.shrink
        and all(
            not tensor.is_computed and tensor.location == tensor.source.location
            for tensor in plan.tensors
        )
    )


def legacy_patches(
    plan: Plan, reader: Reader, replace: Mapping[int, object]
) -> tuple[Patch, ...] | None:
    """The object of a legacy file lies after the facts of the machine."""
    before, body = plan.source.pickles["system info"], plan.source.pickles["object"]
    assert isinstance(before, Pickle)
    assert isinstance(body, Pickle)
    data = reader.read(before.end, body.end - before.end, "its object")
    made = patched(data, plan.tree, replace)
    return None if made is None else (Patch(before.end, made),)


def archive_patches(
    plan: Plan, reader: Reader, replace: Mapping[int, object]
) -> tuple[Patch, ...] | None:
    """`data.pkl` of an archive, and its checksum wherever that stands."""
    directory = read_directory(reader)
    member = directory.members[f"{archive_root(directory)}/{BODIES[plan.source.format]}"]
    if member.compressed != member.size:
        return None
    start = member_range(reader, member).offset
    data = reader.read(start, member.size, "data.pkl")
    made = patched(data, plan.tree, replace)
    if made is None:
        return None
    crc = crc32(made).to_bytes(4, "little")
    places = checksums(reader, directory, member) if member.crc == crc32(data) else ()
    return (Patch(start, made), *(Patch(place, crc) for place in places))


def copy_with(patches: tuple[Patch, ...], path: str, size: int, sink: Sink) -> None:
    """Copy a file of so many bytes, with patches."""
    position = 0
    for patch in (*sorted(patches, key=lambda patch: patch.offset), Patch(size, b"")):
        place = FileRange(path, position, patch.offset - position)
        sink.copy(place, path, crc=False)
        sink.write(patch.data)
        position = patch.offset + len(patch.data)
