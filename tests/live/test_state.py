import gc
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from modtool.formats import open_checkpoint
from modtool.live.fake import fake_mode
from modtool.live.state import checkpoint_of
from modtool.records import Storage, TensorInfo
from modtool.sharing import share


class Norm(nn.Module):
    """Every kind of tensor that a module can hold, around a child that holds more."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.inner = nn.BatchNorm1d(2)
        self.register_parameter("absent", None)
        self.register_buffer("kept", torch.tensor([3], dtype=torch.int16))
        self.register_buffer("left_out", torch.tensor(True), persistent=False)
        self.frozen = nn.Parameter(torch.zeros(2, 3).t(), requires_grad=False)


def test_tensors_stand_in_the_order_of_state_dict_with_every_detail() -> None:
    checkpoint = checkpoint_of(Norm(), "model.py")
    assert (checkpoint.format, checkpoint.kind, checkpoint.target) == (
        "python",
        "model",
        "model.py",
    )
    rows = [
        (each.name, each.role, each.dtype, each.shape, each.stride, each.persistent)
        for each in checkpoint.tensors
    ]
    assert rows == [
        ("weight", "parameter", "float32", (2,), None, True),
        ("frozen", "parameter", "float32", (3, 2), (1, 3), True),
        ("kept", "buffer", "int16", (1,), None, True),
        ("left_out", "buffer", "bool", (), None, False),
        ("inner.weight", "parameter", "float32", (2,), None, True),
        ("inner.bias", "parameter", "float32", (2,), None, True),
        ("inner.running_mean", "buffer", "float32", (2,), None, True),
        ("inner.running_var", "buffer", "float32", (2,), None, True),
        ("inner.num_batches_tracked", "buffer", "int64", (), None, True),
    ]
    assert [each.name for each in checkpoint.tensors if each.persistent] == list(
        Norm().state_dict()
    )
    flags = [each.requires_grad for each in checkpoint.tensors]
    assert flags == [True, False, False, False, True, True, False, False, False]


def test_the_bytes_are_the_models_own_and_read_only() -> None:
    model = Norm()
    storage = checkpoint_of(model, "").tensors[0].storage
    assert storage is not None
    assert isinstance(storage.data, memoryview)
    assert struct.unpack("<2f", storage.data) == (1.0, 2.0)
    with torch.no_grad():
        model.weight[0] = 5.0
    assert struct.unpack("<2f", storage.data) == (5.0, 2.0)
    assert storage.data.readonly
    del model
    gc.collect()
    assert struct.unpack("<2f", storage.data) == (5.0, 2.0)


def test_ties_and_views_share_a_storage() -> None:
    model = nn.Module()
    model.one = nn.Linear(3, 2, bias=False)
    model.two = nn.Linear(3, 2, bias=False)
    model.two.weight = model.one.weight
    whole = torch.arange(6.0)
    model.register_buffer("whole", whole)
    model.register_buffer("tail", whole[4:])
    tensors = {each.name: each for each in checkpoint_of(model, "").tensors}
    assert tensors["one.weight"].storage is tensors["two.weight"].storage
    assert tensors["whole"].storage is tensors["tail"].storage
    assert tensors["whole"].storage != tensors["one.weight"].storage
    assert (tensors["tail"].offset, tensors["tail"].nbytes) == (4, 8)


@pytest.mark.parametrize("how", ["meta", "fake"])
def test_tensors_without_bytes_have_everything_else(how: str) -> None:
    with torch.device("meta") if how == "meta" else fake_mode():
        model = nn.Linear(10**6, 10**6, bias=False)
    (weight,) = checkpoint_of(model, "", device="cpu").tensors
    assert weight == TensorInfo(
        name="weight",
        dtype="float32",
        shape=(10**6, 10**6),
        storage=Storage("0", 4 * 10**12, "cpu"),
        requires_grad=True,
    )
    assert weight.storage is not None
    assert weight.storage.data is None


def test_empty_sparse_and_quantized_tensors() -> None:
    model = nn.Module()
    model.register_buffer("empty", torch.empty(0, 3))
    model.register_buffer("sparse", torch.eye(3).to_sparse())
    tensors = {each.name: each for each in checkpoint_of(model, "").tensors}
    assert (tensors["empty"].nbytes, tensors["empty"].layout) == (0, "strided")
    # Three float32 values, and two int64 indices for each.
    assert (tensors["sparse"].nbytes, tensors["sparse"].layout) == (3 * 4 + 6 * 8, "sparse_coo")
    assert tensors["sparse"].storage is None


def test_a_sparse_tensor_under_two_names_is_one() -> None:
    model = nn.Module()
    sparse = torch.eye(3).to_sparse()
    model.register_buffer("sparse", sparse)
    model.register_buffer("same", sparse)
    model.register_buffer("other", torch.eye(3).to_sparse())
    assert share(checkpoint_of(model, "").tensors).first == [None, 0, None]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(("layout", "name"), [(torch.strided, "nested"), (torch.jagged, "jagged")])
def test_a_ragged_tensor_has_the_elements_of_its_components(
    layout: torch.layout, name: str, tmp_path: Path
) -> None:
    ragged = torch.nested.nested_tensor([torch.ones(2, 3), torch.zeros(1, 3)], layout=layout)
    model = nn.Module()
    model.register_buffer("ragged", ragged)
    torch.save(model.state_dict(), tmp_path / "ragged.pth")
    for checkpoint in (checkpoint_of(model, ""), open_checkpoint(str(tmp_path / "ragged.pth"))):
        (found,) = checkpoint.tensors
        assert (found.shape, found.layout) == ((2,), name)
        assert (found.numel, found.nbytes) == (9, 36) == (ragged.numel(), 9 * 4)


def test_the_tree_says_what_print_says() -> None:
    class Conv1D(nn.Module):
        def __repr__(self) -> str:
            return "Conv1D(nf=6, nx=2)"

    shared = nn.ReLU(inplace=True)
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding="same"), shared, Conv1D(), shared)
    nodes = checkpoint_of(model, "").modules
    assert [(each.path, each.type, each.settings, each.alias_of) for each in nodes] == [
        ("", "Sequential", "", None),
        ("0", "Conv2d", "1, 2, kernel_size=(3, 3), stride=(1, 1), padding=same", None),
        ("1", "ReLU", "inplace=True", None),
        ("2", "Conv1D", "nf=6, nx=2", None),
        ("3", "ReLU", "inplace=True", "1"),
    ]
    assert nodes[1].class_name == "torch.nn.modules.conv.Conv2d"


class ReadsFlag(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.noisy(x)

    def noisy(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand_like(x) if self.training else x


class OwnTrain(nn.Module):
    def train(self, mode: bool = True) -> "OwnTrain":
        self.training = mode
        return self


def spectral_norm_of(module: nn.Module) -> nn.Module:
    nn.utils.parametrizations.spectral_norm(module)
    return module.get_submodule("parametrizations.weight.0")


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.Dropout(0.5), True),
        (nn.Dropout(0.0), True),  # of a kind that does; its p may be changed later
        (nn.Dropout3d(), True),
        (nn.AlphaDropout(), True),
        (nn.FeatureAlphaDropout(), True),
        (nn.BatchNorm2d(3), True),
        (nn.BatchNorm2d(3, track_running_stats=False), False),
        (nn.SyncBatchNorm(3), True),
        (nn.InstanceNorm1d(3), False),
        (nn.InstanceNorm1d(3, track_running_stats=True), True),
        (nn.RReLU(), True),
        (nn.RReLU(0.2, 0.2), True),
        (nn.LSTM(2, 2, 2, dropout=0.1), True),
        (nn.LSTM(2, 2, 2), False),
        (nn.MultiheadAttention(4, 2, dropout=0.1), True),
        (nn.MultiheadAttention(4, 2), False),
        (nn.LayerNorm(3), False),
        (nn.Linear(2, 2), False),
        (nn.Sequential(nn.Dropout()), False),
        (spectral_norm_of(nn.Linear(2, 2)), True),
        (ReadsFlag(), True),
        (OwnTrain(), False),
    ],
)
def test_what_computes_differently_in_train_and_eval(module: nn.Module, expected: bool) -> None:
    assert checkpoint_of(module, "").modules[0].mode_sensitive is expected


def test_training_flags_are_each_modules_own() -> None:
    model = nn.Sequential(nn.ReLU(), nn.ReLU())
    model[1].eval()
    assert [each.training for each in checkpoint_of(model, "").modules] == [True, True, False]


class Hiding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proper = nn.ModuleList([nn.Linear(2, 2)])
        self.seen_elsewhere = [self.proper[0]]
        self.layers = [nn.Linear(2, 2), nn.Linear(2, 2)]
        self.table = {"a": ({"b": nn.Parameter(torch.zeros(1))},)}
        self.loop: list[object] = [1, "text"]
        self.loop.append(self.loop)


def test_what_plain_containers_hide_is_noted() -> None:
    model = nn.Sequential(Hiding())
    notes = checkpoint_of(model, "").notes
    assert [(each.code, each.level, each.where) for each in notes] == [
        ("unregistered-module", "warning", "0.layers"),
        ("unregistered-module", "warning", "0.table"),
    ]
    assert notes[0].message == (
        "`layers` is a plain list that holds 2 modules (Linear): parameters(), state_dict() and "
        "to() do not see what is in it"
    )
    assert notes[0].remedy == "use nn.ModuleList"
    assert "1 parameter (Parameter)" in notes[1].message
    assert notes[1].remedy == "use nn.ParameterDict"


def test_lstm_weights_are_no_hidden_parameters() -> None:
    assert checkpoint_of(nn.LSTM(2, 3), "").notes == ()


def test_lazy_tensors_are_noted() -> None:
    checkpoint = checkpoint_of(nn.Sequential(nn.LazyBatchNorm1d()), "")
    assert [(each.code, each.where) for each in checkpoint.notes] == [
        ("uninitialized-parameter", "0.weight")
    ]
    assert checkpoint.notes[0].message == (
        "lazy, without a shape before the first forward pass: 0.weight, 0.bias, 0.running_mean and "
        "1 more; not counted"
    )
    assert [each.name for each in checkpoint.tensors] == ["0.num_batches_tracked"]


class Renaming(nn.Linear):
    """Has its own idea of a state_dict: another name, and a value that is no tensor."""

    def __init__(self) -> None:
        super().__init__(2, 2, bias=False)
        self.register_state_dict_post_hook(rename)  # type: ignore[no-untyped-call]

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 3}

    def set_extra_state(self, state: object) -> None: ...


def rename(module: nn.Module, state: dict[str, object], prefix: str, local: object) -> None:
    state[f"{prefix}kernel"] = state.pop(f"{prefix}weight")


def test_names_are_those_of_the_models_own_state_dict() -> None:
    checkpoint = checkpoint_of(nn.Sequential(Renaming()), "")
    assert [(each.name, each.role) for each in checkpoint.tensors] == [("0.kernel", "parameter")]
    assert [(each.code, each.where) for each in checkpoint.notes] == [
        ("not-a-tensor", "0._extra_state")
    ]


def test_a_state_dict_that_raises_is_noted() -> None:
    class Broken(nn.Linear):
        def state_dict(self, *args: Any, **kwargs: Any) -> Any:
            raise ValueError("not today")

    checkpoint = checkpoint_of(Broken(1, 1), "")
    assert [each.name for each in checkpoint.tensors] == ["weight", "bias"]
    assert checkpoint.notes[0].message == "state_dict() raised ValueError: not today"


class Renamed(nn.Linear):
    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination[f"{prefix}kernel"] = self.weight


def test_a_module_that_saves_its_own_way_is_believed() -> None:
    model = nn.Sequential(nn.Linear(2, 3), Renamed(3, 4))
    tensors = checkpoint_of(model, "").tensors
    assert [each.name for each in tensors] == ["0.weight", "0.bias", "1.kernel"]
    hooked = nn.Sequential(nn.Linear(2, 3))

    def keep_bias(module: Any, state: Any, *_: object) -> None:
        del state["0.weight"]

    hooked.register_state_dict_post_hook(keep_bias)  # type: ignore[no-untyped-call]
    assert [each.name for each in checkpoint_of(hooked, "").tensors] == ["0.bias"]
