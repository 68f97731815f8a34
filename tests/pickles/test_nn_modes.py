"""`mode_sensitive` against forward passes in train and in eval mode."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from modtool.pickles.nn_settings import mode_sensitive
from modtool.pickles.plain import attributes_of
from tests.pickles.nn_modules import built, class_name, pickled

Make = Callable[[], nn.Module]


def heeds_mode(module: nn.Module, *inputs: torch.Tensor) -> bool:
    """Whether a module's result in train mode differs from that in eval mode."""
    torch.manual_seed(0)

    def result() -> torch.Tensor:
        found = module(*inputs)
        first = found[0] if isinstance(found, tuple) else found
        assert isinstance(first, torch.Tensor)
        return first.detach().clone()

    module.train()
    in_training = result()
    module.eval()
    return not torch.allclose(in_training, result(), atol=1e-5)


IMAGE = torch.arange(2.0 * 4 * 4 * 4).reshape(2, 4, 4, 4).cos() + 0.5
VOLUME = IMAGE.reshape(2, 4, 4, 2, 2)
SERIES = IMAGE.reshape(2, 4, 16)
WORDS = IMAGE.reshape(16, 2, 4)

MODES: list[tuple[Make, tuple[torch.Tensor, ...]]] = [
    (nn.Dropout, (IMAGE,)),
    (nn.Dropout1d, (SERIES,)),
    (nn.Dropout2d, (IMAGE,)),
    (nn.Dropout3d, (VOLUME,)),
    (nn.AlphaDropout, (IMAGE,)),
    (nn.FeatureAlphaDropout, (IMAGE,)),
    (nn.RReLU, (IMAGE,)),
    (nn.LeakyReLU, (IMAGE,)),
    (lambda: nn.BatchNorm1d(4), (SERIES,)),
    (lambda: nn.BatchNorm2d(4), (IMAGE,)),
    (lambda: nn.BatchNorm3d(4), (VOLUME,)),
    (nn.LazyBatchNorm2d, (IMAGE,)),
    (lambda: nn.SyncBatchNorm(4), (IMAGE,)),
    (lambda: nn.BatchNorm2d(4, track_running_stats=False), (IMAGE,)),
    (lambda: nn.InstanceNorm1d(4), (SERIES,)),
    (lambda: nn.InstanceNorm1d(4, track_running_stats=True), (SERIES,)),
    (lambda: nn.InstanceNorm2d(4), (IMAGE,)),
    (lambda: nn.InstanceNorm2d(4, track_running_stats=True), (IMAGE,)),
    (lambda: nn.InstanceNorm3d(4, track_running_stats=True), (VOLUME,)),
    (lambda: nn.LayerNorm(4), (IMAGE,)),
    (lambda: nn.GroupNorm(2, 4), (IMAGE,)),
    (lambda: nn.MultiheadAttention(4, 2), (WORDS,) * 3),
    (lambda: nn.MultiheadAttention(4, 2, dropout=0.5), (WORDS,) * 3),
    (lambda: nn.RNN(4, 3, num_layers=2), (WORDS,)),
    (lambda: nn.RNN(4, 3, num_layers=2, dropout=0.5), (WORDS,)),
    (lambda: nn.LSTM(4, 3, num_layers=2), (WORDS,)),
    (lambda: nn.LSTM(4, 3, num_layers=2, dropout=0.5), (WORDS,)),
    (lambda: nn.LSTM(4, 3, dropout=0.5), (WORDS,)),
    (lambda: nn.GRU(4, 3, num_layers=2, dropout=0.5), (WORDS,)),
    (lambda: nn.Linear(4, 3), (IMAGE,)),
]


@pytest.mark.parametrize(("make", "inputs"), MODES)
def test_mode_sensitive_is_what_a_forward_pass_shows(
    make: Make, inputs: tuple[torch.Tensor, ...]
) -> None:
    module = built(lambda: iter([make()]))[0]
    name, before, live = class_name(module), pickled(module), vars(module)
    attributes = attributes_of(before)
    assert attributes is not None
    answer = mode_sensitive(name, attributes)
    assert mode_sensitive(name, live) is answer
    assert heeds_mode(module, *inputs) is answer


def test_layers_answer_for_themselves_not_for_their_children() -> None:
    layer = nn.TransformerEncoderLayer(4, 2)
    sensitive = [path for path, child in layer.named_modules() if sensitive_live(child)]
    assert sensitive == ["self_attn", "dropout", "dropout1", "dropout2"]
    normed = parametrizations.spectral_norm(nn.Linear(3, 4))
    assert [path for path, child in normed.named_modules() if sensitive_live(child)] == [
        "parametrizations.weight.0"
    ]


def sensitive_live(module: nn.Module) -> bool:
    return mode_sensitive(class_name(module), vars(module))
