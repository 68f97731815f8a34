"""Which tensors get new values, and by which scheme: an edit of a plan."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from modtool.errors import UsageError
from modtool.notes import note
from modtool.plan.conversion import is_parameter
from modtool.plan.edits import chosen_among, edited
from modtool.plan.freezing import tied_partners
from modtool.plan.owners import direction_of, is_bias, owner
from modtool.plan.records import Fill, Plan, PlannedTensor, Rule
from modtool.plan.ties import ties_of
from modtool.records import ModuleNode, TensorInfo

__all__ = ["reinit"]

# What a module's own reset_parameters resets beside its parameters (torch.nn's norms).
RESET_BUFFERS = frozenset({"running_mean", "running_var", "num_batches_tracked"})


def reinit(plan: Plan, rules: Sequence[Rule], seed: int) -> Plan:
    """Give tensors new values; tensors that share their elements are filled together.

    Where a rule selects both parts of a weight norm, the magnitude becomes the norms of the
    direction, so that the weight is what the scheme made.
    """
    modules = {module.path: module for module in plan.source.model_modules}
    partners = ties_of(plan)
    fills: dict[str, Fill] = {}
    selected: set[str] = set()
    for rule in rules:
        names = selection(plan, rule)
        selected |= names
        for name in sorted(names):
            fill = fill_of(rule, partners[name][0], modules, seed)
            fills.update(dict.fromkeys((tensor.name for tensor in partners[name]), fill))
    fills = with_magnitudes(plan, fills)
    notes = tuple(
        note("tied-together", name, f"filled with {other}, which is the same tensor")
        for name, other in tied_partners(frozenset(selected), partners)
    )

    def change(tensor: PlannedTensor) -> PlannedTensor:
        if tensor.section not in plan.models or tensor.name not in fills:
            return tensor
        if not is_stored(tensor.source):
            raise UsageError(
                f"{tensor.name}: a {tensor.source.layout} tensor cannot be filled",
                f"leave it out of the selection: '!{tensor.name}' after a pattern",
            )
        return replace(tensor, fill=fills[tensor.name])

    return replace(edited(plan, change), notes=plan.notes + notes)


def is_stored(source: TensorInfo) -> bool:
    """True for a plain tensor with elements somewhere, be it in blocks."""
    return source.layout == "strided" and (source.storage is not None or bool(source.chunks))


def selection(plan: Plan, rule: Rule) -> frozenset[str]:
    """The output names that a rule selects: parameters, and running statistics for `default`."""
    among = [tensor for tensor in plan.model_tensors if can_be_filled(tensor, rule.scheme)]
    if not among:
        raise UsageError(f"{plan.source.target} has no parameter that could be filled")
    if rule.patterns:
        return chosen_among(plan, rule.patterns, among, "filled")
    return frozenset(tensor.name for tensor in among)


def can_be_filled(tensor: PlannedTensor, scheme: str) -> bool:
    """True for what a rule without patterns selects."""
    is_statistic = tensor.source.name.rpartition(".")[2] in RESET_BUFFERS
    return is_parameter(tensor.source) or (scheme == "default" and is_statistic)


def fill_of(
    rule: Rule, tensor: PlannedTensor, modules: Mapping[str, ModuleNode], seed: int
) -> Fill:
    """What a rule says of a tensor, the first of those that are tied."""
    source = tensor.source
    scheme, arguments = rule.scheme, rule.arguments
    if rule.bias is not None and is_bias(source.name, len(source.shape)):
        scheme, arguments = rule.bias
    module = modules.get(owner(source.name)[0])
    known = (module.type, module.settings) if module else (None, "")
    return Fill(scheme, arguments, seed, source.name, *known)


def with_magnitudes(plan: Plan, fills: Mapping[str, Fill]) -> dict[str, Fill]:
    """The fills, those of weight norms' magnitudes tied to those of their directions."""
    by_source = {tensor.source.name: tensor for tensor in plan.model_tensors}
    made = dict(fills)
    for tensor in plan.model_tensors:
        direction = by_source.get(direction_of(tensor.source.name) or "")
        own = fills.get(tensor.name)
        fill = fills.get(direction.name) if direction is not None else None
        if own is None or fill is None or direction is None or own.scheme == "default":
            continue
        if (own.scheme, own.arguments) == (fill.scheme, fill.arguments):
            made[tensor.name] = replace(own, norms_of=replace(direction, fill=fill))
    return made
