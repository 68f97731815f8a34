"""`convert`: a checkpoint in another form."""

import os
from collections.abc import Callable, Sequence

from modtool import plan as plans
from modtool.api.targets import is_file
from modtool.api.writing import PLAIN, Outcome, Writing, carry_out, form_for
from modtool.errors import UsageError
from modtool.formats import open_checkpoint
from modtool.plan import Form, Plan

__all__ = ["convert"]


def convert(
    source: "str | os.PathLike[str]",
    output: str | None = None,
    *,
    to: Form | None = None,
    section: str | None = None,
    edits: Sequence[Callable[[Plan], Plan]] = (),
    writing: Writing = PLAIN,
) -> Outcome:
    """Turn a checkpoint into another form. Nothing of it is imported or executed.

    Args:
        source: A checkpoint file.
        output: The file to write; None means beside the source, named after the form.
        to: `state_dict`, `checkpoint` or `safetensors`; None means what the output's suffix says.
        section: The part of a training checkpoint to take as the model.
        edits: Changes on the way, as `modtool.plan` has them.
        writing: How to write.
    """
    if not is_file(source):
        raise UsageError(
            f"{source} is a model definition, and convert takes checkpoints",
            "save its weights first, or write them with: modtool freeze … / modtool reinit …",
        )
    checkpoint = open_checkpoint(os.fspath(source))
    form = to or form_for(output, "state_dict")
    plan = plans.plan_conversion(checkpoint, to=form, section=section)
    for edit in edits:
        plan = edit(plan)
    return carry_out(plan, output or default_output(os.fspath(source), form), writing)


def default_output(source: str, form: Form) -> str:
    """`ckpt.pth` -> `ckpt_state_dict.pth`, `ckpt_checkpoint.pth` or `ckpt.safetensors`."""
    stem = os.path.splitext(source)[0].removesuffix(".pth")
    return f"{stem}.safetensors" if form == "safetensors" else f"{stem}_{form}.pth"
