"""Fans are counted here, not computed: weights and inputs of ones make sums count their terms."""

import pytest
import torch
from torch import nn

from modtool.live.fans import LAYERS, Fans, direction_of, fans, layer_type, owner
from modtool.live.settings import settings_of


class Conv1D(nn.Module):
    """Stored (in, out), as the layer of this name in transformers is."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(inputs, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight


class Renamed(nn.Conv2d):
    pass


def counted(layer: nn.Module, size: tuple[int, ...]) -> tuple[int, int]:
    """Terms of the fullest output, and outputs that the busiest input takes part in."""
    for parameter in layer.parameters():
        nn.init.constant_(parameter, float(parameter.ndim > 1))
    x = torch.ones(size, requires_grad=True)
    out: torch.Tensor = layer(x)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    return int(out.max()), int(gradient.max())


@pytest.mark.parametrize(
    ("layer", "size", "answer"),
    [
        (nn.Linear(5, 3), (1, 5), (5, 3)),
        (nn.Conv1d(4, 6, 3), (1, 4, 9), (12, 18)),
        (nn.Conv2d(4, 6, (3, 5)), (1, 4, 12, 12), (60, 90)),
        (nn.Conv3d(2, 4, 2), (1, 2, 5, 5, 5), (16, 32)),
        (nn.Conv2d(4, 8, 3, groups=2), (1, 4, 9, 9), (18, 36)),
        (nn.Conv2d(6, 6, 3, groups=6), (1, 6, 9, 9), (9, 9)),
        (nn.Conv1d(6, 18, 5, groups=3), (1, 6, 12), (10, 30)),
        (nn.ConvTranspose1d(4, 6, 3), (1, 4, 9), (12, 18)),
        (nn.ConvTranspose2d(4, 6, 3), (1, 4, 9, 9), (36, 54)),
        (nn.ConvTranspose3d(2, 4, 2), (1, 2, 5, 5, 5), (16, 32)),
        (nn.ConvTranspose2d(4, 8, 3, groups=2), (1, 4, 9, 9), (18, 36)),
        (Conv1D(5, 3), (1, 5), (5, 3)),
        (Renamed(4, 8, 3, groups=4), (1, 4, 9, 9), (9, 18)),
    ],
    ids=str,
)
def test_fans_are_what_ones_count(
    layer: nn.Module, size: tuple[int, ...], answer: tuple[int, int]
) -> None:
    shape = tuple(layer.get_parameter("weight").shape)
    found = fans(shape, layer_type(layer), settings=settings_of(layer))
    assert found == Fans(*answer, guessed=False)
    assert counted(layer, size) == answer


@pytest.mark.parametrize("shape", [(3, 5), (6, 4, 3), (6, 4, 3, 5), (4, 2, 2, 2, 2)])
def test_without_a_type_they_are_torch_s_guess(shape: tuple[int, ...]) -> None:
    guess = nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))
    assert fans(shape) == Fans(*guess, guessed=True)
    assert fans(shape, "Mystery") == Fans(*guess, guessed=True)


@pytest.mark.parametrize("shape", [(), (7,)])
@pytest.mark.parametrize("kind", [None, "Linear", "Conv2d"])
def test_vectors_have_none(shape: tuple[int, ...], kind: str | None) -> None:
    assert fans(shape, kind) is None


def test_attention_is_packed_thrice() -> None:
    packed = nn.MultiheadAttention(8, 2)
    assert fans((24, 8), layer_type(packed), name="in_proj_weight") == Fans(8, 8)
    apart = nn.MultiheadAttention(8, 2, kdim=5, vdim=6)
    shapes = {name: tuple(each.shape) for name, each in apart.named_parameters()}
    assert fans(shapes["q_proj_weight"], "MultiheadAttention", name="q_proj_weight") == Fans(8, 8)
    assert fans(shapes["k_proj_weight"], "MultiheadAttention", name="k_proj_weight") == Fans(5, 8)
    assert fans(shapes["v_proj_weight"], "MultiheadAttention", name="v_proj_weight") == Fans(6, 8)
    out = fans(shapes["out_proj.weight"], layer_type(apart.out_proj), name="attn.out_proj.weight")
    assert out == Fans(8, 8)


def test_packed_attention_is_known_by_its_name_and_still_a_guess() -> None:
    assert fans((24, 8), name="encoder.0.attn.in_proj_weight") == Fans(8, 8, guessed=True)
    assert fans((25, 8), name="in_proj_weight") == Fans(8, 25, guessed=True)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_gates_are_packed_in_recurrent_layers(kind: str) -> None:
    layer: nn.RNNBase = getattr(nn, kind)(5, 7, num_layers=2, bidirectional=True)
    for name, parameter in layer.named_parameters():
        inputs = {"weight_ih_l0": 5, "weight_ih_l1": 14}.get(name.removesuffix("_reverse"), 7)
        expected = Fans(inputs, 7) if name.startswith("weight") else None
        assert fans(tuple(parameter.shape), layer_type(layer), name=f"rnn.{name}") == expected


def test_lstm_projection_is_an_ordinary_matrix() -> None:
    layer = nn.LSTM(5, 7, proj_size=3)
    shapes = {name: tuple(each.shape) for name, each in layer.named_parameters()}
    assert fans(shapes["weight_hr_l0"], "LSTM", name="weight_hr_l0") == Fans(7, 3)
    assert fans(shapes["weight_hh_l0"], "LSTM", name="weight_hh_l0") == Fans(3, 7)


@pytest.mark.parametrize(
    ("cell", "gates"), [(nn.RNNCell(5, 7), 1), (nn.GRUCell(5, 7), 3), (nn.LSTMCell(5, 7), 4)]
)
def test_cells_are_packed_alike(cell: nn.RNNCellBase, gates: int) -> None:
    assert cell.weight_ih.shape == (gates * 7, 5)
    assert fans((gates * 7, 5), layer_type(cell), name="weight_ih") == Fans(5, 7)


def test_gpt2_packs_projections_into_conv1d() -> None:
    assert fans((8, 24), "Conv1D", name="h.0.attn.c_attn.weight") == Fans(8, 8)
    assert fans((8, 16), "Conv1D", name="h.0.crossattention.c_attn.weight") == Fans(8, 8)
    assert fans((8, 32), "Conv1D", name="h.0.mlp.c_fc.weight") == Fans(8, 32)


def test_embedding_is_read_as_an_output_layer() -> None:
    assert fans((1000, 16), "Embedding") == fans((1000, 16), "Linear") == Fans(16, 1000)


def test_bilinear_counts_pairs() -> None:
    layer = nn.Bilinear(3, 4, 5, bias=False)
    nn.init.ones_(layer.weight)
    assert layer(torch.ones(1, 3), torch.ones(1, 4)).tolist() == [[12.0] * 5]
    assert fans(tuple(layer.weight.shape), layer_type(layer)) == Fans(12, 5)


def test_a_namesake_with_other_shapes_is_guessed() -> None:
    assert fans((3, 4, 5), "Linear") == Fans(20, 15, guessed=True)
    assert fans((3, 4), "Conv2d") == Fans(4, 3, guessed=True)
    assert fans((2, 4, 3), "Conv1d", settings="groups=8") == Fans(12, 6, guessed=True)
    assert fans((1, 1, 8), "MultiheadAttention", name="bias_k") == Fans(8, 8, guessed=True)


def test_empty_weights_have_fans_of_zero() -> None:
    assert fans((0, 4), "Linear") == Fans(4, 0)


def test_every_layer_that_is_known_has_an_answer_for_its_own_shape() -> None:
    assert all(
        layer((24, 8, 3), "weight", 1)
        or layer((24, 8), "weight_ih", 1)
        or layer((24, 8), "in_proj_weight", 1)
        for layer in LAYERS.values()
    )


@pytest.mark.parametrize(
    ("name", "module", "parameter"),
    [
        ("weight", "", "weight"),
        ("a.b.weight", "a.b", "weight"),
        ("a.fc.parametrizations.weight.original", "a.fc", "weight"),
        ("parametrizations.weight.original1", "", "weight"),
        ("rnn.parametrizations.weight_hh_l0.original0", "rnn", "weight_hh_l0"),
        ("fc.parametrizations.weight.0.scale", "fc", "weight"),
        ("fc.weight_g", "fc", "weight"),
        ("fc.weight_v", "fc", "weight"),
        ("fc.weight_orig", "fc", "weight"),
        ("fc.bias_orig", "fc", "bias"),
        ("rnn.weight_hh_l0_v", "rnn", "weight_hh_l0"),
        ("attn.bias_v", "attn", "bias_v"),
        ("attn.bias_k", "attn", "bias_k"),
    ],
)
def test_owner_sees_through_originals(name: str, module: str, parameter: str) -> None:
    assert owner(name) == (module, parameter)


def test_owners_are_modules_of_the_model() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Conv1d(1, 2, 3))
    nn.utils.parametrizations.weight_norm(model[0])
    nn.utils.parametrizations.spectral_norm(model[1])
    kinds = {
        name: layer_type(model.get_submodule(owner(name)[0]))
        for name, _ in model.named_parameters()
    }
    assert kinds == {
        "0.bias": "Linear",
        "0.parametrizations.weight.original0": "Linear",
        "0.parametrizations.weight.original1": "Linear",
        "1.bias": "Conv1d",
        "1.parametrizations.weight.original": "Conv1d",
    }
    assert type(model[0]).__name__ == "ParametrizedLinear"
    name = "0.parametrizations.weight.original1"
    assert fans((4, 3), "ParametrizedLinear", name=name) == Fans(3, 4)


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("a.parametrizations.weight.original0", "a.parametrizations.weight.original1"),
        ("a.parametrizations.weight.original1", None),
        ("a.weight_g", "a.weight_v"),
        ("rnn.weight_hh_l0_g", "rnn.weight_hh_l0_v"),
        ("weight_g", "weight_v"),
        ("weight_v", None),
        ("a.weight", None),
        ("img_g", None),
    ],
)
def test_magnitudes_know_their_direction(name: str, direction: str | None) -> None:
    assert direction_of(name) == direction
