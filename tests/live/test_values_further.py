"""More models and operators whose parameters and multiply-accumulates are worked out by hand."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev, stack_module_state, vmap
from torch.nn import functional
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint_sequential

from modtool.live.inputs import parse_inputs
from modtool.live.trace import trace
from tests.live.test_values import Calls, Row, prove


class Around(nn.Module):
    """What a function makes of a module and its inputs."""

    def __init__(self, function: Any, *modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.inner = nn.ModuleList(modules)

    def forward(self, *args: torch.Tensor) -> object:
        return self.function(*self.inner, *args)


def unsorted_lengths(layer: Any, x: torch.Tensor) -> object:
    lengths = torch.tensor([4, 1, 3])
    packed = pack_padded_sequence(x, lengths, batch_first=layer.batch_first, enforce_sorted=False)
    return pad_packed_sequence(layer(packed)[0], batch_first=layer.batch_first)


def of_two(layer: Any, x: torch.Tensor, y: torch.Tensor) -> object:
    return layer(pack_sequence([x, y]))


def with_state(layer: Any, x: torch.Tensor, hidden: torch.Tensor, cell: torch.Tensor) -> object:
    return layer(x, (hidden, cell))


def to_size(layer: Any, x: torch.Tensor) -> object:
    return layer(x, output_size=(2, 6, 10, 10))


def quantized(layer: nn.Module, packed: bool = False) -> nn.Module:
    from torch.ao.quantization import quantize_dynamic

    def packing(inner: Any, x: torch.Tensor) -> object:
        return inner(pack_padded_sequence(x, torch.tensor([5, 3])))

    model = Around(packing, layer) if packed else nn.Sequential(layer)
    made: nn.Module = quantize_dynamic(model, {type(layer)})  # type: ignore[no-untyped-call]
    return made


def ensemble(first: nn.Module, second: nn.Module, x: torch.Tensor) -> object:
    parameters, buffers = stack_module_state([first, second])

    def one(own: Any, kept: Any, x: torch.Tensor) -> object:
        return functional_call(first, (own, kept), (x,))

    return vmap(one, in_dims=(0, 0, None))(parameters, buffers, x)


def in_parts(layers: Any, x: torch.Tensor) -> object:
    return checkpoint_sequential(layers, 2, x, use_reentrant=False)  # type: ignore[no-untyped-call]


def pruned() -> nn.Module:
    layer = nn.Conv2d(3, 4, 3)
    prune.ln_structured(layer, "weight", 0.5, 2, 0)  # type: ignore[no-untyped-call]
    return layer


def scripted(layer: nn.Module) -> nn.Module:
    module: nn.Module = torch.jit.script(layer)
    return module


def frozen() -> nn.Module:
    made: nn.Module = torch.jit.freeze(scripted(nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval()))
    return made


def traced_lstm() -> nn.Module:
    module: nn.Module = torch.jit.trace(nn.LSTM(4, 3), torch.zeros(5, 2, 4))  # type: ignore[no-untyped-call]
    return module


def weight_norm() -> nn.Module:
    module: nn.Module = parametrizations.weight_norm(nn.Conv1d(4, 6, 3))
    return module


def spectral_norm() -> nn.Module:
    module: nn.Module = parametrizations.spectral_norm(nn.Conv2d(3, 4, 3))
    return module


def sparse_product(x: torch.Tensor) -> torch.Tensor:
    return torch.eye(3).to_sparse_csr() @ x


def adaptive(layer: Any, x: torch.Tensor) -> object:
    return layer.log_prob(x)


ROWS = [
    # Recurrent nets.
    Row(
        "two bidirectional RNNs, batch first",
        lambda: nn.RNN(3, 4, 2, nonlinearity="relu", batch_first=True, bidirectional=True),
        ("2,5,3",),
        2 * (12 + 16 + 8) + 2 * (32 + 16 + 8),
        2 * 10 * (12 + 16) + 2 * 10 * (32 + 16),
    ),
    Row(
        "two bidirectional projected LSTMs",
        lambda: nn.LSTM(3, 5, 2, proj_size=2, batch_first=True, bidirectional=True),
        ("2,7,3",),
        2 * (60 + 40 + 40 + 10) + 2 * (80 + 40 + 40 + 10),
        2 * 14 * (60 + 40 + 10) + 2 * 14 * (80 + 40 + 10),
    ),
    Row(
        "unbatched projected LSTM without bias",
        lambda: nn.LSTM(3, 5, proj_size=2, bias=False),
        ("7,3",),
        110,
        7 * 110,
    ),
    Row(
        "packed projected LSTM",
        lambda: Around(unsorted_lengths, nn.LSTM(3, 5, proj_size=2, batch_first=True)),
        ("3,4,3",),
        60 + 40 + 40 + 10,
        8 * (60 + 40 + 10),
        executed="real",
    ),
    Row(
        "two packed bidirectional RNNs",
        lambda: Around(unsorted_lengths, nn.RNN(3, 5, 2, bidirectional=True)),
        ("4,3,3",),
        2 * (15 + 25 + 10) + 2 * (50 + 25 + 10),
        8 * 2 * (15 + 25) + 8 * 2 * (50 + 25),
        executed="real",
    ),
    Row(
        "GRU on sequences of two lengths",
        lambda: Around(of_two, nn.GRU(3, 5)),
        ("4,3", "2,3"),
        45 + 75 + 30,
        6 * (45 + 75),
        executed="real",
    ),
    Row(
        "LSTM with its first state",
        lambda: Around(with_state, nn.LSTM(3, 4)),
        ("5,2,3", "1,2,4", "1,2,4"),
        144,
        10 * 4 * (12 + 16),
    ),
    Row("LSTM of float64", lambda: nn.LSTM(3, 4).double(), ("5,2,3",), 144, 10 * 4 * (12 + 16)),
    Row("LSTM of bfloat16", lambda: nn.LSTM(3, 4).bfloat16(), ("5,2,3",), 144, 10 * 112),
    Row("unbatched GRUCell", lambda: nn.GRUCell(3, 4), ("3",), 108, 3 * (12 + 16)),
    # Packed weights of quantized recurrent nets have no shape; their first state tells it.
    Row("quantized LSTM", lambda: quantized(nn.LSTM(4, 3)), ("5,2,4",), 0, 10 * 12 * (4 + 3)),
    Row("quantized GRU", lambda: quantized(nn.GRU(4, 3)), ("5,2,4",), 0, 10 * 9 * (4 + 3)),
    Row(
        "two quantized bidirectional LSTMs",
        lambda: quantized(nn.LSTM(4, 3, 2, bidirectional=True, batch_first=True)),
        ("5,2,4",),
        0,
        2 * 10 * 12 * (4 + 3) + 2 * 10 * 12 * (6 + 3),
    ),
    Row(
        "packed quantized LSTM",
        lambda: quantized(nn.LSTM(4, 3), packed=True),
        ("5,2,4",),
        0,
        8 * 12 * (4 + 3),
        executed="real",
    ),
    Row(
        "packed quantized GRU",
        lambda: quantized(nn.GRU(4, 3), packed=True),
        ("5,2,4",),
        0,
        8 * 9 * (4 + 3),
        executed="real",
    ),
    Row("quantized LSTMCell", lambda: quantized(nn.LSTMCell(4, 3)), ("2,4",), 0, 2 * 12 * 7),
    Row("quantized GRUCell", lambda: quantized(nn.GRUCell(4, 3)), ("2,4",), 0, 2 * 9 * 7),
    Row("quantized RNNCell", lambda: quantized(nn.RNNCell(4, 3)), ("2,4",), 0, 2 * 3 * 7),
    # Convolutions.
    Row(
        "same, dilated, grouped",
        lambda: nn.Conv1d(4, 8, 3, padding="same", dilation=2, groups=2),
        ("2,4,10",),
        8 * 2 * 3 + 8,
        2 * 8 * 10 * 2 * 3,
    ),
    Row(
        "Conv3d with all of it",
        lambda: nn.Conv3d(4, 8, (1, 2, 3), (1, 2, 1), (0, 1, 1), (1, 1, 2), 2),
        ("1,4,5,6,7",),
        8 * 2 * 6 + 8,
        8 * (5 * 4 * 5) * 2 * 6,
    ),
    Row(
        "ConvTranspose2d with all of it",
        lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2, dilation=2, bias=False),
        ("2,4,5,5",),
        4 * 3 * 9,
        2 * 4 * 25 * 3 * 9,
    ),
    Row(
        "ConvTranspose2d to a size",
        lambda: Around(to_size, nn.ConvTranspose2d(4, 6, 3, 2, 1)),
        ("2,4,5,5",),
        4 * 6 * 9 + 6,
        2 * 4 * 25 * 6 * 9,
    ),
    Row(
        "unbatched depthwise ConvTranspose3d",
        lambda: nn.ConvTranspose3d(4, 4, 2, groups=4),
        ("4,3,3,3",),
        36,
        4 * 27 * 8,
    ),
    Row(
        "conv_tbc",
        lambda: Calls(lambda x, weight, bias: torch.conv_tbc(x, weight, bias, 1)),
        ("7,2,3", "3,3,5", "5"),
        0,
        (7 * 2 * 5) * 3 * 3,
    ),
    Row(
        "convolution as a product of patches",
        lambda: Calls(lambda x, weight: weight @ functional.unfold(x, 3)),
        ("2,3,5,5", "4,27"),
        0,
        2 * 4 * 27 * 9,
    ),
    Row("no images", lambda: nn.Conv2d(3, 4, 3), ("0,3,6,6",), 112, 0),
    # Products.
    Row(
        "einsum of three",
        lambda: Calls(lambda a, b, c: torch.einsum("ij,jk,kl->il", a, b, c)),
        ("2,3", "3,5", "5,7"),
        0,
        2 * 3 * 5 + 2 * 5 * 7,
    ),
    Row("matrices by a vector", lambda: Calls(torch.matmul), ("2,5,4", "4"), 0, 2 * 5 * 4),
    Row("a matrix by batches", lambda: Calls(torch.matmul), ("5,4", "2,3,4,6"), 0, 6 * 5 * 4 * 6),
    Row("addmv", lambda: Calls(torch.addmv), ("3", "3,4", "4"), 0, 12),
    Row(
        "addmm in place",
        lambda: Calls(lambda a, b, c: a.clone().addmm_(b, c)),
        ("3,5", "3,4", "4,5"),
        0,
        60,
    ),
    Row(
        "multi_dot in its best order",
        lambda: Calls(lambda a, b, c: torch.linalg.multi_dot([a, b, c])),
        ("2,30", "30,4", "4,5"),
        0,
        2 * 30 * 4 + 2 * 4 * 5,
    ),
    Row(
        "sparse product",
        lambda: Calls(sparse_product),
        ("3,4",),
        0,
        12,
        executed="real",
    ),
    Row(
        "F.bilinear", lambda: Calls(functional.bilinear), ("2,3,4", "2,3,5", "6,4,5"), 0, 36 * 4 * 5
    ),
    # Attention.
    Row(
        "heads that share keys",
        lambda: Calls(
            lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        ),
        ("2,8,16,4", "2,2,16,4", "2,2,16,4"),
        0,
        2 * 8 * 16 * 16 * (4 + 4),
    ),
    Row(
        "attention with a key and a value of its own, and one of zeros",
        lambda: nn.MultiheadAttention(8, 2, add_bias_kv=True, add_zero_attn=True, batch_first=True),
        ("2,5,8",) * 3,
        288 + 16,
        10 * 64 * 4 + 2 * (2 * 5 * (5 + 2) * 8),
    ),
    Row(
        "Transformer",
        lambda: nn.Transformer(8, 2, 1, 1, 16, batch_first=True),
        ("2,7,8", "2,5,8"),
        (288 + 280 + 32) + (2 * 288 + 280 + 48) + 32,
        (14 * 4 * 64 + 2 * (2 * 49 * 8) + 2 * 14 * 128)
        + (10 * 4 * 64 + 2 * (2 * 25 * 8))
        + (2 * 10 * 64 + 2 * 14 * 64 + 2 * (2 * 35 * 8) + 2 * 10 * 128),
    ),
    # Transforms of any length, and of short stretches.
    Row("real FFT of 15", lambda: Calls(torch.fft.rfft), ("15",), 0, 15),  # 15/4 · log2 15 = 14.65
    Row("FFT of padded", lambda: Calls(lambda x: torch.fft.fft(x, n=32)), ("16",), 0, 32 * 5 // 4),
    Row(
        "short-time transform",
        lambda: Calls(
            lambda x: torch.stft(x, 16, 8, center=False, window=torch.ones(16), return_complex=True)
        ),
        ("2,64",),
        0,
        (2 * 7) * 16 * 4 // 4,
    ),
    # Weights that are made anew for each pass, packed, scripted, or stood in for.
    Row("weight_norm Conv1d", weight_norm, ("2,4,10",), 78 + 6, 2 * 6 * 8 * 4 * 3),
    Row(
        "spectral_norm Conv2d",
        spectral_norm,
        ("1,3,6,6",),
        112,
        4 * 16 * 27 + 4 * 27 + 4,  # W v, and its product with u
    ),
    Row("pruned Conv2d", pruned, ("1,3,6,6",), 112, 4 * 16 * 27),
    Row(
        "scripted inside",
        lambda: nn.Sequential(scripted(nn.Conv2d(3, 4, 3)), nn.Flatten(), nn.Linear(64, 2)),
        ("1,3,6,6",),
        112 + 130,
        4 * 16 * 27 + 128,
    ),
    Row("traced LSTM", traced_lstm, ("5,2,4",), 108, 10 * 12 * (4 + 3)),
    Row("frozen script", frozen, ("2,4",), 0, 24),  # of constants
    Row(
        "other parameters",
        lambda: Around(
            lambda layer, x: functional_call(
                layer, {"weight": torch.zeros(3, 4), "bias": torch.zeros(3)}, (x,)
            ),
            nn.Linear(4, 3),
        ),
        ("2,4",),
        15,
        24,
    ),
    Row(
        "ensemble",
        lambda: Around(ensemble, nn.Linear(4, 3), nn.Linear(4, 3)),
        ("2,4",),
        30,
        2 * 24,
    ),
    Row(
        "Jacobian",
        lambda: Around(lambda layer, x: jacrev(layer)(x), nn.Linear(4, 3)),
        ("4",),
        15,
        12 + 3 * 12,  # the layer, and a product with its weight for each of three outputs
    ),
    Row(
        "checkpointed parts",
        lambda: Around(in_parts, nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))),
        ("2,4",),
        40,
        64,
    ),
    Row(
        "ParameterList",
        lambda: Around(
            lambda held, x: x @ held[0] @ held[1],
            nn.ParameterList([torch.ones(4, 3), torch.ones(3, 2)]),
        ),
        ("2,4",),
        18,
        24 + 12,
    ),
    Row("DataParallel", lambda: nn.DataParallel(nn.Linear(4, 3)), ("2,4",), 15, 24),
    Row(
        "AdaptiveLogSoftmax",
        lambda: Around(adaptive, nn.AdaptiveLogSoftmaxWithLoss(16, 20, [5, 10])),
        ("8,16",),
        16 * 7 + (16 * 4 + 4 * 5) + (16 * 1 + 1 * 10),
        8 * (16 * 7 + (16 * 4 + 4 * 5) + (16 * 1 + 1 * 10)),
    ),
    Row(
        "LazyConvTranspose2d",
        lambda: nn.LazyConvTranspose2d(5, 3),
        ("1,2,6,6",),
        95,
        (2 * 36) * 5 * 9,
        executed="real",
    ),
]


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore:.*[Ss]parse:UserWarning",
    "ignore:.*(quant|observer):UserWarning",
    "ignore::torch.jit.TracerWarning",
)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_parameters_and_macs(row: Row) -> None:
    prove(row)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*(quant|observer):UserWarning")
def test_packed_weights_are_no_module_that_was_not_called() -> None:
    model = quantized(nn.Linear(4, 3))
    assert trace(model, parse_inputs(["2,4"], model)).never_called == ()
