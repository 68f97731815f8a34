"""Optimizer state that does not fit the model section: by number, by shape, by name.

The order in which an optimizer numbers its parameters is not in the file (groups may reorder
them), so that shapes are compared as a bag: there may not be more states of one shape than the
model has parameters of it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from modtool.checks.structure import number_of, some
from modtool.notes import note
from modtool.records import Checkpoint, Note, TensorInfo
from modtool.sharing import share

__all__ = ["optimizer_mismatch"]

# States of torch.optim that have the shape of their parameter, in the order of their fame.
SHAPED = (
    "exp_avg",
    "momentum_buffer",
    "square_avg",
    "sum",
    "acc_delta",
    "exp_inf",
    "prev",
    "ax",
)
# A part beside the model has states alone: that it is a loss with parameters, nothing tells.
TRAINED = ("parameter", "state")
# Of more sections than these, only all together are held against what does not fit the model.
MAX_SECTIONS = 100
States = dict[str, dict[str, TensorInfo]]
"""Parameter's key -> what state it has."""
Parameters = Mapping[str, TensorInfo]
"""Name -> the parameter."""


def optimizer_mismatch(checkpoint: Checkpoint) -> Iterator[Note]:
    """What an optimizer's state says of parameters that nothing in the file has."""
    groups = groups_of(checkpoint)
    names = [section.name for section in checkpoint.sections if section.role == "optimizer"]
    names = list(dict.fromkeys((*names, *groups)))  # one that took no step has groups alone
    if not names or any(found.code == "partitioned-weights" for found in checkpoint.notes):
        return
    model, *others = candidates(checkpoint)
    for name in names if model else ():
        states, in_groups = states_of(checkpoint, name), groups.get(name, 0)
        messages = list(mismatches(states, model, in_groups))
        if messages and all(any(mismatches(states, each, in_groups)) for each in others):
            yield from (note("optimizer-mismatch", name, message) for message in messages)


def candidates(checkpoint: Checkpoint) -> Iterator[Parameters]:
    """What an optimizer may be for: the model first, then each section alone, then all of them.

    A GAN has an optimizer for the generator and one for the discriminator; a loss with parameters
    of its own is trained together with the model.
    """
    model = checkpoint.model_sections
    trained: dict[str, list[TensorInfo]] = {name: [] for name in model}
    trained |= {section.name: [] for section in checkpoint.sections if section.role == "other"}
    for tensor in checkpoint.tensors:
        if tensor.section in trained and tensor.role in TRAINED:
            trained[tensor.section].append(tensor)
    yield parameters_of([tensor for name in model for tensor in trained[name]])
    yield from map(parameters_of, islice(trained.values(), MAX_SECTIONS))
    yield parameters_of([tensor for tensors in trained.values() for tensor in tensors])


def parameters_of(tensors: Sequence[TensorInfo]) -> Parameters:
    """The parameters by name, that of their section too where there are several.

    Tied ones are there once, as an optimizer has them.
    """
    firsts = share(tensors).first
    several = len({each.section for each in tensors}) > 1
    return {
        each.full_name if several else each.name: each
        for each, first in zip(tensors, firsts, strict=True)
        if first is None
    }


def states_of(checkpoint: Checkpoint, section: str) -> States:
    """The states of one optimizer by the key of their parameter: a number, or its name."""
    states: States = {}
    for tensor in checkpoint.tensors:
        if tensor.section == section and tensor.name.startswith("state."):
            *key, kind = tensor.name.split(".")[1:]
            while kind.isdigit() and len(key) > 1:  # of a list: LBFGS has `state.0.old_dirs.1`
                kind = key.pop()
            states.setdefault(".".join(key), {})[kind] = tensor
    return states


def groups_of(checkpoint: Checkpoint) -> dict[str, int]:
    """Name of each optimizer -> how many parameters its groups list."""
    counts: dict[str, int] = {}
    for name, item in checkpoint.values.items():
        optimizer, found, rest = name.partition(".param_groups.")
        if found and rest.endswith(".params") and isinstance(item, list | tuple):
            counts[optimizer] = counts.get(optimizer, 0) + len(item)
    return counts


def mismatches(states: States, parameters: Parameters, in_groups: int) -> Iterator[str]:
    """What does not fit, most telling first."""
    count = len(parameters)
    if len(states) > count:
        yield f"state for {number_of(len(states), 'parameter')}, and the model has {count:,}"
        return
    if in_groups > count:
        yield f"its groups list {number_of(in_groups, 'parameter')}, and the model has {count:,}"
        return
    shaped = {key: shape_of(state) for key, state in states.items()}
    known = {key: shape for key, shape in shaped.items() if shape is not None}
    if known and all(not key.isdigit() for key in known):
        yield from by_name(known, parameters)
    else:
        yield from by_shape(known, parameters)


def shape_of(state: Mapping[str, TensorInfo]) -> tuple[int, ...] | None:
    """The shape that a parameter has, as its state tells; None where nothing tells."""
    return next((state[kind].shape for kind in SHAPED if kind in state), None)


def by_name(known: Mapping[str, tuple[int, ...]], parameters: Parameters) -> Iterator[str]:
    """States that are named as the parameters are."""
    strange = [key for key in known if key not in parameters]
    if strange:
        yield f"state for {some(strange)}, which the model does not have"
    for key, shape in known.items():
        if key in parameters and shape != parameters[key].shape:
            has = list(parameters[key].shape)
            yield f"state of shape {list(shape)} for {key}, which has shape {has}"
            return


def by_shape(known: Mapping[str, tuple[int, ...]], parameters: Parameters) -> Iterator[str]:
    """States that are numbered: more of one shape than there are parameters of it."""
    surplus = Counter(known.values()) - Counter(each.shape for each in parameters.values())
    for shape, count in surplus.items():
        first = next(key for key, each in known.items() if each == shape)
        has = sum(each.shape == shape for each in parameters.values())
        yield (
            f"state of shape {list(shape)} for {number_of(count + has, 'parameter')} "
            f"(number {first} first), and the model has {has:,} of that shape"
        )
        return
