"""Which folder is what: the kinds of folders that hold one checkpoint, in order of detection.

A Hugging Face folder is looked at as `from_pretrained` does it: one file before an index, and
safetensors before pickles. A DeepSpeed step that lies beside the weights is named in a note.
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from modtool.errors import TargetError, UnknownFormatError
from modtool.formats import dcp, dcp_shards, deepspeed
from modtool.formats.files import open_reader
from modtool.formats.foreign import what_folder_it_is
from modtool.formats.members import link_notes
from modtool.formats.sharded import read_files
from modtool.notes import first_names, note
from modtool.records import Checkpoint, Note

__all__ = ["folder_of", "read_folder"]

MAX_ENTRIES = 200_000
MAX_FILES = 20_000

OpenFile = Callable[[str], Checkpoint]

# As transformers and diffusers look for them.
WELL_KNOWN = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.bin",
    "adapter_model.safetensors",
    "adapter_model.bin",
)
WEIGHTS = (".safetensors", ".gguf", ".pth", ".pt", ".ckpt", ".bin", ".npz", ".npy", ".pth.tar")
# What lies beside the weights in the folders of trainers, and is not the model.
BESIDE = re.compile(
    r"(?:optimizer|scheduler|scaler|rng_state|random_states|training_args|sampler|tokenizer)"
    r"[\w.-]*\Z"
)
# Names the latest of `iter_0000100/mp_rank_00/model_optim_rng.pt`. Source: Megatron-LM,
# `training/checkpointing.py`.
MEGATRON_LATEST = "latest_checkpointed_iteration.txt"
MAX_LATEST = 20
NUMBERED = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.safetensors|\.bin|\.pth?)\Z")


@dataclass(frozen=True, slots=True)
class Listing:
    """The names in a folder, sorted; links count as what they lead to."""

    path: str
    files: tuple[str, ...]
    folders: tuple[str, ...]


def read_folder(path: str, open_file: OpenFile) -> Checkpoint:
    """What a folder holds.

    Args:
        path: The folder.
        open_file: Opens the one file that it comes down to, where it does.

    Raises:
        TargetError: It holds no checkpoint, or several.
    """
    listing = list_folder(path)
    for reader in KINDS:
        found = reader(listing, open_file)
        if found is not None:
            beside = also_there(listing) if found.format not in (dcp.NAME, deepspeed.NAME) else []
            return replace(found, target=path, notes=(*found.notes, *beside))
    raise nothing_in(listing)


def folder_of(path: str) -> str | None:
    """The folder to read when a path names one, or the `.metadata` in it; None for a file.

    Raises:
        UnknownFormatError: A file that is a part of a folder, and nothing without it.
    """
    if os.path.isdir(path):
        return path
    folder, name = os.path.split(path)
    if name == dcp.METADATA:
        return folder or "."
    if name.endswith(".distcp"):
        raise UnknownFormatError(
            f"{path}: a part of a distributed checkpoint", f"name its folder: {folder or '.'}"
        )
    return None


def list_folder(path: str) -> Listing:
    """The names in a folder.

    Raises:
        TargetError: It may not be read, or has too many.
    """
    files: list[str] = []
    folders: list[str] = []
    try:
        with os.scandir(path) as entries:
            for number, entry in enumerate(entries):
                if number >= MAX_ENTRIES:
                    raise TargetError(f"{path}: a folder of more than {MAX_ENTRIES:,} entries")
                (folders if is_folder(entry) else files).append(entry.name)
    except OSError as error:
        raise TargetError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    return Listing(path, tuple(sorted(files)), tuple(sorted(folders)))


def is_folder(entry: "os.DirEntry[str]") -> bool:
    """True for a folder, or a link to one; a loop of links is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


# -- the kinds -----------------------------------------------------------------------------------


def distributed(listing: Listing, open_file: OpenFile) -> Checkpoint | None:
    """A folder of `torch.distributed.checkpoint`."""
    return dcp.read(listing.path) if dcp.METADATA in listing.files else None


def well_known(listing: Listing, open_file: OpenFile) -> Checkpoint | None:
    """The file or the index that `from_pretrained` would take."""
    name = next((name for name in WELL_KNOWN if name in listing.files), None)
    return None if name is None else opened(listing, name, open_file)


def indexed(listing: Listing, open_file: OpenFile) -> Checkpoint | None:
    """The one index of another name (`model.fp16.safetensors.index.json`)."""
    names = [name for name in listing.files if name.endswith(".index.json")]
    if len(names) > 1:
        raise several(listing, names)
    return opened(listing, names[0], open_file) if names else None


def numbered(listing: Listing, open_file: OpenFile) -> Checkpoint | None:
    """Files `NAME-00001-of-00005.safetensors` without an index."""
    if any(dcp_shards.FILE_NAME.match(name) for name in listing.files):
        return None
    sets: dict[tuple[str, int, str], set[int]] = {}
    for name in listing.files:
        found = NUMBERED.match(name)
        if found and 0 < int(found[3]) <= MAX_FILES:
            sets.setdefault((found[1], int(found[3]), found[4]), set()).add(int(found[2]))
    if len(sets) > 1:
        raise several(listing, [f"{stem}-…-of-{total:05d}{end}" for stem, total, end in sets])
    for stem, total, end in sets:
        files = [f"{stem}-{number:05d}-of-{total:05d}{end}" for number in range(1, total + 1)]
        return read_files(listing.path, listing.path, files, read_file=open_file)
    return None


def zero(listing: Listing, open_file: OpenFile) -> Checkpoint | None:
    """A folder of DeepSpeed."""
    found = deepspeed.is_deepspeed(listing.files, listing.folders)
    return deepspeed.read(listing.path) if found else None


def rank_files(listing: Listing, open_file: OpenFile) -> Checkpoint | None:
    """Files of safetensors, one or more from each rank."""
    names = [name for name in listing.files if dcp_shards.FILE_NAME.match(name)]
    return dcp_shards.read(listing.path, names) if names else None


def single(listing: Listing, open_file: OpenFile) -> Checkpoint | None:
    """The one file of weights that there is."""
    names = weights_in(listing)
    if len(names) > 1:
        raise several(listing, names)
    return opened(listing, names[0], open_file) if names else None


KINDS = (distributed, well_known, indexed, numbered, zero, rank_files, single)


def opened(listing: Listing, name: str, open_file: OpenFile) -> Checkpoint:
    """A file of the folder, with a note where it is a link that leads elsewhere."""
    path = os.path.join(listing.path, name)
    found = open_file(path)
    return replace(found, notes=(*link_notes(listing.path, path), *found.notes))


def weights_in(listing: Listing) -> list[str]:
    """Files whose names are those of weights."""
    return [name for name in listing.files if name.endswith(WEIGHTS) and not BESIDE.match(name)]


def also_there(listing: Listing) -> list[Note]:
    """A note on a checkpoint of DeepSpeed beside the weights."""
    if not deepspeed.is_deepspeed(listing.files, listing.folders):
        return []
    steps = [name for name in listing.folders if deepspeed.STEP.match(name)] or ["."]
    message = f"a DeepSpeed checkpoint lies beside the weights, and is not shown: {steps[-1]}"
    return [note("folder-has-more", steps[-1], message)]


# -- nothing, or too much ------------------------------------------------------------------------


def several(listing: Listing, names: Sequence[str]) -> TargetError:
    """The error of a folder with more than one checkpoint."""
    return TargetError(
        f"{listing.path}: a folder with {len(names):,} checkpoints: {first_names([*names])}",
        f"name one of them: {os.path.join(listing.path, names[0])}",
    )


def nothing_in(listing: Listing) -> TargetError:
    """The error of a folder without a checkpoint: what it is, or where to look."""
    what, step = what_folder_it_is(listing.files, listing.folders)
    if MEGATRON_LATEST in listing.files:
        what, step = megatron_run(listing)
    if what:
        return TargetError(f"{listing.path}: {what}", step)
    below = [name for name in listing.folders[:1000] if holds_checkpoint(listing.path, name)]
    if below:
        return TargetError(
            f"{listing.path}: no checkpoint in this folder, but in: {first_names(below, 5)}",
            f"name one of them: {os.path.join(listing.path, below[0])}",
        )
    return TargetError(
        f"{listing.path}: a folder without a checkpoint in it", "name the file itself"
    )


def megatron_run(listing: Listing) -> tuple[str, str]:
    """What the folder of a Megatron run is, and which of the folders below it to name."""
    with open_reader(os.path.join(listing.path, MEGATRON_LATEST)) as reader:
        latest = reader.head(MAX_LATEST).decode("utf-8", "replace").strip()
    name = f"iter_{int(latest):07d}" if latest.isdecimal() else latest
    if name not in listing.folders:
        return (
            f"the folder of a Megatron run, without its latest iteration: {name!r}",
            "copy it here",
        )
    step = os.path.join(listing.path, name)
    ranks = [rank for rank in list_folder(step).folders if holds_checkpoint(step, rank)]
    what = f"the folder of a Megatron run, whose latest checkpoint lies in {name}"
    if not ranks:
        return what, f"name its folder: {step}"
    return what, f"name a rank: {os.path.join(step, ranks[0])}"


def holds_checkpoint(folder: str, name: str) -> bool:
    """True when the folder below looks like one that can be read."""
    try:
        below = list_folder(os.path.join(folder, name))
    except TargetError:
        return False
    known = dcp.METADATA in below.files or any(name in below.files for name in WELL_KNOWN)
    is_zero = deepspeed.is_deepspeed(below.files, below.folders)
    return known or is_zero or bool(weights_in(below))
