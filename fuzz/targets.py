"""What is fuzzed: `TARGETS`, each a function of bytes. Only modtool's own errors may come out.

To add one: its line in `TARGETS`, and for a new format its sample in `tests/formats/samples.py`.
"""

import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from modtool.errors import CorruptFileError, ModtoolError
from modtool.formats.foreign import what_it_is
from modtool.pickles.contents import contents_of
from modtool.pickles.reader import read_pickle
from modtool.pickles.torch_objects import StorageId, Tensors
from modtool.pickles.writer import write_pickle
from modtool.records import Storage
from tests.formats.looking import look_at, plan_all

__all__ = ["TARGETS", "Function", "Target"]

Function = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Target:
    """What one fuzzer runs.

    Attributes:
        make: From the folder with the other files of a sample, the function of bytes.
        samples: Keys of `tests.formats.samples.SAMPLES` whose damaged file is a seed.
    """

    make: Callable[[Path], Function]
    samples: tuple[str, ...]


def checkpoint(name: str = "x", opened: str = "x") -> Callable[[Path], Function]:
    """Write the bytes to a file of that name, and look at what is opened."""

    def make(others: Path) -> Function:
        folder = Path(tempfile.mkdtemp(prefix="modtool-fuzz-"))
        for other in others.rglob("*"):
            if other.is_file():
                copy = folder / other.relative_to(others)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(other.read_bytes())
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)

        def run(data: bytes) -> None:
            path.write_bytes(data)
            with suppress(ModtoolError):
                plan_all(look_at(folder / opened))

        return run

    return make


def pickled(others: Path) -> Function:
    """The bytes are a pickle: read it, find its tensors, and write it back."""

    def run(data: bytes) -> None:
        with suppress(ModtoolError):
            found = read_pickle(data)
            tensors = Tensors(storage_of_any_size)
            with suppress(ModtoolError):
                contents_of(found.root, tensors, 40 * len(data) + 10_000)
            read_pickle(write_pickle(found.root))

    return run


def storage_of_any_size(identifier: StorageId) -> Storage:
    """Every storage is there, and has the size that the pickle says."""
    if identifier.nbytes > 1 << 40:
        raise CorruptFileError("a storage of no possible size")
    return Storage(identifier.key, identifier.nbytes, identifier.location)


def foreign(others: Path) -> Function:
    """The bytes are the head of some file, which is named for what it is."""

    def run(data: bytes) -> None:
        what_it_is(data, len(data))

    return run


TORCH_ZIP = ("torch-zip: state_dict", "torch-zip: checkpoint", "torch-zip: full model")
LEGACY = ("torch-legacy: state_dict", "torch-legacy: full model")
SCRIPT = ("torchscript", "torchscript: mobile", "torchscript: model.json")
STATES = "global_step7/mp_rank_00_model_states.pt"

TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        "pickle": Target(pickled, ("pickles",)),
        "torch-zip": Target(checkpoint(), TORCH_ZIP),
        "torch-legacy": Target(checkpoint(), LEGACY),
        "torch-tar": Target(checkpoint(), ("torch-tar",)),
        "torchscript": Target(checkpoint(), SCRIPT),
        "torch-package": Target(checkpoint(), ("torch-package",)),
        "safetensors": Target(checkpoint(), ("safetensors",)),
        "index": Target(checkpoint("x.index.json", "x.index.json"), ("sharded: index",)),
        "dcp": Target(checkpoint(".metadata", ""), ("dcp",)),
        "deepspeed": Target(checkpoint(STATES, ""), ("deepspeed",)),
        "gguf": Target(checkpoint(), ("gguf",)),
        "npy": Target(checkpoint(), ("npy",)),
        "npz": Target(checkpoint(), ("npz",)),
        "foreign": Target(foreign, TORCH_ZIP + LEGACY + SCRIPT),
    }
)
