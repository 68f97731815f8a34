from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modtool.errors import UsageError
from modtool.live.fill import fill
from modtool.live.fit import LARGEST, unfit
from modtool.live.initialise import SCHEMES

FILLED = [name for name in SCHEMES if name != "default"]
# What a scheme must be told, and the shapes that it fits.
NEEDED: Mapping[str, Mapping[str, object]] = {"constant": {"val": 0.3}, "sparse": {"sparsity": 0.1}}
FANNED = ["xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", "orthogonal"]


class TestFit:
    @pytest.mark.parametrize(
        ("scheme", "shape", "dtype", "reason"),
        [
            *((each, (), "float32", "2 or more dimensions, this has 0") for each in FANNED),
            *((each, (5,), "float32", "2 or more dimensions, this has 1") for each in FANNED),
            ("sparse", (5,), "float32", "sparse needs 2 dimensions, this has 1"),
            ("sparse", (5, 5, 5), "float32", "sparse needs 2 dimensions, this has 3"),
            ("eye", (5,), "float32", "eye needs 2 dimensions, this has 1"),
            ("eye", (5, 5, 5), "float32", "eye needs 2 dimensions, this has 3"),
            ("dirac", (5, 5), "float32", "dirac needs 3 to 5 dimensions, this has 2"),
            ("dirac", (1,) * 6, "float32", "dirac needs 3 to 5 dimensions, this has 6"),
            ("normal", (5,), "int64", "normal makes real numbers, this is int64"),
            ("uniform", (5,), "complex64", "uniform makes real numbers, this is complex64"),
            ("zeros", (5,), "float8_e8m0fnu", "nothing can be filled into float8_e8m0fnu"),
            ("zeros", (5,), "float4_e2m1fn_x2", "nothing can be filled into float4_e2m1fn_x2"),
            ("zeros", (5,), "qint8", "nothing can be filled into qint8"),
            ("zeros", (5,), "Q4_K", "nothing can be filled into Q4_K"),
        ],
    )
    def test_what_does_not_fit_says_why(
        self, scheme: str, shape: tuple[int, ...], dtype: str, reason: str
    ) -> None:
        found = unfit(scheme, shape, dtype)
        assert found is not None
        assert found.endswith(reason)
        with pytest.raises(UsageError, match=r"fc\.weight: "):
            fill("fc.weight", shape, dtype, scheme, NEEDED.get(scheme))

    @pytest.mark.parametrize(
        ("scheme", "dtype", "given", "reason"),
        [
            ("dirac", "float32", {"groups": "5"}, "dirac cannot split 24 channels into 5 groups"),
            ("dirac", "float32", {"groups": 3}, None),
            ("constant", "float16", {"val": "70000"}, "70000 is too large for float16"),
            ("constant", "float16", {"val": "-65504"}, None),
            ("constant", "float32", {"val": 3e38}, None),
            ("constant", "int8", {"val": "128"}, "int8 has no 128"),
            ("constant", "int8", {"val": "-128"}, None),
            ("constant", "uint8", {"val": "0.5"}, "uint8 has no 0.5"),
            ("constant", "bool", {"val": "2"}, "bool has no 2"),
            ("uniform", "float32", {"a": "-3e38", "b": "3e38"}, "3e+38 is too large for float32"),
            ("uniform", "float64", {"a": "-3e38", "b": "3e38"}, None),
            ("xavier_uniform", "float32", {"gain": "1e38"}, "1e+38 is too large for float32"),
        ],
    )
    def test_arguments_are_held_against_the_tensor(
        self, scheme: str, dtype: str, given: dict[str, object], reason: str | None
    ) -> None:
        assert unfit(scheme, (24, 8, 3), dtype, given) == reason
        if reason is None:
            assert fill("w", (24, 8, 3), dtype, scheme, given).isfinite().all()

    @settings(max_examples=150, deadline=None)
    @given(
        st.sampled_from(FILLED),
        st.lists(st.integers(0, 4), max_size=6).map(tuple),
        st.sampled_from([*LARGEST, "int64", "bool", "complex64", "float8_e8m0fnu"]),
    )
    def test_what_fits_can_be_filled_and_nothing_else(
        self, scheme: str, shape: tuple[int, ...], dtype: str
    ) -> None:
        given = {"val": 1} if scheme == "constant" else NEEDED.get(scheme)
        if unfit(scheme, shape, dtype, given) is None:
            assert fill("w", shape, dtype, scheme, given).shape == shape
        else:
            with pytest.raises(UsageError):
                fill("w", shape, dtype, scheme, given)

    @pytest.mark.parametrize("scheme", FILLED)
    @pytest.mark.parametrize(
        "shape", [(), (5,), (4, 6), (4, 6, 3), (4, 6, 3, 3), (4, 2, 2, 2, 2), (1,) * 6]
    )
    def test_torch_refuses_the_same_shapes(self, scheme: str, shape: tuple[int, ...]) -> None:
        function = getattr(nn.init, f"{scheme}_")
        try:
            function(torch.empty(shape), **NEEDED.get(scheme, {}))
        except ValueError:
            assert unfit(scheme, shape, "float32") is not None
        else:
            assert unfit(scheme, shape, "float32") is None

    def test_default_needs_modules(self) -> None:
        assert unfit("default", (3, 4), "float32") is None
        with pytest.raises(UsageError, match="a file has no modules") as caught:
            fill("w", (3, 4), "float32", "default")
        assert "model definition" in caught.value.hint
