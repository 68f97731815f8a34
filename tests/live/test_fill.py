import hashlib
import subprocess
import sys
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modtool.errors import UsageError
from modtool.live.fill import expected, fill, fill_magnitude, generator_for
from modtool.live.fit import LARGEST, WHOLE_RANGES
from modtool.live.initialise import SCHEMES

FILLED = [name for name in SCHEMES if name != "default"]
# What a scheme must be told, and the shapes that it fits.
NEEDED: Mapping[str, Mapping[str, object]] = {"constant": {"val": 0.3}, "sparse": {"sparsity": 0.1}}
SHAPES: Mapping[str, list[tuple[int, ...]]] = {
    "eye": [(40, 60)],
    "sparse": [(40, 60)],
    "dirac": [(24, 8, 3), (16, 16, 3, 3)],
}
USUAL = [(40, 60), (60, 40), (16, 8, 3), (16, 8, 3, 5), (8, 4, 2, 2, 2)]


RANDOM = [name for name in FILLED if SCHEMES[name].arguments and name not in ("constant", "dirac")]


def shapes(scheme: str) -> list[tuple[int, ...]]:
    return SHAPES.get(scheme, USUAL)


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


class TestOneTensorOnItsOwn:
    @pytest.mark.parametrize("scheme", FILLED)
    def test_the_global_random_state_is_neither_moved_nor_read(self, scheme: str) -> None:
        shape = shapes(scheme)[0]
        torch.manual_seed(1)
        before = torch.get_rng_state()
        first = fill("w", shape, "float32", scheme, NEEDED.get(scheme))
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(2)
        assert torch.equal(fill("w", shape, "float32", scheme, NEEDED.get(scheme)), first)

    @pytest.mark.parametrize("scheme", RANDOM)
    def test_another_name_or_seed_gives_other_values(self, scheme: str) -> None:
        def one(name: str, seed: int) -> bytes:
            return bits(fill(name, (40, 60), "float32", scheme, NEEDED.get(scheme), seed=seed))

        drawn = {one("a", 0), one("b", 0), one("a", 1), one("a", -1), one("a", 2**70)}
        assert len(drawn) == 5

    @pytest.mark.parametrize("scheme", FILLED)
    def test_threads_do_not_matter(self, scheme: str) -> None:
        threads = torch.get_num_threads()
        shape = (512, 300) if scheme != "dirac" else (64, 64, 3)
        filled = []
        for count in (1, 2, 4):
            torch.set_num_threads(count)
            filled.append(bits(fill("w", shape, "float32", scheme, NEEDED.get(scheme))))
        torch.set_num_threads(threads)
        assert filled[0] == filled[1] == filled[2]

    def test_another_process_gives_the_same_bits(self) -> None:
        code = (
            "import hashlib\nfrom modtool.live.fill import fill\n"
            "for scheme in ('uniform', 'kaiming_normal', 'orthogonal', 'trunc_normal'):\n"
            "    tensor = fill('fc.weight', (64, 48), 'float32', scheme, seed=3)\n"
            "    print(hashlib.sha256(tensor.numpy().tobytes()).hexdigest())\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        here = [
            hashlib.sha256(bits(fill("fc.weight", (64, 48), "float32", scheme, seed=3))).hexdigest()
            for scheme in ("uniform", "kaiming_normal", "orthogonal", "trunc_normal")
        ]
        assert done.stdout.split() == here

    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(
            st.tuples(st.sampled_from("abcdef"), st.sampled_from(FILLED)), min_size=1, max_size=8
        ),
        st.randoms(use_true_random=False),
        st.integers(-5, 5),
    )
    def test_order_and_company_do_not_matter(
        self, wanted: list[tuple[str, str]], random: object, seed: int
    ) -> None:
        def filled(items: list[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
            return {
                (name, scheme): bits(
                    fill(name, shapes(scheme)[0], "float32", scheme, NEEDED.get(scheme), seed=seed)
                )
                for name, scheme in items
            }

        shuffled = list(wanted)
        random.shuffle(shuffled)  # type: ignore[attr-defined]
        together = filled(shuffled)
        assert together == filled(wanted)
        assert filled(wanted[:1]).items() <= together.items()

    def test_the_seed_of_a_name_is_a_hash(self) -> None:
        digest = hashlib.sha256(b"7\0encoder.fc.weight").digest()
        seed = int.from_bytes(digest[:4], "little")
        assert generator_for("encoder.fc.weight", 7).initial_seed() == seed
        assert generator_for("a\udcff", 0).initial_seed() >= 0

    def test_default_dtype_and_device_do_not_matter(self) -> None:
        plain = {
            each: fill("w", shapes(each)[0], "float32", each, NEEDED.get(each)) for each in FILLED
        }
        torch.set_default_dtype(torch.float64)
        try:
            with torch.device("meta"):
                again = {
                    each: fill("w", shapes(each)[0], "float32", each, NEEDED.get(each))
                    for each in FILLED
                }
        finally:
            torch.set_default_dtype(torch.float32)
        assert all(torch.equal(plain[each], again[each]) for each in FILLED)


class TestTypes:
    @pytest.mark.parametrize("scheme", FILLED)
    @pytest.mark.parametrize(
        "dtype", [each for each in LARGEST if each not in ("float32", "float64")]
    )
    def test_narrow_types_are_rounded_from_float32(self, scheme: str, dtype: str) -> None:
        shape = shapes(scheme)[0]
        wide = fill("w", shape, "float32", scheme, NEEDED.get(scheme))
        narrow = fill("w", shape, dtype, scheme, NEEDED.get(scheme))
        assert narrow.dtype == getattr(torch, dtype)
        assert bits(narrow) == bits(wide.to(narrow.dtype))

    @pytest.mark.parametrize("dtype", [*WHOLE_RANGES, "complex64", "complex128"])
    @pytest.mark.parametrize(("scheme", "value"), [("zeros", 0), ("ones", 1), ("constant", 1)])
    def test_integers_hold_known_values(self, dtype: str, scheme: str, value: int) -> None:
        given = {"val": 1} if scheme == "constant" else None
        filled = fill("w", (2, 3), dtype, scheme, given)
        assert filled.dtype == getattr(torch, dtype)
        assert filled.tolist() == [[value] * 3] * 2

    def test_the_largest_values_are_torch_s(self) -> None:
        assert {name: torch.finfo(getattr(torch, name)).max for name in LARGEST} == LARGEST
        for name, (low, high) in WHOLE_RANGES.items():
            if name != "bool":
                limits = torch.iinfo(getattr(torch, name))
                assert (low, high) == (limits.min, limits.max)

    @pytest.mark.parametrize(
        ("dtype", "scheme", "given"),
        [
            ("float16", "normal", {"std": 1e5}),
            ("float8_e4m3fn", "normal", {"std": 1000}),
            ("float8_e4m3fnuz", "uniform", {"a": -500, "b": 0}),
            ("float16", "orthogonal", {"gain": 1e9}),
        ],
    )
    def test_values_that_overflow_are_an_error(
        self, dtype: str, scheme: str, given: dict[str, object]
    ) -> None:
        with pytest.raises(UsageError, match=f"w: {scheme} gives values beyond {dtype}"):
            fill("w", (40, 60), dtype, scheme, given)

    @pytest.mark.parametrize("scheme", FILLED)
    def test_tensors_without_elements_stay_so(self, scheme: str) -> None:
        shape = {"dirac": (0, 4, 3), "eye": (0, 4), "sparse": (0, 4)}.get(scheme, (4, 0))
        for zero in (shape, shape[::-1]):
            assert fill("w", zero, "float32", scheme, NEEDED.get(scheme)).shape == zero
            assert expected(scheme, NEEDED.get(scheme), zero) is None

    def test_scalars_and_vectors(self) -> None:
        theirs = torch.empty(()).normal_(generator=generator_for("w", 0))
        assert torch.equal(fill("w", (), "float32", "normal"), theirs)
        assert fill("b", (3,), "float32", "zeros").tolist() == [0.0, 0.0, 0.0]


class TestWeightNorm:
    @pytest.mark.parametrize("dim", [0, 1, None])
    @pytest.mark.parametrize("layer", [nn.Linear(5, 4), nn.Conv2d(3, 4, 3)])
    def test_the_magnitude_makes_the_weight_what_was_filled(
        self, dim: int | None, layer: nn.Module
    ) -> None:
        normed: Any = deepcopy(layer)
        nn.utils.parametrizations.weight_norm(normed, dim=dim)  # type: ignore[arg-type]
        originals = dict(normed.named_parameters())
        magnitude = originals["parametrizations.weight.original0"]
        direction = originals["parametrizations.weight.original1"]
        filled = fill("w", tuple(direction.shape), "float32", "kaiming_normal")
        norms = fill_magnitude(filled, tuple(magnitude.shape), "float32")
        with torch.no_grad():
            direction.copy_(filled)
            magnitude.copy_(norms)
        assert torch.allclose(normed.get_parameter("bias"), layer.get_parameter("bias"))
        assert torch.allclose(normed.weight, filled, rtol=1e-5)

    def test_shapes_must_belong_together(self) -> None:
        with pytest.raises(UsageError, match="holds no norms"):
            fill_magnitude(torch.ones(4, 5), (3, 1), "float32")
        with pytest.raises(UsageError, match="holds no norms"):
            fill_magnitude(torch.ones(4, 5), (4,), "float32")

    def test_rows_of_zeros_have_no_direction(self) -> None:
        with pytest.raises(UsageError, match="rows of zeros"):
            fill_magnitude(torch.eye(4, 3), (4, 1), "float32")
