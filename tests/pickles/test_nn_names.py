"""The names that `print(model)` gives to the classes of torch.ao, read off their names alone."""

import importlib
import pkgutil
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from modtool.pickles.nn_settings import printed_name

# Bases that are no layers: they cannot be made, or have the name of a class below them.
BASES = ("RNNBase", "RNNCellBase", "WeightedQuantizedModule", "ReferenceQuantizedModule")


def classes() -> Iterator[type[nn.Module]]:
    """Every class of `torch.ao.nn` that can be a module of a model."""
    for info in pkgutil.walk_packages(torch.ao.nn.__path__, "torch.ao.nn."):
        for cls in vars(importlib.import_module(info.name)).values():
            if isinstance(cls, type) and issubclass(cls, nn.Module) and cls.__name__ not in BASES:
                yield cls


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_class_of_torch_ao_has_the_name_that_it_prints() -> None:
    printed = {}
    for cls in classes():
        try:
            printed[f"{cls.__module__}.{cls.__qualname__}"] = cls._get_name(object.__new__(cls))  # type: ignore[no-untyped-call]
        except TypeError:  # torch.ao.nn.sparse.quantized.Linear: a class method
            printed[f"{cls.__module__}.{cls.__qualname__}"] = cls._get_name()  # type: ignore[no-untyped-call,call-arg]
    assert len(printed) > 100
    assert {name: printed_name(name) for name in printed} == printed


@pytest.mark.parametrize(
    ("class_name", "printed"),
    [
        ("torch.nn.modules.linear.Linear", "Linear"),
        ("torch.nn.quantized.dynamic.modules.linear.Linear", "DynamicQuantizedLinear"),
        ("mine.quantized.Linear", "Linear"),
        ("Linear", "Linear"),
        ("", ""),
    ],
)
def test_the_names_of_other_classes(class_name: str, printed: str) -> None:
    assert printed_name(class_name) == printed
