"""What the source of a constructor tells: names set too early, or twice."""

import ast
import functools
import inspect
import linecache
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FunctionType

from torch import nn

from modtool.live.blame import is_library, shown_path
from modtool.live.lint.subject import Subject, joined
from modtool.live.walk import BOOKKEEPING
from modtool.notes import note
from modtool.records import Note

__all__ = ["assigned_twice", "calls_init", "constructor_of", "lost_at_init"]


@dataclass(frozen=True, slots=True)
class Constructor:
    """The `__init__` of a class of the user's own.

    Attributes:
        file: As the user would type it.
        body: Its statements.
        receiver: What it calls `self`.
    """

    file: str
    body: Sequence[ast.stmt]
    receiver: str


def lost_at_init(subject: Subject) -> Iterator[Note]:
    """Attributes that a call of `Module.__init__()` further down throws away."""
    for path, module, constructor in constructors(subject):
        calls = [each for each in constructor.body if calls_init(each)]
        early = [each for each in constructor.body if calls and each.lineno < calls[-1].lineno]
        deleted = {name for each in constructor.body for name in names_deleted(each)}
        for statement in early:
            for name in assigned(statement, constructor.receiver):
                if name in BOOKKEEPING or not (has(module, name) or name in deleted):
                    message = (
                        f"`{name}` is set at {constructor.file}:{statement.lineno}, and lost in "
                        f"line {calls[-1].lineno}, where Module.__init__() begins anew"
                    )
                    yield note("lost-at-init", joined(path, name), message)


def assigned_twice(subject: Subject) -> Iterator[Note]:
    """Children and parameters that are replaced, in the same block, before anything uses them."""
    for path, module, constructor in constructors(subject):
        registered = {**module._modules, **module._parameters}
        for block in blocks(constructor.body):
            for name, first, second in replaced(block, constructor.receiver):
                if registered.get(name) is not None:
                    message = (
                        f"`{name}` is set at {constructor.file}:{first} and again in line "
                        f"{second}, and the first one is lost"
                    )
                    yield note("assigned-twice", joined(path, name), message)


def constructors(subject: Subject) -> Iterator[tuple[str, nn.Module, Constructor]]:
    """Every constructor of the user's own, with the first module that it made."""
    seen: set[type] = set()
    for path, module in subject.modules:
        for kind in type(module).__mro__:
            if kind not in seen:
                seen.add(kind)
                found = constructor_of(kind)
                if found is not None:
                    yield path, module, found


def constructor_of(kind: type) -> Constructor | None:
    """The `__init__` that a class itself defines; None of a library's, or without source."""
    function = inspect.unwrap(vars(kind).get("__init__", constructor_of))
    if not isinstance(function, FunctionType) or is_library(function.__code__.co_filename):
        return None
    code = function.__code__
    for node in functions(code.co_filename):
        start = min([node.lineno, *(each.lineno for each in node.decorator_list)])
        if node.name == "__init__" and start == code.co_firstlineno and node.args.args:
            return Constructor(shown_path(code.co_filename), node.body, node.args.args[0].arg)
    return None


def functions(filename: str) -> tuple[ast.FunctionDef, ...]:
    """Every function of a file as it is now; none where it cannot be read."""
    linecache.checkcache(filename)
    return functions_in("".join(linecache.getlines(filename)))


@functools.lru_cache(maxsize=16)
def functions_in(text: str) -> tuple[ast.FunctionDef, ...]:
    """Every function of a program."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return ()
    return tuple(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def calls_init(statement: ast.stmt) -> bool:
    """True for `super().__init__()` and `Base.__init__(self)` as a statement."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Call)
        and isinstance(statement.value.func, ast.Attribute)
        and statement.value.func.attr == "__init__"
    )


def assigned(statement: ast.stmt, receiver: str) -> Iterator[str]:
    """Names of attributes that a statement itself sets on `self`."""
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        targets = [statement.target]
    for target in targets:
        for each in target.elts if isinstance(target, ast.Tuple) else (target,):
            if is_attribute(each, receiver):
                assert isinstance(each, ast.Attribute)
                yield each.attr


def names_deleted(statement: ast.stmt) -> Iterator[str]:
    """Names of attributes that are deleted anywhere in a statement."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Del):
            yield node.attr


def has(module: nn.Module, name: str) -> bool:
    """True for a name that a module holds in any way."""
    held = (vars(module), module._modules, module._parameters, module._buffers)
    return any(name in each for each in held) or hasattr(type(module), name)


def blocks(body: Sequence[ast.stmt]) -> Iterator[Sequence[ast.stmt]]:
    """A list of statements that run one after another, and those inside of them."""
    yield body
    for statement in body:
        for field in ("body", "orelse", "finalbody"):
            inner = getattr(statement, field, None)
            if isinstance(inner, list) and inner and isinstance(inner[0], ast.stmt):
                yield from blocks(inner)


def replaced(block: Sequence[ast.stmt], receiver: str) -> Iterator[tuple[str, int, int]]:
    """(name, line, line) of what is made by a call and set anew before `self` is used again."""
    pending: dict[str, int] = {}
    for statement in block:
        used = uses(statement, receiver)
        pending = {} if used is None else {k: v for k, v in pending.items() if k not in used}
        for name in assigned(statement, receiver):
            if name in pending:
                yield name, pending[name], statement.lineno
            pending.pop(name, None)
            if isinstance(getattr(statement, "value", None), ast.Call):
                pending[name] = statement.lineno


def uses(statement: ast.stmt, receiver: str) -> set[str] | None:
    """Names of attributes that a statement reads; None where it may read any."""
    inside = {id(node.value) for node in ast.walk(statement) if isinstance(node, ast.Attribute)}
    read: set[str] = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and node.id == receiver and id(node) not in inside:
            return None
        if isinstance(node, ast.Call) and is_attribute(node.func, receiver):
            return None
        if is_attribute(node, receiver) and not isinstance(node.ctx, ast.Store):  # type: ignore[attr-defined]
            read.add(node.attr)  # type: ignore[attr-defined]
    return read


def is_attribute(node: ast.AST, receiver: str) -> bool:
    """True for `self.name`."""
    return (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == receiver
    )
