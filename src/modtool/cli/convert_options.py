"""The options of `modtool convert` alone: names, help, types."""

from enum import StrEnum
from typing import Annotated

import typer

from modtool.plan import FORMS

__all__ = [
    "AddPrefix",
    "DropOptimizer",
    "Dtype",
    "DtypeFor",
    "FormName",
    "InPlace",
    "MaxShardSize",
    "NoSync",
    "Output",
    "Rename",
    "Salvage",
    "SetValues",
    "Shrink",
    "StripPrefix",
    "Tied",
    "TiedName",
    "To",
    "Verify",
]

FormName = StrEnum("FormName", {name: name for name in FORMS})  # type: ignore[misc]
TiedName = StrEnum("TiedName", {"keep": "keep", "clone": "clone"})

To = Annotated[
    FormName | None,
    typer.Option(
        "--to",
        help="What to write; default: what OUT's suffix says, safetensors in a folder, else "
        "state_dict.",
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="OUT",
        help="The file to write, or a folder (DIR/) for a set of files. "
        "Default: beside the source, named after the form.",
        show_default=False,
    ),
]
StripPrefix = Annotated[
    list[str],
    typer.Option(
        "--strip-prefix",
        metavar="PREFIX",
        help="Take this off the names, however often it stands there, such as module. ; auto "
        "knows DataParallel's, torch.compile's and model. where all names share them. Repeatable.",
        show_default=False,
    ),
]
AddPrefix = Annotated[
    str | None,
    typer.Option("--add-prefix", metavar="PREFIX", help="Put this before every name."),
]
Rename = Annotated[
    list[str],
    typer.Option(
        "--rename",
        metavar="OLD=NEW",
        help="Change names: encoder=backbone, '*.gamma=*.weight' or 're:^net\\.(.*)=\\1'. "
        "After --strip-prefix, in the order given. Repeatable.",
        show_default=False,
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="DTYPE",
        help="Cast the model's floating-point tensors: bf16, fp16, fp32, float8_e4m3fn, …",
    ),
]
DtypeFor = Annotated[
    list[str],
    typer.Option(
        "--dtype-for",
        metavar="PATTERN=DTYPE",
        help="Cast these tensors so; later ones win, and all win over --dtype. Repeatable.",
        show_default=False,
    ),
]
SetValues = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Put a plain value into the checkpoint, such as epoch=3. Repeatable.",
        show_default=False,
    ),
]
Shrink = Annotated[
    bool,
    typer.Option("--shrink", help="Cut storages down to what the tensors use of them."),
]
Tied = Annotated[
    TiedName,
    typer.Option(
        "--tied",
        help="Tensors that share their elements: keep them shared (safetensors stores one and "
        "records the others), or clone.",
    ),
]
DropOptimizer = Annotated[
    bool, typer.Option("--drop-optimizer", help="Leave out the optimizer's state.")
]
MaxShardSize = Annotated[
    str | None,
    typer.Option(
        "--max-shard-size",
        metavar="SIZE",
        help="Write files with at most so many bytes of tensors, and an index: 5GB, 500MB, 2GiB.",
    ),
]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify",
        help="Read the output back and compare every tensor with its source, and that with the "
        "checksums in its file, before it is put in place.",
    ),
]
NoSync = Annotated[
    bool,
    typer.Option(
        "--no-sync",
        help="Do not wait until the disk has it all: faster, like cp, but a loss of power soon "
        "after may take the new file.",
    ),
]
Salvage = Annotated[
    bool,
    typer.Option(
        "--salvage",
        help="Write what is whole of a file that ends too early or is damaged, or of a set with an "
        "index that lacks a file; with losses, which are listed, the exit code is 1.",
    ),
]
InPlace = Annotated[
    bool,
    typer.Option(
        "--in-place",
        help="Replace the source, a single file, which is kept until the new one is complete; "
        "without --to a checkpoint stays one.",
    ),
]
KEEP = TiedName("keep")
