"""The zip that `torch.save` has written since torch 1.6: `data.pkl`, and a record per storage.

Layout: formats as torch 2.13 writes them (`torch/serialization.py`, `caffe2/serialize`).
"""

from modtool.errors import UnknownFormatError
from modtool.formats.archive_storages import ArchiveStorages, archive_root, byteorder, stray_bytes
from modtool.formats.files import Reader
from modtool.formats.zip_directory import Directory, read_directory, read_member
from modtool.pickles.contents import contents_of
from modtool.pickles.reader import read_pickle
from modtool.pickles.sources import traced_code
from modtool.pickles.torch_objects import Tensors
from modtool.records import Checkpoint

__all__ = ["NAME", "SUFFIXES", "claims", "read", "read_archive", "sniff"]

NAME = "torch-zip"
SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".tar", ".pkl", ".model")

MAX_PICKLE = 2 << 30


def sniff(head: bytes) -> bool:
    """True for a zip archive of any kind."""
    return head.startswith(b"PK\x03\x04")


def read(reader: Reader, most: int = MAX_PICKLE) -> Checkpoint:
    """Read a file that is known to be one that `torch.save` wrote.

    Args:
        reader: The file.
        most: How many bytes its pickle may have.

    Raises:
        UnknownFormatError: A zip archive of another kind.
        CorruptFileError: It contradicts itself.
    """
    directory = read_directory(reader)
    if not claims(directory):
        raise UnknownFormatError(
            f"{reader.path}: a zip archive, but not one that torch.save wrote (no data.pkl)",
            "unpack it and look for the checkpoint inside",
        )
    return read_archive(reader, directory, most=most)


def claims(directory: Directory) -> bool:
    """True when the one folder of the archive holds `data.pkl`."""
    return f"{archive_root(directory)}/data.pkl" in directory.members


def read_archive(
    reader: Reader, directory: Directory, *, lost: bool = False, most: int = MAX_PICKLE
) -> Checkpoint:
    """Read a file that `torch.save` wrote, from its directory and `data.pkl` alone.

    Args:
        reader: The file.
        directory: Its directory.
        lost: Whether records may be missing: their storages get no data.
        most: How many bytes its pickle may have.

    Raises:
        CorruptFileError: It contradicts itself.
    """
    root = archive_root(directory)
    data = read_member(reader, directory.members[f"{root}/data.pkl"], most)
    pickle = read_pickle(data, where=f"{reader.path}: data.pkl")
    order = byteorder(reader, directory)
    storages = ArchiveStorages(reader, directory, f"{root}/data", order, lost=lost)
    tensors = Tensors(storages.find)
    for symbol in pickle.persistent_ids:  # in their order, and also those that no tensor views
        tensors.located_storage(symbol)
    contents = contents_of(pickle.root, tensors, 40 * len(data) + 10_000)
    return Checkpoint(
        target=reader.path,
        format=NAME,
        kind=contents.kind,
        tensors=contents.tensors,
        modules=contents.modules,
        sections=contents.sections,
        values=contents.values,
        notes=(*stray_bytes(directory), *contents.notes),
        root=pickle.root,
        storages=storages.found,
        sources=traced_code(pickle),
        pickles={"data.pkl": pickle},
    )
