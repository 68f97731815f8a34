"""What a pickle says, as inert values.

None, booleans, numbers, text, bytes, lists, tuples, sets and dicts stand for themselves. Everything
that a real unpickler would look up or call is one of the symbols below, and stays one.
Symbols are compared by identity, as the objects they stand for would be.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

__all__ = ["ABSENT", "Call", "Global", "PersistentId", "Symbol"]


class Absent:
    """The type of `ABSENT`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = Absent()
"""Where a call has no state; None would be a state of its own."""


@dataclass(slots=True, eq=False)
class Global:
    """A name that would be imported: `torch._utils` and `_rebuild_tensor_v2`."""

    module: str
    name: str

    @property
    def qualified(self) -> str:
        """`torch._utils._rebuild_tensor_v2`."""
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Call:
    """An object that would be made by a call, with what would be put into it afterwards.

    Attributes:
        function: What would be called: a `Global`, the result of another call, or in legacy files
            a `PersistentId` that names a class.
        arguments: Positional arguments.
        how: `reduce` calls the function; `new` is `cls.__new__(cls, *arguments)`; `instance` is
            protocol 0's way of making an object of a class.
        keywords: Keyword arguments of `new` (protocol 4).
        appended: Items that would be appended to the object; None where there are none.
        items: Keys and values that would be set in the object.
        state: What `__setstate__` would get, or what `__dict__` would be updated with.
    """

    function: object
    arguments: tuple[object, ...]
    how: Literal["reduce", "new", "instance"] = "reduce"
    keywords: dict[str, object] | None = None
    appended: list[object] | None = None
    items: dict[object, object] | None = None
    state: object = field(default=ABSENT)

    @property
    def callee(self) -> str:
        """Qualified name of what would be called; "" when a call makes that, too.

        In legacy files a class may be a persistent id `("module", class, file, source)`.
        """
        function = self.function
        if isinstance(function, PersistentId):
            value = function.value
            function = value[1] if isinstance(value, tuple) and len(value) > 1 else None
        return function.qualified if isinstance(function, Global) else ""


@dataclass(slots=True, eq=False)
class PersistentId:
    """A reference to something outside the pickle; torch's storages are written so."""

    value: object


Symbol = Global | Call | PersistentId
