"""Modules of every class of torch that prints settings, in variants, and how they are pickled."""

import importlib
import io
import warnings
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import prune

from modtool.pickles.reader import read_pickle
from modtool.pickles.symbols import Call

Builder = Callable[[], Iterator[nn.Module]]


def class_name(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def shapes(module: nn.Module) -> dict[str, tuple[int, ...] | None]:
    """The shape of each own parameter, as `settings_of` is given them."""
    return {name: shape(value) for name, value in module._parameters.items()}


def shape(parameter: object) -> tuple[int, ...] | None:
    if isinstance(parameter, nn.UninitializedParameter):
        return (0,)
    return tuple(parameter.shape) if isinstance(parameter, torch.Tensor) else None


def pickled(module: nn.Module, protocol: int = 2) -> Call:
    """What a full-model save of it says."""
    buffer = io.BytesIO()
    torch.save(module, buffer, pickle_protocol=protocol)
    with zipfile.ZipFile(buffer) as archive:
        root = read_pickle(archive.read("archive/data.pkl")).root
    assert isinstance(root, Call)
    return root


def dimensional() -> Iterator[nn.Module]:
    """Variants of the classes that come in one, two and three dimensions."""
    for count in (1, 2, 3):

        def make(name: str, *args: object, count: int = count, **keywords: object) -> nn.Module:
            made = getattr(nn, f"{name}{count}d")(*args, **keywords)
            assert isinstance(made, nn.Module)
            return made

        for lazy in ("", "Lazy"):
            channels = (4,) if not lazy else ()
            for name in ("Conv", "ConvTranspose"):
                yield make(lazy + name, *channels, 6, 3)
                yield make(lazy + name, *channels, 6, (3,) * count, stride=2, padding=1, dilation=2)
                yield make(lazy + name, *channels, 6, 3, groups=2, bias=False)
            yield make(f"{lazy}Conv", *channels, 6, 3, padding="same", padding_mode="circular")
            yield make(f"{lazy}Conv", *channels, 6, 3, padding="valid")
            yield make(
                f"{lazy}ConvTranspose", *channels, 6, 3, stride=3, output_padding=1, bias=False
            )
            for name in ("BatchNorm", "InstanceNorm"):
                yield make(lazy + name, *channels)
                yield make(lazy + name, *channels, eps=1e-3, momentum=None, affine=True)
                yield make(lazy + name, *channels, momentum=0.25, affine=False)
                yield make(lazy + name, *channels, track_running_stats=name == "InstanceNorm")
        yield make("Dropout")
        yield make("Dropout", 0.25, inplace=True)
        for name in ("CircularPad", "ReflectionPad", "ReplicationPad", "ZeroPad"):
            yield make(name, 2)
            yield make(name, tuple(range(2 * count)))
        yield make("ConstantPad", 2, 3.5)
        yield make("ConstantPad", tuple(range(2 * count)), 0)
        for name in ("AdaptiveAvgPool", "AdaptiveMaxPool"):
            yield make(name, 5)
            yield make(name, (5,) * count)
            yield make(name, torch.Size((5,) * count))
        yield make("AdaptiveAvgPool", (None, 4, None)[:count])
        for name in ("AvgPool", "MaxPool", "LPPool"):
            norm = (1.5,) if name == "LPPool" else ()
            yield make(name, *norm, 3)
            yield make(name, *norm, (3,) * count, stride=(2,) * count, ceil_mode=True)
        yield make("AvgPool", 3, padding=1)
        yield make("MaxPool", 3, padding=1, dilation=2)
        yield make("MaxUnpool", 2)
        yield make("MaxUnpool", (2,) * count, stride=3, padding=1)
        if count > 1:
            yield make("FractionalMaxPool", 3, output_size=5)


def plain() -> Iterator[nn.Module]:
    """Variants of all other classes that print something."""
    layers: Any = nn
    for name in ("ReLU", "ReLU6", "SELU", "SiLU", "Mish", "ELU", "CELU", "LeakyReLU", "Hardtanh"):
        yield getattr(nn, name)()
        yield getattr(nn, name)(inplace=True)
    yield from (nn.ELU(0.5), nn.CELU(2), nn.LeakyReLU(0.2, True), nn.Hardtanh(-2, 2.5))
    yield from (nn.Threshold(0.1, 20), nn.Threshold(1, 2, True), nn.RReLU(), nn.RReLU(0, 1, True))
    yield from (nn.GELU(), nn.GELU("tanh"), nn.GLU(), nn.GLU(1), nn.PReLU(), nn.PReLU(3))
    yield from (nn.Hardshrink(), nn.Hardshrink(2), nn.Softshrink(), nn.Softshrink(0.25))
    yield from (nn.Softplus(), nn.Softplus(2, 10.5))
    for name in ("Softmax", "Softmin", "LogSoftmax"):
        yield getattr(nn, name)()
        yield getattr(nn, name)(dim=-1)
    yield from (nn.SyncBatchNorm(3), nn.SyncBatchNorm(3, affine=False, track_running_stats=False))
    yield from (nn.GroupNorm(2, 4), nn.GroupNorm(2, 4, affine=False), nn.LayerNorm(5))
    yield from (nn.LayerNorm([5, 6], eps=1e-6, bias=False), nn.LayerNorm(5, float("inf"), False))
    yield from (nn.LayerNorm(torch.empty(3, 4, 5).shape[1:]), nn.RMSNorm(5), nn.RMSNorm((5, 6)))
    yield from (nn.RMSNorm(4, eps=1e-6, elementwise_affine=False), nn.LocalResponseNorm(2))
    yield from (nn.LocalResponseNorm(2, 1e-3, 0.5, 2), nn.CrossMapLRN2d(2, k=2))
    yield from (
        nn.Linear(3, 4),
        nn.Linear(3, 4, bias=False),
        nn.LazyLinear(4),
        nn.Bilinear(2, 3, 4),
    )
    yield from (nn.LazyLinear(4, bias=False), nn.Bilinear(2, 3, 4, bias=False))
    yield nn.modules.linear.NonDynamicallyQuantizableLinear(3, 4)
    yield from (nn.Embedding(9, 4), nn.Embedding(9, 4, padding_idx=0, max_norm=1, norm_type=1.5))
    yield nn.Embedding(9, 4, scale_grad_by_freq=True, sparse=True, norm_type=2)
    yield from (nn.EmbeddingBag(9, 4), nn.EmbeddingBag(9, 4, max_norm=1.0, norm_type=1, mode="sum"))
    yield nn.EmbeddingBag(9, 4, scale_grad_by_freq=True, padding_idx=3)
    for name in ("Dropout", "AlphaDropout", "FeatureAlphaDropout"):
        yield getattr(nn, name)()
        yield getattr(nn, name)(0, True)
    yield from (nn.ChannelShuffle(2), nn.Flatten(), nn.Flatten(0, 2), nn.Unflatten(1, (2, 3)))
    yield from (nn.Unflatten(1, torch.Size([2, 3])), layers.Unflatten("c", (2, 3)))
    yield from (nn.Fold(4, 2), nn.Fold((4, 5), (2, 2), 1, (0, 1), 2), nn.Unfold(3), nn.Unfold(3, 2))
    yield from (nn.PixelShuffle(2), nn.PixelUnshuffle(3), nn.Upsample(4), nn.Upsample((4, 5)))
    yield from (nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=(2, 3.5), mode="bilinear"))
    yield from (nn.UpsamplingBilinear2d(4), nn.UpsamplingNearest2d(scale_factor=2))
    for recurrent in (nn.RNN, nn.LSTM, nn.GRU):
        yield recurrent(3, 4)
        yield recurrent(3, 4, num_layers=2, bias=False, batch_first=True, dropout=0.5)
        yield recurrent(3, 4, bidirectional=True, num_layers=2, dropout=1)
    yield from (nn.LSTM(3, 4, proj_size=2), nn.RNN(3, 4, nonlinearity="relu"))
    yield nn.modules.rnn.RNNBase("LSTM", 3, 4, proj_size=1)
    for cell in (nn.RNNCell, nn.LSTMCell, nn.GRUCell):
        yield from (cell(3, 4), cell(3, 4, bias=False))
    yield from (nn.RNNCell(3, 4, nonlinearity="relu"), nn.modules.rnn.RNNCellBase(3, 4, True, 1))
    yield nn.ParameterList([torch.zeros(2, 3), torch.tensor(1.0), 5, "text", None, (1,)])
    yield nn.ParameterList([torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2, device="meta")])
    yield nn.ParameterList([nn.Linear(2, 2), torch.zeros(0, 4)])
    yield from (nn.ParameterList(), nn.ParameterDict())
    yield nn.ParameterDict({"a": torch.zeros(2, 3), "b": 5, "c": [1]})
    yield nn.ParameterDict({"m": torch.zeros(2, device="meta"), "h": torch.zeros(1).half()})
    yield nn.ParameterDict({"z": torch.zeros(2, dtype=torch.complex64)})
    eighth = torch.zeros(2, dtype=torch.float8_e4m3fn)
    yield nn.ParameterDict({"e": nn.Parameter(eighth, requires_grad=False)})
    short = torch.zeros(2, dtype=torch.uint16)
    yield nn.ParameterDict({"u": nn.Parameter(short, requires_grad=False)})
    yield nn.LinearCrossEntropyLoss(3, 4)
    yield nn.LinearCrossEntropyLoss(
        3,
        4,
        out_features=(2,),
        bias=True,
        reduction="sum",
        ignore_index=-1,
        options=nn.LinearCrossEntropyOptions(acc_dtype=torch.float32),
    )


def edited() -> Iterator[nn.Module]:
    """Modules whose parameters were replaced, and settings that are no plain numbers."""
    layers: Any = nn
    pruning: Any = prune
    yield pruning.random_unstructured(nn.Conv1d(2, 2, 1), "bias", amount=1)
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        yield nn.utils.weight_norm(nn.Linear(3, 4))
        yield nn.utils.weight_norm(nn.Linear(3, 4, bias=False))
    yield nn.utils.spectral_norm(nn.Conv2d(3, 4, 2))
    yield nn.Dropout(np.float64(0.3))
    yield layers.MaxPool2d(np.int64(3))
    yield layers.MaxPool2d((np.int64(3), np.int32(2)))
    yield layers.AvgPool2d([2, 2], stride=[1, 1])


def quantized() -> Iterator[nn.Module]:
    """Variants of the classes of `torch.ao.nn` that can be built on their own."""
    quantized = importlib.import_module("torch.ao.nn.quantized")
    dynamic = importlib.import_module("torch.ao.nn.quantized.dynamic")
    intrinsic = importlib.import_module("torch.ao.nn.intrinsic.quantized")
    for count in (1, 2, 3):
        for room in (quantized, dynamic):
            yield getattr(room, f"Conv{count}d")(4, 8, 1)
            yield getattr(room, f"Conv{count}d")(
                4, 8, 3, stride=2, padding=1, dilation=2, groups=2, bias=False
            )
        yield getattr(intrinsic, f"ConvReLU{count}d")(4, 8, 1)
        yield getattr(quantized, f"InstanceNorm{count}d")(4, None, None, 0.5, 1)
    yield quantized.ConvTranspose1d(4, 8, 3, output_padding=1, stride=2)
    yield quantized.ConvTranspose2d(4, 8, 3, bias=False)
    yield dynamic.ConvTranspose2d(4, 8, 3)
    yield from (intrinsic.ConvAdd2d(4, 8, 1), intrinsic.ConvAddReLU2d(4, 8, 1))
    yield from (intrinsic.BNReLU2d(4), intrinsic.BNReLU3d(4))
    yield from (quantized.Linear(3, 4), quantized.Linear(3, 4, bias_=False))
    yield from (intrinsic.LinearReLU(3, 4), intrinsic.LinearLeakyReLU(3, 4, 0.5))
    yield intrinsic.LinearTanh(3, 4)
    yield from (dynamic.Linear(3, 4), dynamic.Linear(3, 4, dtype=torch.float16))
    yield importlib.import_module("torch.ao.nn.intrinsic.quantized.dynamic").LinearReLU(3, 4)
    yield from (quantized.Embedding(4, 8), quantized.EmbeddingBag(4, 8))
    yield from (dynamic.LSTM(3, 4), dynamic.GRU(3, 4, num_layers=2, dropout=0.5, bias=False))
    yield from (dynamic.LSTMCell(3, 4), dynamic.RNNCell(3, 4, nonlinearity="relu"))
    yield from (quantized.BatchNorm2d(3), quantized.BatchNorm3d(3), quantized.Dropout(0.25))
    yield from (quantized.ELU(1.0, 0, 0.5), quantized.LeakyReLU(1.0, 0, 0.5, True))
    yield from (quantized.ReLU6(True), quantized.Softmax(1), quantized.Hardswish(1.0, 0))
    yield from (quantized.PReLU(1.0, 0, 2), quantized.Sigmoid(1.0, 0))
    weight = nn.Parameter(torch.ones(4))
    yield from (
        quantized.LayerNorm(4, weight, weight, 1.0, 0),
        quantized.GroupNorm(2, 4, weight, weight, 1.0, 0),
    )
    yield from (quantized.QFunctional(), quantized.FloatFunctional(), quantized.DeQuantize())
    reference = importlib.import_module("torch.ao.nn.quantized.reference")
    yield from (reference.Linear(3, 4), reference.Conv2d(3, 4, 1, padding=1))
    yield from (reference.ConvTranspose1d(3, 4, 1, bias=False), reference.Embedding(4, 5, 0))
    yield from (reference.EmbeddingBag(4, 5), reference.LSTM(3, 4), reference.GRUCell(3, 4))


BUILDERS: tuple[Builder, ...] = (dimensional, plain, edited, quantized)


def built(builder: Builder) -> list[nn.Module]:
    """The modules, without the warnings of their constructors."""
    with warnings.catch_warnings(action="ignore"):
        return list(builder())
