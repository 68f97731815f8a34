"""Element types and devices that are mixed in one model."""

from collections import defaultdict
from collections.abc import Iterator

import torch
from torch._subclasses.fake_tensor import FakeTensor

from modtool.live.lint.subject import Subject
from modtool.notes import note
from modtool.records import Note

__all__ = ["mixed_devices", "mixed_dtypes"]


def mixed_dtypes(subject: Subject) -> Iterator[Note]:
    """Parameters of another floating type than most; buffers too where those are float64."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, each in subject.parameters():
        if each.is_floating_point() and each.dtype.itemsize > 1:
            found[text_of(each.dtype)].append(name)
    for name, buffer in subject.buffers():
        if buffer.dtype is torch.float64 and found and "float64" not in found:
            found["float64"].append(name)
    yield from minority("mixed-dtypes", found)


def mixed_devices(subject: Subject) -> Iterator[Note]:
    """Tensors on another device than most. Fake ones know theirs; meta may stand for any."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, each in (*subject.parameters(), *subject.buffers()):
        if not subject.spared or isinstance(each, FakeTensor):
            found[str(each.device)].append(name)
    if "meta" in found and len(found) > 1:
        names = found.pop("meta")
        message = f"{shown(names)} on the meta device: without values"
        yield note(
            "mixed-devices", names[0], message, "load weights into the model, or initialise it"
        )
    yield from minority("mixed-devices", found)


def minority(code: str, found: dict[str, list[str]]) -> Iterator[Note]:
    """A note for each kind but the most frequent."""
    most = max(found, key=lambda kind: len(found[kind]), default="")
    for kind, names in found.items():
        if kind != most:
            others = len(found[most])
            yield note(code, names[0], f"{shown(names)} {kind} where {others} are {most}")


def shown(names: list[str]) -> str:
    """`this tensor is`, `this and 3 other tensors are`."""
    others = len(names) - 1
    if not others:
        return "this tensor is"
    return f"this and {others} other tensor{'s' * (others > 1)} are"


def text_of(dtype: torch.dtype) -> str:
    """`float32`."""
    return str(dtype).removeprefix("torch.")
