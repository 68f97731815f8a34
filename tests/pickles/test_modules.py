"""Full models whose classes are gone, against the `state_dict()` of the model that was saved."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.ao.nn.quantized
from torch import fx, nn
from torch.nn.utils import prune, spectral_norm, weight_norm

from modtool.errors import ModtoolError
from modtool.formats import open_checkpoint
from modtool.pickles.symbols import Call, Global
from modtool.pickles.writer import write_pickle
from modtool.records import Checkpoint, Note
from modtool.report.totals import totals_of
from tests.formats.compare import assert_same, persistent
from tests.gone import gone
from tests.pickles.nn_modules import built, quantized
from tests.pickles.test_weights_only import archived

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.ao.quantization.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*deprecated.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:Couldn't retrieve source code:UserWarning"),
    pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning"),
]

# Untyped parts of torch.
quantization: Any = torch.ao.quantization
pruning: Any = prune

SOURCE = """
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.register_buffer("before", torch.arange(2.0))
        self.gain = nn.Parameter(torch.ones(width))
        self.register_buffer("hidden", torch.zeros(1), persistent=False)
        self.register_buffer("none", None)
        self.register_parameter("missing", None)
        self.fc = nn.Linear(width, width, bias=False)
        self.late = nn.Parameter(torch.zeros(2, dtype=torch.float64), requires_grad=False)
        self.config = {"width": width, "tensor": torch.ones(4)}

    def forward(self, x):
        return self.fc(x) * self.gain


class Net(nn.Module):
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(3, 1)

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.named = nn.ModuleDict({"b": nn.ReLU(), "a": Block()})
        self.seq = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.1))
        self.several = nn.ParameterList([nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(2))])
        self.table = nn.ParameterDict({"x": nn.Parameter(torch.ones(3))})
        self.attention = nn.MultiheadAttention(4, 2, kdim=3, vdim=5)
        self.head = Net.Head()
        self.nothing = None
        self.register_module("empty", None)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.body = Block()
        self.again = self.body
        self.out = nn.Linear(3, 5, bias=False)
        self.out.weight = self.embed.weight


class Stateful(nn.Linear):
    def get_extra_state(self):
        return {"calls": 3}

    def set_extra_state(self, state):
        pass
"""


def pruned() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    pruning.l1_unstructured(model[0], "weight", amount=2)
    pruning.random_unstructured(model[0], "bias", amount=1)
    return model


def normed() -> nn.Module:
    model = nn.Sequential(weight_norm(nn.Linear(3, 2)), spectral_norm(nn.Conv1d(1, 2, 3)))
    model[1](torch.ones(1, 1, 5))
    return model


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d(), nn.Linear(2, 2))


def dynamic_quantized() -> Any:
    torch.backends.quantized.engine = torch.backends.quantized.supported_engines[-1]
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2, bias=False), nn.LayerNorm(2))
    kinds: set[Any] = {nn.Linear}
    return quantization.quantize_dynamic(model, kinds, dtype=torch.qint8)


def static_quantized() -> Any:
    engine = torch.backends.quantized.engine = torch.backends.quantized.supported_engines[-1]
    model = nn.Sequential(
        quantization.QuantStub(),
        nn.Conv2d(1, 2, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8, 2),
        quantization.DeQuantStub(),
    ).eval()
    model = quantization.fuse_modules(model, [["1", "2"]])
    model.qconfig = quantization.get_default_qconfig(engine)
    quantization.prepare(model, inplace=True)
    model(torch.randn(3, 1, 4, 4))
    quantization.convert(model, inplace=True)
    for module in model.modules():
        if hasattr(module, "qconfig"):
            module.qconfig = None  # holds local functions, which no pickle can
    return model


def traced() -> nn.Module:
    return fx.symbolic_trace(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU()))


def compiled() -> nn.Module:
    return torch.compile(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))  # type: ignore[return-value]


def parallel() -> nn.Module:
    return nn.DataParallel(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))


BUILDERS = [
    pruned,
    normed,
    traced,
    compiled,
    parallel,
    lambda: nn.Transformer(8, 2, 1, 1, 8, batch_first=True),
    lambda: nn.Sequential(nn.LSTM(2, 3, 2, bidirectional=True), nn.GRUCell(2, 2)),
    lambda: nn.Linear(2, 2).to(torch.bfloat16).requires_grad_(False),
]


def saved(model: object, path: Path, protocol: int = 2, zipped: bool = True) -> Checkpoint:
    torch.save(model, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    return open_checkpoint(str(path))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("index", range(len(BUILDERS)))
def test_the_state_dict_is_that_of_the_model(tmp_path: Path, index: int, zipped: bool) -> None:
    build: Any = BUILDERS[index]
    model = build()
    found = saved(model, tmp_path / "x.pth", zipped=zipped)
    assert found.kind == "full_model"
    assert_same(persistent(found), model.state_dict())
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    told = {tensor.name: tensor.requires_grad for tensor in found.tensors}
    assert {name: told[name] for name in flags} == flags
    buffers = {tensor.name for tensor in found.tensors if tensor.role == "buffer"}
    assert buffers == dict(model.named_buffers()).keys()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", ["Net", "Block", "Tied"])
def test_classes_that_are_gone(tmp_path: Path, name: str, protocol: int, zipped: bool) -> None:
    if protocol == 1 and name == "Net":
        name = "Block"  # protocol 1 has no way to name a class inside another
    with gone("gone_models", SOURCE) as module:
        model = getattr(module, name)().eval()
        torch.save(
            model,
            tmp_path / "x.pth",
            pickle_protocol=protocol,
            _use_new_zipfile_serialization=zipped,
        )
    found = open_checkpoint(str(tmp_path / "x.pth"))
    assert_same(persistent(found), model.state_dict())
    live = {
        path: f"{type(each).__module__}.{type(each).__qualname__}"
        for path, each in model.named_modules(remove_duplicate=False)
    }
    assert {node.path: node.class_name for node in found.modules} == live
    assert {node.training for node in found.modules} == {False}
    hidden = [tensor.name for tensor in found.tensors if not tensor.persistent]
    assert hidden == [
        path
        for path, _ in model.named_buffers(remove_duplicate=False)
        if path.rpartition(".")[2] == "hidden"
    ]


def test_tied_tensors_and_modules(tmp_path: Path) -> None:
    with gone("gone_models", SOURCE) as module:
        torch.save(module.Tied(), tmp_path / "x.pth")
    found = open_checkpoint(str(tmp_path / "x.pth"))
    storages = {tensor.name: tensor.storage for tensor in found.tensors}
    assert storages["embed.weight"] == storages["out.weight"]
    assert storages["body.gain"] == storages["again.gain"]
    assert {node.path: node.alias_of for node in found.modules if node.alias_of} == {
        "again": "body",
        "again.fc": "body.fc",
    }


def test_lazy_parameters_have_no_shape_yet(tmp_path: Path) -> None:
    model = lazy()
    found = saved(model, tmp_path / "x.pth")
    assert [tensor.name for tensor in found.tensors] == list(model.state_dict())
    layouts = {tensor.name: tensor.layout for tensor in found.tensors}
    assert layouts == {
        "0.weight": "uninitialized",
        "0.bias": "uninitialized",
        "1.weight": "uninitialized",
        "1.bias": "uninitialized",
        "1.running_mean": "uninitialized",
        "1.running_var": "uninitialized",
        "1.num_batches_tracked": "strided",
        "2.weight": "strided",
        "2.bias": "strided",
    }


def flat(state: dict[str, object]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a state_dict; those of a tuple are numbered."""
    for name, value in state.items():
        if isinstance(value, torch.Tensor):
            yield name, value
        elif isinstance(value, tuple):
            yield from flat({f"{name}.{index}": item for index, item in enumerate(value)})


@pytest.mark.parametrize("build", [dynamic_quantized, static_quantized])
def test_quantized_models(tmp_path: Path, build: Any) -> None:
    model = build()
    found = saved(model, tmp_path / "x.pth")
    assert_same(persistent(found), dict(flat(model.state_dict())))
    alone = saved(model.state_dict(), tmp_path / "state.pth")
    assert (alone.kind, alone.sections) == ("state_dict", ())
    assert_same(persistent(alone), dict(flat(model.state_dict())))
    assert totals_of(alone.model_tensors) == totals_of(found.model_tensors)


def test_a_quantized_model_is_read_as_its_state_dict_is(tmp_path: Path) -> None:
    model = nn.ModuleList(built(quantized))
    found, alone = (
        saved(value, tmp_path / f"{name}.pth")
        for name, value in (("model", model), ("state", model.state_dict()))
    )
    assert [(tensor.name, tensor.dtype, tensor.shape) for tensor in found.tensors] == [
        (tensor.name, tensor.dtype, tensor.shape) for tensor in alone.tensors
    ]
    assert (found.values, found.notes) == (alone.values, alone.notes)


@pytest.mark.parametrize("kind", [torch.ao.nn.quantized.Linear, torch.ao.nn.quantized.Embedding])
def test_a_quantized_model_without_plain_tensors_in_a_checkpoint(tmp_path: Path, kind: Any) -> None:
    model = nn.Sequential(kind(3, 4))
    found = saved({"model": model, "epoch": 1}, tmp_path / "x.pth")
    assert [(part.name, part.role) for part in found.sections] == [("model", "model")]
    assert_same(found.tensors, dict(flat(model.state_dict())))
    assert [module.path for module in found.modules] == ["", "0", "0._packed_params"]


GETSTATE = """
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 3)
        self.fc.bias.requires_grad_(False)

    def __getstate__(self):
        return {"version": 2, "net": self.__dict__.copy()}
"""


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_class_that_wraps_what_it_saves(tmp_path: Path, protocol: int) -> None:
    with gone("wrapping_kit", GETSTATE) as kit:
        model = kit.Net()
        torch.save(model, tmp_path / "x.pth", pickle_protocol=protocol)
    found = open_checkpoint(str(tmp_path / "x.pth"))
    assert found.kind == "full_model"
    assert_same(persistent(found), model.state_dict())
    assert [tensor.requires_grad for tensor in found.tensors] == [True, False]
    assert [(module.path, module.type) for module in found.modules] == [
        ("", "Net"),
        ("fc", "Linear"),
    ]


def test_each_quantized_convolution_has_its_own_scale(tmp_path: Path) -> None:
    layers = [torch.ao.nn.quantized.Conv1d(1, 1, 1) for _ in range(3)]
    for number, layer in enumerate(layers):
        layer.scale, layer.zero_point = 0.5 + number, 10 + number
    model = nn.Sequential(*layers, layers[0])
    found = saved(model, tmp_path / "x.pth")
    assert_same(persistent(found), dict(flat(model.state_dict())))
    keys = {t.storage.key for t in found.tensors if t.storage and t.name.endswith(".scale")}
    assert len(keys) == 3


def test_recurrent_layers_that_are_quantized(tmp_path: Path) -> None:
    """Their state_dict holds `torch.ScriptObject`s, whose tensors are shown by their place."""
    torch.backends.quantized.engine = torch.backends.quantized.supported_engines[-1]
    kinds: set[Any] = {nn.LSTM}
    model = quantization.quantize_dynamic(nn.Sequential(nn.LSTM(2, 3)), kinds, dtype=torch.qint8)
    for kind, value in (("full_model", model), ("state_dict", model.state_dict())):
        found = saved(value, tmp_path / "x.pth")
        assert found.kind == kind
        assert [(t.name.removeprefix(PACKED), t.dtype, t.shape) for t in found.tensors] == [
            ("1.0", "float32", (12,)),
            ("1.1", "float32", (12,)),
            ("4.0.0", "qint8", (12, 2)),
            ("4.0.1", "float32", (12,)),
            ("4.1.0", "qint8", (12, 3)),
            ("4.1.1", "float32", (12,)),
        ]


PACKED = "0._all_weight_values.0.param."


def test_distributed_data_parallel(tmp_path: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    try:
        model = nn.parallel.DistributedDataParallel(
            nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        )
        found = saved(model, tmp_path / "x.pth")
        assert_same(persistent(found), model.state_dict())
    finally:
        torch.distributed.destroy_process_group()
    assert found.modules[0].class_name == "torch.nn.parallel.distributed.DistributedDataParallel"
    assert found.tensors[0].name == "module.0.weight"


def test_a_compiled_model_keeps_the_mode_of_its_model(tmp_path: Path) -> None:
    found = saved(compiled().eval(), tmp_path / "x.pth")
    assert [(node.path, node.type, node.training) for node in found.modules[:2]] == [
        ("", "OptimizedModule", False),
        ("_orig_mod", "Sequential", False),
    ]


def test_a_traced_model_keeps_its_class_name(tmp_path: Path) -> None:
    found = saved(traced(), tmp_path / "x.pth")
    assert found.modules[0].class_name == "torch.fx.graph_module.GraphModule"


def test_extra_state_is_told_where_the_source_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone_sources.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    import gone_sources  # type: ignore[import-not-found]

    model = nn.Sequential(gone_sources.Stateful(1, 1), nn.Linear(1, 1))
    found = saved(model, tmp_path / "x.pth", zipped=False)
    del sys.modules["gone_sources"]
    message = "gone_sources.Stateful.get_extra_state() would add an entry that is not here"
    assert found.notes == (Note("extra-state", "note", "0", message),)


def test_the_method_of_torch_itself_is_no_extra_state(tmp_path: Path) -> None:
    traced: Any = fx.symbolic_trace(nn.Sequential(nn.Sequential(nn.Linear(3, 2))))
    path = tmp_path / "traced.pth"
    torch.save(traced, path, _use_new_zipfile_serialization=False)
    found = open_checkpoint(str(path))
    assert "def get_extra_state" in found.sources["torch.nn.modules.module.Module"]
    assert found.notes == ()


def test_extra_state_cannot_be_seen_without_a_source(tmp_path: Path) -> None:
    with gone("gone_models", SOURCE) as module:
        model = nn.Sequential(module.Stateful(1, 1), module.Stateful(1, 1), nn.Linear(1, 1))
        found = saved(model, tmp_path / "x.pth")
    assert found.notes == ()


def test_extra_state_in_a_state_dict_is_a_tensor_or_a_value(tmp_path: Path) -> None:
    state = nn.Linear(1, 1).state_dict()
    state["_extra_state"] = torch.tensor([1])
    found = saved(state, tmp_path / "x.pth")
    assert [(tensor.name, tensor.role) for tensor in found.tensors][-1] == (
        "_extra_state",
        "buffer",
    )


# -- trees that no model has ---------------------------------------------------------------------


def module(**children: object) -> Call:
    made = Call(Global("gone", "Net"), (), how="new")
    made.state = {"_parameters": {}, "_buffers": {}, "_modules": children, "training": True}
    return made


def test_a_module_that_contains_itself(tmp_path: Path) -> None:
    net = module()
    assert isinstance(net.state, dict)
    net.state["_modules"]["self"] = net
    with pytest.raises(ModtoolError):
        open_checkpoint(str(archived(tmp_path / "x.pth", write_pickle(net))))


def test_modules_shared_without_end(tmp_path: Path) -> None:
    net = module()
    for _ in range(40):
        net = module(a=net, b=net)
    with pytest.raises(ModtoolError):
        open_checkpoint(str(archived(tmp_path / "x.pth", write_pickle(net))))


def test_modules_nested_without_end(tmp_path: Path) -> None:
    net = module()
    for _ in range(5000):
        net = module(a=net)
    with pytest.raises(ModtoolError):
        open_checkpoint(str(archived(tmp_path / "x.pth", write_pickle(net))))
