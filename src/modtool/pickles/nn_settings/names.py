"""Which of torch's classes a qualified name means, wherever its release of torch kept it."""

__all__ = ["room_and_class"]

# Until torch 1.13 what is now `torch.ao.nn` was a part of `torch.nn`.
MOVED = tuple(f"torch.nn.{part}." for part in ("quantized", "quantizable", "qat", "intrinsic"))


def room_and_class(class_name: str) -> tuple[str, str]:
    """The room of torch that a class belongs to, and the class's own name.

    Returns:
        ("", "Linear") for a class of `torch.nn`, in whatever file of it; ("quantized.dynamic",
        "Linear") for one of `torch.ao.nn`; ("?", "") for one that is not torch's.
    """
    module, _, name = class_name.rpartition(".")
    if class_name.startswith(MOVED):
        return room_of(module.removeprefix("torch.nn.")), name
    if class_name.startswith("torch.nn."):
        return "", name
    if class_name.startswith("torch.ao.nn."):
        return room_of(module.removeprefix("torch.ao.nn.")), name
    return "?", ""


def room_of(module: str) -> str:
    """`quantized` from `quantized.modules.linear`, `sparse.quantized` from its own `….linear`."""
    room, found, _ = module.partition(".modules")
    return room if found else module.rpartition(".")[0]
