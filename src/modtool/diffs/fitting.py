"""The load_state_dict that is never run: why names and shapes do not fit, and what would help."""

import os
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from modtool.diffs.plain_entries import Beside
from modtool.diffs.records import Fit, Pair, Side, Single
from modtool.diffs.renamings import Found
from modtool.diffs.sides import Entries
from modtool.records import ROOT, Checkpoint, TensorInfo
from modtool.sharing import share

__all__ = ["explained_pairs", "explained_singles", "fit_of", "fits_shape", "misfits"]

MOST_DROPPED = 8
# Last parts of names that are well known to be there or not.
KNOWN_MISSING: Mapping[str, str] = {
    "num_batches_tracked": "left out when it was saved: loading fills it in for old files alone",
}
KNOWN_UNEXPECTED: Mapping[str, str] = {
    "n_averaged": "the count of an AveragedModel",
    "total_ops": "left behind by a profiler (thop)",
    "total_params": "left behind by a profiler (thop)",
    "position_ids": "older transformers saved this buffer",
    "inv_freq": "older transformers saved this buffer",
}

LAZY = "uninitialized"
# Layouts that are not copied into a plain tensor, and what makes one of them.
NOT_COPIED: Mapping[str, str] = {
    "quantized": "dequantize()",
    **{f"sparse_{kind}": "to_dense()" for kind in ("coo", "csr", "csc", "bsr", "bsc")},
}


def misfits(wanted: TensorInfo, given: TensorInfo) -> Iterator[str]:
    """The field of `FIELDS`, if any, for which load_state_dict refuses a tensor of a model.

    Source: torch 2.13, `torch/nn/modules/module.py`, `_load_from_state_dict`; `copy_` raises for
    the latter two.
    """
    if wanted.layout == LAZY:
        return
    if not fits_shape(wanted.shape, given.shape):
        yield "shape"
    elif given.layout in NOT_COPIED and wanted.layout != given.layout:
        yield "dtype"
    elif given.layout == "strided" and given.location == "meta":
        yield "device"


def fits_shape(wanted: tuple[int, ...], given: tuple[int, ...]) -> bool:
    """True for one shape; torch 0.3 knew no () and saved (1,), which is taken for it."""
    return wanted == given or (not wanted and given == (1,))


def explained_pairs(pairs: Sequence[Pair], model: Side | None) -> Iterator[Pair]:
    """The pairs, with a likely reason where shapes differ, or where one does not fit a model."""
    for pair in pairs:
        if "shape" in pair.differs:
            yield replace(pair, reason=shape_reason(pair))
        elif model and pair.differs:
            yield replace(pair, reason=copy_reason(pair.b if model == "a" else pair.a))
        else:
            yield pair


def copy_reason(given: TensorInfo) -> str:
    """Why a tensor of the right shape cannot be copied into a model's."""
    if given.layout in NOT_COPIED:
        return f"not copied into a plain tensor: save its {NOT_COPIED[given.layout]}"
    return "without values: saved from the meta device"


def shape_reason(pair: Pair) -> str:
    """Why the shapes of two tensors of one name may differ."""
    if LAZY in (pair.a.layout, pair.b.layout):
        return "lazy, and without a shape before the first forward pass"
    a, b = pair.a.shape, pair.b.shape
    if len(a) == len(b) == 2 and a == b[::-1]:
        return "transposed, as Conv1D and TensorFlow keep it: no option turns it round"
    if pair.a.numel == pair.b.numel:
        return "the same elements in another shape"
    if len(a) != len(b):
        return f"another kind of layer: {len(a)} dimensions and {len(b)}"
    others = [index for index in range(len(a)) if a[index] != b[index]]
    if others == [0]:
        return "other classes, another vocabulary or width: dimension 0"
    listed = " and ".join(map(str, others))
    return f"another width: dimension{'s' * (len(others) > 1)} {listed}"


def explained_singles(
    singles: Sequence[Single], found: Found, old: Side, model: tuple[Side, Entries] | None
) -> Iterator[Single]:
    """The singles, with what the other side likely calls them, and likely reasons.

    Args:
        singles: The tensors that one side has.
        found: Names that were likely changed, from those of the side `old`.
        old: The side that renamings apply to.
        model: The side that is a model and its tensors, when one is.
    """
    back = {new: name for name, new in found.names.items()}
    present = {single.name for single in singles if model and single.side == model[0]}
    twins = twins_of(model[1]) if model else {}
    for single in singles:
        likely = (found.names if single.side == old else back).get(single.name)
        reason = ""
        if model and likely is None:
            missing = single.side == model[0]
            known = KNOWN_MISSING if missing else KNOWN_UNEXPECTED
            reason = known.get(single.name.rpartition(".")[2], "")
            twin = next((n for n in twins.get(single.name, ()) if n not in present), None)
            if missing and twin is not None:
                reason = f"tied to {twin}, which is there"
        yield replace(single, likely=likely, reason=reason)


def twins_of(entries: Entries) -> dict[str, list[str]]:
    """Name -> the other names of the same elements."""
    names = list(entries)
    groups: dict[int, list[str]] = {}
    for index, first in enumerate(share(list(entries.values())).first):
        if first is not None:
            groups.setdefault(first, [names[first]]).append(names[index])
    return {
        name: [other for other in group if other != name]
        for group in groups.values()
        for name in group
    }


def fit_of(
    pairs: Sequence[Pair],
    singles: Sequence[Single],
    found: Found,
    model: Side,
    checkpoint: Checkpoint,
    beside: Beside,
    filled: Collection[str],
    given: Sequence[str],
) -> Fit:
    """How well a checkpoint fits a model, and the command that makes it fit better.

    Args:
        pairs: The names that both have.
        singles: The names that one has.
        found: Names that were likely changed.
        model: The side that is the model.
        checkpoint: The other side.
        beside: What that has beside tensors.
        filled: Names that loading would fill in, were they not there.
        given: What convert is to be told anyway, as words of a command line.
    """
    missing = [single for single in singles if single.side == model]
    unexpected = [single for single in singles if single.side != model]
    mismatched = [pair for pair in pairs if pair.differs]
    # By the names in the file, as convert wants them. What is mismatched is refused by
    # strict=False, too.
    surplus = [single.tensor.name for single in unexpected if single.likely is None]
    surplus += [(pair.b if model == "a" else pair.a).name for pair in mismatched]
    after = beside.after(found.change)
    surplus += after.surplus
    kept = [pair.b if model == "a" else pair.a for pair in pairs if not pair.differs]
    kept += [single.tensor for single in unexpected if single.likely is not None]
    dropped = drops(surplus, [tensor.name for tensor in kept])
    options = [*given, *options_of(found)]
    options += [word for name in dropped for word in ("--drop", name)]
    models = [part.name for part in checkpoint.sections if part.role == "model"]
    fit = Fit(
        model,
        len(missing) + len(beside.missing),
        len(unexpected) + len(beside.unexpected),
        len(mismatched),
        section=models[0] if len(models) == 1 and models != [ROOT] else None,
        whole=checkpoint.kind == "full_model",
        fixed=all(pair.name in filled for pair in mismatched)
        and not after.missing
        and bool(dropped) == bool(surplus)
        and all(one.likely for one in missing),
    )
    parts = bool(models) or checkpoint.kind == "full_model"
    lost = len(surplus) - len(after.surplus) if dropped else 0
    # What drops more than it keeps helps nobody, unless that is all that a model wants.
    worth = parts if fit.loads else lost < len(kept) or (fit.fixed and len(kept) > 0)
    helps = worth and (parts or options != list(given))
    return replace(
        fit, fix=command(checkpoint.target, checkpoint.format, options) if helps else None
    )


def drops(surplus: Sequence[str], kept: Sequence[str]) -> list[str]:
    """What `--drop` is to be given: names, or the last parts of many; [] where it is too much."""
    if len(surplus) <= MOST_DROPPED:
        return list(surplus)
    needed = {part for name in kept for part in name.split(".")}
    found: list[str] = []
    for name in surplus:
        _, dot, last = name.rpartition(".")
        if last in needed:
            return []
        found.append(f"*.{last}" if dot else last)
    patterns = list(dict.fromkeys(found))
    return patterns if len(patterns) <= MOST_DROPPED else []


def options_of(found: Found) -> Iterator[str]:
    """The options of convert that do what likely happened to names."""
    for renaming in found.renamings:
        yield "--add-prefix" if renaming.value == found.added else renaming.option
        yield renaming.value


def command(target: str, container: str, options: Sequence[str]) -> str:
    """The command line that writes a checkpoint anew beside itself."""
    stem, suffix = os.path.splitext(target.rstrip("/").removesuffix(".index.json"))
    if container.startswith("safetensors"):
        suffix = ".safetensors"
    elif suffix not in (".pth", ".pt", ".bin", ".ckpt"):
        suffix = ".pth"
    return shlex.join(["modtool", "convert", target, *options, "-o", f"{stem}_fixed{suffix}"])
