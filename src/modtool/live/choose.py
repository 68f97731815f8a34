"""Which model a Python file holds: what a name means, and which one is meant without a name."""

import ast
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from torch import nn

from modtool.errors import TargetError, UsageError, a_kind
from modtool.live.targets import ModelTarget

__all__ = ["Definition", "choose", "named", "value_named"]

FACTORIES = ("build_model", "create_model", "get_model", "make_model")


@dataclass(frozen=True, slots=True)
class Definition:
    """A model as it stands in a file: the instance, or what makes one.

    Attributes:
        name: What it is called there.
        value: An `nn.Module`, one of its subclasses, or a factory.
    """

    name: str
    value: nn.Module | Callable[..., object]

    @property
    def is_instance(self) -> bool:
        """True when the model exists already."""
        return isinstance(self.value, nn.Module)

    @property
    def signature(self) -> str:
        """`Net(hidden: int)`, `build()`, or `model: Sequential`: as a candidate is listed."""
        if isinstance(self.value, nn.Module):
            return f"{self.name} ({a_kind(self.value)})"
        parameters = signature_of(self.value)
        if parameters is None:
            return f"{self.name}(...)"
        if getattr(self.value, "__init__", None) is nn.Module.__init__:
            return f"{self.name}()"  # its (*args, **kwargs) take nothing
        return f"{self.name}{parameters.replace(return_annotation=inspect.Signature.empty)}"

    def misfit(self, arguments: Mapping[str, object]) -> str:
        """Why it cannot be called with these arguments; "" when it can."""
        parameters = None if self.is_instance else signature_of(self.value)
        if self.is_instance:
            return "it is an instance already, and takes no arguments" if arguments else ""
        if parameters is None:
            return ""
        try:
            parameters.bind(**arguments)
        except TypeError as error:
            return str(error)
        return ""


def signature_of(value: object) -> inspect.Signature | None:
    """The signature of a callable; None where Python does not tell it."""
    try:
        return inspect.signature(value) if callable(value) else None
    except (ValueError, TypeError):
        return None


def named(module: ModuleType, target: ModelTarget, arguments: Mapping[str, object]) -> Definition:
    """What the name of a target means.

    Raises:
        TargetError: There is no such name, or it is nothing that gives a model.
        UsageError: Its constructor does not take these arguments.
    """
    value = value_named(module, target)
    if not isinstance(value, nn.Module) and not callable(value):
        raise TargetError(f"{target.text} is {a_kind(value)}, not a model", listing(module, target))
    definition = Definition(target.name, value)
    reason = definition.misfit(arguments)
    if reason:
        raise UsageError(f"{target.place}: {definition.signature}: {reason}", argument_hint(reason))
    return definition


def value_named(module: ModuleType, target: ModelTarget) -> object:
    """What stands under a target's name.

    Raises:
        TargetError: Nothing does.
    """
    value: object = module
    for part in target.name.split("."):
        if not hasattr(value, part):
            raise TargetError(f"{target.place} has no {target.name}", listing(module, target))
        value = getattr(value, part)
    return value


def argument_hint(reason: str) -> str:
    """What to type where arguments are missing or wrong."""
    return "leave out --arg" if "instance" in reason else "give arguments with --arg NAME=VALUE"


def choose(module: ModuleType, target: ModelTarget, arguments: Mapping[str, object]) -> Definition:
    """The one model of a file, by the rule of cli.md, "Targets".

    Raises:
        TargetError: There is none, or more than one; the hint lists them.
    """
    found = instances(module)
    if not found or len(found) > 1:
        found = [made for made in factories(module) if not made.misfit(arguments)] or found
    if not found:
        classes = [made for made in own_classes(module) if not made.misfit(arguments)]
        built = built_by_others(target.file, {made.name for made in own_classes(module)})
        found = [made for made in classes if made.name not in built]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(made.name for made in found)
        raise TargetError(
            f"{target.place} holds more than one model: {names}", listing(module, target, found)
        )
    raise TargetError(nothing_found(module, target, arguments), listing(module, target))


def nothing_found(module: ModuleType, target: ModelTarget, arguments: Mapping[str, object]) -> str:
    """Why no model was chosen."""
    candidates = [*factories(module), *own_classes(module)]
    reasons = [f"{made.name}: {made.misfit(arguments)}" for made in candidates]
    reasons = [reason for reason in reasons if not reason.endswith(": ")]
    if not reasons:
        return f"{target.place} holds no nn.Module"
    return f"{target.place} holds no model that can be built ({'; '.join(reasons)})"


def listing(module: ModuleType, target: ModelTarget, found: list[Definition] | None = None) -> str:
    """The candidates with their signatures, and the command to type next."""
    candidates = found or [*instances(module), *factories(module), *own_classes(module)]
    if not candidates:
        return "define a class that extends torch.nn.Module, or name one: FILE.py:NAME"
    shown = "; ".join(made.signature for made in candidates)
    first = candidates[0]
    needed = "" if first.is_instance else "".join(f" --arg {each}=…" for each in required(first))
    return f"candidates: {shown}\ntype: {target.place}:{first.name}{needed}"


def required(definition: Definition) -> list[str]:
    """Names of arguments that have no default."""
    signature = signature_of(definition.value)
    named_kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [
        each.name
        for each in (signature.parameters.values() if signature else ())
        if each.default is inspect.Parameter.empty and each.kind in named_kinds
    ]


def instances(module: ModuleType) -> list[Definition]:
    """The `nn.Module` instances at module level, each once."""
    found = {
        id(value): Definition(name, value)
        for name, value in reversed(vars(module).items())
        if isinstance(value, nn.Module)
    }
    return list(reversed(found.values()))


def factories(module: ModuleType) -> list[Definition]:
    """The functions whose names say that they make a model; the file's own before imported ones."""
    found = [
        Definition(name, vars(module)[name])
        for name in FACTORIES
        if inspect.isroutine(vars(module).get(name))
    ]
    own = [made for made in found if getattr(made.value, "__module__", "") == module.__name__]
    return own or found


def own_classes(module: ModuleType) -> list[Definition]:
    """The subclasses of `nn.Module` that the file itself defines."""
    return [
        Definition(name, value)
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, nn.Module)
        and value.__module__ == module.__name__
        and value.__name__ == name
        and not inspect.isabstract(value)
    ]


def built_by_others(file: Path | None, classes: set[str]) -> set[str]:
    """Classes that another class of the file uses, itself or through the file's functions."""
    if file is None:
        return set()
    uses = definitions(file)
    return {
        used
        for name in classes & set(uses)
        for used in reached(name, uses)
        if used in classes and used != name
    }


def definitions(file: Path) -> dict[str, set[str]]:
    """What each name at the top level of a file reads: its classes, functions and constants."""
    uses: dict[str, set[str]] = {}
    todo: list[ast.AST] = list(ast.parse(file.read_bytes()).body)
    while todo:
        node = todo.pop(0)
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            uses.setdefault(node.name, set()).update(names_used(node.body))
        elif isinstance(node, ast.Assign):
            for name in (target.id for target in node.targets if isinstance(target, ast.Name)):
                uses.setdefault(name, set()).update(names_used([node.value]))
        else:
            todo.extend(ast.iter_child_nodes(node))
    return uses


def names_used(nodes: Sequence[ast.AST]) -> set[str]:
    """Names that are read in some code; annotations left out."""
    names: set[str] = set()
    todo = list(nodes)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Name):
            names.add(node.id)
        todo.extend(
            child
            for field, value in ast.iter_fields(node)
            if field not in ("annotation", "returns")
            for child in (value if isinstance(value, list) else [value])
            if isinstance(child, ast.AST)
        )
    return names


def reached(name: str, uses: Mapping[str, set[str]]) -> set[str]:
    """Every name that a definition reads, directly or through what it reads."""
    seen: set[str] = set()
    todo = [name]
    while todo:
        for used in uses.get(todo.pop(), set()) - seen:
            seen.add(used)
            todo.append(used)
    return seen
