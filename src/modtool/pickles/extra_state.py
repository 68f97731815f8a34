"""What may change a `state_dict()` though no file shows how: methods of a class, and hooks."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from modtool.notes import first_names, note
from modtool.pickles.plain import attributes_of, mapping_of
from modtool.pickles.symbols import ABSENT, Call, Global, class_named
from modtool.records import ModuleNode, Note

__all__ = ["extra_state_notes", "hook_notes", "hooks_of"]

METHOD = re.compile(
    r"^\s+(?:async )?def (get_extra_state|state_dict|_save_to_state_dict)\b", re.MULTILINE
)
WHAT_THEY_DO: Mapping[str, str] = {
    "get_extra_state": "would add an entry that is not here",
    "state_dict": "may give other entries than these",
    "_save_to_state_dict": "may give other entries than these",
}
HOOKS = ("_state_dict_hooks", "_state_dict_pre_hooks")
WRAPPED = "torch.nn.modules.module._WrappedHook"
MAX_HOOKS = 20


def extra_state_notes(modules: Sequence[ModuleNode], sources: Mapping[str, str]) -> Iterator[Note]:
    """A note for each module whose source, which the file carries, adds to `state_dict()`.

    Args:
        modules: The module tree of a full model.
        sources: Class name to source.
    """
    for node in modules:
        if node.class_name.startswith("torch."):
            continue  # `nn.Module` itself has these methods, which say that there is no more
        for method in dict.fromkeys(METHOD.findall(sources.get(node.class_name, ""))):
            message = f"{node.class_name}.{method}() {WHAT_THEY_DO[method]}"
            yield note("extra-state", node.path, message)


def hooks_of(attributes: Mapping[str, object]) -> Iterator[str]:
    """What a module has put in the way of its `state_dict()`, in words; torch's own left out.

    torch's own hooks (those of spectral_norm, say) add nothing but what they register.
    """
    for kind in HOOKS:
        hooks = mapping_of(attributes.get(kind)) or {}
        for hook in islice(hooks.values(), MAX_HOOKS):
            name = callable_name(hook)
            if not name.startswith("torch."):
                yield f"the hook {name}"
    for method in WHAT_THEY_DO:
        if method in attributes:
            yield f"{callable_name(attributes[method])}, set in place of {method}(),"


def callable_name(value: object) -> str:
    """The name of a function, a bound method, a partial or an object that can be called."""
    match value:
        case Global():
            return value.qualified
        case Call(function=Global(name="getattr"), arguments=(owner, str(method))):
            made = owner.made if isinstance(owner, Call) else class_named(owner)
            return f"{made}.{method}"
        case Call(function=Global(name="partial"), arguments=(inner, *_)):
            return class_named(inner) or "a partial"
        case Call() if value.made == WRAPPED:
            inner = (attributes_of(value) or {}).get("hook", ABSENT)
            return "a function" if isinstance(inner, Call) else class_named(inner) or "a function"
        case Call():
            return value.made or "a function"
    return class_named(value) or "a function"


def hook_notes(hooks: Mapping[str, Iterable[str]]) -> Iterator[Note]:
    """A note for each hook; `hooks` maps what it is to the paths of the modules that have it."""
    for name, paths in hooks.items():
        places = list(paths)
        shown = first_names([path or "the model" for path in places])
        message = f"{name} may change what state_dict() gives for {shown}"
        yield note("extra-state", places[0], message)
