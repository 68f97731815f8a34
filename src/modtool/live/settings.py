"""What a module says of itself in `print(model)`, on one line."""

from torch import nn

__all__ = ["settings_of", "type_of"]


def type_of(module: nn.Module) -> str:
    """The name that `print(model)` gives a module: its class name, unless it says otherwise."""
    try:
        return str(module._get_name())  # type: ignore[no-untyped-call]
    except Exception:
        return type(module).__name__


def settings_of(module: nn.Module) -> str:
    """What stands in parentheses in `print(model)`: `in_features=3, out_features=4, bias=True`.

    Sources: `nn.Module.__repr__`, which shows `extra_repr()`; a class with a `__repr__` of its own
    is believed where it writes `Name(settings)` on one line. User code that raises says nothing.
    """
    try:
        if type(module).__repr__ is not nn.Module.__repr__:
            return inside(repr(module))
        return " ".join(module.extra_repr().split())
    except Exception:
        return ""


def inside(text: str) -> str:
    """`Conv1D(nf=6, nx=2)` -> `nf=6, nx=2`."""
    name, parenthesis, rest = text.partition("(")
    single = name.isidentifier() and rest.endswith(")") and "\n" not in text
    return rest[:-1] if parenthesis and single else ""
