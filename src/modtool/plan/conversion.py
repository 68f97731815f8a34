"""The first plan: what of a checkpoint goes into which form of output."""

from collections.abc import Iterable
from dataclasses import replace

from modtool.errors import UsageError
from modtool.notes import first_names, note
from modtool.pickles.flags import parameter_flag
from modtool.pickles.machine import Pickle
from modtool.pickles.plain import items_of, mapping_of
from modtool.pickles.roles import is_opaque
from modtool.pickles.symbols import Call, Global
from modtool.plan.bare_tensors import bare, is_from_state_dict
from modtool.plan.distributed import distributed
from modtool.plan.norms import BN_EVAL_METADATA, recorded_bn_eval
from modtool.plan.plain_tree import plain_tree
from modtool.plan.records import Dropped, Form, Plan, PlannedTensor
from modtool.plan.tree import entries, find_key, path_of, with_entries
from modtool.records import ROOT, Checkpoint, Note, Section, TensorInfo, section_label

__all__ = [
    "FLAGS_KEY",
    "FLAGS_METADATA",
    "FORMS",
    "MODEL_KEY",
    "plan_conversion",
    "plan_flags",
    "plan_rewrite",
]

FORMS: tuple[Form, ...] = ("state_dict", "checkpoint", "safetensors", "dcp")
MODEL_KEY = "model_state_dict"
FLAGS_KEY = "requires_grad"
FLAGS_METADATA = "modtool.requires_grad"
UNINITIALIZED = "uninitialized"
NO_DATA = frozenset({"strided", "meta", UNINITIALIZED})
SAID_ANEW = frozenset({FLAGS_METADATA, BN_EVAL_METADATA, "total_size", "total_parameters"})
TEXT_KEY = "metadata"
TEXT = "text beside the tensors, which --to checkpoint or safetensors keeps"
NOT_PERSISTENT = "a non-persistent buffer, which state_dict() leaves out"
MODULES_STAY = (
    "classes, settings, plain attributes and what get_extra_state() may add, "
    "which only a full model holds"
)


def plan_conversion(checkpoint: Checkpoint, *, to: Form, section: str | None = None) -> Plan:
    """The plan that turns a checkpoint into another form, without any edit.

    Args:
        checkpoint: What a file or a model holds.
        to: `state_dict`, `checkpoint`, `safetensors` or `dcp`.
        section: The part to take as the model; None for the one whose role says so.

    Raises:
        UsageError: Nothing in it fits the form, or which part is meant is not clear.
    """
    if not checkpoint.tensors and entries(checkpoint.root) == {}:
        checkpoint = replace(checkpoint, kind="state_dict")  # of a module without parameters
    if not checkpoint.tensors and checkpoint.kind != "state_dict":
        raise UsageError(
            f"{checkpoint.target} holds no tensor", "there is nothing to change or convert"
        )
    return with_recorded_flags(with_lazy_told(bare(planned_form(checkpoint, to, section))))


def with_lazy_told(plan: Plan) -> Plan:
    """Tell of lazy tensors, which torch saves as objects that weights_only=True refuses."""
    lazy = [tensor for tensor in plan.tensors if tensor.source.layout == UNINITIALIZED]
    if not lazy:
        return plan
    origins = (tensor.source.origin for tensor in lazy)
    kinds = dict.fromkeys(origin.made for origin in origins if isinstance(origin, Call))
    names = first_names([tensor.name for tensor in lazy])
    message = (
        "lazy, without a shape, which weights_only=True takes only after "
        f"torch.serialization.add_safe_globals([{', '.join(kinds)}]): {names}"
    )
    told = note("uninitialized-parameter", lazy[0].name, message)
    return replace(plan, notes=(*plan.notes, told))


def planned_form(checkpoint: Checkpoint, to: Form, section: str | None) -> Plan:
    """The tensors and values of a form, and what it leaves out."""
    whole = section is None and checkpoint.kind == "checkpoint"
    if whole and to in ("checkpoint", "dcp"):
        plan = plan_checkpoint(checkpoint, None)
        return distributed(plan) if to == "dcp" else plan
    chosen = model_section(checkpoint, section)
    if to == "safetensors":
        return plan_safetensors(checkpoint, chosen)
    if to == "checkpoint":
        return plan_checkpoint(checkpoint, chosen)
    plan = plan_state_dict(checkpoint, chosen)
    return distributed(plan) if to == "dcp" else plan


def plan_rewrite(checkpoint: Checkpoint) -> Plan:
    """The plan that writes a torch file back as it is, to the letter, for edits inside it.

    Raises:
        UsageError: The checkpoint was not read from a torch file.
    """
    if checkpoint.root is None:
        raise UsageError(f"{checkpoint.target} is no torch file that could be written back")
    tensors = tuple(planned(tensor, tensor.section) for tensor in checkpoint.tensors)
    return Plan(checkpoint, "full_model", tensors, checkpoint.root, model_sections(checkpoint))


def plan_flags(checkpoint: Checkpoint) -> Plan | None:
    """The plan that changes flags where a torch file records them; None where it does not.

    Modules have flags of their own, those of TorchScript too; a checkpoint may have a map.
    """
    if checkpoint.root is not None:
        recorded = mapping_of((mapping_of(checkpoint.root) or {}).get(FLAGS_KEY))
        return plan_rewrite(checkpoint) if checkpoint.model_modules or recorded else None
    body = checkpoint.pickles.get("data.pkl") if checkpoint.format == "torchscript" else None
    if not isinstance(body, Pickle):
        return None
    calls = frozenset(map(id, body.calls))
    parameters = [tensor for tensor in checkpoint.model_tensors if is_parameter(tensor)]
    if not all(id(tensor.origin) in calls for tensor in parameters):
        return None  # mobile files keep them in other pickles
    return plan_rewrite(replace(checkpoint, root=body.root))


def with_recorded_flags(plan: Plan) -> Plan:
    """Take along which parameters are frozen, where the source records that any are."""
    plan = replace(plan, bn_eval=recorded_bn_eval(plan.source) or None)
    flags = flags_of(plan)
    frozen = {name for name, flag in flags.items() if not flag}
    if frozen and plan.form not in ("state_dict", "dcp"):
        return replace(plan, requires_grad=flags)
    if plan.form == "state_dict" and is_from_state_dict(plan.source):
        frozen -= {
            each.name for each in plan.tensors if parameter_flag(each.source.origin) is False
        }
    if not frozen:
        return plan
    some = f"{len(frozen):,} parameter{'s' if len(frozen) > 1 else ''}"
    why = f"a {plan.form} has no place for what is frozen ({some})"
    return replace(plan, dropped=(*plan.dropped, Dropped(FLAGS_KEY, why)))


def flags_of(plan: Plan) -> dict[str, bool]:
    """What is trainable so far, by output name; where nothing is recorded, everything is."""
    return {
        tensor.name: (plan.requires_grad or {}).get(
            tensor.name, tensor.source.requires_grad is not False
        )
        for tensor in plan.model_tensors
        if is_parameter(tensor.source)
    }


def is_parameter(tensor: TensorInfo) -> bool:
    """True for what can be trained: a parameter of numbers with a fraction."""
    return tensor.role == "parameter" and tensor.dtype.startswith(("float", "bfloat", "complex"))


def model_section(checkpoint: Checkpoint, section: str | None) -> str | None:
    """The name of the section to take; None where there are none."""
    names = [part.name for part in checkpoint.sections]
    if section is not None:
        return named_section(checkpoint, section)
    models = [part.name for part in checkpoint.sections if part.role == "model"]
    if len(models) == 1 or not names:
        return models[0] if models else None
    reason = "more than one part could be the model" if models else "no part is clearly the model"
    raise UsageError(
        f"{checkpoint.target}: {reason}", f"choose one with --section: {listed(models or names)}"
    )


def named_section(checkpoint: Checkpoint, section: str) -> str:
    """The section of this name, or the only one that lies below it."""
    found = checkpoint.sections_at(section)
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"{checkpoint.target} has several sections below {section!r}",
            f"choose one with --section: {listed(found)}",
        )
    names = [part.name for part in checkpoint.sections]
    raise UsageError(
        f"{checkpoint.target} has no section {section!r}",
        f"sections: {listed(names)}" if names else "it is not divided into sections",
    )


def listed(names: Iterable[str]) -> str:
    """The names of sections, as a user types them."""
    return ", ".join(map(section_label, names))


def model_sections(checkpoint: Checkpoint) -> tuple[str | None, ...]:
    """The sections whose role is model; the whole where there are no sections."""
    if not checkpoint.sections:
        return (None,)
    return tuple(part.name for part in checkpoint.sections if part.role == "model")


def planned(tensor: TensorInfo, section: str | None) -> PlannedTensor:
    """A tensor that goes over unchanged."""
    return PlannedTensor(tensor.name, section, tensor, tensor.dtype, None, tensor.location)


def chosen_tensors(checkpoint: Checkpoint, section: str | None) -> list[TensorInfo]:
    """The persistent tensors of one section."""
    return [
        tensor
        for tensor in checkpoint.tensors
        if tensor.persistent and (section is None or tensor.section == section)
    ]


def left_out(checkpoint: Checkpoint, section: str | None) -> list[Dropped]:
    """What a form that holds nothing but the model's tensors leaves out."""
    dropped = [
        Dropped(section_label(part.name), f"{why_not(part, checkpoint, section)} ({part.role})")
        for part in checkpoint.sections
        if part.name != section
    ]
    dropped += [
        Dropped(tensor.name, NOT_PERSISTENT)
        for tensor in checkpoint.tensors
        if not tensor.persistent and (section is None or tensor.section == section)
    ]
    if checkpoint.kind == "full_model" and checkpoint.format != "torchscript":
        dropped.append(Dropped("modules", MODULES_STAY))
    if checkpoint.format == "torchscript":
        why = "TorchScript's program, which no other form has a place for"
        dropped.append(Dropped("code", why))
    others = {part.name for part in checkpoint.sections if part.name != section}
    dropped += [
        Dropped(name, "a value, not a tensor")
        for name in checkpoint.values
        if not any(name == other or name.startswith(f"{other}.") for other in others)
    ]
    return dropped


def why_not(part: Section, checkpoint: Checkpoint, section: str | None) -> str:
    """Why a section is left out: it is no model, or one that was not chosen."""
    chosen = next((each.role for each in checkpoint.sections if each.name == section), None)
    is_other = part.role == "model" or chosen not in ("model", None)
    return "another section" if is_other else "not part of the model"


def plan_state_dict(checkpoint: Checkpoint, section: str | None) -> Plan:
    """Names to tensors, and what else lies flat beside them in a state_dict."""
    texts = [Dropped(f"{TEXT_KEY}.{key}", TEXT) for key in text_of(checkpoint)]
    tree, dropped = None, (*left_out(checkpoint, section), *texts)
    tensors = chosen_tensors(checkpoint, section)
    arrays: tuple[TensorInfo, ...] = ()
    notes: tuple[Note, ...] = ()
    kinds = ("state_dict", "checkpoint", "full_model")
    if checkpoint.kind in kinds and checkpoint.root is not None:
        whole = plain_tree(checkpoint, (section,))
        tree, part = subtree(whole.tree, section), whole.within(section)
        if tree is not None:
            dropped = without_values(checkpoint, dropped, section) + part.dropped
            tensors = [tensor for tensor in tensors if whole.holds(tensor)]
            arrays, notes = part.arrays, tuple(part.notes())
    if tree is None:
        tree = flat_tree(tensors)
    return Plan(
        checkpoint,
        "state_dict",
        tuple(planned(tensor, None) for tensor in (*tensors, *arrays)),
        tree,
        dropped=dropped,
        notes=notes,
    )


def without_values(
    checkpoint: Checkpoint, dropped: tuple[Dropped, ...], section: str | None
) -> tuple[Dropped, ...]:
    """What a state_dict leaves out, but for the plain values in it, which go along."""
    if section is None:
        return tuple(item for item in dropped if item.why in (NOT_PERSISTENT, MODULES_STAY))
    values = {name for name in checkpoint.values if name.startswith(f"{section}.")}
    return tuple(item for item in dropped if item.name not in values)


def subtree(tree: object, section: str | None) -> object:
    """The part of a tree that a section names; None where that is no dict."""
    if section == ROOT:
        return own_entries(tree)
    while section:
        found = entries(tree)
        place = find_key(found, section) if found is not None else None
        if found is None or place is None:
            return None
        key, section = place
        tree = found[key]
    return tree if entries(tree) is not None else None


def own_entries(tree: object) -> object:
    """What a state_dict has of a root; None where that is no dict."""
    found = entries(tree)
    if found is None:
        return None
    own = {
        key: item
        for key, item in found.items()
        if (isinstance(item, TensorInfo) and item.section == ROOT) or is_opaque(key)
    }
    return with_entries(tree, own)


def flat_tree(tensors: Iterable[TensorInfo]) -> Call:
    """An OrderedDict of tensors by name, as `state_dict()` of a module returns it."""
    items: dict[object, object] = {tensor.name: tensor for tensor in tensors}
    return Call(Global("collections", "OrderedDict"), (), items=items)


def plan_checkpoint(checkpoint: Checkpoint, section: str | None) -> Plan:
    """A training checkpoint: as it was where it is one, else a new one around the model.

    A list of tensors, or whatever else holds some, also stays as it was. A section that somebody
    chose is taken alone, as in any other form.
    """
    if section is None and is_kept_as_it_was(checkpoint):
        models = model_sections(checkpoint)
        whole = plain_tree(checkpoint, models)
        tensors = [each for each in checkpoint.tensors if each.persistent and whole.holds(each)]
        hidden = [
            Dropped(path_of(tensor), NOT_PERSISTENT)
            for tensor in checkpoint.tensors
            if not tensor.persistent
        ]
        return Plan(
            checkpoint,
            "checkpoint",
            tuple(planned(tensor, tensor.section) for tensor in (*tensors, *whole.arrays)),
            whole.tree,
            models,
            dropped=(*whole.dropped, *hidden),
            notes=tuple(whole.notes()),
        )
    plan = plan_state_dict(checkpoint, section)
    return as_checkpoint(plan)


def is_kept_as_it_was(checkpoint: Checkpoint) -> bool:
    """True for a training checkpoint, and a container of whatever else: not for a bare tensor."""
    root = checkpoint.root
    if checkpoint.kind == "tensors":
        return mapping_of(root) is not None or items_of(root) is not None
    return checkpoint.kind == "checkpoint" and root is not None


def as_checkpoint(plan: Plan) -> Plan:
    """The plan of a training checkpoint around the model of a state_dict's plan."""
    tensors = tuple(replace(tensor, section=MODEL_KEY) for tensor in plan.tensors)
    text = text_of(plan.source)
    return replace(
        plan,
        form="checkpoint",
        tensors=tensors,
        tree={MODEL_KEY: plan.tree, **({TEXT_KEY: text} if text else {})},
        models=(MODEL_KEY,),
        dropped=tuple(item for item in plan.dropped if item.why != TEXT),
    )


def plan_safetensors(checkpoint: Checkpoint, section: str | None) -> Plan:
    """Tensors and text; ties are stored once, the other names recorded in the metadata."""
    dropped = left_out(checkpoint, section)
    kept: list[TensorInfo] = []
    for tensor in chosen_tensors(checkpoint, section):
        if tensor.layout in NO_DATA and tensor.storage is None and not tensor.chunks:
            what = "meta" if tensor.layout == "strided" else tensor.layout
            dropped.append(Dropped(tensor.name, f"{what}: the file holds no data for it"))
        else:
            kept.append(tensor)
    return Plan(
        checkpoint,
        "safetensors",
        tuple(planned(tensor, None) for tensor in kept),
        metadata={"format": "pt", **own_metadata(checkpoint)},
        dropped=tuple(dropped),
    )


def own_metadata(checkpoint: Checkpoint) -> dict[str, str]:
    """The text of a source's container that still holds in another one.

    What tells of ties, flags and sizes is left: the writer says it anew, as the output has it.
    """
    names = {tensor.name for tensor in checkpoint.tensors}
    return {
        key: text
        for key, text in checkpoint.metadata.items()
        if key not in SAID_ANEW and not (key in names and text in names)
    }


def text_of(checkpoint: Checkpoint) -> dict[str, str]:
    """What users wrote into the metadata of safetensors, whose `format` is no user's."""
    if not checkpoint.format.startswith("safetensors"):
        return {}
    return {key: text for key, text in own_metadata(checkpoint).items() if key != "format"}
