"""Archives as `torch.save` lays them out, with anything in them."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

__all__ = [
    "HOOKS",
    "archive",
    "get",
    "module",
    "number",
    "numbers",
    "put",
    "storage",
    "tensor",
    "text",
    "torch_file",
]

TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
HOOKS = b"ccollections\nOrderedDict\n)R"


def number(value: int) -> bytes:
    """A number of any size."""
    size = (value.bit_length() + 8) // 8
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def text(value: str) -> bytes:
    """A text of any size."""
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + len(data).to_bytes(4, "little") + data


def storage(
    key: str | bytes = "0",
    numel: int | bytes = 4,
    kind: str = "torch\nFloatStorage",
    place: str | bytes = "cpu",
) -> bytes:
    """The persistent id of a storage; bytes stand for themselves."""
    parts = [part if isinstance(part, bytes) else text(part) for part in (key, place)]
    count = numel if isinstance(numel, bytes) else number(numel)
    return b"(" + text("storage") + f"c{kind}\n".encode() + b"".join(parts) + count + b"tQ"


def numbers(values: tuple[int, ...]) -> bytes:
    """A tuple of numbers."""
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(
    shape: tuple[int, ...] = (4,),
    stride: tuple[int, ...] = (1,),
    offset: int = 0,
    store: bytes = b"",
) -> bytes:
    """A call that makes a tensor."""
    return (
        (TENSOR + b"(" + (store or storage()) + number(offset) + numbers(shape) + numbers(stride))
        + b"\x89"
        + HOOKS
        + b"tR"
    )


def put(index: int) -> bytes:
    """Store the top of the stack in the memo."""
    return b"r" + index.to_bytes(4, "little")


def get(index: int) -> bytes:
    """Push what the memo has."""
    return b"j" + index.to_bytes(4, "little")


def module(
    children: bytes, parameters: bytes = b"", more: bytes = b"", kind: str = "pkg\nNet"
) -> bytes:
    """A module with children (keys and items)."""
    members = b"}" + (b"(" + children + b"u" if children else b"")
    own = b"}" + (b"(" + parameters + b"u" if parameters else b"")
    state = text("_parameters") + own + text("_buffers") + b"}" + text("_modules") + members
    mode = text("training") + b"\x88"
    return f"c{kind}\n".encode() + b")\x81}(" + mode + state + more + b"ub"


def archive(
    pickle: bytes,
    records: Mapping[str, bytes] | None = None,
    *,
    deflate: bool = False,
    root: str = "archive",
) -> bytes:
    """An archive with a pickle and records; without any, one storage of four floats."""
    stream = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
    with zipfile.ZipFile(stream, "w", method) as made:
        made.writestr(f"{root}/data.pkl", pickle)
        made.writestr(f"{root}/byteorder", b"little")
        for name, data in ({"data/0": bytes(16)} if records is None else records).items():
            made.writestr(f"{root}/{name}", data)
        made.writestr(f"{root}/version", b"3\n")
    return stream.getvalue()


def torch_file(path: Path, pickle: bytes, records: Mapping[str, bytes] | None = None) -> Path:
    """Write an archive with a pickle in it."""
    path.write_bytes(archive(b"\x80\x02" + pickle + b".", records))
    return path
