"""Small models of transformers of every build, against sums worked out by hand."""

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest

from modtool.live.inputs import parse_inputs
from modtool.live.trace import trace

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)

WIDTH, INNER, WORDS, LAYERS, LENGTH, SHORT = 32, 64, 100, 2, 16, 8
HEADS = {"num_hidden_layers": LAYERS, "num_attention_heads": 4}


def attention(queries: int, keys: int) -> int:
    """Projections of queries and output, of keys and values; scores and their sums."""
    return 2 * queries * WIDTH**2 + 2 * keys * WIDTH**2 + 2 * queries * keys * WIDTH


def encoder(length: int) -> int:
    """A layer that attends to itself, and its two linear layers."""
    return attention(length, length) + 2 * length * WIDTH * INNER


def decoder(length: int, encoded: int) -> int:
    """The same, with attention to what is encoded."""
    return encoder(length) + attention(length, encoded)


def bert(t: Any) -> Any:
    return t.BertModel(
        t.BertConfig(vocab_size=WORDS, hidden_size=WIDTH, intermediate_size=INNER, **HEADS)
    )


def t5(t: Any) -> Any:
    return t.T5ForConditionalGeneration(
        t.T5Config(
            vocab_size=WORDS, d_model=WIDTH, d_kv=8, d_ff=INNER, num_layers=LAYERS, num_heads=4
        )
    )


def vit(t: Any) -> Any:
    sizes = {"hidden_size": WIDTH, "intermediate_size": INNER, "image_size": 32, "patch_size": 8}
    return t.ViTModel(t.ViTConfig(**sizes, **HEADS))


def whisper(t: Any) -> Any:
    parts = ("encoder", "decoder")
    sizes = {f"{part}_{key}": 4 for part in parts for key in ("attention_heads",)}
    sizes |= {f"{part}_layers": LAYERS for part in parts}
    sizes |= {f"{part}_ffn_dim": INNER for part in parts}
    tokens = dict.fromkeys(("pad_token_id", "decoder_start_token_id"), 0)
    return t.WhisperModel(
        t.WhisperConfig(
            vocab_size=WORDS,
            d_model=WIDTH,
            num_mel_bins=10,
            max_source_positions=LENGTH,
            max_target_positions=20,
            bos_token_id=1,
            eos_token_id=2,
            **sizes,
            **tokens,
        )
    )


def mixtral(t: Any) -> Any:
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "num_key_value_heads": 2}
    return t.MixtralForCausalLM(
        t.MixtralConfig(
            vocab_size=WORDS, hidden_size=WIDTH, intermediate_size=INNER, **experts, **HEADS
        )
    )


def mamba(t: Any) -> Any:
    return t.MambaForCausalLM(
        t.MambaConfig(
            vocab_size=WORDS, hidden_size=WIDTH, num_hidden_layers=LAYERS, state_size=4, expand=2
        )
    )


MIXTRAL_LAYER = (
    2 * LENGTH * WIDTH**2  # queries, output
    + 2 * LENGTH * WIDTH * 16  # keys and values of two heads
    + 2 * LENGTH**2 * WIDTH
    + LENGTH * WIDTH * 4  # the router
    + 2 * LENGTH * 3 * WIDTH * INNER  # two experts for each token, three matrices in each
)
MAMBA_LAYER = (
    LENGTH * WIDTH * 128  # in_proj
    + (LENGTH + 3) * 64 * 4  # the convolution, which pads by three
    + LENGTH * 64 * (2 + 8)  # x_proj: rank 2, and twice the state's 4
    + LENGTH * 2 * 64  # dt_proj
    + LENGTH * 64 * 4  # what the state gives at each position
    + LENGTH * 64 * WIDTH  # out_proj
)


@pytest.mark.parametrize(
    ("build", "shapes", "macs", "executed"),
    [
        (bert, ["1,16"], LAYERS * encoder(LENGTH) + WIDTH**2, "fake"),
        (
            t5,
            ["input_ids=1,16", "decoder_input_ids=1,8"],
            LAYERS * (encoder(LENGTH) + decoder(SHORT, LENGTH)) + SHORT * WIDTH * WORDS,
            "fake",
        ),
        (vit, ["1,3,32,32"], LAYERS * encoder(17) + 16 * WIDTH * 3 * 64 + WIDTH**2, "fake"),
        (
            whisper,
            ["input_features=1,10,32", "decoder_input_ids=1,8"],
            (32 * WIDTH * 10 + LENGTH * WIDTH**2) * 3  # two convolutions of three
            + LAYERS * (encoder(LENGTH) + decoder(SHORT, LENGTH)),
            "fake",
        ),
        # Which expert a token goes to depends on values, how many rows they multiply does not.
        (mixtral, ["1,16"], LAYERS * MIXTRAL_LAYER + LENGTH * WIDTH * WORDS, "fake"),
        (mamba, ["1,16"], LAYERS * MAMBA_LAYER + LENGTH * WIDTH * WORDS, "fake"),
    ],
)
def test_macs(build: Callable[[Any], Any], shapes: list[str], macs: int, executed: str) -> None:
    import transformers

    model = build(transformers)
    found = trace(model, parse_inputs(shapes, model))
    assert (found.error, found.uncounted, found.executed) == (None, (), executed)
    assert (found.macs, found.parameters) == (macs, sum(p.numel() for p in model.parameters()))


def test_the_cache_of_a_model_is_among_its_outputs() -> None:
    import transformers

    model = mixtral(transformers)
    found = trace(model, parse_inputs(["1,16"], model))
    shapes = {each.path.partition(".")[2]: each.shape for each in found.outputs[1:]}
    places = [f"layers.{layer}.{part}" for layer in range(LAYERS) for part in ("keys", "values")]
    assert found.outputs[0].path == "logits"
    assert shapes == dict.fromkeys(places, (1, 2, LENGTH, 8))
