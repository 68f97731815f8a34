"""TorchScript archives: what `torch.jit.save` and the mobile exporters write.

A torch zip whose `data.pkl` holds objects of classes that `code/` defines; the tensors that the
code itself needs lie in `constants.pkl`. Layout: torch 2.13,
`torch/csrc/jit/serialization/{export_module,import}.cpp`.
"""

from dataclasses import replace

from modtool.formats import torchscript_json
from modtool.formats.archive_storages import (
    ArchiveStorages,
    archive_root,
    byteorder,
    stray_bytes,
    text_of,
)
from modtool.formats.files import Reader
from modtool.formats.torchscript_code import ScriptCode, read_code
from modtool.formats.torchscript_tree import MAX_PLACES, ScriptTree, constants_of
from modtool.formats.zip_directory import Directory, read_member
from modtool.pickles.reader import Pickle, read_pickle
from modtool.pickles.torch_objects import Tensors
from modtool.records import Checkpoint, ModuleNode, Storage, TensorInfo

__all__ = ["NAME", "SUFFIXES", "claims", "read_archive", "read_script"]

NAME = "torchscript"
SUFFIXES = (".pt", ".jit", ".ptl", ".pth", ".torchscript", ".zip")

MAX_PICKLE = 1 << 30
MAX_EXTRA = 10_000
MAX_EXTRAS = 1_000_000
PICKLES = ("data.pkl", "constants.pkl", "bytecode.pkl", "traced_inputs.pkl")


def claims(directory: Directory) -> bool:
    """True for an archive with `constants.pkl`, which is how torch itself knows it, or older."""
    root = archive_root(directory)
    return any(f"{root}/{name}" in directory.members for name in ("constants.pkl", "model.json"))


def read_archive(reader: Reader, directory: Directory) -> Checkpoint:
    """Read an archive from its directory, its pickles and its code.

    Raises:
        CorruptFileError: It contradicts itself.
    """
    root = archive_root(directory)
    if f"{root}/model.json" in directory.members:
        return torchscript_json.read_archive(reader, directory)
    code = read_code(reader, directory, f"{root}/code")
    pickles = read_pickles(reader, directory, root)
    storages: dict[str, Storage] = {}
    modules, tensors = read_script(reader, directory, root, code, pickles, storages)
    return Checkpoint(
        target=reader.path,
        format=NAME,
        kind="full_model",
        tensors=tensors,
        modules=modules,
        metadata=metadata_of(reader, directory, root),
        notes=tuple(stray_bytes(directory)),
        storages=storages,
        sources=code.sources,
        pickles=pickles,
        callables=tuple(code.callables("code")),
    )


def read_pickles(reader: Reader, directory: Directory, root: str) -> dict[str, Pickle]:
    """Every pickle that a load reads, by name."""
    found: dict[str, Pickle] = {}
    for name in PICKLES:
        member = directory.members.get(f"{root}/{name}")
        if member is not None:
            data = read_member(reader, member, MAX_PICKLE)
            found[name] = read_pickle(data, where=f"{reader.path}: {name}")
    return found


def read_script(
    reader: Reader,
    directory: Directory,
    root: str,
    code: ScriptCode,
    pickles: dict[str, Pickle],
    storages: dict[str, Storage],
    folders: tuple[str, str] = ("data", "constants"),
    among: int = 1,
) -> tuple[tuple[ModuleNode, ...], tuple[TensorInfo, ...]]:
    """The tree and the tensors of one module.

    Args:
        reader: The file.
        directory: Its directory.
        root: Its folder.
        code: Its code.
        pickles: `data.pkl` and `constants.pkl`, where they are.
        storages: Where to put the storages that are found.
        folders: Where the storages of the two lie.
        among: How many modules of one file share what a walk may cost.
    """
    order = byteorder(reader, directory)
    found: list[TensorInfo] = []
    nodes: tuple[ModuleNode, ...] = ()
    if "data.pkl" in pickles:
        place = ArchiveStorages(reader, directory, f"{root}/{folders[0]}", order, found=storages)
        tree = ScriptTree(Tensors(place.find), code, left=MAX_PLACES // among)
        found.extend(tree.walk(pickles["data.pkl"].root))
        nodes = tuple(tree.nodes)
    if "constants.pkl" in pickles:
        prefix = f"{folders[1]}/" if folders[0] != folders[1] else ""
        place = ArchiveStorages(
            reader, directory, f"{root}/{folders[1]}", order, prefix=prefix, found=storages
        )
        found.extend(constants_of(pickles["constants.pkl"].root, Tensors(place.find)))
    return nodes, tuple(with_roles(found))


def with_roles(tensors: list[TensorInfo]) -> list[TensorInfo]:
    """Beside parameters, other tensors are none; without any, nobody can tell (a frozen module)."""
    if not any(tensor.role == "parameter" for tensor in tensors):
        return tensors
    return [
        replace(tensor, role="buffer") if tensor.role == "tensor" else tensor for tensor in tensors
    ]


def metadata_of(reader: Reader, directory: Directory, root: str) -> dict[str, str]:
    """The archive's version, and the short texts that the user put beside the module."""
    left = MAX_EXTRAS
    found = {"version": (text_of(reader, directory, f"{root}/version") or "").strip()}
    for name, member in directory.members.items():
        if name.startswith(f"{root}/extra/") and member.size <= min(MAX_EXTRA, left):
            left -= member.size
            text = text_of(reader, directory, name) or ""
            if "\0" not in text:
                found[name.removeprefix(f"{root}/")] = text
    return {name: text for name, text in found.items() if text}
