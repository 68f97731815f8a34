"""`settings_of` against `extra_repr()`, class by class."""

import importlib
import inspect
import pkgutil
import warnings
from collections.abc import Iterator, Mapping

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from modtool.pickles.nn_settings import mode_sensitive, quantized_conv_attributes, settings_of
from modtool.pickles.nn_settings.quantized import QUANTIZED
from modtool.pickles.nn_settings.standard import STANDARD
from modtool.pickles.plain import attributes_of
from modtool.pickles.symbols import Call, Global, PersistentId
from tests.pickles.nn_modules import BUILDERS, Builder, built, class_name, pickled, shapes

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]


def read_settings(module: nn.Module, protocol: int = 2) -> str:
    root = pickled(module, protocol)
    attributes = attributes_of(root) or quantized_conv_attributes(root.state)
    assert attributes is not None
    return settings_of(class_name(module), attributes, shapes(module))


@pytest.mark.parametrize("builder", BUILDERS)
def test_settings_are_what_torch_prints(builder: Builder) -> None:
    modules = built(builder)
    assert [(class_name(module), read_settings(module)) for module in modules] == [
        (class_name(module), module.extra_repr()) for module in modules
    ]


@pytest.mark.parametrize("protocol", [1, 3, 4, 5])  # torch cannot load what it saves at 0
def test_every_protocol_says_the_same(protocol: int) -> None:
    module: nn.Module = nn.Conv2d(3, 4, (1, 2), padding="same", bias=False)
    printed = "3, 4, kernel_size=(1, 2), stride=(1, 1), padding=same, bias=False"
    assert read_settings(module, protocol) == printed
    held = nn.ParameterDict({"a": torch.zeros(2, 3)})
    assert (
        read_settings(held, protocol)
        == "  (a): Parameter containing: [torch.FloatTensor of size 2x3]"
    )


def torch_classes(package: str) -> Iterator[type[nn.Module]]:
    """Every module class that a package of torch defines, private bases left out."""
    with warnings.catch_warnings(action="ignore"):
        root = importlib.import_module(package)
        names = [info.name for info in pkgutil.walk_packages(root.__path__, f"{package}.")]
        for module in map(importlib.import_module, names):
            for name, found in inspect.getmembers(module, inspect.isclass):
                own = found.__module__ == module.__name__ and not name.startswith("_")
                if own and issubclass(found, nn.Module):
                    yield found


def prints(found: type[nn.Module]) -> bool:
    return found.extra_repr is not nn.Module.extra_repr


def test_every_class_of_torch_nn_is_covered_and_tested() -> None:
    printing = {found.__name__ for found in torch_classes("torch.nn.modules") if prints(found)}
    public = {name for name, found in vars(nn).items() if inspect.isclass(found)}
    assert set(STANDARD) - printing == set()
    assert printing - set(STANDARD) == set()
    assert {name for name in public if name in printing} <= set(STANDARD)
    tested = {type(module).__name__ for builder in BUILDERS for module in built(builder)}
    assert printing - tested == set()


def test_every_class_of_torch_ao_nn_is_covered() -> None:
    printing = {
        f"{found.__module__}.{found.__name__}"
        for found in torch_classes("torch.ao.nn")
        if prints(found)
    }
    rooms = {name.removeprefix("torch.ao.nn.").partition(".modules")[0] for name in printing}
    assert {name for name in printing if not known(name)} == set()
    assert set(QUANTIZED) <= {room.rpartition(".linear")[0] or room for room in rooms}


class EverythingIsOne(Mapping[str, object]):
    """Attributes of which none is missing."""

    def __getitem__(self, name: str) -> object:
        return 1

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def known(name: str) -> bool:
    return settings_of(name, EverythingIsOne(), {}) != ""


@pytest.mark.parametrize("package", ["torch.nn.modules", "torch.ao.nn"])
def test_a_class_that_prints_nothing_stays_silent(package: str) -> None:
    silent = [found for found in torch_classes(package) if not prints(found)]
    assert len(silent) > 20
    for found in silent:
        assert not known(f"{found.__module__}.{found.__name__}")


def test_classes_that_are_not_torchs_stay_silent() -> None:
    assert settings_of("my.nets.Linear", {"in_features": 3}, {}) == ""
    assert settings_of("Linear", {"in_features": 3}, {}) == ""
    assert settings_of("", {}, {}) == ""


def test_old_module_paths() -> None:
    features = {"in_features": 3, "out_features": 4}
    assert settings_of("torch.nn.backends.linear.Linear", features, {"bias": None}) == (
        "in_features=3, out_features=4, bias=False"
    )
    values = {**features, "scale": 1.0, "zero_point": 0}
    assert settings_of("torch.nn.quantized.modules.linear.Linear", values, {}) == (
        "in_features=3, out_features=4, scale=1.0, zero_point=0"
    )
    assert settings_of("torch.nn.intrinsic.qat.modules.linear_relu.LinearReLU", features, {}) == (
        "in_features=3, out_features=4"
    )


def test_what_an_older_torch_did_not_save_is_left_out() -> None:
    conv = {"in_channels": 3, "out_channels": 4, "kernel_size": (1,), "stride": (1,)}
    assert settings_of("torch.nn.modules.conv.Conv1d", conv, {"bias": None}) == (
        "3, 4, kernel_size=(1,), stride=(1,), bias=False"
    )
    norm = {"num_features": 3, "eps": 1e-5, "momentum": 0.1, "affine": True}
    assert settings_of("torch.nn.modules.batchnorm.BatchNorm2d", norm, {"bias": (3,)}) == (
        "3, eps=1e-05, momentum=0.1, affine=True, bias=True"
    )
    assert settings_of("torch.nn.modules.activation.Softmax", {}, {}) == ""
    recurrent = {"input_size": 3, "hidden_size": 4, "num_layers": 2}
    assert settings_of("torch.nn.modules.rnn.LSTM", recurrent, {}) == "3, 4, num_layers=2"
    held = {"_parameters": {"0": pickled(nn.Linear(2, 1)).state["_parameters"]["weight"]}}  # type: ignore[index]
    assert settings_of("torch.nn.modules.container.ParameterList", held, {"0": (1, 2)}) == (
        "  (0): Parameter containing: [torch.float32 of size 1x2]"
    )


def test_values_that_are_no_settings_are_left_out() -> None:
    doubled: object = 1
    for _ in range(40):
        doubled = (doubled, doubled)
    endless: list[object] = []
    endless.append(endless)
    unknown = Call(Global("torch._utils", "_rebuild_tensor_v2"), ())
    for value in (
        doubled,
        endless,
        unknown,
        Global("os", "system"),
        10**9999,
        "\x1b[2J",
        "x" * 999,
    ):
        attributes = {"p": value, "inplace": False}
        assert settings_of("torch.nn.modules.dropout.Dropout", attributes, {}) == "inplace=False"


def test_parameters_that_are_none_are_left_out() -> None:
    nested: object = None
    for _ in range(10_000):
        nested = Call(Global("torch._utils", "_rebuild_parameter"), (nested, True, None))
    sparse = Call(Global("torch._utils", "_rebuild_sparse_tensor"), ("torch.sparse_coo", ()))
    held = {"_parameters": {"a": nested, "b": sparse, "\x1b[2J": 5, "c": 5}}
    assert settings_of("torch.nn.modules.container.ParameterDict", held, {}) == (
        "  (c): Object of type: int"
    )


def test_scale_and_zero_point_of_quantize_are_tensors_and_left_out() -> None:
    module = importlib.import_module("torch.ao.nn.quantized").Quantize(0.5, 3, torch.quint8)
    assert read_settings(module) == "dtype=torch.quint8"


@pytest.mark.parametrize("builder", BUILDERS)
def test_any_one_attribute_may_be_missing(builder: Builder) -> None:
    seen: set[str] = set()
    for module in built(builder):
        root = pickled(module)
        if root.callee in seen:
            continue
        seen.add(root.callee)
        attributes = attributes_of(root) or quantized_conv_attributes(root.state) or {}
        whole = settings_of(root.callee, attributes, shapes(module))
        for name in attributes:
            rest = {key: value for key, value in attributes.items() if key != name}
            text = settings_of(root.callee, rest, shapes(module))
            assert "ABSENT" not in text
            assert len(text) <= len(whole) + len(", padding_mode=zeros")
            mode_sensitive(root.callee, rest)


ATTRIBUTES = [
    "bias",
    "options",
    "mode",
    "scale_factor",
    "size",
    "_size",
    "_keys",
    "_parameters",
    "_buffers",
    "_modules",
    "linear",
    "_packed_params",
    "num_layers",
    "track_running_stats",
    "dropout",
]
symbols = st.sampled_from(
    [
        Global("torch", "float32"),
        Global("os", "system"),
        PersistentId(("storage", 1)),
        Call(Global("torch", "Size"), ((1, 2),)),
        Call(Global("torch._utils", "_rebuild_tensor_v2"), (1, 2)),
        Call(Global("torch._utils", "_rebuild_qtensor"), (1, 2, 3, 4, (Global("torch", "x"), 1))),
        Call(Global("torch", "ScriptObject"), (), state=((1, [2]), "x")),
        Call(Global("collections", "OrderedDict"), (), items={"0": None, "linear": 3}),
        Call(Global("numpy.core.multiarray", "scalar"), (1, b"")),
    ]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | symbols,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from(["0", "linear", "_packed_params", 1]), inner, max_size=3)
        | inner.map(
            lambda state: Call(Global("torch.nn.modules.linear", "Linear"), (), state=state)
        )
    ),
    max_leaves=8,
)
CLASSES = [f"torch.nn.modules.x.{name}" for name in (*STANDARD, "MultiheadAttention")] + [
    f"torch.ao.nn.{room}.modules.x.{name}" for room, table in QUANTIZED.items() for name in table
]


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(ATTRIBUTES), values, max_size=8))
def test_nothing_in_a_file_makes_it_raise(attributes: dict[str, object]) -> None:
    for name in CLASSES:
        assert isinstance(settings_of(name, attributes, {"bias": None}), str)
        assert isinstance(mode_sensitive(name, attributes), bool)
