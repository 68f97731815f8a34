"""What a forward pass is given: `--input-shape 32,784`, `--input-shape input_ids=1,128:int64`.

[NAME=]SIZE,SIZE,…[:DTYPE]        nothing between NAME= and :DTYPE is a scalar
"""

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from modtool.errors import UsageError

__all__ = ["InputSpec", "Inputs", "bound_names", "make_inputs", "parse_inputs"]

LARGEST = 2**63 - 1
# The short names that people write, beside torch's own.
SHORT_NAMES = {
    "float": "float32",
    "double": "float64",
    "half": "float16",
    "fp16": "float16",
    "fp32": "float32",
    "fp64": "float64",
    "bf16": "bfloat16",
    "int": "int32",
    "long": "int64",
    "cfloat": "complex64",
}
DTYPE_NAMES = (
    "float64 float32 float16 bfloat16 float8_e4m3fn float8_e5m2 complex128 complex64 complex32 "
    "int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool"
)
DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in DTYPE_NAMES.split()}
# Inputs that are positions in a table, by the names that models give them.
INDEX_NAME = re.compile(
    r"(.*_)?(ids?|idx|indices|index|tokens?|labels|targets?_ids)|attention_mask|input_tokens"
)


@dataclass(frozen=True, slots=True)
class InputSpec:
    """A tensor that a model is to be given.

    Attributes:
        shape: Its sizes; () is a scalar.
        dtype: Its element type.
        below: Integers are drawn from 0 to below this.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    below: int = 2


@dataclass(frozen=True, slots=True)
class Inputs:
    """The arguments of a forward pass; every `InputSpec` in them stands for a tensor."""

    args: tuple[object, ...] = ()
    kwargs: Mapping[str, object] = field(default_factory=dict)


def parse_inputs(texts: Sequence[str], model: nn.Module) -> Inputs:
    """The inputs that shapes on the command line mean for a model.

    Args:
        texts: One for each input, in order; named ones become keyword arguments.
        model: What they are for: its parameters and its `forward` tell the element types.

    Raises:
        UsageError: A text does not parse, or `forward` takes no such inputs.
    """
    args: list[InputSpec] = []
    kwargs: dict[str, InputSpec] = {}
    for text in texts:
        name, shape, dtype = parse_shape(text)
        named = name or name_at(model, len(args))
        spec = InputSpec(shape, dtype or default_dtype(model, named, shape, not (args or kwargs)))
        spec = replace(spec, below=table_size(model))
        if not name:
            args.append(spec)
        elif name in kwargs:
            raise UsageError(f"--input-shape names {name} twice")
        else:
            kwargs[name] = spec
    inputs = Inputs(tuple(args), kwargs)
    check_signature(model, inputs)
    return inputs


def parse_shape(text: str) -> tuple[str, tuple[int, ...], torch.dtype | None]:
    """`x=2,3:int64` -> `("x", (2, 3), torch.int64)`."""
    rest, colon, dtype = text.partition(":")
    name, equals, sizes = rest.rpartition("=")
    name = name.strip()
    if equals and not name.isidentifier():
        raise UsageError(f"--input-shape {text!r}: {name!r} is no argument's name")
    shape = (
        tuple(parse_size(size.strip(), text) for size in sizes.split(",")) if sizes.strip() else ()
    )
    return name, shape, parse_dtype(dtype.strip(), text) if colon else None


def parse_size(size: str, text: str) -> int:
    """One size of a shape."""
    if not (size.isascii() and size.isdecimal()) or int(size) > LARGEST:
        raise UsageError(
            f"--input-shape {text!r}: {size!r} is no size",
            "write sizes with commas between them, as in 32,784 or input_ids=1,128:int64",
        )
    return int(size)


def parse_dtype(name: str, text: str) -> torch.dtype:
    """A dtype by torch's name, or a short one."""
    dtype = DTYPES.get(SHORT_NAMES.get(name, name))
    if dtype is None:
        raise UsageError(
            f"--input-shape {text!r}: {name!r} is no dtype", f"one of {', '.join(DTYPES)}"
        )
    return dtype


def default_dtype(
    model: nn.Module, name: str, shape: tuple[int, ...], is_first: bool
) -> torch.dtype:
    """int64 for what an embedding looks up; else the first floating parameter's dtype."""
    feeds_embedding = is_first and len(shape) <= 2 and starts_with_embedding(model)
    if feeds_embedding or INDEX_NAME.fullmatch(name):
        return torch.int64
    tensors = (*model.parameters(), *model.buffers())
    floating = (each.dtype for each in tensors if each.dtype.is_floating_point)
    return next(floating, torch.get_default_dtype())


def starts_with_embedding(model: nn.Module) -> bool:
    """True when the first module without children is an embedding."""
    leaf = next((each for each in model.modules() if not any(each.children())), None)
    return isinstance(leaf, nn.Embedding | nn.EmbeddingBag)


def table_size(model: nn.Module) -> int:
    """Rows of the smallest embedding: an index below it is good for each of them."""
    tables = (each for each in model.modules() if isinstance(each, nn.Embedding | nn.EmbeddingBag))
    return min((table.num_embeddings for table in tables), default=2)


def signature_of(model: nn.Module) -> inspect.Signature | None:
    """What `forward` takes; None where Python does not tell."""
    try:
        return inspect.signature(model.forward)
    except (ValueError, TypeError):
        return None


def name_at(model: nn.Module, position: int) -> str:
    """The name that `forward` gives a positional argument; "" where it has none."""
    signature = signature_of(model)
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = list(signature.parameters.values()) if signature else []
    names = [each.name for each in parameters if each.kind in kinds]
    return names[position] if position < len(names) else ""


def check_signature(model: nn.Module, inputs: Inputs) -> None:
    """Refuse inputs that `forward` cannot take, before anything runs."""
    signature = signature_of(model)
    if signature is None:
        return
    try:
        signature.bind(*inputs.args, **inputs.kwargs)
    except TypeError as error:
        names = ", ".join(str(each) for each in signature.parameters.values())
        raise UsageError(
            f"{type(model).__name__}.forward({names}): {error}",
            "give --input-shape once for each input, by name where order does not tell: x=32,784",
        ) from None


def bound_names(model: nn.Module, inputs: Inputs) -> dict[str, object]:
    """The inputs by the names that `forward` gives them; by position where it has none."""
    names = [name_at(model, index) or str(index) for index in range(len(inputs.args))]
    return {**dict(zip(names, inputs.args, strict=True)), **inputs.kwargs}


def make_inputs(inputs: Inputs, device: torch.device, seed: int = 0) -> Inputs:
    """The inputs with a tensor for every `InputSpec`; the same seed gives the same values."""
    generator = torch.Generator().manual_seed(seed)

    def made(value: object) -> object:
        if isinstance(value, InputSpec):
            return values_of(value, generator).to(device)
        if isinstance(value, dict):
            return {key: made(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(made(inner) for inner in value)
        return value

    args = tuple(made(value) for value in inputs.args)
    return Inputs(args, {name: made(value) for name, value in inputs.kwargs.items()})


def values_of(spec: InputSpec, generator: torch.Generator) -> torch.Tensor:
    """Standard normal floats, integers within the model's tables, booleans at random."""
    if spec.dtype.is_floating_point or spec.dtype.is_complex:
        kind = torch.complex64 if spec.dtype.is_complex else torch.float32
        return torch.randn(spec.shape, dtype=kind, generator=generator).to(spec.dtype)
    top = 2 if spec.dtype is torch.bool else spec.below
    top = max(min(top, 127), 1) if spec.dtype.itemsize == 1 else max(top, 1)
    return torch.randint(top, spec.shape, generator=generator).to(spec.dtype)
