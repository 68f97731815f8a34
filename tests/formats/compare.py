"""Tensors of a checkpoint, read byte by byte, against those that torch itself loads."""

from collections.abc import Iterable, Mapping

import torch

from modtool.records import Checkpoint, FileRange, Storage, TensorInfo


def stored(storage: Storage) -> bytes:
    """The bytes of a storage, from where the record says that they lie."""
    if isinstance(storage.data, FileRange):
        with open(storage.data.path, "rb") as file:
            file.seek(storage.data.offset)
            data = file.read(storage.data.length)
        assert len(data) == storage.nbytes
        return data
    assert isinstance(storage.data, memoryview)
    return bytes(storage.data)


def raw(tensor: torch.Tensor) -> bytes:
    """The elements of a tensor in row-major order, as bytes."""
    plain = tensor.detach().int_repr() if tensor.is_quantized else tensor.detach()
    flat = plain.contiguous().reshape(-1)
    return bytes(flat.view(torch.uint8).numpy()) if flat.numel() else b""


def elements(info: TensorInfo) -> bytes:
    """The elements of a described tensor in row-major order, as bytes."""
    assert info.storage is not None
    size = info.nbytes // max(info.numel, 1)
    data = torch.frombuffer(bytearray(stored(info.storage)) or bytearray(1), dtype=torch.uint8)
    if not info.numel:
        return b""
    stride = info.stride or torch.empty(info.shape, device="meta").stride()
    steps = [step * size for step in stride]
    return raw(data.as_strided([*info.shape, size], [*steps, 1], info.offset * size))


def assert_same(tensors: Iterable[TensorInfo], state: Mapping[str, torch.Tensor]) -> None:
    """Names, order, dtypes, shapes, strides and bytes are those of a state_dict."""
    infos = list(tensors)
    assert [info.name for info in infos] == list(state)
    for info in infos:
        tensor = state[info.name]
        assert info.dtype == str(tensor.dtype).removeprefix("torch."), info.name
        assert info.shape == tuple(tensor.shape), info.name
        assert elements(info) == raw(tensor), info.name


def persistent(checkpoint: Checkpoint) -> list[TensorInfo]:
    """What `state_dict()` would have."""
    return [tensor for tensor in checkpoint.tensors if tensor.persistent]
