"""`convert`: a checkpoint in another form."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from modtool import plan as plans
from modtool.api.salvaging import damage, without_advice
from modtool.api.targets import is_file
from modtool.api.writing import PLAIN, Outcome, Writing, carry_out
from modtool.errors import TargetError, UsageError
from modtool.formats import open_checkpoint
from modtool.formats.dcp_values import with_values
from modtool.plan import Form, Plan
from modtool.records import Checkpoint

__all__ = ["convert"]

# What a file's suffix says of its form; a name ends in one of these or means a folder.
SUFFIXES: dict[str, Form] = {
    ".safetensors": "safetensors",
    ".bin": "state_dict",
    ".pth": "state_dict",
    ".pt": "state_dict",
    ".ckpt": "state_dict",
}
# Suffixes that promise what is not written.
OTHERS = (".gguf", ".npz", ".npy", ".onnx", ".h5", ".keras", ".tflite", ".msgpack", ".zip", ".tar")
INDEX = ".index.json"
# Names of single files in a folder, as transformers has them.
SINGLE: dict[Form, str] = {
    "safetensors": "model.safetensors",
    "state_dict": "pytorch_model.bin",
    "checkpoint": "checkpoint.pth",
}
UNITS = {"": 1, "B": 1} | {
    f"{letter}{infix}B": base**power
    for power, letter in enumerate("KMGT", start=1)
    for infix, base in (("", 1000), ("i", 1024))
}


def convert(
    source: "str | os.PathLike[str]",
    output: str | None = None,
    *,
    to: Form | None = None,
    section: str | None = None,
    salvage: bool = False,
    edits: Sequence[Callable[[Plan], Plan]] = (),
    max_shard_size: int | str | None = None,
    writing: Writing = PLAIN,
) -> Outcome:
    """Turn a checkpoint into another form. Nothing of it is imported or executed.

    Args:
        source: A checkpoint: a file, an index, or a folder.
        output: The file to write, an index, or a folder; None means beside the source, named
            after the form, or with `writing.in_place` the source itself.
        to: `state_dict`, `checkpoint`, `safetensors` or `dcp`; None means what the output's suffix
            says; in place, a training checkpoint stays one.
        section: The part of a training checkpoint to take as the model.
        salvage: Write what is whole of a source that is damaged or ends too early; what is lost
            is listed as dropped.
        edits: Changes on the way, as `modtool.plan` has them, in order.
        max_shard_size: Write a set of files of at most so many bytes, with an index: a number, or
            text such as `5GB` or `512MiB`.
        writing: How to write.

    Raises:
        UsageError: An argument that does not fit, or a tensor that the form cannot hold.
        TargetError: The source is not there, or not all of it.
        CorruptFileError: The source is damaged, or nothing of it can be salvaged.
        OutputError: It could not be written, or something would be overwritten.
    """
    if not is_file(source):
        raise UsageError(
            f"{source} is a model definition, and convert takes checkpoints",
            "save its weights first, or write them with: modtool freeze … / modtool reinit …",
        )
    sharded = to != "dcp" and (
        max_shard_size is not None or is_folder(output) or (output or "").endswith(INDEX)
    )
    if to == "dcp" and (max_shard_size is not None or writing.in_place):
        raise UsageError(
            "a distributed checkpoint is a folder of its own, with one large file",
            "leave out --max-shard-size and --in-place",
        )
    largest = None if max_shard_size is None else size_of(max_shard_size)
    if writing.in_place:
        output = in_place(os.fspath(source), output, sharded=sharded)
    form = to or form_of(output, sharded=sharded)
    refuse_misnamed(output, to)
    target = output_for(os.fspath(source), output, form, sharded=sharded)
    checkpoint = open_checkpoint(os.fspath(source), truncated=salvage)
    if not (salvage and checkpoint.lost):
        refuse_incomplete(checkpoint)
    if writing.in_place and to is None and section is None and checkpoint.kind == "checkpoint":
        form = "checkpoint" if form == "state_dict" else form  # the only copy loses nothing unasked
    plan = plans.plan_conversion(with_values(checkpoint), to=form, section=section)
    if salvage:
        plan = replace(plan, source=without_advice(plan.source))
        plan = plans.salvage(plan, damage)
    whole = plan
    for edit in edits:
        plan = edit(plan)
    plan = plans.warn_of_dropped(whole, plan)
    return carry_out(plan, target, replace(writing, sharded=sharded, max_shard_size=largest))


def refuse_incomplete(checkpoint: Checkpoint) -> None:
    """See that no part of it is missing.

    Raises:
        TargetError: A file of a set, or a part of a tensor, is not there.
    """
    salvage = "--salvage writes what the others hold"
    for note in checkpoint.notes:
        if note.code in ("missing-shard", "missing-tensor"):
            raise TargetError(
                f"{checkpoint.target} is not complete: {note.message}",
                "put the whole files beside the others; "
                + (salvage if checkpoint.lost else "nothing is converted in part"),
            )


def size_of(text: int | str) -> int:
    """Bytes: `5GB` is 5 · 10⁹, `5GiB` is 5 · 2³⁰.

    Raises:
        UsageError: It is no size, or nothing.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?i?B?)\s*", str(text), re.IGNORECASE)
    unit = found[2].upper().replace("I", "i") if found else ""
    unit = unit if unit in UNITS or not unit else f"{unit.removesuffix('B')}B"
    if found is None or unit not in UNITS or float(found[1]) * UNITS[unit] < 1:
        raise UsageError(f"{text!r} is no size", "write a number of bytes, or 5GB, 512MB, 2GiB")
    return int(float(found[1]) * UNITS[unit])


# -- where it goes -------------------------------------------------------------------------------


def form_of(output: str | None, *, sharded: bool) -> Form:
    """The form that an output's name means."""
    if output is None:
        return "state_dict"
    suffix = suffix_of(output)
    if is_folder(output) or (sharded and suffix not in SUFFIXES):
        return "safetensors"
    return SUFFIXES.get(suffix, "state_dict")


def suffix_of(output: str) -> str:
    """The suffix that tells the form, in small letters; of an index, that of its files."""
    return os.path.splitext(output.removesuffix(INDEX))[1].lower()


def refuse_misnamed(output: str | None, to: Form | None) -> None:
    """See that a name does not say what the file will not be.

    Raises:
        UsageError: It does.
    """
    if output == "":
        raise UsageError("-o: an empty name", "name a file or a folder")
    if output == "-":
        raise UsageError("-o -: a checkpoint needs a file", "name one; ./- is a file of that name")
    suffix = suffix_of(output or "")
    if suffix in OTHERS:
        raise UsageError(
            f"{output}: files of this kind are not written", "name it .safetensors or .pth"
        )
    is_safetensors = suffix == ".safetensors"
    if to and suffix in SUFFIXES and is_safetensors != (to == "safetensors"):
        raise UsageError(f"{output}: its name does not fit --to {to}", "choose another suffix")


def is_folder(output: str | None) -> bool:
    """True for an output that names a folder: it is one, or ends with a slash."""
    return output is not None and (output.endswith(("/", os.sep)) or os.path.isdir(output))


def in_place(source: str, output: str | None, *, sharded: bool) -> str:
    """The output of a conversion that replaces its source.

    Raises:
        UsageError: The source is not one file, or is not to become one.
    """
    if sharded or os.path.isdir(source) or source.endswith(INDEX):
        raise UsageError("--in-place replaces one file by one file", "write to another folder")
    if output is not None and os.path.realpath(output) != os.path.realpath(source):
        raise UsageError("--in-place replaces the source and writes no other file", "leave out -o")
    return output or source


def output_for(source: str, output: str | None, form: Form, *, sharded: bool) -> str:
    """The name of the file to write, or that a set would have if it were one file."""
    if output is None:
        return default_output(source, form)
    if form == "dcp":
        return output.rstrip("/") or "/"
    if output.endswith(INDEX):
        return output.removesuffix(INDEX)
    if is_folder(output) or (sharded and suffix_of(output) not in SUFFIXES):
        return os.path.join(output.rstrip("/") or "/", SINGLE[form])
    return output


def default_output(source: str, form: Form) -> str:
    """`ckpt.pth` -> `ckpt_state_dict.pth`, `ckpt_checkpoint.pth`, `ckpt.safetensors`, …."""
    stem = source.rstrip("/").removesuffix(INDEX)
    if not os.path.isdir(source):
        stem = os.path.splitext(stem)[0].removesuffix(".pth")
    if form == "dcp":
        return f"{stem}_dcp"
    return f"{stem}.safetensors" if form == "safetensors" else f"{stem}_{form}.pth"
