import inspect
import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from modtool.errors import UsageError
from modtool.live.fans import fans
from modtool.live.fill import fill, generator_for
from modtool.live.initialise import SCHEMES, parse_arguments, scheme_named
from modtool.live.scheme_arguments import GAINS, gain

ORDER = [
    "uniform",
    "normal",
    "trunc_normal",
    "constant",
    "ones",
    "zeros",
    "eye",
    "dirac",
    "xavier_uniform",
    "xavier_normal",
    "kaiming_uniform",
    "kaiming_normal",
    "orthogonal",
    "sparse",
    "default",
]

FILLED = ORDER[:-1]


class TestRegistry:
    def test_it_has_every_scheme_of_torch_in_order(self) -> None:
        assert list(SCHEMES) == ORDER
        public = {name.removesuffix("_") for name in nn.init.__all__ if name.endswith("_")}
        assert public == set(ORDER) - {"default"}

    def test_every_scheme_has_one_line_of_help(self) -> None:
        assert all(scheme.help.endswith(".") for scheme in SCHEMES.values())
        assert SCHEMES["uniform"].help == "Uniform between a and b."

    def test_arguments_and_defaults_are_torch_s(self) -> None:
        for name in FILLED:
            parameters = inspect.signature(getattr(nn.init, f"{name}_")).parameters
            theirs = {key: each.default for key, each in parameters.items()}
            del theirs["tensor"]
            theirs.pop("generator", None)
            ours = {each.name: each.default for each in SCHEMES[name].arguments}
            empty = inspect.Parameter.empty
            assert ours == {key: None if each is empty else each for key, each in theirs.items()}

    def test_the_list_needs_no_torch(self) -> None:
        code = (
            "import sys, modtool.live.initialise as i, modtool.live.fit as f, modtool.live.fill\n"
            "import modtool.live.freeze\n"
            "assert i.parse_arguments('kaiming_normal', {'nonlinearity': 'relu'})\n"
            "assert f.unfit('dirac', (3, 4), 'float32') and [s.help for s in i.SCHEMES.values()]\n"
            "print(sorted({'torch', 'numpy'} & set(sys.modules)))\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("[]\n", "")

    def test_an_unknown_scheme_lists_them_all(self) -> None:
        with pytest.raises(UsageError, match="no scheme 'kaiming'") as caught:
            scheme_named("kaiming")
        assert caught.value.hint == f"schemes: {', '.join(ORDER)}"


class TestArguments:
    @pytest.mark.parametrize(
        ("scheme", "given", "values"),
        [
            ("uniform", {}, {"a": 0.0, "b": 1.0}),
            ("uniform", {"b": "2", "a": -1}, {"a": -1.0, "b": 2.0}),
            ("uniform", {"a": 1, "b": 1}, {"a": 1.0, "b": 1.0}),
            ("normal", {"std": "2e-2"}, {"mean": 0.0, "std": 0.02}),
            ("trunc_normal", {"std": "0.02"}, {"mean": 0.0, "std": 0.02, "a": -2.0, "b": 2.0}),
            ("constant", {"val": "-3"}, {"val": -3.0}),
            ("ones", {}, {}),
            ("dirac", {"groups": "4"}, {"groups": 4}),
            ("xavier_uniform", {"gain": "1.4"}, {"gain": 1.4}),
            ("xavier_normal", {"gain": "relu"}, {"gain": math.sqrt(2)}),
            ("orthogonal", {"gain": "tanh"}, {"gain": 5 / 3}),
            (
                "kaiming_normal",
                {"nonlinearity": "relu", "mode": "fan_out"},
                {"a": 0.0, "mode": "fan_out", "nonlinearity": "relu"},
            ),
            ("sparse", {"sparsity": "0.1"}, {"sparsity": 0.1, "std": 0.01}),
            ("default", {}, {}),
        ],
    )
    def test_they_are_read_from_text(
        self, scheme: str, given: dict[str, object], values: dict[str, object]
    ) -> None:
        assert parse_arguments(scheme, given) == values

    @pytest.mark.parametrize(
        ("scheme", "given", "message"),
        [
            ("normal", {"sdt": "1"}, "takes no argument 'sdt'"),
            ("ones", {"val": "1"}, "takes no argument 'val'"),
            ("constant", {}, "needs the argument 'val'"),
            ("sparse", {"std": "1"}, "needs the argument 'sparsity'"),
            ("normal", {"std": "-0.1"}, "std=-0.1 does not fit: it is a number from 0 up"),
            ("normal", {"std": "wide"}, "std=wide does not fit"),
            ("normal", {"mean": "nan"}, "mean=nan does not fit: it is a number"),
            ("normal", {"mean": "inf"}, "mean=inf does not fit"),
            ("normal", {"mean": 10**400}, "does not fit"),
            ("normal", {"mean": True}, "mean=True does not fit"),
            ("normal", {"mean": None}, "mean=None does not fit"),
            ("trunc_normal", {"std": "0"}, "std=0 does not fit: it is a number above 0"),
            (
                "sparse",
                {"sparsity": "1.1"},
                "sparsity=1.1 does not fit: it is a number from 0 to 1",
            ),
            ("sparse", {"sparsity": "-0.1"}, "sparsity=-0.1 does not fit"),
            ("dirac", {"groups": "0"}, "groups=0 does not fit: it is a whole number from 1 up"),
            ("dirac", {"groups": "1.5"}, "groups=1.5 does not fit"),
            ("xavier_normal", {"gain": "-1"}, "gain=-1 does not fit"),
            ("xavier_normal", {"gain": "gelu"}, "gain=gelu does not fit.*relu"),
            ("kaiming_normal", {"mode": "fan_avg"}, "one of fan_in, fan_out"),
            ("kaiming_normal", {"nonlinearity": "gelu"}, "nonlinearity=gelu does not fit.*relu"),
            ("uniform", {"a": "2"}, "uniform: a=2 is not below b=1"),
            ("trunc_normal", {"a": "2"}, "trunc_normal: a=2 is not below b=2"),
            ("trunc_normal", {"mean": "4.1"}, "mean=4.1 is more than 2 std outside"),
            ("trunc_normal", {"mean": "-4.1"}, "mean=-4.1 is more than 2 std outside"),
        ],
    )
    def test_what_makes_no_sense_is_refused(
        self, scheme: str, given: dict[str, object], message: str
    ) -> None:
        with pytest.raises(UsageError, match=message):
            parse_arguments(scheme, given)

    def test_an_unknown_argument_lists_those_allowed(self) -> None:
        with pytest.raises(UsageError) as caught:
            parse_arguments("sparse", {"sparsness": 1})
        assert caught.value.hint == "it takes: sparsity, std=0.01"
        with pytest.raises(UsageError) as caught:
            parse_arguments("zeros", {"x": 1})
        assert caught.value.hint == "it takes: none at all"

    def test_gains_are_torch_s(self) -> None:
        for name, value in GAINS.items():
            assert value == nn.init.calculate_gain(name)  # type: ignore[arg-type]
        for slope in (0.0, 0.01, 0.2, -1.0):
            assert gain("leaky_relu", slope) == nn.init.calculate_gain("leaky_relu", slope)
        assert gain("relu", 0.2) == nn.init.calculate_gain("relu", 0.2)


class TestAgainstTorch:
    """The same generator gives the same bits as `torch.nn.init`, on ordinary layers."""

    @pytest.mark.parametrize(
        ("scheme", "given", "keywords"),
        [
            ("uniform", {}, {}),
            ("uniform", {"a": "-0.5", "b": "0.25"}, {"a": -0.5, "b": 0.25}),
            ("normal", {"mean": "1", "std": "0.02"}, {"mean": 1.0, "std": 0.02}),
            ("trunc_normal", {}, {}),
            ("trunc_normal", {"a": "1", "b": "3"}, {"a": 1.0, "b": 3.0}),
            ("constant", {"val": "0.3"}, {"val": 0.3}),
            ("ones", {}, {}),
            ("zeros", {}, {}),
            ("xavier_uniform", {"gain": "relu"}, {"gain": math.sqrt(2)}),
            ("xavier_normal", {"gain": "1.4"}, {"gain": 1.4}),
            ("kaiming_uniform", {}, {}),
            ("kaiming_uniform", {"a": "0.1"}, {"a": 0.1}),
            ("kaiming_uniform", {"a": str(math.sqrt(5))}, {"a": math.sqrt(5)}),
            ("kaiming_normal", {"nonlinearity": "relu"}, {"nonlinearity": "relu"}),
            (
                "kaiming_normal",
                {"mode": "fan_out", "nonlinearity": "tanh"},
                {"mode": "fan_out", "nonlinearity": "tanh"},
            ),
        ],
    )
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize(
        "layer", [nn.Linear(60, 40), nn.Conv2d(8, 16, (3, 5)), nn.Conv1d(2, 3, 2)]
    )
    def test_same_bits(
        self,
        scheme: str,
        given: dict[str, object],
        keywords: dict[str, object],
        dtype: str,
        layer: nn.Module,
    ) -> None:
        shape = tuple(layer.get_parameter("weight").shape)
        theirs = torch.empty(shape, dtype=getattr(torch, dtype))
        function = getattr(nn.init, f"{scheme}_")
        if "generator" in function.__code__.co_varnames:
            keywords = {**keywords, "generator": generator_for("w", 7)}
        function(theirs, **keywords)
        known = fans(shape, type(layer).__name__)
        ours = fill("w", shape, dtype, scheme, given, seed=7, fans=known)
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)

    @pytest.mark.parametrize("shape", [(1, 1), (3, 5), (5, 3), (4, 4)])
    def test_eye(self, shape: tuple[int, int]) -> None:
        assert torch.equal(fill("w", shape, "float32", "eye"), torch.eye(*shape))

    @pytest.mark.parametrize("shape", [(24, 8, 3), (24, 8, 3, 4), (24, 8, 3, 3, 1), (6, 16, 1)])
    @pytest.mark.parametrize("groups", [1, 3])
    def test_dirac(self, shape: tuple[int, ...], groups: int) -> None:
        theirs = nn.init.dirac_(torch.empty(shape), groups)
        assert torch.equal(fill("w", shape, "float32", "dirac", {"groups": groups}), theirs)

    def test_dirac_passes_each_group_s_channels_through(self) -> None:
        layer = nn.Conv1d(6, 6, 3, padding=1, groups=3, bias=False)
        shape = tuple(layer.weight.shape)
        layer.weight = nn.Parameter(fill("w", shape, "float32", "dirac", {"groups": 3}))
        x = torch.randn(2, 6, 9, generator=torch.Generator().manual_seed(0))
        assert torch.equal(layer(x), x)

    @pytest.mark.parametrize("shape", [(40, 60), (60, 40), (16, 8, 3)])
    def test_orthogonal_on_one_thread(self, shape: tuple[int, ...]) -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        theirs = nn.init.orthogonal_(torch.empty(shape), 1.4, generator=generator_for("w", 7))
        torch.set_num_threads(threads)
        assert torch.equal(fill("w", shape, "float32", "orthogonal", {"gain": 1.4}, seed=7), theirs)
        assert torch.get_num_threads() == threads

    def test_orthogonal_rows_or_columns_are_orthonormal(self) -> None:
        wide = fill("w", (20, 5, 3, 3), "float64", "orthogonal", {"gain": 3}).reshape(20, 45)
        assert torch.allclose(wide @ wide.T, 9 * torch.eye(20, dtype=torch.float64))
        tall = fill("w", (50, 20), "float64", "orthogonal")
        assert torch.allclose(tall.T @ tall, torch.eye(20, dtype=torch.float64))

    @pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.25, 0.5, 1.0])
    def test_sparse_is_normal_but_for_its_zeros(self, sparsity: float) -> None:
        ours = fill("w", (30, 50), "float32", "sparse", {"sparsity": sparsity, "std": 2}, seed=7)
        dense = torch.empty(30, 50).normal_(0, 2, generator=generator_for("w", 7))
        assert torch.equal(ours[ours != 0], dense[ours != 0])
        theirs = nn.init.sparse_(torch.empty(30, 50), sparsity)
        assert (ours == 0).sum(0).tolist() == (theirs == 0).sum(0).tolist()

    def test_sparse_takes_other_rows_in_each_column(self) -> None:
        ours = fill("w", (30, 50), "float32", "sparse", {"sparsity": 0.5})
        assert len({tuple(column) for column in (ours == 0).T.tolist()}) == 50
