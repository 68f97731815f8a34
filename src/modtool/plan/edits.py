"""Edits: functions from a plan to a plan. Patterns select among the model's names in the output."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce

from modtool.errors import UsageError
from modtool.notes import note
from modtool.patterns import Types, select
from modtool.plan.conversion import is_parameter
from modtool.plan.owners import owner
from modtool.plan.records import Dropped, Plan, PlannedTensor
from modtool.plan.tree import (
    DROPPED,
    at,
    beginnings,
    entries,
    joined,
    place_of,
    put,
    way_to,
    without,
)
from modtool.plan.versions import around, without_versions
from modtool.records import DTYPES, FLOAT4_PAIR, ROOT, Checkpoint, TensorInfo

__all__ = [
    "AS_ASKED",
    "NOT_KEPT",
    "cast",
    "chosen",
    "chosen_among",
    "chosen_parameters",
    "drop",
    "drop_optimizer",
    "edited",
    "keep",
    "map_location",
    "set_value",
    "shrink",
    "tied",
    "types_of",
]

# Why tensors are left out that somebody asked to leave out.
NOT_KEPT = "not among those to keep"
AS_ASKED = "dropped as asked"


def types_of(checkpoint: Checkpoint) -> Types | None:
    """Tensor name -> class name of the module that owns it; None where the file does not tell."""
    by_path = {module.path: module.type for module in checkpoint.model_modules if module.type}
    if not by_path:
        return None
    owners = {tensor.name: owner(tensor.name)[0] for tensor in checkpoint.model_tensors}
    return {
        name: by_path[path].removeprefix("Parametrized")
        for name, path in owners.items()
        if path in by_path
    }


def chosen(
    plan: Plan,
    patterns: Sequence[str],
    among: Iterable[PlannedTensor] | None = None,
    beside: Collection[str] = (),
) -> frozenset[str]:
    """The output names that patterns select in the model's part, and of some beside its tensors."""
    tensors = list(plan.model_tensors if among is None else among)
    known = types_of(plan.source)
    types = None
    if known is not None:
        types = {tensor.name: known.get(tensor.source.name, "") for tensor in tensors}
    return frozenset(select(patterns, [*(tensor.name for tensor in tensors), *beside], types))


def chosen_parameters(plan: Plan, patterns: Sequence[str]) -> frozenset[str]:
    """The parameters of the model's part that patterns select; all where there are none."""
    parameters = [tensor for tensor in plan.model_tensors if is_parameter(tensor.source)]
    if patterns:
        return chosen_among(plan, patterns, parameters, "frozen or unfrozen")
    return frozenset(tensor.name for tensor in parameters)


def chosen_among(
    plan: Plan, patterns: Sequence[str], among: Sequence[PlannedTensor], verb: str
) -> frozenset[str]:
    """What patterns select among some of the model's tensors.

    Args:
        plan: The plan.
        patterns: What to select.
        among: The tensors that something can be done to.
        verb: What cannot be done to the others, as in `frozen`.

    Raises:
        UsageError: They select nothing; where one selects only others, it says what those are.
    """
    try:
        return chosen(plan, patterns, among)
    except UsageError:
        refuse_others(plan, patterns, frozenset(tensor.name for tensor in among), verb)
        raise


def refuse_others(plan: Plan, patterns: Sequence[str], among: frozenset[str], verb: str) -> None:
    """An error for the first pattern that selects something, and nothing that can be `verb`."""
    for pattern in patterns:
        try:
            found = chosen(plan, [pattern.removeprefix("!")])
        except UsageError:
            return
        if found.isdisjoint(among):
            tensor = next(each for each in plan.model_tensors if each.name in found)
            source = tensor.source
            a_buffer = source.role == "buffer" and is_floating(source.dtype)
            kind = "a buffer" if a_buffer else f"of type {source.dtype}"
            other = next((each.name for each in plan.model_tensors if each.name in among), None)
            raise UsageError(
                f"{pattern!r} selects nothing that can be {verb}: {tensor.name} is {kind}",
                f"name another one, such as {other}" if other else "",
            ) from None


def edited(plan: Plan, change: Callable[[PlannedTensor], PlannedTensor]) -> Plan:
    """The plan with every tensor changed by a function."""
    return replace(plan, tensors=tuple(map(change, plan.tensors)))


# -- which tensors -----------------------------------------------------------------------------


def keep(plan: Plan, patterns: Sequence[str]) -> Plan:
    """Leave out the model's tensors that the patterns do not select."""
    names = chosen(plan, patterns)
    gone = {tensor.name for tensor in plan.model_tensors} - names
    return remove(plan, gone, NOT_KEPT)


def drop(plan: Plan, patterns: Sequence[str]) -> Plan:
    """Leave out what the patterns select of the model's tensors, and of what lies beside them."""
    beside = names_beside(plan)
    names = chosen(plan, patterns, beside=beside)
    before = len(plan.dropped)
    plan = remove(plan, names.difference(beside), AS_ASKED)
    names = names.difference(item.name for item in plan.dropped[before:])
    gone = {name: places for name, places in beside.items() if name in names}
    tree = reduce(without, (place for places in gone.values() for place in places), plan.tree)
    dropped = tuple(Dropped(name, f"no tensor, {AS_ASKED}") for name in gone)
    return replace(plan, tree=tree, dropped=plan.dropped + dropped)


def names_beside(plan: Plan) -> dict[str, list[str]]:
    """What the state_dicts of the output hold beside tensors: its name, and where it lies."""
    found: dict[str, list[str]] = {}
    for section in plan.models:
        if section == ROOT:  # beside it lies what belongs to no state_dict
            continue
        here = [tensor.source.name for tensor in plan.tensors if tensor.section == section]
        around = {start for name in here for start in beginnings(name)}
        for key in entries(at(plan.tree, section or "")) or ():
            if isinstance(key, str) and key not in around:
                found.setdefault(key, []).append(place_of(section, key))
    return found


def remove(plan: Plan, names: Iterable[str], why: str) -> Plan:
    """The plan without some of the model's tensors, which are listed as dropped."""
    if plan.form == "full_model":
        raise UsageError(
            "tensors cannot be taken out of a file that is written back as it is",
            "convert it to a state_dict or a checkpoint",
        )
    gone = frozenset(names)
    left = tuple(
        tensor
        for tensor in plan.tensors
        if tensor.section not in plan.models or tensor.name not in gone
    )
    if not any(tensor.section in plan.models for tensor in left):
        raise UsageError("nothing is left of the model", "--keep and --drop take all of it away")
    dropped = tuple(
        Dropped(tensor.name, why) for tensor in plan.model_tensors if tensor.name in gone
    )
    flags = plan.requires_grad
    if flags is not None:
        flags = {name: flag for name, flag in flags.items() if name not in gone}
    tree = plan.tree
    for section in plan.models:
        here = [tensor.name for tensor in plan.tensors if tensor.section == section]
        paths = set(around(name for name in here if name in gone))
        paths -= set(around(name for name in here if name not in gone))
        tree = without_versions(tree, section, paths)
        beside = entries_of(tree, section, paths)
        tree = reduce(without, (place_of(section, key) for key in beside), tree)
        dropped += tuple(Dropped(key, f"no tensor, {why}") for key in beside)
    dropped = plan.dropped + dropped
    return replace(plan, tensors=left, tree=tree, dropped=dropped, requires_grad=flags)


def entries_of(tree: object, section: str | None, paths: Collection[str]) -> list[str]:
    """What modules of which no tensor is left have in a state_dict beside tensors."""
    return [
        key
        for key, item in (entries(at(tree, section or "")) or {}).items()
        if isinstance(key, str)
        and not isinstance(item, TensorInfo)
        and (key.rpartition(".")[0] in paths or (isinstance(item, tuple) and key in paths))
    ]


def drop_optimizer(plan: Plan) -> Plan:
    """Leave out whatever holds an optimizer's state."""
    names = [part.name for part in plan.source.sections if part.role == "optimizer"]
    names += [name for name in optimizers_in(plan.tree) if not is_within(name, names)]
    if plan.form == "full_model":
        raise UsageError("a file that is written back as it is keeps its optimizer")
    if plan.form not in ("checkpoint", "dcp"):
        return plan
    if not names:
        message = "--drop-optimizer: nothing here is known to be an optimizer's state; all is kept"
        return replace(plan, notes=(*plan.notes, note("no-optimizer", "", message)))
    tree = plan.tree
    for name in names:
        tree = without(tree, name)
    tensors = tuple(
        tensor
        for tensor in plan.tensors
        if not is_within(place_of(tensor.section, tensor.source.name), names)
    )
    dropped = tuple(Dropped(name, "the optimizer's state, dropped as asked") for name in names)
    return replace(plan, tree=tree, tensors=tensors, dropped=plan.dropped + dropped)


def optimizers_in(tree: object) -> list[str]:
    """Where optimizers' states lie at any depth, with or without a tensor: SGD has none."""
    found: list[str] = []
    left: list[tuple[str, object]] = [("", tree)]
    seen: set[int] = set()
    for path, value in left:  # which grows meanwhile
        if id(value) in seen:
            continue
        seen.add(id(value))
        for key, item in parts_of(value):
            if {"state", "param_groups"} <= set(entries(item) or ()):
                found.append(joined(path, key))
            elif entries(item) or isinstance(item, list | tuple):
                left.append((joined(path, key), item))
    return found


def parts_of(tree: object) -> Iterable[tuple[object, object]]:
    """Keys and values of a dict, positions and items of a list or tuple."""
    return enumerate(tree) if isinstance(tree, list | tuple) else (entries(tree) or {}).items()


def is_within(path: str, places: Iterable[str]) -> bool:
    """True for one of some places, and all below them."""
    return any(path == place or path.startswith(f"{place}.") for place in places)


# -- what is in them ---------------------------------------------------------------------------


def cast(plan: Plan, dtype: str | None, rules: Mapping[str, str] | None = None) -> Plan:
    """Change the element type of the model's floating-point tensors.

    Args:
        plan: What is to be written.
        dtype: For all of them; None leaves those alone that no rule selects.
        rules: Pattern -> dtype, for those it selects; later ones win.
    """
    target: dict[str, str] = {}
    floats = [tensor for tensor in plan.model_tensors if is_floating(tensor.dtype)]
    if dtype is not None:
        target = dict.fromkeys((tensor.name for tensor in floats), floating(dtype))
    for pattern, name in (rules or {}).items():
        names = chosen_among(plan, [pattern], floats, "cast")
        target.update(dict.fromkeys(names, floating(name)))

    def change(tensor: PlannedTensor) -> PlannedTensor:
        if tensor.section not in plan.models or tensor.name not in target:
            return tensor
        if tensor.source.layout != "strided" and tensor.dtype != target[tensor.name]:
            raise UsageError(
                f"{tensor.name}: a {tensor.source.layout} tensor cannot be cast",
                f"leave it as it is: --dtype-for '{tensor.source.name}={tensor.dtype}'",
            )
        return replace(tensor, dtype=target[tensor.name])

    return edited(plan, change)


# torch 2.13, `c10/core/DeviceType.cpp`, and the names of backends outside of torch.
DEVICE = re.compile(
    r"(?:cpu|cuda|mps|xpu|hpu|mtia|xla|meta|hip|ipu|maia|vulkan|lazy|ve|fpga|privateuseone"
    r"|npu|mlu|musa|gcu|sdaa)(?::\d+)?"
)
SHORT_NAMES: Mapping[str, str] = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "half": "float16",
    "fp32": "float32",
    "float": "float32",
    "fp64": "float64",
    "double": "float64",
}


def floating(name: str) -> str:
    """The dtype that a user's word for it means."""
    found = SHORT_NAMES.get(name.lower(), name.lower().removeprefix("torch."))
    if found not in DTYPES or not is_floating(found):
        short = [word for word in SHORT_NAMES if word[-1].isdigit()]
        known = [dtype for dtype in DTYPES if is_floating(dtype)]
        raise UsageError(
            f"{name!r} is no floating-point dtype",
            f"one of: {', '.join(short)}, or {', '.join(known)}",
        )
    return found


def is_floating(dtype: str) -> bool:
    """True for the element types that a cast applies to: not whole numbers, not complex ones."""
    return dtype.startswith(("float", "bfloat")) and dtype != FLOAT4_PAIR


def map_location(plan: Plan, where: str | Mapping[str, str]) -> Plan:
    """Change the device that torch files record: to one for all, or from each to another.

    Raises:
        UsageError: It is no device, or no tensor is on one that is to be changed.
    """
    known = {tensor.location for tensor in plan.tensors}
    for old, new in [("", where)] if isinstance(where, str) else where.items():
        if not DEVICE.fullmatch(new):
            raise UsageError(f"--map-location: {new!r} is no device", "such as cpu, cuda:0 or mps")
        if new.startswith("meta"):
            raise UsageError(
                "--map-location: tensors on meta have no elements, and all values would be lost",
                "name a device that has memory, such as cpu",
            )
        if old not in known and not isinstance(where, str):
            raise UsageError(
                f"--map-location: no tensor is on {old or repr(old)}",
                f"they are on {', '.join(sorted(known))}",
            )

    def change(tensor: PlannedTensor) -> PlannedTensor:
        new = where if isinstance(where, str) else where.get(tensor.location, tensor.location)
        return replace(tensor, location=new)

    return edited(plan, change)


# -- what is beside them -----------------------------------------------------------------------


def set_value(plan: Plan, key: str, value: object) -> Plan:
    """Put a plain value into a checkpoint under a dotted key, or text into safetensors."""
    if plan.form == "safetensors":
        if not isinstance(value, str):
            raise UsageError(
                f"{key}: the metadata of safetensors holds text, not {value!r}",
                f"""quotes make it text: --set "{key}='{value}'" """.rstrip(),
            )
        return replace(plan, metadata={**plan.metadata, key: value})
    if plan.form not in ("checkpoint", "dcp"):
        raise UsageError(f"a {plan.form} has no place for {key!r}", "values need --to checkpoint")
    if any(is_within(path, [key]) for path in tensor_paths(plan)):
        raise UsageError(
            f"{key!r} holds tensors; a value cannot take its place", "name another key"
        )
    tree = put(plan.tree, key, value)
    if tree is DROPPED:
        raise no_way_to(key, plan.tree)
    return replace(plan, tree=tree)


def tensor_paths(plan: Plan) -> Iterator[str]:
    """Where the tensors of the output lie, under their old names and their new ones."""
    for tensor in plan.tensors:
        yield place_of(tensor.section, tensor.source.name)
        yield place_of(tensor.section, tensor.name)


def no_way_to(key: str, tree: object) -> UsageError:
    """What to say of a path that leads into something that cannot be entered."""
    found, rest = way_to(tree, key)
    where = key.removesuffix(rest).removesuffix(".") or "the whole"
    if isinstance(found, list | tuple):
        items = f"items 0 to {len(found) - 1}" if found else "no items"
        return UsageError(f"{key!r}: {where} is a list without such an item", f"it has {items}")
    return UsageError(f"{key!r}: {where} is no dict or list", f"set {where} itself, or another key")


# -- how it is laid out ------------------------------------------------------------------------


def shrink(plan: Plan) -> Plan:
    """Cut storages down to what the tensors of the output use of them."""
    return replace(plan, shrink=True)


def tied(plan: Plan, how: str) -> Plan:
    """Keep tensors that share elements sharing them (`keep`), or give each its own (`clone`)."""
    if how == "keep":
        return replace(plan, tied="keep")
    if how != "clone":
        raise UsageError(f"tied tensors can be kept or cloned, not {how!r}")
    return replace(plan, tied="clone")
