"""What loading a file for real would run: every callable, and what `weights_only=True` would say.

No code is run to find out; here is what would be.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from modtool.pickles.machine import Pickle
from modtool.pickles.policy import imported_name, severity_of
from modtool.pickles.symbols import Call, Global, PersistentId, class_named
from modtool.pickles.weights_only import WeightsOnly, refused, weights_only
from modtool.records import CallableUse, Checkpoint, Severity

__all__ = ["callables_in", "callables_of", "findings", "summary_of_arguments", "weights_only_of"]

MAX_ARGUMENTS = 4
MAX_TEXT = 80
MAX_SUMMARY = 240
MAX_DEPTH = 3

# Containers that `torch.load(..., weights_only=True)` never reads, and why. Source: torch 2.13,
# `torch/serialization.py`, `load` and `_legacy_load`.
NEVER: Mapping[str, str] = MappingProxyType(
    {
        "torchscript": "a TorchScript archive: only torch.jit.load reads it",
        "torch-package": "a torch.package archive: only torch.package.PackageImporter reads it",
        "torch-tar": "the tar of torch 0.1, which weights_only=True refuses",
        # torch 2.13: `filesystem.py`, `read_metadata`; `default_planner.py`, `load_bytes`.
        "dcp": (
            "a distributed checkpoint: only torch.distributed.checkpoint.load reads it, which "
            "unpickles .metadata and plain values for real"
        ),
    }
)


def callables_of(checkpoint: Checkpoint) -> tuple[CallableUse, ...]:
    """Every callable that loading the file for real would import or call, the worst first."""
    found = [*checkpoint.callables]
    for where, pickle in checkpoint.pickles.items():
        if isinstance(pickle, Pickle):
            found.extend(callables_in(pickle, where))
    return tuple(sorted(found, key=lambda use: SEVERITIES.index(use.severity)))


SEVERITIES: tuple[Severity, ...] = ("executes-code", "unknown-callable", "ordinary")
PARTIALS = ("functools.partial", "_functools.partial")


def findings(checkpoint: Checkpoint) -> tuple[CallableUse, ...]:
    """Those that ordinary checkpoints do not need."""
    return tuple(use for use in callables_of(checkpoint) if use.severity != "ordinary")


def weights_only_of(checkpoint: Checkpoint) -> WeightsOnly | None:
    """What `torch.load(…, weights_only=True)` makes of the file; None where it holds no pickle."""
    reason = NEVER.get(checkpoint.format)
    if reason is not None:
        return refused([reason])
    pickles = {
        name: pickle for name, pickle in checkpoint.pickles.items() if isinstance(pickle, Pickle)
    }
    return weights_only(pickles) if pickles else None


# -- one pickle ------------------------------------------------------------------------------------


@dataclass(slots=True)
class Uses:
    """The calls of one name."""

    calls: int = 0
    first: Call | None = field(default=None)
    wrapped: set[Severity] = field(default_factory=set)  # of partials: how what they wrap is judged


def callables_in(pickle: Pickle, where: str = "") -> Iterator[CallableUse]:
    """Every callable of one pickle, each once, in the order in which the pickle names them."""
    protocol = pickle.protocol
    found = {imported_name(symbol, protocol): Uses() for symbol in pickle.globals}
    names = {id(symbol): imported_name(symbol, protocol) for symbol in pickle.globals}
    for call in pickle.calls:
        name = names.get(id(call.function)) or called_name(call.function, protocol)
        uses = found.setdefault(name, Uses())
        uses.calls += 1
        uses.first = uses.first or call
        if name in PARTIALS:
            uses.wrapped.update(severities_wrapped(call, protocol))
    for name, uses in found.items():
        yield CallableUse(
            name,
            uses.calls,
            summary_of_arguments(uses.first) if uses.first else "",
            min(uses.wrapped, key=SEVERITIES.index)
            if uses.wrapped
            else severity_of(name, called=uses.calls > 0),
            where,
        )


def severities_wrapped(call: Call, protocol: int) -> Iterator[Severity]:
    """How what a partial wraps is judged: making a partial calls nothing.

    Its state, with which a real load replaces what its arguments say, begins with the function too.
    """
    state = call.state if isinstance(call.state, tuple) else ()
    for function in (*call.arguments[:1], *state[:1]):
        yield severity_of(called_name(function, protocol))


def called_name(function: object, protocol: int) -> str:
    """The name of what a call would call; what another call returns is described."""
    match function:
        case Global():
            return imported_name(function, protocol)
        case PersistentId(value=("module", *_)):
            return class_named(function) or "a class"
        case Call(function=Global() as getter, arguments=(Global() as outer, str(inner))) if (
            imported_name(getter, protocol) == "builtins.getattr"
        ):
            return f"{imported_name(outer, protocol)}.{inner}"
        case Call(function=Global() as maker):
            return f"a result of {imported_name(maker, protocol)}"
    return "a result of a call"


# -- arguments -------------------------------------------------------------------------------------


def summary_of_arguments(call: Call) -> str:
    """The arguments of a call in a line; control characters are escaped, long text is cut."""
    parts = [brief(argument, 0) for argument in call.arguments[:MAX_ARGUMENTS]]
    if len(call.arguments) > MAX_ARGUMENTS:
        parts.append("…")
    if call.keywords:
        parts.append("**keywords")
    return cut(", ".join(parts), MAX_SUMMARY)


def brief(value: object, depth: int) -> str:
    """One argument, in a few words."""
    match value:
        case Global():
            return cut(value.qualified.encode("unicode_escape").decode("ascii"), MAX_TEXT)
        case Call():
            name = value.callee.encode("unicode_escape").decode("ascii")
            return f"{cut(name, MAX_TEXT) or 'a call'}(…)"
        case PersistentId(value=(kind, *_)):
            return f"<{kind}>" if kind in ("storage", "module", "reduce_package") else "<reference>"
        case PersistentId():
            return "<reference>"
        case str() | bytes() | bytearray():
            return cut(ascii(value[: 2 * MAX_TEXT]), MAX_TEXT)
        case list() | tuple() | set() | frozenset() | dict():
            return brief_container(value, depth)
    return cut(repr(value), MAX_TEXT)


def brief_container(value: object, depth: int) -> str:
    """A short list or tuple with its items, any other container by its size."""
    if isinstance(value, list | tuple) and len(value) <= MAX_ARGUMENTS and depth < MAX_DEPTH:
        items = ", ".join(brief(item, depth + 1) for item in value)
        return f"[{items}]" if isinstance(value, list) else f"({items})"
    size = len(value) if isinstance(value, list | tuple | set | frozenset | dict) else 0
    return f"<{type(value).__name__} of {size:,}>"


def cut(text: str, limit: int) -> str:
    """A text of at most `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
