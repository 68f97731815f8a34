"""Which element type an input has, when nobody says."""

import re
from collections.abc import Iterable, Iterator

import torch
from torch import nn

__all__ = ["DTYPES", "SHORT_NAMES", "default_dtype", "real_dtype", "table_size"]

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


def default_dtype(
    model: nn.Module, name: str, shape: tuple[int, ...], is_first: bool
) -> torch.dtype:
    """int64 for what an embedding looks up; else the first parameter's dtype, of those with one."""
    feeds_embedding = is_first and len(shape) <= 2 and starts_with_embedding(model)
    if feeds_embedding or INDEX_NAME.fullmatch(name):
        return torch.int64
    return first_dtype(
        each for each in dtypes_of(model) if each.is_floating_point or each.is_complex
    )


def real_dtype(model: nn.Module) -> torch.dtype:
    """The first floating parameter's dtype."""
    return first_dtype(each for each in dtypes_of(model) if each.is_floating_point)


def dtypes_of(model: nn.Module) -> Iterator[torch.dtype]:
    """The dtypes of parameters, then of buffers."""
    return (each.dtype for each in (*model.parameters(), *model.buffers()))


def first_dtype(found: Iterable[torch.dtype]) -> torch.dtype:
    """The first of them; torch's default where there is none."""
    return next(iter(found), torch.get_default_dtype())


def starts_with_embedding(model: nn.Module) -> bool:
    """True when the first module without children is an embedding."""
    leaf = next((each for each in model.modules() if next(each.children(), None) is None), None)
    return isinstance(leaf, nn.Embedding | nn.EmbeddingBag)


def table_size(model: nn.Module) -> int:
    """Rows of the smallest embedding: an index below it is good for each of them."""
    tables = (each for each in model.modules() if isinstance(each, nn.Embedding | nn.EmbeddingBag))
    return min((table.num_embeddings for table in tables), default=2)
