"""TorchScript archives, written by torch itself, against what `torch.jit.load` makes of them."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from modtool.errors import CorruptFileError, UnsafeFileError
from modtool.formats import open_checkpoint, torchscript_code
from modtool.formats.torchscript_code import classes_in, operators_in
from modtool.pickles.callables import callables_of, findings, weights_only_of
from modtool.pickles.symbols import Call, Global, PersistentId
from modtool.pickles.writer import write_pickle
from modtool.records import CallableUse, Checkpoint
from tests.formats.compare import assert_same, persistent

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Lite Interpreter is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.ao.quantization.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*deprecated.*:UserWarning"),
]

# Untyped parts of torch.
jit: Any = torch.jit
quantization: Any = torch.ao.quantization


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((2,), 2.0))
        self.fixed = nn.Parameter(torch.ones(1), requires_grad=False)
        self.hidden: torch.Tensor
        self.register_buffer("hidden", torch.zeros(2), persistent=False)
        self.register_parameter("nothing", None)
        self.plain = torch.arange(3.0)
        self.several = [torch.ones(1), torch.zeros(2)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale + self.fixed + self.plain.sum() + self.several[1] + self.hidden


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        shared = nn.Linear(2, 2)
        self.body = nn.Sequential(shared, nn.BatchNorm1d(2), shared)
        self.inners = nn.ModuleList([Inner(), Inner()])
        self.tied = nn.Linear(2, 2, bias=False)
        self.tied.weight = shared.weight
        self.drop = nn.Dropout(0.25)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for inner in self.inners:
            x = inner(x)
        out: torch.Tensor = self.drop(self.tied(self.body(x)))
        return out


def scripted() -> Any:
    return jit.script(Net().eval())


def save(path: Path) -> None:
    jit.save(scripted(), path)


def save_traced(path: Path) -> None:
    jit.save(jit.trace(Net().eval(), torch.ones(2, 2)), path)


def save_for_mobile(path: Path) -> None:
    scripted()._save_for_lite_interpreter(str(path))


def save_frozen(path: Path) -> None:
    jit.save(jit.freeze(scripted()), path)


def save_frozen_for_mobile(path: Path) -> None:
    jit.freeze(scripted())._save_for_lite_interpreter(str(path))


def save_quantized(path: Path) -> None:
    torch.backends.quantized.engine = torch.backends.quantized.supported_engines[-1]
    model = nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 3))
    kinds = {nn.Linear, nn.LSTM}
    quantized = quantization.quantize_dynamic(model, kinds, dtype=torch.qint8)
    jit.save(jit.script(quantized[0]), path)


SAVERS = [save, save_traced, save_for_mobile, save_frozen, save_frozen_for_mobile, save_quantized]


@pytest.mark.parametrize("saver", SAVERS)
def test_the_state_dict_is_that_of_torch(tmp_path: Path, saver: Callable[[Path], None]) -> None:
    path = tmp_path / "x.pt"
    saver(path)
    loaded = jit.load(path)
    found = open_checkpoint(str(path))
    assert (found.format, found.kind) == ("torchscript", "full_model")
    assert_same(persistent(found), loaded.state_dict())
    flags = {name: parameter.requires_grad for name, parameter in loaded.named_parameters()}
    parameters = {tensor.name: tensor.requires_grad for tensor in persistent(found)}
    assert {name: parameters[name] for name in flags} == flags


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    save(tmp_path / "net.pt")
    return open_checkpoint(str(tmp_path / "net.pt"))


def test_parameters_buffers_and_what_is_in_no_state_dict(checkpoint: Checkpoint) -> None:
    told = {tensor.name: (tensor.role, tensor.persistent) for tensor in checkpoint.tensors}
    assert told["inners.0.scale"] == ("parameter", True)
    assert told["inners.0.hidden"] == ("buffer", True)  # TorchScript forgets that it was hidden
    assert told["inners.0.plain"] == ("buffer", False)
    assert told["inners.1.several.1"] == ("buffer", False)
    assert told["body.1.running_mean"] == ("buffer", True)


def test_the_tree_has_classes_and_settings(checkpoint: Checkpoint) -> None:
    assert [(node.path, node.class_name, node.settings) for node in checkpoint.modules] == [
        ("", "tests.formats.test_torchscript.Net", ""),
        ("body", "torch.nn.modules.container.Sequential", ""),
        ("body.0", LINEAR, "in_features=2, out_features=2, bias=True"),
        (
            "body.1",
            "torch.nn.modules.batchnorm.BatchNorm1d",
            "2, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True",
        ),
        ("body.2", LINEAR, "in_features=2, out_features=2, bias=True"),
        ("inners", "torch.nn.modules.container.ModuleList", ""),
        ("inners.0", "tests.formats.test_torchscript.Inner", ""),
        ("inners.1", "tests.formats.test_torchscript.Inner", ""),
        ("tied", LINEAR, "in_features=2, out_features=2, bias=False"),
        ("drop", "torch.nn.modules.dropout.Dropout", "p=0.25, inplace=False"),
    ]
    assert {node.training for node in checkpoint.modules} == {False}


LINEAR = "torch.nn.modules.linear.Linear"


def test_tied_tensors_share_their_storage(checkpoint: Checkpoint) -> None:
    storages = {tensor.name: tensor.storage for tensor in checkpoint.tensors}
    assert storages["body.0.weight"] == storages["body.2.weight"] == storages["tied.weight"]


def test_constants_are_named_as_the_code_names_them(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    jit.save(jit.trace(Inner(), torch.ones(2, 2)), path)
    found = open_checkpoint(str(path))
    constants = [tensor for tensor in found.tensors if tensor.name.startswith("CONSTANTS.")]
    assert {(tensor.role, tensor.persistent) for tensor in constants} == {("buffer", False)}
    _, table = jit.load(path).code_with_constants
    named = {f"CONSTANTS.{name}": tensor for name, tensor in table.const_mapping.items()}
    assert [tensor.name for tensor in constants] == ["CONSTANTS.c0", "CONSTANTS.c1"]
    assert_same(constants, {tensor.name: named[tensor.name] for tensor in constants})


@pytest.mark.parametrize("saver", [save_frozen, save_frozen_for_mobile])
def test_of_a_frozen_module_nobody_can_tell_parameters(
    tmp_path: Path, saver: Callable[[Path], None]
) -> None:
    path = tmp_path / "x.pt"
    saver(path)
    found = open_checkpoint(str(path))
    assert {tensor.role for tensor in found.tensors} == {"tensor"}
    kept = {tensor.shape for tensor in found.tensors}
    assert {(2, 2), (2,)} <= kept


def test_packed_weights_are_found(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    save_quantized(path)
    found = open_checkpoint(str(path))
    assert [(tensor.name, tensor.dtype, tensor.shape) for tensor in found.tensors] == [
        ("_packed_params._packed_params.0", "qint8", (4, 4)),
        ("_packed_params._packed_params.1", "float32", (4,)),
    ]


def test_code_and_extra_files_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    jit.save(scripted(), path, _extra_files={"config.json": '{"a": 1}'})
    found = open_checkpoint(str(path))
    assert found.metadata == {"version": "3", "extra/config.json": '{"a": 1}'}
    with zipfile.ZipFile(path) as archive:
        code = {
            name.removeprefix("x/code/"): archive.read(name).decode()
            for name in archive.namelist()
            if name.endswith(".py")
        }
    assert found.sources == code
    assert any(name.startswith("__torch__/torch/nn/modules/linear") for name in code)


def rewritten(source: Path, target: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """A copy of an archive with its members changed; None leaves one out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            data = change(entry.filename, old.read(entry))
            if data is not None:
                new.writestr(entry.filename, data, entry.compress_type)
    return target


def test_archives_without_code_show_modules_and_tensors(tmp_path: Path) -> None:
    save(tmp_path / "net.pt")
    path = rewritten(
        tmp_path / "net.pt",
        tmp_path / "bare.pt",
        lambda name, data: None if "/code/" in name else data,
    )
    found = open_checkpoint(str(path))
    with_code = open_checkpoint(str(tmp_path / "net.pt"))
    assert {tensor.role for tensor in found.tensors} == {"tensor"}
    assert sorted(t.name for t in found.tensors) == sorted(t.name for t in with_code.tensors)
    assert [node.path for node in found.modules] == [node.path for node in with_code.modules]


def test_before_buffers_were_declared_they_were_attributes(tmp_path: Path) -> None:
    save(tmp_path / "net.pt")

    def older(name: str, data: bytes) -> bytes:
        lines = data.splitlines(keepends=True) if name.endswith(".py") else [data]
        return b"".join(line for line in lines if not line.startswith(b"  __buffers__"))

    path = rewritten(tmp_path / "net.pt", tmp_path / "older.pt", older)
    found = open_checkpoint(str(path))
    assert_same(persistent(found), jit.load(path).state_dict())


# -- what would run ------------------------------------------------------------------------------


def test_ordinary_archives_have_no_findings(checkpoint: Checkpoint) -> None:
    assert findings(checkpoint) == ()
    names = {use.name for use in callables_of(checkpoint)}
    assert any(name.startswith("__torch__.torch.nn.modules.linear.") for name in names)


def test_weights_only_refuses_them(tmp_path: Path, checkpoint: Checkpoint) -> None:
    with (
        pytest.warns(UserWarning, match="looks like a TorchScript archive"),
        pytest.raises(RuntimeError, match="Cannot use ``weights_only=True``"),
    ):
        torch.load(tmp_path / "net.pt", weights_only=True)
    verdict = weights_only_of(checkpoint)
    assert verdict is not None
    assert not verdict.accepted


def reads_a_file(x: torch.Tensor) -> torch.Tensor:
    return torch.from_file("/etc/hostname", False, 4) + x


def test_operators_that_reach_files_are_findings(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    jit.script(reads_a_file).save(str(path))
    (found,) = findings(open_checkpoint(str(path)))
    assert (found.name, found.calls, found.severity) == ("aten::from_file", 1, "executes-code")
    assert found.arguments.startswith('"/etc/hostname", False, 4')
    assert found.where.startswith("code/__torch__")


def test_operators_of_other_libraries_are_unknown() -> None:
    source = "    x = ops.torchvision.nms(a, b, 0.5)\n    y = ops.prim.RaiseException(x)\n"
    assert list(operators_in(source * 2, "f.py")) == [
        CallableUse("torchvision::nms", 2, "a, b, 0.5", "unknown-callable", "f.py")
    ]


def test_a_pickle_that_asks_for_python_is_a_finding(tmp_path: Path) -> None:
    """torch.jit.load would refuse it; it is told all the same."""
    save(tmp_path / "net.pt")
    bad = write_pickle((Call(Global("os", "system"), ("id",)),))

    def change(name: str, data: bytes) -> bytes:
        return bad if name.endswith("constants.pkl") else data

    path = rewritten(tmp_path / "net.pt", tmp_path / "bad.pt", change)
    assert findings(open_checkpoint(str(path))) == (
        CallableUse("os.system", 1, "'id'", "executes-code", "constants.pkl"),
    )


# -- the code, as text ---------------------------------------------------------------------------


def test_what_a_class_declares() -> None:
    source = (
        "class Net(Module):\n"
        '  __parameters__ = ["weight", "bias", ]\n'
        '  __buffers__ = ["mean", ]\n'
        "  weight : Tensor\n"
        "  p : Final[float] = 0.5\n"
        "  size : Final[Tuple[int, int]] = (1, 2)\n"
        '  odd : Final[Device] = torch.device("cpu")\n'
        '  __annotations__["0"] = __torch__.Other\n'
        "  def forward(self: __torch__.Net) -> Tensor:\n"
        "    class_ = 1\n"
        "  def __setstate__(self, x: int) -> NoneType:\n"
        "    return None\n"
        "class Pair:\n"
        "  x : int\n"
    )
    found = classes_in(source)
    net = found["Net"]
    assert net.is_module
    assert not found["Pair"].is_module
    assert net.parameters == {"weight", "bias"}
    assert net.buffers == {"mean"}
    assert net.constants == {"p": 0.5, "size": (1, 2), "odd": 'torch.device("cpu")'}
    assert net.methods == {"forward", "__setstate__"}


def test_deep_constants_do_no_harm() -> None:
    deep = "(" * 5000
    source = f"class A(Module):\n  x : Final[int] = {deep}\n"
    assert classes_in(source)["A"].constants == {"x": deep}


def test_code_that_inflates_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "net.pt")
    monkeypatch.setattr(torchscript_code, "MAX_CODE", 1000)
    with pytest.raises(UnsafeFileError, match="more than 1,000 bytes of code"):
        open_checkpoint(str(tmp_path / "net.pt"))


def test_a_module_that_contains_itself(tmp_path: Path) -> None:
    save(tmp_path / "net.pt")
    net = Call(Global("__torch__", "Net"), (), how="new")
    net.state = {"training": True, "self": net}
    path = with_data(tmp_path / "net.pt", tmp_path / "bad.pt", net)
    with pytest.raises(CorruptFileError, match="contains itself"):
        open_checkpoint(str(path))


def bomb(bottom: list[object]) -> Call:
    """A module with an attribute that is shared forty levels deep."""
    value = bottom
    for _ in range(40):
        value = [value, value]
    net = Call(Global("__torch__", "Net"), (), how="new")
    net.state = {"training": True, "bomb": value}
    return net


def with_data(source: Path, target: Path, root: object) -> Path:
    """A copy of an archive with another object in it."""
    data = write_pickle(root)
    return rewritten(source, target, lambda name, old: data if name.endswith("data.pkl") else old)


def test_shared_attributes_end_in_an_error(tmp_path: Path) -> None:
    save(tmp_path / "net.pt")
    storage = PersistentId(("storage", Global("torch", "FloatStorage"), "0", "cpu", 4))
    tensor = Call(Global("torch._utils", "_rebuild_tensor"), (storage, 0, (1,), (1,)))
    path = with_data(tmp_path / "net.pt", tmp_path / "bad.pt", bomb([tensor]))
    with pytest.raises(UnsafeFileError):
        open_checkpoint(str(path))


def test_shared_attributes_without_tensors_cost_nothing(tmp_path: Path) -> None:
    save(tmp_path / "net.pt")
    path = with_data(tmp_path / "net.pt", tmp_path / "odd.pt", bomb([]))
    assert open_checkpoint(str(path)).tensors == ()
