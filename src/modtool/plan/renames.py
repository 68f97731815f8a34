"""Edits of names: prefixes taken off or put on, names changed. All of the model's part."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from modtool.errors import UsageError
from modtool.names import AUTO, Renamer, mapped, renamer, shared_prefixes, stripped
from modtool.notes import note
from modtool.patterns import hint_for
from modtool.pickles.roles import is_opaque
from modtool.plan.optimizer_renames import renamed_in_optimizers
from modtool.plan.records import Plan, PlannedTensor
from modtool.plan.tree import at, entries, put, with_entries
from modtool.plan.versions import with_versions
from modtool.records import TensorInfo

__all__ = ["add_prefix", "rename", "strip_prefix"]

# Modules that torch puts around others at any depth (torch 2.13: `torch.compile`, FSDP, activation
# checkpointing); no model of anyone's has attributes of these names.
INNER = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})


def strip_prefix(plan: Plan, prefixes: Sequence[str]) -> Plan:
    """Take prefixes off, as often and in whatever order they stand before a name.

    Args:
        plan: What is to be written.
        prefixes: Such as `module.`; `auto` is those of the known wrappers (`module.`,
            `_orig_mod.`, `model.`) that all names share, and torch's own wrappers at any depth.

    Raises:
        UsageError: No name begins with one of them, or two names become one.
    """
    names = [tensor.name for tensor in plan.model_tensors]
    auto = AUTO in prefixes
    plain = [unwrapped(name) for name in names] if auto else names
    known = {completed(prefix, plain): prefix for prefix in prefixes if prefix != AUTO}
    whole = [*known, *(shared_prefixes(plain) if auto else ())]
    refuse_useless(known, whole, plain)
    if not whole and plain == names:
        message = "--strip-prefix auto: no known prefix is shared by all names; none is changed"
        return replace(plan, notes=(*plan.notes, note("nothing-stripped", "", message)))
    return renamed(plan, lambda name: stripped(unwrapped(name) if auto else name, whole))


def refuse_useless(known: Mapping[str, str], whole: Sequence[str], names: Sequence[str]) -> None:
    """See that each prefix that was asked for is taken off some name, be it after another one.

    Raises:
        UsageError: One is not.
    """
    for prefix, text in known.items():
        others = [other for other in whole if other != prefix]
        if all(stripped(name, whole) == stripped(name, others) for name in names):
            raise UsageError(f"no name begins with {text!r}", hint_for(text, names, None))


def completed(prefix: str, names: Sequence[str]) -> str:
    """`module` is `module.` where names have a part of that name."""
    dotted = f"{prefix}."
    return dotted if any(name.startswith(dotted) for name in names) else prefix


def unwrapped(name: str) -> str:
    """A name without the wrappers that stand anywhere in it."""
    return ".".join(part for part in name.split(".") if part not in INNER) or name


def add_prefix(plan: Plan, prefix: str) -> Plan:
    """Put a prefix before every name of the model."""
    return renamed(plan, lambda name: prefix + name)


def rename(plan: Plan, text: str) -> Plan:
    """Change names by `OLD=NEW` (see `modtool.names`).

    Raises:
        UsageError: It is no such text, it changes no name, or two names become one.
    """
    change = renamer(text)
    names = [tensor.name for tensor in plan.model_tensors]
    if all(change(name) == name for name in names):
        old = text.partition("=")[0]
        raise UsageError(f"--rename {text}: it changes no name", hint_for(old, names, None))
    return renamed(plan, change)


def renamed(plan: Plan, change: Renamer) -> Plan:
    """The plan with the model's names changed, each part by itself, and those in optimizers."""
    if plan.form == "full_model":
        raise UsageError(
            "names cannot be changed in a file that is written back as it is",
            "convert it to a state_dict or a checkpoint",
        )
    new: dict[tuple[str | None, str], str] = {}
    tree = plan.tree
    for section in plan.models:
        names = [tensor.name for tensor in plan.tensors if tensor.section == section]
        beside = entries_of_modules(tree, section, names)
        changes = mapped([*names, *beside], change)
        new.update({(section, name): to for name, to in changes.items()})
        tree = with_versions(tree, section, changes)
        tree = with_entries_renamed(tree, section, {name: changes[name] for name in beside})

    def moved(tensor: PlannedTensor) -> PlannedTensor:
        return replace(tensor, name=new.get((tensor.section, tensor.name), tensor.name))

    changed = {old: to for (_, old), to in new.items()}
    flags = plan.requires_grad
    if flags is not None:
        flags = {changed.get(name, name): flag for name, flag in flags.items()}
    tensors = tuple(map(moved, plan.tensors))
    plan = replace(plan, tensors=tensors, tree=tree, requires_grad=flags)
    return renamed_in_optimizers(plan, changed)


def entries_of_modules(tree: object, section: str | None, names: Sequence[str]) -> list[str]:
    """The names of what modules put in a state_dict that is no tensor.

    An extra state tells by its name, such as the None of a quantized layer without bias by the
    tensors of the same module; what lies at the root may be anything of the user's.
    """
    paths = {name.rpartition(".")[0] for name in names} - {""}
    return [
        key
        for key, item in (entries(at(tree, section or "")) or {}).items()
        if isinstance(key, str)
        and not isinstance(item, TensorInfo)
        and (is_opaque(key) or key.rpartition(".")[0] in paths)
    ]


def with_entries_renamed(tree: object, section: str | None, new: Mapping[str, str]) -> object:
    """The tree with some entries under their new names: they go where their modules go."""
    if all(old == to for old, to in new.items()):
        return tree
    part = at(tree, section or "")
    moved = {
        new.get(key, key) if isinstance(key, str) else key: item
        for key, item in (entries(part) or {}).items()
    }
    made = with_entries(part, moved)
    return put(tree, section, made) if section else made
