"""Files that are no checkpoints, named for what they are, with the step to take."""

__all__ = ["what_it_is"]

# First bytes -> (what it is, what to do). Longer beginnings come first.
BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a Git-LFS pointer, not the file itself", "run: git lfs pull"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras)", "load it in Keras and save its weights"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first: 7z x FILE"),
    (b"\x1f\x8b", "a gzip file", "unpack it first: gunzip FILE"),
    (b"BZh", "a bzip2 file", "unpack it first: bunzip2 FILE"),
    (b"\xfd7zXZ\x00", "an xz file", "unpack it first: unxz FILE"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file", "unpack it first: unzstd FILE"),
    (b"\x93NUMPY", "a NumPy array", "this release does not read .npy files"),
    (b"GGUF", "a GGUF file", "this release does not read GGUF files"),
    (b"\x78\x5e", "a compressed joblib file", "load it with joblib.load where you trust it"),
    (b"<", "an HTML or XML page, perhaps an error page", "download the file itself"),
    (b"{", "a JSON text", "name the checkpoint that it belongs to"),
    (b"\x80", "a plain pickle, or a torch file of before 1.6", "torch.load and torch.save it anew"),
)


def what_it_is(head: bytes, size: int) -> tuple[str, str]:
    """What a file that no format reads is, and what to do about it."""
    if not size:
        return "an empty file", "was the download or the save interrupted?"
    for beginning, what, step in BEGINNINGS:
        if head.startswith(beginning):
            return what, step
    if is_text(head):
        return "a text file, not a checkpoint", "a model definition is a file that ends in .py"
    return "no format that modtool knows", "see `modtool summary --help` for what it reads"


def is_text(head: bytes) -> bool:
    """True when the bytes are UTF-8 without control characters."""
    try:
        text = head[: len(head) - 4 if len(head) > 100 else None].decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\n\r\t\f" for character in text)
