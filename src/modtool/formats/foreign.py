"""Files and folders that are no checkpoints, named for what they are, with the step to take.

Sources: the signatures in each format's own specification; protobuf field numbers from
`onnx.proto`, `saved_model.proto`, `graph.proto` and `Model.proto` (Core ML); the members of `.pt2`
from torch 2.13, `torch/export/pt2_archive/constants.py`, and `torch.export.load` for older ones.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

__all__ = ["what_archive_it_is", "what_folder_it_is", "what_it_is"]

DOWNLOAD = "download or copy it again"
KERAS = "load it in Keras, and save its weights as a PyTorch state_dict"
TENSORFLOW = "load it in TensorFlow, and save its weights as a PyTorch state_dict"
FLAX = "load it with transformers, from_flax=True, and save it as safetensors"
PICKLE = "load it with pickle.load where you trust it, and save its tensors with torch.save"
JOBLIB = "load it with joblib.load where you trust it, and save its arrays with numpy.savez"
SCIKIT = "it holds no torch tensors; joblib.load or pickle.load read it where you trust it"
EXPORTED = (
    "take its weights, where you trust it: torch.save(torch.export.load(FILE).state_dict, OUT)"
)
FLATBUFFER = "load it where you trust it: torch.jit.jit_module_from_flatbuffer(FILE).save(OUT)"

What = tuple[str, str]
"""What it is, and what to do about it."""

# First bytes -> what. Longer beginnings come first.
BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a Git-LFS pointer, not the file itself", "run: git lfs pull"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras)", KERAS),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first: 7z x FILE"),
    (b"Rar!\x1a\x07", "a RAR archive", "unpack it first: unrar x FILE"),
    (b"\x1f\x8b", "a gzip file", "unpack it first: gunzip FILE, or tar -xzf FILE"),
    (b"BZh", "a bzip2 file", "unpack it first: bunzip2 FILE"),
    (b"\xfd7zXZ\x00", "an xz file", "unpack it first: unxz FILE"),
    (b"]\x00\x00", "an LZMA file", "unpack it first: unlzma FILE"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file", "unpack it first: unzstd FILE"),
    (b"\x04\x22\x4d\x18", "an LZ4 file", "unpack it first: unlz4 FILE"),
    (b"PK\x05\x06", "an empty zip archive", "was it written to the end? an .npz can be empty too"),
    (b"PK\x07\x08", "a zip archive in several parts", "join the parts first: zip -s 0"),
    (b"lmgg", "a GGML file of before GGUF", "convert it to GGUF with llama.cpp's own script"),
    (b"tjgg", "a GGML file of before GGUF", "convert it to GGUF with llama.cpp's own script"),
    (b"fmgg", "a GGML file of before GGUF", "convert it to GGUF with llama.cpp's own script"),
    (b"SQLite format 3\x00", "an SQLite database", "name the checkpoint itself"),
    (b"%PDF-", "a PDF document", "name the checkpoint itself"),
    (b"\x89PNG", "a PNG picture", "name the checkpoint itself"),
    (b"\xff\xd8\xff", "a JPEG picture", "name the checkpoint itself"),
    (b"\x7fELF", "a program or library (ELF)", "name the checkpoint itself"),
    (b"ZF", "a joblib file", JOBLIB),
)
# File identifiers of FlatBuffers, which stand after the offset of the root -> what.
FLATBUFFERS: Mapping[bytes, What] = MappingProxyType(
    {
        b"PTMF": ("a TorchScript model for mobile, written as a FlatBuffer", FLATBUFFER),
        b"ET12": ("an ExecuTorch program (.pte)", "name the checkpoint that it was exported from"),
        b"TFL3": ("a TensorFlow Lite model", TENSORFLOW),
    }
)
HTML = re.compile(rb"\s*<(?:!doctype html|html|head|body)", re.IGNORECASE)
# Protocols 0 and 1 declare nothing: a container that is memoised, or a name and its newlines.
OLD_PICKLE = re.compile(rb"\([dl]p\d+\n|[}\]]q\x00|\(i[\w.]+\n|c[\w.]+\n[\w.]+\n")
PRINTABLE = re.compile(rb"[\x20-\x7e]+\Z")


def what_it_is(head: bytes, size: int) -> What:
    """What a file that no format reads is, and what to do about it.

    Args:
        head: Its first bytes, some thousand of them.
        size: All its bytes.
    """
    if not size:
        return "an empty file", "was the download or the save interrupted?"
    for beginning, what, step in BEGINNINGS:
        if head.startswith(beginning):
            return what, step
    for guess in GUESSES:
        found = guess(head)
        if found is not None:
            return found
    return "no format that modtool knows", "see `modtool summary --help` for what it reads"


# -- guesses, each from the first bytes ----------------------------------------------------------


def flatbuffer(head: bytes) -> What | None:
    """A FlatBuffer that says whose it is. Its first byte, an offset, may be that of a text."""
    return FLATBUFFERS.get(head[4:8])


def zeros(head: bytes) -> What | None:
    """Space that was reserved and never written."""
    return None if head.strip(b"\0") else ("nothing but zeros at its beginning", DOWNLOAD)


def page(head: bytes) -> What | None:
    """What a server sends in place of a file."""
    if HTML.match(head):
        return "an HTML page, perhaps an error page", "download the file itself"
    if head.startswith(b"<"):
        return "an XML or HTML text", "download the file itself"
    return None


def pickled(head: bytes) -> What | None:
    """A pickle, plain or of joblib, and not of torch.save."""
    is_binary = head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    if not is_binary and not OLD_PICKLE.match(head):
        return None
    if b"joblib" in head or b"NumpyArrayWrapper" in head:
        return "a joblib file", JOBLIB
    if b"sklearn" in head or b"xgboost" in head or b"lightgbm" in head:
        return "a plain pickle of a scikit-learn or boosting model", SCIKIT
    return "a plain pickle, not written by torch.save", PICKLE


def compressed(head: bytes) -> What | None:
    """zlib, which joblib uses for compress=True."""
    if head[:1] == b"\x78" and head[1:2] in (b"\x01", b"\x5e", b"\x9c", b"\xda"):
        return "a zlib stream: a compressed joblib file, most likely", JOBLIB
    return None


def tar(head: bytes) -> What | None:
    """A tar archive; `.nemo` and TensorFlow's exports are some."""
    if head[257:262] == b"ustar":
        return "a tar archive", "unpack it first: tar -xf FILE, and name the checkpoint inside"
    return None


def protobuf(head: bytes) -> What | None:
    """ONNX, Core ML or TensorFlow: their first fields are a version, or a node of a graph."""
    if head[:1] == b"\x08" and b"\x01" <= head[1:2] <= b"\x7f":
        return versioned(head)
    if head[:1] == b"\x0a" and re.match(rb"\x0a[\s\S]{1,3}\x0a[\s\S][\w/]+\x12[\s\S][A-Z]", head):
        return "a frozen TensorFlow graph", TENSORFLOW
    return None


def versioned(head: bytes) -> What | None:
    """A message whose field 1 is a version: told apart by what comes after it."""
    after, rest = head[2:3], head[4 : 4 + (head[3] if len(head) > 3 else 0)]
    producer = after == b"\x12" and bool(PRINTABLE.match(rest))
    if producer or after in (b"\x1a", b"\x22", b"\x28", b"\x32", b"\x3a", b"\x42"):
        return "an ONNX model", "read it with the onnx package; modtool reads PyTorch's own files"
    if head[1] == 1 and after == b"\x12":
        return "a TensorFlow SavedModel", TENSORFLOW
    if after == b"\x12":
        return "a Core ML model", "read it with the coremltools package"
    return None


def messagepack(head: bytes) -> What | None:
    """A map whose first key is text, which is how Flax saves."""
    at = {0xDE: 3, 0xDF: 5}.get(head[0], 1 if 0x81 <= head[0] <= 0x8F else 0)
    if not at or len(head) < at + 2:
        return None
    kind = head[at]
    begin, length = (at + 1, kind & 31) if 0xA0 < kind < 0xC0 else (at + 2, head[at + 1])
    if (0xA0 < kind < 0xC0 or kind == 0xD9) and PRINTABLE.match(head[begin : begin + length]):
        return "a MessagePack file (Flax)", FLAX
    return None


def text(head: bytes) -> What | None:
    """JSON, Python, or another text."""
    if not is_text(head):
        return None
    stripped = head.lstrip()
    if stripped.startswith((b"{", b"[")):
        return "a JSON text", "name the checkpoint that it belongs to, or its folder"
    if stripped.startswith(b"model_checkpoint_path:"):
        return "the list of a TensorFlow checkpoint", TENSORFLOW
    if re.search(rb"^(?:import|from|class|def) \w", head, re.MULTILINE):
        return "Python source", "a model definition is a file that ends in .py"
    return "a text file, not a checkpoint", "a model definition is a file that ends in .py"


GUESSES = (flatbuffer, zeros, page, pickled, compressed, tar, protobuf, messagepack, text)


def is_text(head: bytes) -> bool:
    """True when the bytes are UTF-8 without control characters."""
    try:
        text = head[: len(head) - 4 if len(head) > 100 else None].decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\n\r\t\f" for character in text)


# -- archives and folders, from the names inside -------------------------------------------------

WEIGHTS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".gguf", ".distcp", ".npz")

# A member that tells -> what. `*` at the beginning stands for anything before.
MEMBERS: tuple[tuple[str, str, str], ...] = (
    ("*/archive_format", "a program of torch.export (.pt2)", EXPORTED),
    ("serialized_exported_program.json", "a program of torch.export (.pt2)", EXPORTED),
    ("MAR-INF/MANIFEST.json", "a TorchServe archive (.mar)", "unzip it: the weights lie inside"),
    ("model.weights.h5", "a Keras model (.keras)", KERAS),
    ("META-INF/MANIFEST.MF", "a Java archive (.jar)", "name the checkpoint itself"),
    ("AndroidManifest.xml", "an Android package (.apk)", "name the checkpoint itself"),
    ("word/document.xml", "a Word document (.docx)", "name the checkpoint itself"),
    ("xl/workbook.xml", "an Excel workbook (.xlsx)", "name the checkpoint itself"),
    ("ppt/presentation.xml", "a PowerPoint file (.pptx)", "name the checkpoint itself"),
    ("*.dist-info/WHEEL", "a Python wheel", "unzip it, or install it, and name what is inside"),
    ("*saved_model.pb", "a TensorFlow SavedModel, zipped", TENSORFLOW),
)
# What torch's writer adds to every archive, also to one that gets nothing else (torch 2.13,
# `caffe2/serialize/inline_container.cc`).
PREAMBLE = re.compile(
    r"[^/]+/(?:version|byteorder|\.format_version|\.storage_alignment|\.data/serialization_id)"
)
# Files and folders that tell -> what.
FOLDERS: tuple[tuple[str, str, str], ...] = (
    ("saved_model.pb", "a TensorFlow SavedModel", TENSORFLOW),
    ("keras_metadata.pb", "a Keras model", KERAS),
    ("_CHECKPOINT_METADATA", "an Orbax checkpoint (JAX)", "load it with orbax.checkpoint"),
    ("manifest.ocdbt", "an Orbax checkpoint (JAX)", "load it with orbax.checkpoint"),
    ("flax_model.msgpack", "a Flax model", FLAX),
    ("tf_model.h5", "a TensorFlow model of transformers", TENSORFLOW),
    ("data.pkl", "an unpacked torch.save archive", "pack it: cd .. && zip -0Dr FILE.pth FOLDER"),
    ("*.index", "a TensorFlow checkpoint", TENSORFLOW),
    ("*.onnx", "a folder with an ONNX model", "read it with the onnx package"),
)


def what_archive_it_is(names: Iterable[str]) -> What:
    """What a zip archive of these members is, and what to do about it."""
    names = list(names)
    found = named(names, MEMBERS)
    if found is not None:
        return found
    if names and all(PREAMBLE.fullmatch(name) for name in names):
        return (
            "what a torch.save that failed or was interrupted leaves: no object, no tensor",
            "save it again, and see what error that torch.save ends with",
        )
    weights = [name for name in names if name.endswith(WEIGHTS)]
    if weights:
        return f"a zip archive that holds {weights[0]}", "unzip it, and name what is inside"
    return (
        "a zip archive, but not one that torch.save wrote (no data.pkl)",
        "unpack it and look for the checkpoint inside",
    )


def what_folder_it_is(files: Collection[str], folders: Collection[str]) -> What:
    """What a folder without a checkpoint is, and what to do about it; empty where unknown."""
    return named((*files, *folders), FOLDERS) or ("", "")


def named(names: Iterable[str], table: Iterable[tuple[str, str, str]]) -> What | None:
    """The first row of a table that one of the names fits."""
    known = set(names)
    for member, what, step in table:
        end = member.removeprefix("*")
        if member in known or (end != member and any(name.endswith(end) for name in known)):
            return what, step
    return None
