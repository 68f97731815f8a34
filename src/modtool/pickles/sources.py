"""The program text that a pickle carries: classes of legacy files, the code of torch.fx."""

from modtool.pickles.machine import Pickle
from modtool.pickles.symbols import PersistentId, class_named

__all__ = ["sources_in", "traced_code"]

GRAPH_MODULE = "torch.fx.graph_module.reduce_graph_module"


def sources_in(pickle: Pickle) -> dict[str, str]:
    """Program text by class name; a legacy file has the source of every class of a full model."""
    found: dict[str, str] = {}
    for symbol in pickle.persistent_ids:
        match symbol:
            case PersistentId(value=("module", _, _, str(source))):
                found.setdefault(class_named(symbol), source)
    return {**found, **traced_code(pickle)}


def traced_code(pickle: Pickle) -> dict[str, str]:
    """The code of the modules that torch.fx made, by class name, imports first.

    It is pickled with them, and a load would execute it (torch 2.13, `torch/fx/graph_module.py`).
    Further modules of one name are numbered.
    """
    if all(symbol.qualified != GRAPH_MODULE for symbol in pickle.globals):
        return {}
    found: dict[str, str] = {}
    for call in pickle.calls:
        if call.callee == GRAPH_MODULE:
            name, text = name_and_code(call.arguments)
            alike = [other for other in found if other.partition(" #")[0] == name]
            if text and text not in found.values():
                found[f"{name} #{len(alike) + 1}" if alike else name] = text
    return found


def name_and_code(arguments: tuple[object, ...]) -> tuple[str, str]:
    """Class name and code of one module, from `reduce_graph_module(attributes, imports)`."""
    attributes = arguments[0] if arguments else None
    code = attributes.get("_code") if isinstance(attributes, dict) else None
    if not isinstance(attributes, dict) or not isinstance(code, str):
        return "", ""
    name = attributes.get("_graphmodule_cls_name")
    imports = arguments[1] if len(arguments) > 1 and isinstance(arguments[1], str) else ""
    shown = name if isinstance(name, str) else "GraphModule"
    return shown, f"{imports.strip()}\n\n{code.strip()}\n".lstrip()
