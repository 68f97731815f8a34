import pytest
import torch
from torch import nn

from modtool.errors import UsageError
from modtool.live.inputs import Inputs, InputSpec, make_inputs, parse_inputs


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3, dtype=torch.float64)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return x


def specs(text: str, model: nn.Module | None = None) -> object:
    return parse_inputs([text], model or nn.ReLU()).args[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("32,784", InputSpec((32, 784), torch.float32)),
        (" 32 , 784 ", InputSpec((32, 784), torch.float32)),
        ("7", InputSpec((7,), torch.float32)),
        ("", InputSpec((), torch.float32)),
        (":int64", InputSpec((), torch.int64)),
        ("0,3", InputSpec((0, 3), torch.float32)),
        ("1,128:int64", InputSpec((1, 128), torch.int64)),
        ("2:bf16", InputSpec((2,), torch.bfloat16)),
        ("2:long", InputSpec((2,), torch.int64)),
        ("2:bool", InputSpec((2,), torch.bool)),
    ],
)
def test_shapes(text: str, expected: InputSpec) -> None:
    assert specs(text) == expected


def test_names_become_keyword_arguments() -> None:
    inputs = parse_inputs(["2,3", "mask=2:bool"], Two())
    assert inputs == Inputs(
        (InputSpec((2, 3), torch.float64),), {"mask": InputSpec((2,), torch.bool)}
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("32x784", "--input-shape '32x784': '32x784' is no size"),
        ("32,", "--input-shape '32,': '' is no size"),
        ("3,-1", "--input-shape '3,-1': '-1' is no size"),
        ("3.5", "--input-shape '3.5': '3.5' is no size"),
        ("1,٣", "'٣' is no size"),
        (str(2**63), "is no size"),
        ("3:float31", "--input-shape '3:float31': 'float31' is no dtype"),
        ("a b=3", "'a b' is no argument's name"),
        ("=3", "'' is no argument's name"),
    ],
)
def test_what_does_not_parse_is_bad_usage(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        specs(text)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("flot32", "nearest: float32, float, cfloat"),
        ("torch.int46", "nearest: int64, int16, int"),
        ("i64", "nearest: int64, uint64"),
        ("", "such as float32, bfloat16, int64 or bool"),
        ("foo", "such as float32, bfloat16, int64 or bool"),
    ],
)
def test_the_nearest_dtypes_are_told(name: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        specs(f"3:{name}")
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "missing a required argument: 'x'"),
        (["1", "2", "3"], "too many positional arguments"),
        (["1", "y=2"], "Two.forward has no parameter 'y'"),
        (["X=2"], "Two.forward has no parameter 'X'"),
        (["1", "masc=2"], "Two.forward has no parameter 'masc'"),
        (["1", "x=2"], "multiple values for argument 'x'"),
        (["1", "mask=2", "mask=3"], "names mask twice"),
    ],
)
def test_what_forward_cannot_take_is_bad_usage(texts: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_inputs(texts, Two())


def test_an_unknown_name_has_the_nearest_as_its_hint() -> None:
    with pytest.raises(UsageError) as caught:
        parse_inputs(["1", "masc=2"], Two())
    assert caught.value.hint == "nearest: mask"


def test_the_first_floating_parameter_gives_the_dtype() -> None:
    assert specs("2,3", Two()) == InputSpec((2, 3), torch.float64)
    assert specs("2,3", nn.Linear(3, 3).to(torch.bfloat16)) == InputSpec((2, 3), torch.bfloat16)


def test_an_embedding_is_fed_integers_within_its_table() -> None:
    model = nn.Sequential(nn.Embedding(20, 4), nn.Linear(4, 2))
    spec = specs("64,100", model)
    assert spec == InputSpec((64, 100), torch.int64, 20)
    (values,) = make_inputs(Inputs((spec,)), torch.device("cpu")).args
    assert isinstance(values, torch.Tensor)
    assert (values.dtype, int(values.min()), int(values.max())) == (torch.int64, 0, 19)


def test_an_image_beside_an_embedding_stays_floating() -> None:
    model = nn.Sequential(nn.Embedding(20, 4), nn.Conv2d(3, 4, 1))
    assert specs("1,3,8,8", model) == InputSpec((1, 3, 8, 8), torch.float32, 20)


@pytest.mark.parametrize("name", ["input_ids", "idx", "tokens", "decoder_input_ids", "labels"])
def test_names_of_indices_mean_int64(name: str) -> None:
    class Named(nn.Module):
        def forward(self, **kwargs: torch.Tensor) -> None: ...

    assert parse_inputs([f"{name}=1,4"], Named()).kwargs[name] == InputSpec((1, 4), torch.int64)


def test_values_are_the_same_each_time() -> None:
    inputs = Inputs((InputSpec((3, 4), torch.float32), InputSpec((5,), torch.int64, 9)))
    state = torch.get_rng_state()
    once, again = (make_inputs(inputs, torch.device("cpu")).args for _ in range(2))
    for one, two in zip(once, again, strict=True):
        assert isinstance(one, torch.Tensor)
        assert isinstance(two, torch.Tensor)
        assert torch.equal(one, two)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64, torch.uint8, torch.int8])
def test_every_dtype_can_be_made(dtype: torch.dtype) -> None:
    (value,) = make_inputs(Inputs((InputSpec((2, 3), dtype, 500),)), torch.device("cpu")).args
    assert isinstance(value, torch.Tensor)
    assert (value.dtype, tuple(value.shape)) == (dtype, (2, 3))
