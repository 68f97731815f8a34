"""A plan in parts: which tensors go into which file of a set."""

from collections.abc import Sequence
from dataclasses import replace

from modtool.errors import UsageError
from modtool.plan.records import Plan, PlannedTensor
from modtool.plan.ties import stored_once
from modtool.plan.tree import entries, with_entries
from modtool.plan.views import view_of
from modtool.records import TensorInfo

__all__ = ["shards_of", "weight_map"]

Group = list[PlannedTensor]
DEEP = object()


def shards_of(plan: Plan, largest: int) -> tuple[Plan, ...]:
    """The plans of the files of a set, each of at most `largest` bytes of tensors.

    Tensors keep their order and a file is begun when the next one does not fit, as transformers
    does it. A tensor that is larger has a file of its own; what shares bytes stays together.

    Raises:
        UsageError: The form is none that comes in sets.
    """
    if plan.form not in ("state_dict", "safetensors"):
        raise UsageError(
            f"a {plan.form} is one file", "sets of files are written as safetensors or .bin"
        )
    shards: list[list[PlannedTensor]] = [[]]
    size = 0
    for group in groups_of(plan):
        needed = bytes_of(plan, group)
        if shards[-1] and size + needed > largest:
            shards.append([])
            size = 0
        shards[-1] += group
        size += needed
    return tuple(part_of(plan, tensors, first=index == 0) for index, tensors in enumerate(shards))


def groups_of(plan: Plan) -> Sequence[Group]:
    """The tensors that stay together, in order of the first of each.

    What lies deeper in a state_dict than names do goes into the first file, with what is no tensor.
    """
    deep = {together(plan, tensor) for tensor in deeper(plan)}
    groups: dict[object, Group] = {DEEP: []} if deep else {}
    for tensor in plan.tensors:
        key = together(plan, tensor)
        groups.setdefault(DEEP if key in deep else key, []).append(tensor)
    return list(groups.values())


def deeper(plan: Plan) -> list[PlannedTensor]:
    """The tensors that lie in a container inside a state_dict."""
    if plan.form != "state_dict":
        return []
    flat = {
        (item.section, item.name)
        for item in (entries(plan.tree) or {}).values()
        if isinstance(item, TensorInfo)
    }
    return [each for each in plan.tensors if (each.source.section, each.source.name) not in flat]


def together(plan: Plan, tensor: PlannedTensor) -> object:
    """Equal for tensors that have to be in one file to go on sharing their bytes."""
    if plan.tied == "clone":
        return tensor.name
    storage = tensor.source.storage
    whole = plan.form == "state_dict" and not plan.shrink
    return storage.key if whole and storage is not None else view_of(tensor.source)


def bytes_of(plan: Plan, group: Group) -> int:
    """Bytes that the tensors take together."""
    storage = group[0].source.storage
    views = {(view_of(tensor.source), tensor.dtype): tensor.nbytes for tensor in group}
    used = sum(views.values())
    whole = plan.form == "state_dict" and not plan.shrink and plan.tied == "keep"
    if whole and storage is not None and not any(tensor.is_computed for tensor in group):
        return max(used, storage.nbytes)
    return used


def part_of(plan: Plan, tensors: Sequence[PlannedTensor], *, first: bool) -> Plan:
    """The plan of one file. What is no tensor lies in the first one."""
    names = {tensor.name for tensor in tensors}
    flags = plan.requires_grad
    if flags is not None:
        flags = {name: flag for name, flag in flags.items() if name in names}
    tree, found = plan.tree, entries(plan.tree)
    if found is not None and not first:
        holders: dict[object, object] = {
            key: item for key, item in found.items() if isinstance(item, TensorInfo)
        }
        tree = with_entries(tree, holders)
    return replace(plan, tensors=tuple(tensors), tree=tree, requires_grad=flags)


def weight_map(shards: Sequence[Plan], files: Sequence[str]) -> dict[str, str]:
    """Tensor -> file, as an index has it: names that are stored, those tied in safetensors not."""
    found: dict[str, str] = {}
    for shard, file in zip(shards, files, strict=True):
        tied = stored_once(shard)
        found.update({each.name: file for each in shard.tensors if each.name not in tied})
    return found
