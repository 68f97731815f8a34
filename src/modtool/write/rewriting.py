"""A torch file written back with edits: which symbols take the place of which."""

from collections.abc import Mapping

from modtool.errors import UsageError
from modtool.pickles.flags import has_flag, parameter_flag, with_flag
from modtool.pickles.symbols import Call
from modtool.plan import BN_EVAL_KEY, FLAGS_KEY, Plan, PlannedTensor, bn_eval_of
from modtool.plan.tree import DROPPED, entries, put, with_entries, without
from modtool.write.storages import Placement, key_of
from modtool.write.torch_symbols import name, rebuilt

__all__ = ["flagged", "refuse_without_place", "rewritten", "with_bn_eval"]


def with_bn_eval(tree: object, plan: Plan) -> object:
    """The tree with the modules to be kept in eval mode, where the plan speaks of them."""
    if plan.bn_eval is None:
        return tree
    paths = bn_eval_of(plan)
    return put(tree, BN_EVAL_KEY, paths) if paths else without(tree, BN_EVAL_KEY)


def rewritten(plan: Plan, placed: dict[tuple[str | None, str], Placement]) -> dict[int, object]:
    """What takes the place of which symbols when a file is written back with edits."""
    changes: dict[int, object] = {}
    for tensor in plan.tensors:
        origin = tensor.source.origin
        if tensor.is_computed and isinstance(origin, Call):
            changes[id(origin)] = recomputed(tensor, placed[key_of(tensor)], origin)
    if plan.requires_grad is not None:
        changes.update(flagged(plan, changes))
    return changes


def recomputed(tensor: PlannedTensor, place: Placement, origin: Call) -> object:
    """A tensor with other elements; a Parameter stays one."""
    flag = parameter_flag(origin)
    plain = rebuilt(tensor, place, requires_grad=False)
    if flag is None:
        return plain
    hooks = Call(name("collections", "OrderedDict"), ())
    return Call(name("torch._utils", "_rebuild_parameter"), (plain, flag, hooks))


def flagged(plan: Plan, changes: Mapping[int, object]) -> dict[int, object]:
    """Flags inside the file where its tensors have some, else in a map beside its parts.

    The tensors of a module have; those of a state_dict have none, unless they are Parameters.
    """
    records = has_flag if plan.source.kind == "full_model" else is_parameter
    changed = frozenset(plan.flags_changed)
    flags = plan.requires_grad or {}
    made: dict[int, object] = {}
    beside = recorded_map(plan) is not None
    for tensor in plan.model_tensors:
        origin = tensor.source.origin
        if tensor.source.name not in changed:
            continue
        if records(origin):
            current = changes.get(id(origin), origin)
            assert isinstance(current, Call)
            made[id(origin)] = with_flag(current, flags[tensor.name])
        else:
            beside = True
    tree = with_bn_eval(with_map(plan) if beside else plan.tree, plan)
    refuse_without_place(tree, plan)
    if tree is not plan.tree:
        made[id(plan.tree)] = tree
    return made


def refuse_without_place(tree: object, plan: Plan) -> None:
    """Refuse a file whose object is no dict, to put a map of flags in.

    Raises:
        UsageError: `tree` is what `put` gives for such an object.
    """
    if tree is DROPPED:
        raise UsageError(
            f"{plan.source.target} has no place for what is trainable",
            "write the plan alone with -o plan.json, and give it to modtool.apply_freeze",
        )


def is_parameter(origin: object) -> bool:
    """True for what was saved as a Parameter."""
    return parameter_flag(origin) is not None


def recorded_map(plan: Plan) -> object:
    """The map of flags that the source has already; None where it has none."""
    return (entries(plan.tree) or {}).get(FLAGS_KEY)


def with_map(plan: Plan) -> object:
    """The tree with the map of flags; one that is there keeps its order and its other names."""
    flags = plan.requires_grad or {}
    recorded = recorded_map(plan)
    known = entries(recorded)
    if known is None:
        return put(plan.tree, FLAGS_KEY, dict(flags))
    changed = frozenset(plan.flags_changed)
    news: dict[object, object] = {
        tensor.name: flags[tensor.name]
        for tensor in plan.model_tensors
        if tensor.name in flags and (tensor.name in known or tensor.source.name in changed)
    }
    return put(plan.tree, FLAGS_KEY, with_entries(recorded, {**known, **news}))
