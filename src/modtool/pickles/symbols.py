"""What a pickle says, as inert values.

None, booleans, numbers, text, bytes, lists, tuples, sets and dicts stand for themselves. Everything
that a real unpickler would look up or call is one of the symbols below, and stays one.
Symbols are compared by identity, as the objects they stand for would be.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

__all__ = ["ABSENT", "Call", "Flag", "Global", "PersistentId", "Symbol", "class_named"]


class Absent:
    """The type of `ABSENT`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ABSENT"


MAX_NESTED = 100
ABSENT: Final = Absent()
"""Where a call has no state; None would be a state of its own."""


@dataclass(slots=True, eq=False)
class Global:
    """A name that would be imported: `torch._utils` and `_rebuild_tensor_v2`.

    `qualified` is both, `torch._utils._rebuild_tensor_v2`.
    """

    module: str
    name: str
    qualified: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.qualified = f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False, repr=False)
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

    def __repr__(self) -> str:  # short: what it holds may be endless
        return f"<call of {self.callee or 'something'}>"

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

    @property
    def made(self) -> str:
        """Qualified name of the class of the object; what is called, where that is all one knows.

        Protocols 0 and 1 call `copyreg._reconstructor(class, base, state)` to make an object.
        """
        name = self.callee
        if name in ("copyreg._reconstructor", "copy_reg._reconstructor") and self.arguments:
            return class_named(self.arguments[0]) or name
        return name or class_named(self.function)


@dataclass(slots=True, eq=False, repr=False)
class PersistentId:
    """A reference to something outside the pickle; torch's storages are written so."""

    value: object

    def __repr__(self) -> str:
        return "<persistent id>"


@dataclass(frozen=True, slots=True, eq=False)
class Flag:
    """A boolean and the byte that says it, where a pickle is read to be changed in place.

    Attributes:
        value: What it says.
        place: Of the byte, counted as the pickle's own bytes are.
        spelling: The byte that would say False, and the one that would say True.
    """

    value: bool
    place: int
    spelling: bytes


def class_named(value: object) -> str:
    """Qualified name of a class, however a pickle fetches it; "" when that cannot be told.

    In legacy files a class is a persistent id; below protocol 4 one that lies inside another is
    fetched by `getattr`.
    """
    inner: list[str] = []
    for _ in range(MAX_NESTED):
        match value:
            case Global():
                return ".".join([value.qualified, *reversed(inner)])
            case PersistentId(value=(_, cls, *_)):
                value = cls
            case Call(function=Global(name="getattr"), arguments=(outer, str(name))):
                inner.append(name)
                value = outer
            case _:
                break
    return ""


Symbol = Global | Call | PersistentId
