"""Freezing in the training script: `requires_grad` by name, modules kept in eval, optimizer groups.

torch is imported when a model is at hand, not before.
"""

import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from modtool.errors import CorruptFileError, TargetError, UsageError, a_kind
from modtool.formats import open_checkpoint
from modtool.names import shared_prefixes
from modtool.patterns import hint_for, patterns_of, select
from modtool.plan import recorded_bn_eval
from modtool.plan.owners import owner
from modtool.records import Checkpoint

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "Applied",
    "FreezePlan",
    "KeepEval",
    "apply_freeze",
    "keep_in_eval",
    "param_groups",
    "plan_of",
    "read_plan",
    "release_from_eval",
]

SCHEMA = 1
HELP_PLAN = "write one with: modtool freeze MODEL PATTERN -o plan.json"

Options = Mapping[str, Any]
"""What an optimizer takes per group: `lr`, `weight_decay`, …."""


@dataclass(frozen=True, slots=True)
class FreezePlan:
    """What is to train and what is not.

    Attributes:
        requires_grad: Parameter name -> whether it trains.
        bn_eval: Paths of modules that stay in eval mode while the rest trains.
    """

    requires_grad: Mapping[str, bool]
    bn_eval: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Applied:
    """What `apply_freeze` changed; names are first names, as `named_parameters` has them.

    Attributes:
        frozen: Parameters that trained before and do not now.
        unfrozen: Parameters that train now and did not before.
        bn_eval: Modules that are kept in eval mode.
        released: Modules that an earlier plan kept in eval mode, and that follow `train()` again.
        tied: The names of each parameter that has several and was in the plan.
        missing: Parameters that the plan does not speak of (only where that is allowed).
        unknown: Names in the plan that the model does not have (only where that is allowed).
        trainable: Elements that train now, each counted once.
        total: Elements of all parameters, each counted once.
    """

    frozen: tuple[str, ...] = ()
    unfrozen: tuple[str, ...] = ()
    bn_eval: tuple[str, ...] = ()
    tied: tuple[tuple[str, ...], ...] = ()
    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    trainable: int = field(default=0, kw_only=True)
    total: int = field(default=0, kw_only=True)
    released: tuple[str, ...] = field(default=(), kw_only=True)


def apply_freeze(
    model: "nn.Module",
    source: "FreezePlan | Checkpoint | Mapping[str, Any] | str | os.PathLike[str]",
    *,
    strict: bool = True,
) -> Applied:
    """Set `requires_grad` as a plan says, and keep its `bn_eval` modules in eval from now on.

    Nothing is changed unless everything can be. A tied parameter counts as named when one of its
    names is. The prefix of a wrapper (DataParallel, torch.compile) that only one side has is seen
    through. Modules that an earlier plan kept in eval, and this one governs and does not keep, are
    let go.

    Args:
        model: The model to train.
        source: A plan, a mapping name -> bool, a plan file (`.json`), or any checkpoint that
            records what is frozen: as `modtool freeze` writes them, or a full-model save. What
            `torch.load` made of one that has a `requires_grad` map is as good.
        strict: False allows names that the model does not have, and parameters without a word.

    Raises:
        UsageError: Unknown or missing names, names of one tied parameter that disagree, a
            parameter that cannot have gradients, or TorchScript that is to stay in eval.
        TargetError: There is no such file, or it does not record what is frozen.
        CorruptFileError: The file contradicts itself.
    """
    parameters = tied_names(model)
    first = {name: names[0] for names in parameters for name in names}
    plan = rewrapped(as_plan(source), first)
    buffers = {name for name, _ in model.named_buffers(remove_duplicate=False)}
    modules = dict(model.named_modules(remove_duplicate=False))
    # A plan made of a bare state_dict cannot know that a tensor of its own name is a buffer.
    unknown = [name for name in plan.requires_grad if name not in first and name not in buffers]
    unknown += [path for path in plan.bn_eval if path not in modules]
    wanted = merge_ties(plan.requires_grad, parameters)
    missing = [names[0] for names in parameters if names[0] not in wanted]
    if strict:
        refuse_names(unknown, missing, [*first, *modules])
    refuse_integers(model, wanted)
    kept = tuple(path for path in plan.bn_eval if path in modules)
    refuse_scripts(modules[path] for path in kept)
    changed = set_flags(model, wanted)
    released = release_governed(model, wanted, frozenset(id(modules[path]) for path in kept))
    keep_in_eval(model, kept)
    return Applied(
        frozen=tuple(name for name in changed if not wanted[name]),
        unfrozen=tuple(name for name in changed if wanted[name]),
        bn_eval=kept,
        tied=tuple(names for names in parameters if len(names) > 1 and names[0] in wanted),
        missing=tuple(missing),
        unknown=tuple(unknown),
        trainable=sum(each.numel() for each in model.parameters() if each.requires_grad),
        total=sum(each.numel() for each in model.parameters()),
        released=released,
    )


def as_plan(
    source: "FreezePlan | Checkpoint | Mapping[str, Any] | str | os.PathLike[str]",
) -> FreezePlan:
    """Whatever says what is frozen, as a plan."""
    if isinstance(source, FreezePlan):
        return source
    if isinstance(source, Mapping):
        return plan_in(source)
    if isinstance(source, Checkpoint):
        return plan_of(source)
    path = os.fspath(source)
    is_plan = path.endswith(".json") and not path.endswith(".index.json")
    return read_plan(path) if is_plan else plan_of(open_checkpoint(path))


def plan_in(mapping: Mapping[str, Any]) -> FreezePlan:
    """The plan in a mapping: name -> bool, or a loaded checkpoint with such a map in it."""
    inner = mapping.get("requires_grad")
    flags = inner if isinstance(inner, Mapping) else mapping
    wrong = next((name for name, flag in flags.items() if not isinstance(flag, bool)), None)
    if wrong is not None:
        raise UsageError(
            f"{wrong!r} is no parameter name -> bool, but {a_kind(flags[wrong])}",
            "give such a mapping, a checkpoint with one under 'requires_grad', or a file",
        )
    kept = mapping.get("bn_eval") if flags is inner else ()
    paths = tuple(kept) if isinstance(kept, list | tuple) else ()
    return FreezePlan(dict(flags), tuple(path for path in paths if isinstance(path, str)))


def read_plan(path: "str | os.PathLike[str]") -> FreezePlan:
    """Read a plan file: `{"schema": 1, "requires_grad": {"fc.weight": false}, "bn_eval": ["bn"]}`.

    Raises:
        TargetError: There is no such file.
        CorruptFileError: It is no plan.
    """
    try:
        plan = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise TargetError(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise CorruptFileError(f"{path} is no JSON: {error}", HELP_PLAN) from None
    flags = plan.get("requires_grad") if isinstance(plan, dict) else None
    if not isinstance(flags, dict) or not all(isinstance(flag, bool) for flag in flags.values()):
        reason = "no names -> booleans in 'requires_grad'"
        raise CorruptFileError(f"{path} is no freeze plan: {reason}", HELP_PLAN)
    if plan.get("schema") != SCHEMA:
        hint = f"this modtool reads schema {SCHEMA}"
        raise CorruptFileError(f"{path}: schema {plan.get('schema')!r} is not known", hint)
    bn_eval = plan.get("bn_eval", [])
    if not isinstance(bn_eval, list) or not all(isinstance(each, str) for each in bn_eval):
        raise CorruptFileError(f"{path} is no freeze plan: no paths in 'bn_eval'", HELP_PLAN)
    return FreezePlan(flags, tuple(bn_eval))


def plan_of(checkpoint: Checkpoint) -> FreezePlan:
    """The plan that a checkpoint's model records, tensor by tensor.

    Raises:
        TargetError: It records none: a plain state_dict does not.
    """
    flags = {
        tensor.name: tensor.requires_grad
        for tensor in checkpoint.model_tensors
        if tensor.requires_grad is not None and tensor.role in ("parameter", "tensor")
    }
    if not flags:
        hint = "`modtool freeze` writes a checkpoint that does"
        raise TargetError(f"{checkpoint.target} does not record what is frozen", hint)
    return FreezePlan(MappingProxyType(flags), recorded_bn_eval(checkpoint))


def rewrapped(plan: FreezePlan, names: Collection[str]) -> FreezePlan:
    """The plan in the model's names, where one of the two is wrapped and not a name fits as it is.

    `nn.DataParallel` and `torch.compile` put a prefix before all names.
    """
    own, wanted = ("".join(shared_prefixes(each)) for each in (plan.requires_grad, names))
    if own == wanted or any(name in names for name in plan.requires_grad):
        return plan

    def changed(path: str) -> str:
        below = f"{path}.".removeprefix(own) if path else ""
        return (wanted + below).removesuffix(".")

    flags = {changed(name): flag for name, flag in plan.requires_grad.items()}
    return FreezePlan(flags, tuple(map(changed, plan.bn_eval)))


def tied_names(model: "nn.Module") -> tuple[tuple[str, ...], ...]:
    """All names of each parameter, the first one first, in the order of `named_parameters`."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return tuple(tuple(each) for each in names.values())


def merge_ties(flags: Mapping[str, bool], parameters: Sequence[tuple[str, ...]]) -> dict[str, bool]:
    """First name -> flag, for each parameter that is named by any of its names."""
    wanted: dict[str, bool] = {}
    for names in parameters:
        said = {name: flags[name] for name in names if name in flags}
        if len(set(said.values())) > 1:
            raise UsageError(
                f"{' and '.join(said)} are one tied parameter: it cannot train and be frozen"
            )
        if said:
            wanted[names[0]] = next(iter(said.values()))
    return wanted


def refuse_names(unknown: Sequence[str], missing: Sequence[str], names: Sequence[str]) -> None:
    """An error for names that only one side has."""
    if unknown:
        hint = f"{hint_for(unknown[0], names, None)}; strict=False allows it"
        raise UsageError(f"the model has no {some(unknown)}", hint)
    if missing:
        hint = "strict=False leaves them as they are"
        raise UsageError(f"the plan says nothing of {some(missing)}", hint)


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    rest = len(names) - 5
    return ", ".join(names[:5]) + (f" and {rest} more" if rest > 0 else "")


def refuse_integers(model: "nn.Module", wanted: Mapping[str, bool]) -> None:
    """An error for what would have to train and cannot."""
    for name, parameter in model.named_parameters():
        real = parameter.is_floating_point() or parameter.is_complex()
        if wanted.get(name) and not real:
            raise UsageError(f"{name} is of type {parameter.dtype}, which has no gradients")


def refuse_scripts(modules: "Iterable[nn.Module]") -> None:
    """An error for TorchScript among the modules to be kept in eval: its `train` is its own."""
    from torch.jit import ScriptModule

    if any(isinstance(module, ScriptModule) for module in modules):
        raise UsageError(
            "a TorchScript module cannot be kept in eval mode",
            "script the model after apply_freeze, or call .eval() on it in every epoch",
        )


def set_flags(model: "nn.Module", wanted: Mapping[str, bool]) -> list[str]:
    """Set the flags, and return the names of those that were otherwise before."""
    changed = []
    for name, parameter in model.named_parameters():
        if name in wanted and parameter.requires_grad != wanted[name]:
            parameter.requires_grad_(wanted[name])
            changed.append(name)
    return changed


class KeepEval:
    """What stands in for `module.train` on a module that is to stay in eval mode.

    It lies in the module's own `__dict__`, where `train()` of a parent finds it before the
    method of the class. Copies and pickles of the module carry it along, bound to the copy; to
    unpickle a whole model that has one, modtool must be importable (a state_dict does not hold it).
    """

    __slots__ = ("module",)

    def __init__(self, module: "nn.Module") -> None:
        self.module = module

    def __call__(self, mode: bool = True) -> "nn.Module":
        """Go to eval mode, whatever `mode` says, as `nn.Module.train(False)` would."""
        return type(self.module).train(self.module, False)


def keep_in_eval(model: "nn.Module", paths: Iterable[str]) -> None:
    """Put the modules at these paths into eval mode, where later `model.train()` leaves them."""
    for path in paths:
        module = model.get_submodule(path)
        vars(module)["train"] = KeepEval(module)
        module.eval()


def release_from_eval(model: "nn.Module", paths: Iterable[str] | None = None) -> tuple[str, ...]:
    """Let modules follow `model.train()` again: those at the paths, or all; returns which did."""
    chosen = None if paths is None else set(paths)
    released = []
    for path, module in model.named_modules():
        kept = isinstance(vars(module).get("train"), KeepEval)
        if kept and (chosen is None or path in chosen):
            del vars(module)["train"]
            released.append(path)
    return tuple(released)


def release_governed(
    model: "nn.Module", wanted: Mapping[str, bool], kept: Collection[int]
) -> tuple[str, ...]:
    """Release the modules in eval that a plan speaks of and does not keep; their paths.

    It speaks of a module when it does of a parameter in it, or, where it has none, of one in the
    nearest module around it that has some. A released module takes the mode of the one around it.
    """
    names = [name for name, _ in model.named_parameters()]
    governed = []
    for path, module in model.named_modules():
        if isinstance(vars(module).get("train"), KeepEval) and id(module) not in kept:
            around = path
            while around and not any(name.startswith(f"{around}.") for name in names):
                around = around.rpartition(".")[0]
            below = f"{around}." if around else ""
            if any(name.startswith(below) for name in wanted):
                governed.append(path)
    released = release_from_eval(model, governed)
    for path in released:
        if path:
            model.get_submodule(path).train(model.get_submodule(path.rpartition(".")[0]).training)
    return released


def param_groups(
    model: "nn.Module",
    groups: Mapping[str, Options] | Mapping[Sequence[str], Options],
) -> list[dict[str, Any]]:
    """Optimizer groups of the trainable parameters, by name.

    `{"backbone": {"lr": 1e-5}, "*": {"lr": 1e-3}}` gives the backbone the smaller rate. Each
    parameter is in one group: the *first* whose pattern matches one of its names. (Later patterns
    win inside one selection; groups are alternatives, and `*` at the end is the rest.) A group
    whose parameters are all frozen or taken is left out, but for one that lies inside an earlier
    group, which is an error. Frozen parameters are in none.

    Args:
        model: The model to train.
        groups: A pattern, or a tuple of them that make one selection, -> the group's options.

    Returns:
        What `torch.optim` optimizers take: `[{"params": [...], "lr": 1e-5}, …]`.

    Raises:
        UsageError: A pattern matches no name or comes after one that takes all that it matches and
            more, options are no mapping, a trainable parameter is in no group, or nothing trains.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    left = {id(each): name for name, each in model.named_parameters() if each.requires_grad}
    if not left:
        raise UsageError("no parameter of the model trains", "apply_freeze can unfreeze some")
    types = parameter_types(model)
    trainable = frozenset(left)
    earlier: dict[str | Sequence[str], frozenset[int]] = {}
    built = []
    for patterns, options in groups.items():
        refuse_options(patterns, options)
        chosen = select(patterns_of(patterns), [*parameters], types)
        matched = trainable.intersection(id(parameters[name]) for name in chosen)
        refuse_swallowed(patterns, matched, earlier)
        earlier[patterns] = matched
        members = [each for each in model.parameters() if id(each) in left and id(each) in matched]
        for each in members:
            del left[id(each)]
        if members:
            built.append({"params": members, **options})
    if left:
        hint = "end with '*' for the rest, or freeze them"
        raise UsageError(f"these train and are in no group: {some([*left.values()])}", hint)
    return built


def refuse_options(patterns: str | Sequence[str], options: object) -> None:
    """An error for what is not the options of a group."""
    if not isinstance(options, Mapping):
        raise UsageError(
            f"{patterns!r}: a group's options are a dict, not {options!r}",
            "as in {'*': {'lr': 1e-3}}",
        )
    if "params" in options:
        raise UsageError(f"{patterns!r}: the options of a group cannot set 'params'")


def refuse_swallowed(
    patterns: str | Sequence[str],
    matched: frozenset[int],
    earlier: Mapping[str | Sequence[str], frozenset[int]],
) -> None:
    """An error for a group that lies inside an earlier one, which leaves it nothing."""
    for other, taken in earlier.items():
        if matched and matched < taken:
            raise UsageError(
                f"{patterns!r} gets no parameter: {other!r}, which comes before it, took all",
                f"put {patterns!r} first: a parameter is in the first group that matches it",
            )


def parameter_types(model: "nn.Module") -> dict[str, str]:
    """Parameter name -> class name of its module; that of the layer, where it is parametrized."""
    kinds = {
        path: type(each).__name__ for path, each in model.named_modules(remove_duplicate=False)
    }
    return {
        name: kinds.get(owner(name)[0], "").removeprefix("Parametrized")
        for name, _ in model.named_parameters(remove_duplicate=False)
    }
