"""A live model as a `Checkpoint`: the same noun that a file becomes."""

import ctypes
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from modtool.errors import a_kind
from modtool.live.blame import is_of_torch
from modtool.live.fake import is_fake, is_uninitialized
from modtool.live.sensitive import is_mode_sensitive
from modtool.live.settings import settings_of, type_of
from modtool.live.walk import hidden_objects, modules_by_path, training_flag
from modtool.notes import first_names, note
from modtool.records import (
    DTYPES,
    Checkpoint,
    ModuleNode,
    Note,
    Role,
    Storage,
    TensorInfo,
    contiguous_stride,
)

__all__ = ["checkpoint_of", "nodes"]


Modules = Mapping[str, nn.Module]
"""Every module under each of its paths."""

Entry = tuple[torch.Tensor, Role, bool]
"""A tensor, its role, and whether `state_dict()` has it."""


def checkpoint_of(
    model: nn.Module,
    target: str,
    *,
    device: str = "meta",
    values: bool = True,
    lazy: bool = False,
) -> Checkpoint:
    """Every tensor and module of a live model; nothing is copied.

    Args:
        model: Any model; its tensors may be real, fake or on the meta device.
        target: What the user named.
        device: What tensors on the meta device are described as: where a definition that was built
            there to save memory would have put them.
        values: Whether the storages are to give the bytes; a description alone is quicker.
        lazy: Whether to list tensors that have no shape yet: as (0,), as they are in a file.

    Returns:
        A checkpoint of format `python`. Tensors stand in the order of `state_dict()`, buffers that
        it leaves out among them. The bytes of tensors on the CPU are views of the model's own.
    """
    modules = dict(modules_by_path(model))
    saved, failed = ({}, ()) if saves_as_registered(modules) else saved_state(model)
    entries = tensors_by_name(modules, saved)
    storages = Storages(device, values)
    return Checkpoint(
        target=target,
        format="python",
        kind="model",
        tensors=tuple(
            storages.describe(name, tensor, role, persistent)
            for name, (tensor, role, persistent) in entries.items()
            if lazy or not is_uninitialized(tensor)
        ),
        modules=tuple(nodes(modules)),
        notes=(*unregistered(modules), *uninitialized(entries), *unseen(saved, entries), *failed),
    )


def nodes(modules: Modules) -> Iterator[ModuleNode]:
    """A node for every path; a module's later paths are aliases of its first."""
    first: dict[int, str] = {}
    for path, module in modules.items():
        kind = type(module)
        known = first.setdefault(id(module), path)
        yield ModuleNode(
            path=path,
            type=type_of(module),
            settings=settings_of(module),
            training=training_flag(module),
            class_name=f"{kind.__module__}.{kind.__qualname__}",
            alias_of=None if known == path else known,
            mode_sensitive=is_mode_sensitive(module),
            takes_extra_state=kind.set_extra_state is not nn.Module.set_extra_state,
            loads_itself=loads_itself(module),
        )


def loads_itself(module: nn.Module) -> bool:
    """True when code that is not torch's takes part in load_state_dict: a method, or a hook."""
    attributes = vars(module)
    own = [attributes[name] for name in LOADING if name in attributes]
    for kind in LOADING_HOOKS:
        for hook in attributes.get(kind, {}).values():
            inner = getattr(hook, "hook", hook)  # torch wraps it
            own.append(getattr(inner, "func", inner))  # it may be a partial
    plainly = loads_plainly(type(module))  # type: ignore[arg-type]
    return not plainly or not all(map(is_of_torch, own))


@functools.cache
def loads_plainly(kind: type[nn.Module]) -> bool:
    """True for a class that leaves `load_state_dict()` to torch's classes."""
    return all(is_of_torch(getattr(kind, name)) for name in LOADING)


LOADING = ("load_state_dict", "_load_from_state_dict")
LOADING_HOOKS = ("_load_state_dict_pre_hooks", "_load_state_dict_post_hooks")


def tensors_by_name(modules: Modules, state: Mapping[str, object]) -> dict[str, Entry]:
    """Every parameter and buffer by name, in the order of `state_dict()`."""
    registered = {
        name: entry for path, module in modules.items() for name, entry in own(path, module)
    }
    saved = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    if not state or list(saved) == [name for name, entry in registered.items() if entry[2]]:
        return registered
    roles = {id(tensor): role for tensor, role, _ in registered.values()}
    entries: dict[str, Entry] = {
        name: (tensor, roles.get(id(tensor), "tensor"), True) for name, tensor in saved.items()
    }
    left_out = {name: entry for name, entry in registered.items() if not entry[2]}
    return entries | left_out


def own(path: str, module: nn.Module) -> Iterator[tuple[str, Entry]]:
    """The parameters and buffers that a module itself holds."""
    prefix = f"{path}." if path else ""
    for name, parameter in module._parameters.items():
        if parameter is not None:
            yield prefix + name, (parameter, "parameter", True)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            persistent = name not in module._non_persistent_buffers_set
            yield prefix + name, (buffer, "buffer", persistent)


def saves_as_registered(modules: Modules) -> bool:
    """True where `state_dict()` can hold nothing but what is registered, in that order."""
    once = len(set(map(id, modules.values()))) == len(modules)
    return once and all(
        saves_plainly(type(module))  # type: ignore[arg-type]
        and not (module._state_dict_hooks or module._state_dict_pre_hooks)
        and "state_dict" not in vars(module)
        for module in modules.values()
    )


@functools.cache
def saves_plainly(kind: type[nn.Module]) -> bool:
    """True for a class that leaves `state_dict()` to nn.Module."""
    return all(getattr(kind, name) is getattr(nn.Module, name) for name in SAVING)


SAVING = ("state_dict", "_save_to_state_dict", "get_extra_state", "__getattribute__")


def saved_state(model: nn.Module) -> tuple[Mapping[str, object], tuple[Note, ...]]:
    """What `state_dict()` gives, which is the model's own idea; {} and a note where it raises."""
    try:
        return dict(model.state_dict(keep_vars=True)), ()
    except Exception as error:
        message = f"state_dict() raised {type(error).__name__}: {error}"
        return {}, (note("state-dict-failed", "", message),)


class Storages:
    """Describes tensors, and gives those that share bytes the same storage."""

    def __init__(self, meta: str, values: bool) -> None:
        self.meta = meta
        self.values = values
        self.known: dict[int, Storage] = {}

    def describe(self, name: str, tensor: torch.Tensor, role: Role, persistent: bool) -> TensorInfo:
        """One tensor under one name."""
        lazy = is_uninitialized(tensor)
        shape = shape_of(tensor)
        storage = None if lazy or tensor.is_nested else self.storage(tensor)
        strided = storage is not None
        stride = tuple(tensor.stride()) if strided else None
        return TensorInfo(
            name=name,
            dtype=str(tensor.dtype).removeprefix("torch."),
            shape=shape,
            storage=storage,
            offset=int(tensor.storage_offset()) if strided else 0,
            stride=None if stride == contiguous_stride(shape) else stride,
            role=role,
            requires_grad=tensor.requires_grad,
            layout=layout_of(tensor),
            persistent=persistent,
            device=None if strided else self.location(tensor),
            stored_bytes=None if strided or lazy else bytes_of(tensor),
            parts=() if strided else (id(tensor),),
        )

    def location(self, tensor: torch.Tensor) -> str:
        """The device that a tensor is described as being on."""
        return self.meta if tensor.is_meta else str(tensor.device)

    def storage(self, tensor: torch.Tensor) -> Storage | None:
        """The storage of a strided tensor; None where its bytes are not one plain storage."""
        try:
            storage = tensor.untyped_storage()
        except (NotImplementedError, RuntimeError):
            return None
        known = self.known.get(storage._cdata)
        if known is None:
            data = bytes_in(storage) if self.values and not is_fake(tensor) else None
            key = str(len(self.known))
            known = Storage(key, storage.nbytes(), self.location(tensor), data)
            self.known[storage._cdata] = known
        return known


def shape_of(tensor: torch.Tensor) -> tuple[int, ...]:
    """The shape, as a file has it: of a nested tensor, how many components there are."""
    if is_uninitialized(tensor):
        return (0,)
    return (tensor.size(0),) if tensor.is_nested else tuple(tensor.shape)


def layout_of(tensor: torch.Tensor) -> str:
    """`strided`, or what else the tensor is."""
    if is_uninitialized(tensor):
        return "uninitialized"
    if tensor.is_quantized:
        return "quantized"
    if tensor.is_nested and tensor.layout is torch.strided:
        return "nested"
    return str(tensor.layout).removeprefix("torch.")


def bytes_of(tensor: torch.Tensor) -> int:
    """Bytes that a tensor without a plain storage takes: those of its parts."""
    if tensor.layout is torch.sparse_coo:
        parts = [tensor._indices(), tensor._values()]
    elif tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        parts = [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    elif tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        parts = [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    else:
        return (tensor.numel() * DTYPES[str(tensor.dtype).removeprefix("torch.")].bits + 7) // 8
    return sum(part.numel() * part.element_size() for part in parts)


def bytes_in(storage: torch.UntypedStorage) -> memoryview:
    """The bytes of a storage, read-only, without a copy where it lies in main memory."""
    held: Any = storage if storage.device.type == "cpu" else storage.cpu()  # type: ignore[no-untyped-call]
    if held.nbytes() == 0:
        return memoryview(b"")
    kind: Any = type("Bytes", (ctypes.c_ubyte * held.nbytes(),), {})
    window = kind.from_address(held.data_ptr())
    # The view keeps the window alive, and the window the storage.
    window.storage = held
    return memoryview(window).cast("B").toreadonly()


def unregistered(modules: Modules) -> Iterator[Note]:
    """A note for every attribute whose container hides modules or parameters from PyTorch."""
    known = set(map(id, modules.values()))
    known |= {id(each) for module in modules.values() for each in module._parameters.values()}
    seen: set[int] = set()
    for path, module in modules.items():
        if id(module) in seen:
            continue
        seen.add(id(module))
        hidden: dict[str, list[nn.Module | nn.Parameter]] = {}
        for name, found in hidden_objects(module):
            if id(found) not in known:
                hidden.setdefault(name, []).append(found)
        for name, objects in hidden.items():
            yield unregistered_note(f"{path}.{name}" if path else name, module, name, objects)


def unregistered_note(
    where: str, module: nn.Module, name: str, objects: list[nn.Module | nn.Parameter]
) -> Note:
    """What a plain container hides, and what to use in its place."""
    container = type(getattr(module, name)).__name__
    # A parameter that was built without bytes has a type of torch's own.
    names = (
        type(each).__name__ if isinstance(each, nn.Module) else "Parameter" for each in objects
    )
    kinds = ", ".join(dict.fromkeys(names))
    modules = any(isinstance(each, nn.Module) for each in objects)
    plain = "Module" if modules else "Parameter"
    proper = f"nn.{plain}Dict" if container == "dict" else f"nn.{plain}List"
    count = f"{len(objects)} {plain.lower()}{'s' if len(objects) > 1 else ''}"
    return note(
        "unregistered-module",
        where,
        f"`{name}` is a plain {container} that holds {count} ({kinds}): parameters(), state_dict() "
        "and to() do not see what is in it",
        f"use {proper}",
    )


def uninitialized(entries: Mapping[str, Entry]) -> Iterator[Note]:
    """A note for all lazy tensors that have no shape yet."""
    lazy = [name for name, (tensor, _, _) in entries.items() if is_uninitialized(tensor)]
    if lazy:
        message = f"lazy, without a shape before the first forward pass: {first_names(lazy)}"
        yield note("uninitialized-parameter", lazy[0], f"{message}; not counted")


def unseen(saved: Mapping[str, object], entries: Mapping[str, Entry]) -> Iterator[Note]:
    """A note for every entry of `state_dict()` that is no tensor."""
    for name, value in saved.items():
        if name not in entries:
            message = f"state_dict() holds {a_kind(value)} here, not a tensor"
            yield note("not-a-tensor", name, message)
