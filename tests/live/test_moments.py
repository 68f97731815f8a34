import math
from collections.abc import Mapping
from itertools import pairwise

import pytest
import torch
from torch import nn

from modtool.live.fans import Fans, fans
from modtool.live.fill import expected, fill, generator_for
from modtool.live.initialise import SCHEMES
from modtool.live.moments import measured

FILLED = [name for name in SCHEMES if name != "default"]
# What a scheme must be told, and the shapes that it fits.
NEEDED: Mapping[str, Mapping[str, object]] = {"constant": {"val": 0.3}, "sparse": {"sparsity": 0.1}}
SHAPES: Mapping[str, list[tuple[int, ...]]] = {
    "eye": [(40, 60)],
    "sparse": [(40, 60)],
    "dirac": [(24, 8, 3), (16, 16, 3, 3)],
}
USUAL = [(40, 60), (60, 40), (16, 8, 3), (16, 8, 3, 5), (8, 4, 2, 2, 2)]


def shapes(scheme: str) -> list[tuple[int, ...]]:
    return SHAPES.get(scheme, USUAL)


class TestMoments:
    @pytest.mark.parametrize(
        ("scheme", "given"),
        [
            ("uniform", {"a": -1, "b": 3}),
            ("normal", {"mean": 2, "std": 0.5}),
            ("trunc_normal", {}),
            ("trunc_normal", {"mean": 1, "std": 2, "a": 0, "b": 1.5}),
            ("trunc_normal", {"mean": 0, "std": 1, "a": 1.5, "b": 4}),
            ("trunc_normal", {"mean": 0, "std": 0.02}),
            ("trunc_normal", {"mean": 0, "std": 1, "a": 0.5, "b": 0.5001}),
            ("xavier_uniform", {"gain": "relu"}),
            ("xavier_normal", {}),
            ("kaiming_uniform", {"a": 0.2}),
            ("kaiming_normal", {"nonlinearity": "selu", "mode": "fan_out"}),
            ("sparse", {"sparsity": 0.3, "std": 2}),
        ],
    )
    def test_samples_have_the_moments_that_theory_expects(
        self, scheme: str, given: dict[str, object]
    ) -> None:
        shape, known = (400, 500), Fans(30, 90)
        theory = expected(scheme, given, shape, known)
        sample = measured(fill("w", shape, "float64", scheme, given, seed=1, fans=known))
        assert theory is not None
        assert sample is not None
        # Five standard errors; kurtosis is at most 6 here.
        error = theory[1] / math.sqrt(200_000)
        assert abs(sample[0] - theory[0]) < 5 * error
        assert abs(sample[1] - theory[1]) < 7 * error

    @pytest.mark.parametrize("scheme", ["constant", "ones", "zeros", "eye", "dirac", "orthogonal"])
    def test_known_values_have_exactly_the_moments_expected(self, scheme: str) -> None:
        for shape in shapes(scheme):
            theory = expected(scheme, NEEDED.get(scheme), shape)
            sample = measured(fill("w", shape, "float64", scheme, NEEDED.get(scheme)))
            assert theory is not None
            assert sample is not None
            spread = math.hypot(*sample) if scheme == "orthogonal" else sample[1]
            assert spread == pytest.approx(theory[1], abs=1e-12)
            if scheme != "orthogonal":
                assert sample[0] == pytest.approx(theory[0], abs=1e-12)

    def test_dirac_in_groups(self) -> None:
        theory = expected("dirac", {"groups": 3}, (24, 4, 3))
        sample = measured(fill("w", (24, 4, 3), "float32", "dirac", {"groups": 3}))
        assert theory is not None
        assert theory[0] == 12 / 288
        assert sample == pytest.approx(theory)

    def test_trunc_normal_at_two_standard_deviations(self) -> None:
        # The textbook's value of the truncated variance: 1 − 4φ(2) / (2Φ(2) − 1).
        density = math.exp(-2) / math.sqrt(2 * math.pi)
        variance = 1 - 4 * density / math.erf(math.sqrt(2))
        assert expected("trunc_normal", {}, (3, 4)) == pytest.approx((0.0, math.sqrt(variance)))

    def test_trunc_normal_has_no_seam_where_the_bounds_come_close(self) -> None:
        widths = [10.0 ** (-exponent / 4) for exponent in range(4, 24)]
        found = [expected("trunc_normal", {"a": 1, "b": 1 + width}, (3,)) for width in widths]
        ratios = [each[1] / width for each, width in zip(found, widths, strict=True) if each]
        assert len(ratios) == len(widths)
        assert all(abs(one - other) < 1e-4 for one, other in pairwise(ratios))
        assert ratios[-1] == pytest.approx(1 / math.sqrt(12))

    def test_transposed_layers_scale_by_their_own_fans(self) -> None:
        layer = nn.ConvTranspose2d(64, 8, 3)
        shape = tuple(layer.weight.shape)
        known = fans(shape, "ConvTranspose2d")
        assert expected("kaiming_normal", {"nonlinearity": "relu"}, shape, known) == (
            0.0,
            math.sqrt(2) / math.sqrt(64 * 9),
        )
        ours = fill("w", shape, "float32", "kaiming_normal", fans=known)
        theirs = nn.init.kaiming_normal_(
            torch.empty(shape), mode="fan_out", generator=generator_for("w", 0)
        )
        assert torch.equal(ours, theirs)

    def test_default_is_not_known_to_theory(self) -> None:
        assert expected("default", {}, (3, 4)) is None

    def test_measured_agrees_with_torch(self) -> None:
        tensor = torch.randn(1500, 1001, generator=torch.Generator().manual_seed(0)).T
        theirs = tensor.double().mean().item(), tensor.double().std(correction=0).item()
        assert measured(tensor) == pytest.approx(theirs, rel=1e-12, abs=1e-12)

    @pytest.mark.parametrize("dtype", ["float8_e4m3fn", "bfloat16", "int8", "bool"])
    def test_measured_reads_every_type(self, dtype: str) -> None:
        tensor = torch.tensor([0.0, 0.0, 1.0, 1.0]).to(getattr(torch, dtype))
        assert measured(tensor) == (0.5, 0.5)

    def test_measured_has_nothing_to_say_of_nothing(self) -> None:
        assert measured(torch.empty(0)) is None
        assert measured(torch.ones(2, dtype=torch.complex64)) is None
        assert measured(torch.tensor(3.0)) == (3.0, 0.0)
