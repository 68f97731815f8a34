"""Parameters and multiply-accumulates of whole models, against values worked out by hand."""

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional

from modtool.live.fake import fake_mode
from modtool.live.inputs import parse_inputs
from modtool.live.trace import trace


@dataclass(frozen=True)
class Row:
    """A model, what it is given, and what is expected of it."""

    name: str
    build: Callable[[], nn.Module]
    shapes: tuple[str, ...]
    parameters: int
    macs: int
    executed: str = "fake"
    uncounted: tuple[str, ...] = ()


class Language(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 300)
        self.lstm = nn.LSTM(300, 512, 2, batch_first=True)
        self.head = nn.Linear(512, 20)

    def forward(self, x: torch.Tensor) -> object:
        return self.head(self.lstm(self.embed(x))[0])


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(1000, 64)
        self.head = nn.Linear(64, 1000, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> object:
        return self.head(self.embed(x))


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(64, 64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight)


class Packed(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> object:
        lengths = torch.tensor([3, 2])
        return self.layer(nn.utils.rnn.pack_padded_sequence(x, lengths))


class Calls(nn.Module):
    """A function of tensors as a model."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: torch.Tensor) -> object:
        return self.function(*args)


def weight_norm() -> nn.Module:
    module: nn.Module = nn.utils.parametrizations.weight_norm(nn.Linear(64, 64))
    return module


def old_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        module: nn.Module = nn.utils.weight_norm(nn.Linear(64, 64))
    return module


def shared() -> nn.Module:
    layer = nn.Linear(8, 8)
    return nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU(), layer)


def pruned() -> nn.Module:
    from torch.nn.utils import prune

    layer = nn.Linear(4, 3)
    prune.l1_unstructured(layer, "weight", 0.5)  # type: ignore[no-untyped-call]
    return layer


def spectral_norm() -> nn.Module:
    module: nn.Module = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3))
    return module


def orthogonal() -> nn.Module:
    module: nn.Module = nn.utils.parametrizations.orthogonal(nn.Linear(4, 4, bias=False))
    return module


def scripted() -> nn.Module:
    module: nn.Module = torch.jit.script(nn.Sequential(nn.Linear(4, 3), nn.ReLU()))
    return module


def quantized_linear() -> nn.Module:
    from torch.ao.quantization import quantize_dynamic

    model = nn.Sequential(nn.Linear(4, 3))
    module: nn.Module = quantize_dynamic(model, {nn.Linear})  # type: ignore[no-untyped-call]
    return module


def quantized_convolution() -> nn.Module:
    from torch.ao import quantization as ao

    model = nn.Sequential(ao.QuantStub(), nn.Conv2d(3, 4, 3), nn.ReLU(), ao.DeQuantStub()).eval()
    setattr(model, "qconfig", ao.default_qconfig)  # noqa: B010
    ao.prepare(model, inplace=True)  # type: ignore[no-untyped-call]
    model(torch.randn(1, 3, 8, 8))
    ao.convert(model, inplace=True)  # type: ignore[no-untyped-call]
    return model


def encoder() -> nn.Module:
    return nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)


def einsum(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.einsum("bij,bkj->bik", x, y)


ROWS = [
    # The rows of the issue.
    Row(
        "MultiheadAttention",
        lambda: nn.MultiheadAttention(64, 4, batch_first=True),
        ("2,128,64",) * 3,
        16_640,
        8_388_608,
    ),
    Row(
        "TransformerEncoderLayer",
        encoder,
        ("2,128,64",),
        33_472,
        # query, key and value; output; scores and their sums; both linears
        256 * 64 * 192 + 256 * 64 * 64 + 2 * (2 * 128 * 128 * 64) + 2 * (256 * 64 * 128),
    ),
    Row("LSTMCell", lambda: nn.LSTMCell(300, 512), ("1,300",), 1_667_072, 1_662_976),
    Row("language model", Language, ("1,100",), 3_784_580, 377_036_800),
    Row(
        "ConvTranspose2d",
        lambda: nn.ConvTranspose2d(16, 8, 4, 2, 1),
        ("2,16,32,32",),
        2_056,
        4_194_304,
    ),
    Row("weight_norm", weight_norm, ("2,64",), 4_224, 8_192),
    Row("old weight_norm", old_weight_norm, ("2,64",), 4_224, 8_192),
    Row("bare parameter", Bare, ("2,128,64",), 4_096, 1_048_576),
    Row("Bilinear", lambda: nn.Bilinear(16, 16, 8), ("4,16", "4,16"), 2_056, 4 * 8 * 16 * 16),
    Row("tied", Tied, ("1,8",), 64_000, 8 * 64 * 1000),
    # Products of matrices.
    Row("Linear on a vector", lambda: nn.Linear(5, 3), ("5",), 18, 15),
    Row("Linear on four dimensions", lambda: nn.Linear(5, 3), ("2,3,4,5",), 18, 24 * 15),
    Row("no bias", lambda: nn.Linear(5, 3, bias=False), ("2,5",), 15, 30),
    Row("shared layer", shared, ("4,8",), 72, 3 * 4 * 64),
    Row("broadcast matmul", lambda: Calls(torch.matmul), ("5,1,2,3", "7,3,4"), 0, 35 * 24),
    Row("vectors", lambda: Calls(torch.matmul), ("9", "9"), 0, 9),
    Row("matrix and vector", lambda: Calls(torch.matmul), ("4,9", "9"), 0, 36),
    Row("einsum", lambda: Calls(einsum), ("2,3,5", "2,4,5"), 0, 2 * 3 * 4 * 5),
    Row("baddbmm", lambda: Calls(torch.baddbmm), ("2,3,4", "2,3,5", "2,5,4"), 0, 2 * 3 * 4 * 5),
    Row("addbmm", lambda: Calls(torch.addbmm), ("3,4", "2,3,5", "2,5,4"), 0, 2 * 3 * 4 * 5),
    Row("outer product", lambda: Calls(torch.outer), ("3", "4"), 0, 0),
    Row("cdist", lambda: Calls(torch.cdist), ("3,8", "4,8"), 0, 3 * 4 * 8),
    Row("pdist", lambda: Calls(torch.pdist), ("5,8",), 0, 5 * 4 // 2 * 8),
    Row("complex", lambda: nn.Linear(5, 3, dtype=torch.complex64), ("2,5:complex64",), 18, 30),
    Row("bfloat16", lambda: nn.Linear(5, 3, dtype=torch.bfloat16), ("2,5",), 18, 30),
    # n/2 · log2 n for each row of 16 complex elements; half of that where they are real.
    Row("FFT", lambda: Calls(torch.fft.fft), ("4,16:complex64",), 0, 4 * 8 * 4),
    Row("real FFT", lambda: Calls(torch.fft.rfft), ("4,16",), 0, 4 * 4 * 4),
    Row("inverse real FFT", lambda: Calls(torch.fft.irfft), ("4,9:complex64",), 0, 4 * 4 * 4),
    Row("FFT of two axes", lambda: Calls(torch.fft.fft2), ("2,8,4:complex64",), 0, 64 * 5 // 2),
    Row("svd", lambda: Calls(torch.linalg.svd), ("4,4",), 0, 0, uncounted=("aten._linalg_svd",)),
    # Convolutions: output elements, times channels of a group, times the kernel.
    Row("Conv1d", lambda: nn.Conv1d(4, 6, 3), ("2,4,10",), 78, 2 * 6 * 8 * 4 * 3),
    Row("Conv2d", lambda: nn.Conv2d(3, 8, 3, 2, 1), ("2,3,9,9",), 224, 2 * 8 * 25 * 27),
    Row("Conv3d", lambda: nn.Conv3d(2, 4, 3), ("1,2,5,5,5",), 220, 4 * 27 * 2 * 27),
    Row("grouped", lambda: nn.Conv2d(8, 16, 3, groups=4), ("1,8,6,6",), 304, 16 * 16 * 2 * 9),
    Row("depthwise", lambda: nn.Conv2d(8, 8, 3, groups=8), ("1,8,6,6",), 80, 8 * 16 * 9),
    Row("dilated", lambda: nn.Conv2d(1, 1, 3, dilation=2), ("1,1,8,8",), 10, 16 * 9),
    Row("same", lambda: nn.Conv2d(2, 4, 4, padding="same"), ("1,2,7,7",), 132, 4 * 49 * 32),
    Row(
        "circular",
        lambda: nn.Conv1d(2, 2, 3, padding=1, padding_mode="circular"),
        ("1,2,5",),
        14,
        60,
    ),
    Row(
        "same, dilated",
        lambda: nn.Conv1d(2, 3, 4, padding="same", dilation=2),
        ("1,2,9",),
        27,
        3 * 9 * 2 * 4,
    ),
    Row(
        "complex Conv1d",
        lambda: nn.Conv1d(2, 3, 3, dtype=torch.complex64),
        ("1,2,5:complex64",),
        21,
        3 * (3 * 3 * 2 * 3),  # torch makes three real ones of it
    ),
    Row("unbatched ConvTranspose2d", lambda: nn.ConvTranspose2d(2, 3, 2), ("2,4,4",), 27, 32 * 12),
    Row("unbatched Conv2d", lambda: nn.Conv2d(3, 8, 3), ("3,6,6",), 224, 8 * 16 * 27),
    Row("ConvTranspose1d", lambda: nn.ConvTranspose1d(4, 6, 3), ("2,4,10",), 78, 80 * 6 * 3),
    Row("ConvTranspose3d", lambda: nn.ConvTranspose3d(2, 4, 2, 2), ("1,2,3,3,3",), 68, 54 * 32),
    Row(
        "grouped transposed",
        lambda: nn.ConvTranspose2d(8, 4, 3, groups=2),
        ("1,8,5,5",),
        148,
        200 * 2 * 9,
    ),
    # Recurrent nets: gates × (inputs + hidden) × hidden for each position and direction.
    Row("RNN", lambda: nn.RNN(3, 4), ("5,2,3",), 36, 10 * (12 + 16)),
    Row("GRU", lambda: nn.GRU(3, 4), ("5,2,3",), 108, 10 * 3 * (12 + 16)),
    Row("LSTM", lambda: nn.LSTM(3, 4), ("5,2,3",), 144, 10 * 4 * (12 + 16)),
    Row("unbatched LSTM", lambda: nn.LSTM(3, 4), ("5,3",), 144, 5 * 4 * (12 + 16)),
    Row(
        "bidirectional LSTM",
        lambda: nn.LSTM(3, 4, bidirectional=True),
        ("5,2,3",),
        288,
        2 * 10 * 4 * (12 + 16),
    ),
    Row(
        "two bidirectional GRUs",
        lambda: nn.GRU(3, 4, 2, bidirectional=True),
        ("5,2,3",),
        2 * 108 + 2 * (12 * 8 + 12 * 4 + 24),
        2 * 10 * 3 * (12 + 16) + 2 * 10 * 3 * (32 + 16),
    ),
    Row(
        "projected LSTM",
        lambda: nn.LSTM(3, 4, proj_size=2),
        ("5,2,3",),
        16 * 3 + 16 * 2 + 32 + 8,
        10 * (16 * 3 + 16 * 2 + 4 * 2),
    ),
    Row(
        "projected bidirectional LSTM",
        lambda: nn.LSTM(3, 4, proj_size=2, bidirectional=True),
        ("5,2,3",),
        2 * (16 * 3 + 16 * 2 + 32 + 8),
        2 * 10 * (16 * 3 + 16 * 2 + 4 * 2),
    ),
    Row("unbatched GRU", lambda: nn.GRU(3, 4), ("5,3",), 108, 5 * 3 * (12 + 16)),
    Row("RNNCell", lambda: nn.RNNCell(3, 4), ("2,3",), 36, 2 * (12 + 16)),
    Row(
        "packed bidirectional GRU",
        lambda: Packed(nn.GRU(4, 3, bidirectional=True)),
        ("3,2,4",),
        2 * (9 * 4 + 9 * 3 + 18),
        2 * 5 * (9 * 4 + 9 * 3),
        executed="real",
    ),
    Row(
        "packed LSTM",
        lambda: Packed(nn.LSTM(4, 5)),
        ("3,2,4",),
        220,
        5 * 4 * (20 + 25),
        executed="real",
    ),
    Row("GRUCell", lambda: nn.GRUCell(3, 4), ("2,3",), 108, 2 * 3 * (12 + 16)),
    # Attention.
    Row(
        "grouped queries",
        lambda: Calls(functional.scaled_dot_product_attention),
        ("2,4,8,16", "2,4,32,16", "2,4,32,24"),
        0,
        2 * 4 * 8 * 32 * (16 + 24),
    ),
    Row(
        "attention to keys and values of other widths",
        lambda: nn.MultiheadAttention(8, 2, kdim=6, vdim=10, batch_first=True),
        ("2,5,8", "2,7,6", "2,7,10"),
        64 + 48 + 80 + 24 + 64 + 8,
        10 * 64 + 14 * 48 + 14 * 80 + 2 * (2 * 5 * 7 * 8) + 10 * 64,
    ),
    Row(
        "unbatched attention",
        lambda: nn.MultiheadAttention(8, 2),
        ("5,8", "7,8", "7,8"),
        288,
        5 * 64 + 2 * 7 * 64 + 2 * (5 * 7 * 8) + 5 * 64,
    ),
    Row(
        "TransformerDecoderLayer",
        lambda: nn.TransformerDecoderLayer(8, 2, 16),
        ("5,1,8", "7,1,8"),
        2 * (3 * 64 + 24 + 64 + 8) + (8 * 16 + 16 + 16 * 8 + 8) + 3 * 16,
        (5 * 4 * 64 + 2 * 5 * 5 * 8) + (5 * 2 * 64 + 7 * 2 * 64 + 2 * 5 * 7 * 8) + 2 * 5 * 8 * 16,
    ),
    # Weights that are made anew for each pass, packed, or compiled.
    Row("pruned", pruned, ("2,4",), 15, 24),
    # W v, and its product with u, tell the largest singular value.
    Row("spectral_norm", spectral_norm, ("2,4",), 15, 24 + 12 + 3),
    Row("orthogonal", orthogonal, ("2,4",), 16, 32 + 64, uncounted=("aten.linalg_matrix_exp",)),
    Row("scripted", scripted, ("2,4",), 15, 24),
    # What is packed is no parameter any more.
    Row("quantized Linear", quantized_linear, ("2,4",), 0, 24),
    Row("quantized Conv2d", quantized_convolution, ("1,3,8,8",), 0, 4 * 36 * 27, executed="real"),
    # Work that is left out.
    Row("EmbeddingBag", lambda: nn.EmbeddingBag(10, 4), ("2,3",), 40, 0),
    Row("LayerNorm", lambda: nn.LayerNorm(8), ("2,8",), 16, 0),
    Row("BatchNorm2d", lambda: nn.BatchNorm2d(4), ("2,4,3,3",), 8, 0),
    Row("Embedding", lambda: nn.Embedding(10, 4), ("2,3",), 40, 0),
    Row("MaxPool2d", lambda: nn.MaxPool2d(2), ("1,2,8,8",), 0, 0),
    Row("Upsample", lambda: nn.Upsample(scale_factor=2), ("1,2,8,8",), 0, 0),
    Row("Softmax", lambda: nn.Softmax(-1), ("2,8",), 0, 0),
    # Lazy modules.
    Row("LazyLinear", lambda: nn.LazyLinear(5), ("4,16",), 85, 320, executed="real"),
    Row("LazyConv2d", lambda: nn.LazyConv2d(5, 3), ("1,2,6,6",), 95, 1440, executed="real"),
]


def prove(row: Row) -> None:
    """See that a trace says what a row says."""
    model = row.build()
    result = trace(model, parse_inputs(row.shapes, model))
    assert result.error is None
    assert (result.parameters, result.macs) == (row.parameters, row.macs)
    assert (result.executed, result.uncounted) == (row.executed, row.uncounted)


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*(quant|observer):UserWarning")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_parameters_and_macs(row: Row) -> None:
    prove(row)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("backward", [False, True])
def test_neither_mode_nor_gradients_change_what_is_counted(mode: str, backward: bool) -> None:
    model = encoder()
    inputs = parse_inputs(["2,128,64"], model)
    result = trace(model, inputs, mode=mode, backward=backward)
    assert (result.parameters, result.macs) == (33_472, 12_582_912)


needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)


@needs_transformers
def test_gpt2() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    with fake_mode():
        model = GPT2LMHeadModel(GPT2Config())
    result = trace(model, parse_inputs(["1,128"], model))
    assert (result.error, result.uncounted, result.executed) == (None, (), "fake")
    assert (result.parameters, result.macs) == (124_439_808, 16_114_089_984)


@needs_transformers
def test_llama_3_8b() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
    )
    with fake_mode():
        model = LlamaForCausalLM(config)
    result = trace(model, parse_inputs(["1,2048"], model))
    assert (result.error, result.uncounted, result.never_called) == (None, (), ())
    assert (result.parameters, result.macs) == (8_030_261_248, 16_469_052_096_512)
