"""Sound models give nothing: a finding that is wrong is the worst that a check can do."""

import inspect
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from modtool.live.inputs import parse_inputs
from modtool.live.lint import lint_model
from modtool.live.load import load_model

EXAMPLES = Path(__file__).parents[3] / "examples"
NO_MODEL = "train.py"
# What is true of an example: it shows a fault, or its convolutions keep a bias that they waste.
JUSTIFIED = {
    "unregistered.py": ["unregistered-module"],
    "finetune.py": ["bias-before-batchnorm"] * 2,
    "nested_sequential.py": ["bias-before-batchnorm"] * 2,
    "ordered_sequential.py": ["bias-before-batchnorm"] * 2,
}

# What constructors need that have parameters without a default, tried in turn.
ARGUMENTS: tuple[tuple[Any, ...], ...] = (
    (),
    (4,),
    (4, 4),
    (4, 4, 3),
    (4, 2),
    (2, 4, 4),
    (0.1, 0.2),
    (1, (4, 4)),
    (4, 10, [2, 5]),
    (nn.TransformerEncoderLayer(4, 2), 2),
    (nn.TransformerDecoderLayer(4, 2), 2),
)


def told(model: nn.Module, *shapes: str) -> list[tuple[str, str]]:
    inputs = parse_inputs(shapes, model) if shapes else None
    return [(found.code, found.where) for found in lint_model(model, inputs)]


def classes_of_torch() -> Iterator[type[nn.Module]]:
    for name in sorted(set(nn.modules.__all__)):
        kind = getattr(nn, name)
        if inspect.isclass(kind) and issubclass(kind, nn.Module):
            yield kind


def built(kind: type[nn.Module]) -> nn.Module | None:
    for arguments in ARGUMENTS:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return kind(*arguments)
        except (TypeError, ValueError, AssertionError, NotImplementedError, AttributeError):
            continue
    return None


def test_every_class_of_torch_is_sound() -> None:
    models = {kind.__name__: built(kind) for kind in classes_of_torch()}
    bases = ["RNNBase", "RNNCellBase"]  # of LSTM, GRU and the cells
    assert [name for name, model in models.items() if model is None] == bases
    assert len(models) > 150
    assert {name: told(model) for name, model in models.items() if model and told(model)} == {}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_every_example_gives_nothing_but_what_is_true(path: Path) -> None:
    if path.name != NO_MODEL:
        loaded = load_model(str(path), build="fake")
        with loaded.entered():
            found = lint_model(loaded.model, rebuild=loaded.rebuild)
        assert [each.code for each in found] == JUSTIFIED.get(path.name, [])


class Block(nn.Module):
    """A residual block as anybody writes it, with what a linter may stumble over."""

    inv_freq: torch.Tensor

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.width, self.scale = width, width**-0.5
        self.names = ["a", "b"]
        self.shortcut: nn.Module | None = None
        self.activation = nn.functional.gelu
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.drop = nn.Dropout(0.1)
        self.register_buffer("inv_freq", torch.arange(4.0), persistent=False)
        nn.init.zeros_(self.norm2.weight)  # a residual branch begins at nothing

    def forward(self, x: torch.Tensor) -> Any:
        y = self.activation(self.norm1(self.conv1(x)))
        y = self.drop(self.norm2(self.conv2(y))) * self.scale + self.inv_freq.sum()
        return x + y


class LowRank(nn.Module):
    """An adapter: the second factor begins at zero, and the layer itself is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8).requires_grad_(False)
        self.down, self.up = nn.Linear(8, 2, bias=False), nn.Linear(2, 8, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: torch.Tensor) -> Any:
        return self.layer(x) + self.up(self.down(x))


def recurrent() -> nn.Module:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(8, 8, num_layers=2, dropout=0.1, batch_first=True)
            self.head = nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> Any:
            return self.head(self.lstm(x)[0][:, -1])

    return Last()


def quantized() -> nn.Module:
    from torch.ao.quantization import quantize_dynamic

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return quantize_dynamic(nn.Sequential(nn.Linear(8, 8), nn.ReLU()).eval(), {nn.Linear})  # type: ignore[no-any-return, no-untyped-call]


def pruned() -> nn.Module:
    layer = nn.Linear(8, 8)
    prune.l1_unstructured(layer, "weight", 0.5)  # type: ignore[no-untyped-call]
    return nn.Sequential(layer, nn.ReLU())


def scripted() -> nn.Module:
    inner = (nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    parts: list[nn.Module] = [torch.jit.script(each) for each in inner]
    last: nn.Module = torch.jit.freeze(torch.jit.script(nn.ReLU().eval()))
    return nn.Sequential(*parts, nn.BatchNorm2d(4), last)


def old_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(8, 8)))


def parametrized(how: Callable[..., nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(how(nn.Linear(8, 8)), nn.ReLU())


SOUND: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)), "1,8"),
    "residual block": (Block, "2,8,4,4"),
    "low rank": (LowRank, "2,8"),
    "recurrent": (recurrent, "2,5,8"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyBatchNorm1d()), "2,8"),
    "half": (lambda: nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)).bfloat16(), "2,8"),
    "complex": (lambda: nn.Linear(8, 8, dtype=torch.complex64), "2,8:complex64"),
    "encoder": (
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2),
        "2,5,8",
    ),
    "quantized": (quantized, "2,8"),
    "pruned": (pruned, "2,8"),
    "scripted": (scripted, "2,4,3,3"),
    "old weight norm": (old_weight_norm, "2,8"),
    "weight norm": (parametrized(parametrizations.weight_norm), "2,8"),
    "spectral norm": (parametrized(parametrizations.spectral_norm), "2,8"),
    "orthogonal": (parametrized(parametrizations.orthogonal), "2,8"),
    "grouped norms": (lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4)), "1,4,4,4"),
    "empty": (nn.Sequential, "2,8"),
    "frozen": (lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU()).requires_grad_(False), "2,8"),
    "in eval mode": (lambda: nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5)).eval(), "2,8"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", SOUND)
def test_a_sound_model_gives_nothing(name: str) -> None:
    make, shape = SOUND[name]
    model = make()
    assert told(model) == []
    assert told(model, shape) == []


def transformers_models() -> dict[str, tuple[Callable[[], nn.Module], list[str]]]:
    import transformers

    hf: Any = transformers
    common = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    small = {**common, "intermediate_size": 16}
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "vocab_size": 30}
    image = {"image_size": 32, "patch_size": 8}
    t5 = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 2, "num_heads": 2}
    gpt2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
    return {
        "BERT": (lambda: hf.BertModel(hf.BertConfig(**small, **ends)), ["1,8:int64"]),
        "GPT-2": (lambda: hf.GPT2LMHeadModel(hf.GPT2Config(**gpt2, **ends)), ["1,8:int64"]),
        "T5": (
            lambda: hf.T5ForConditionalGeneration(hf.T5Config(**t5, **ends)),
            ["input_ids=1,8:int64", "decoder_input_ids=1,8:int64"],
        ),
        "ViT": (lambda: hf.ViTModel(hf.ViTConfig(**small, **image)), ["1,3,32,32"]),
        "Llama": (lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**small, **ends)), ["1,8:int64"]),
        "ResNet": (
            lambda: hf.ResNetModel(
                hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
            ),
            ["2,3,64,64"],
        ),
    }


# Tied on purpose, and worth knowing.
TIES = {
    "GPT-2": [("shared-tensor", "lm_head.weight")],
    "T5": [
        ("shared-tensor", f"{name}.weight")
        for name in ("encoder.embed_tokens", "decoder.embed_tokens", "lm_head")
    ],
}


@pytest.mark.parametrize("name", ["BERT", "GPT-2", "T5", "ViT", "Llama", "ResNet"])
def test_a_model_of_transformers_gives_nothing_but_its_ties(name: str) -> None:
    pytest.importorskip("transformers")
    make, shapes = transformers_models()[name]
    assert told(make(), *shapes) == TIES.get(name, [])
