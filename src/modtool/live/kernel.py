"""How far apart two short runs of elements are: buffers are reused, the cache is not left.

Ordinary floating-point elements are measured in the type that they have, or in float32 where that
holds them exactly; whole numbers exactly; complex numbers in complex128.
"""

import math
from dataclasses import replace

import torch

from modtool.diffs import Measure

__all__ = ["ELEMENTS", "Kernel"]

# How many elements at a time: few enough for the processor's cache, many for what calls cost.
ELEMENTS = 128 << 10
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
SMALLEST = {torch.float32: 1.5e-45, torch.float64: 5e-324}
# Below it the bits of two magnitudes add up without a carry into the sign.
HALF = 2.0
# Largest magnitudes between which sums of squares neither overflow nor vanish.
SAFE = {torch.float32: (1e-15, 1e15), torch.float64: (1e-140, 1e140)}

Squares = tuple[float, float, float]


class Kernel:
    """Measures runs of at most `ELEMENTS` elements; not for use by two threads at once."""

    def __init__(self, rtol: float = 0.0) -> None:
        self.rtol = rtol
        self.buffers: dict[tuple[torch.dtype, int], torch.Tensor] = {}

    def buffer(self, dtype: torch.dtype, index: int, length: int) -> torch.Tensor:
        """One of the buffers of a type, as long as it is needed."""
        key = (dtype, index)
        found = self.buffers.get(key)
        if found is None:
            found = self.buffers[key] = torch.empty(ELEMENTS, dtype=dtype)
        return found if length == ELEMENTS else found[:length]

    def measure(self, a: torch.Tensor, b: torch.Tensor) -> Measure:
        """How far apart two 1-D tensors of one length are."""
        if not len(a):
            return Measure()
        if a.is_complex() or b.is_complex():
            return self.complex_numbers(a, b)
        if is_whole(a) and is_whole(b):
            return self.whole_numbers(a, b)
        bits = (a, b) if a.dtype == b.dtype else None
        work = working_dtype(a.dtype, b.dtype)
        return self.floats(self.cast(a, work, 0), self.cast(b, work, 1), bits)

    def equal(self, a: torch.Tensor) -> Measure:
        """The same as `measure(a, a)`, which takes less where nothing is odd."""
        if a.is_floating_point():
            x = self.cast(a, working_dtype(a.dtype, a.dtype), 0)
            total = square(x)
            if 1e-20 < total < 1e20:
                return Measure(max_ulps=0, square_a=total, square_b=total)
        return self.measure(a, a)

    def cast(self, values: torch.Tensor, dtype: torch.dtype, index: int) -> torch.Tensor:
        """The values in the type that is worked in."""
        if values.dtype == dtype:
            return values
        return self.buffer(dtype, index, len(values)).copy_(values)

    # -- floating-point numbers ----------------------------------------------------------------

    def floats(
        self, x: torch.Tensor, y: torch.Tensor, bits: tuple[torch.Tensor, torch.Tensor] | None
    ) -> Measure:
        """Numbers of one floating-point type; `bits` are what they were stored as."""
        one = torch.abs(x, out=self.buffer(x.dtype, 2, len(x)))
        other = torch.abs(y, out=self.buffer(x.dtype, 3, len(x)))
        larger = torch.maximum(one, other, out=self.buffer(x.dtype, 4, len(x)))
        least, largest = (float(end) for end in torch.aminmax(larger))
        if not math.isfinite(largest):
            return self.odd(x, y, bits)
        ulps = None
        if bits is not None:
            smaller = torch.minimum(one, other, out=other)
            ulps = self.ulps(*bits, x, y, larger, smaller, fits=largest < HALF)
        gap = torch.sub(x, y, out=one)
        low, high = SAFE[x.dtype]
        if low < largest < high:
            squares = (square(x), square(y), square(gap))
        else:
            squares = scaled_squares(x, y, largest)
        measure = self.gaps(gap, larger, zeros=not least)
        if math.isinf(measure.max_abs) and x.dtype != torch.float64:
            measure = self.floats(x.double(), y.double(), None)
        return with_squares(replace(measure, max_ulps=ulps), squares)

    def odd(
        self, x: torch.Tensor, y: torch.Tensor, bits: tuple[torch.Tensor, torch.Tensor] | None
    ) -> Measure:
        """Numbers of which some are NaN or infinite: those are counted, the rest is measured."""
        nan_x, nan_y = torch.isnan(x), torch.isnan(y)
        fine = torch.isfinite(x) & torch.isfinite(y)
        alike = fine | (nan_x & nan_y) | (x == y)
        left = None
        if bits is not None:
            left = (integers(bits[0])[fine], integers(bits[1])[fine])
            left = (left[0].view(bits[0].dtype), left[1].view(bits[1].dtype))
        rest = self.floats(x[fine], y[fine], left) if bool(fine.any()) else Measure()
        return replace(
            rest,
            nan_a=int(nan_x.sum()),
            nan_b=int(nan_y.sum()),
            unlike=len(x) - int(alike.sum()),
        )

    def gaps(self, gap: torch.Tensor, larger: torch.Tensor, *, zeros: bool = True) -> Measure:
        """The largest of |a - b|, absolute and relative to max(|a|, |b|); both are overwritten.

        Args:
            gap: a - b, of either sign.
            larger: max(|a|, |b|).
            zeros: Whether both elements of some pair are 0.
        """
        max_abs = excess = largest_of(gap)
        if self.rtol:
            allowed = torch.mul(larger, self.rtol, out=self.buffer(gap.dtype, 3, len(gap)))
            excess = float(torch.sub(gap.abs_(), allowed, out=allowed).amax())
        if zeros:  # then so is their gap, and 0 / 0 is not to be NaN
            larger.clamp_(min=SMALLEST[gap.dtype])
        return Measure(max_abs, largest_of(gap.div_(larger)), excess=max(excess, 0.0))

    def ulps(
        self,
        a: torch.Tensor,
        b: torch.Tensor,
        x: torch.Tensor,
        y: torch.Tensor,
        larger: torch.Tensor,
        smaller: torch.Tensor,
        *,
        fits: bool,
    ) -> int:
        """The most representable numbers between two finite elements.

        Args:
            a: Elements as they were stored.
            b: Likewise.
            x: The values of `a` in the type that is worked in.
            y: Those of `b`.
            larger: max(|x|, |y|).
            smaller: min(|x|, |y|), which is overwritten.
            fits: Whether no two magnitudes are too large for their bits to be added.
        """
        if a.dtype not in (x.dtype, torch.bfloat16):
            return self.widest(self.ordered(a, 0), self.ordered(b, 1))
        # Bits of magnitudes count representable numbers from zero: what lies between two numbers
        # of one sign is the difference of their counts, of two signs the sum.
        whole = INTEGERS[x.element_size()]
        width = 8 * x.element_size()
        sign = self.buffer(whole, 2, len(x))
        torch.bitwise_xor(x.view(whole), y.view(whole), out=sign)
        sign.bitwise_right_shift_(width - 1)
        count = smaller.view(whole).bitwise_xor_(sign).sub_(sign)
        counts = torch.sub(larger.view(whole), count, out=sign)
        found = int(counts.amax()) if fits else without_sign(counts)
        return found >> 16 if a.dtype == torch.bfloat16 else found

    def ordered(self, values: torch.Tensor, index: int) -> torch.Tensor:
        """Whole numbers that count the representable ones from zero; both zeros are 0."""
        bits = integers(values)
        wide = torch.int64 if bits.dtype == torch.int64 else torch.int32
        order = self.buffer(wide, index, len(bits)).copy_(bits)
        if values.dtype == torch.float8_e8m0fnu:  # an exponent, and no sign
            return order.bitwise_and_(0xFF)
        width = bits.element_size() * 8
        sign = torch.bitwise_right_shift(order, width - 1, out=self.buffer(wide, 2, len(bits)))
        flip = torch.bitwise_and(sign, (1 << (width - 1)) - 1, out=self.buffer(wide, 3, len(bits)))
        return order.bitwise_xor_(flip).sub_(sign)

    def widest(self, x: torch.Tensor, y: torch.Tensor) -> int:
        """The largest |x - y| of int32 or int64, exact where the type itself overflows."""
        high = torch.maximum(x, y, out=self.buffer(x.dtype, 2, len(x)))
        low = torch.minimum(x, y, out=self.buffer(x.dtype, 3, len(x)))
        # The difference modulo 2**bits is right when it is read without a sign.
        return without_sign(high.sub_(low))

    # -- other numbers -------------------------------------------------------------------------

    def whole_numbers(self, a: torch.Tensor, b: torch.Tensor) -> Measure:
        """Whole numbers and truth values: max_abs is exact, all else in float64."""
        rough = self.floats(a.double(), b.double(), None)
        flip = uint64_flip(a, b)
        if flip is None:
            return rough
        exact = self.widest(*(widened(each) ^ flip for each in (a, b)))
        return replace(rough, max_abs=exact, excess=rough.excess if self.rtol else exact)

    def complex_numbers(self, a: torch.Tensor, b: torch.Tensor) -> Measure:
        """Complex numbers: distances in the plane, squares and units of their components."""
        x, y = a.to(torch.complex128), b.to(torch.complex128)
        nan_x, nan_y = torch.isnan(x), torch.isnan(y)
        fine = torch.isfinite(x) & torch.isfinite(y)
        alike = fine | (nan_x & nan_y) | (x == y)
        found = Measure()
        if bool(fine.any()):
            found = self.finite_complex(x[fine], y[fine])
            if a.dtype == b.dtype:
                found = replace(found, max_ulps=self.complex_ulps(a, b, fine))
        return replace(
            found,
            nan_a=int(nan_x.sum()),
            nan_b=int(nan_y.sum()),
            unlike=len(x) - int(alike.sum()),
        )

    def finite_complex(self, x: torch.Tensor, y: torch.Tensor) -> Measure:
        """Complex numbers without anything odd among them."""
        larger = torch.maximum(x.abs(), y.abs())
        largest = float(larger.amax())
        left, right = (torch.view_as_real(each).reshape(-1) for each in (x, y))
        squares = scaled_squares(left, right, largest)
        return with_squares(self.gaps((x - y).abs(), larger), squares)

    def complex_ulps(self, a: torch.Tensor, b: torch.Tensor, fine: torch.Tensor) -> int:
        """The most representable numbers between two components."""
        real = a.dtype.to_real()
        parts = ((a.view(real)[part::2][fine], b.view(real)[part::2][fine]) for part in (0, 1))
        return max(self.widest(self.ordered(x, 0), self.ordered(y, 1)) for x, y in parts)


def is_whole(values: torch.Tensor) -> bool:
    """True for whole numbers and truth values."""
    return not values.is_floating_point() and not values.is_complex()


def working_dtype(a: torch.dtype, b: torch.dtype) -> torch.dtype:
    """float32 where it holds both types exactly, else float64."""
    narrow = all(dtype.is_floating_point and dtype.itemsize <= 4 for dtype in (a, b))
    return torch.float32 if narrow else torch.float64


def integers(values: torch.Tensor) -> torch.Tensor:
    """The bits of elements as whole numbers of their size."""
    return values.contiguous().view(INTEGERS[values.element_size()])


def widened(values: torch.Tensor) -> torch.Tensor:
    """Whole numbers as int64; those of uint64 keep their bits."""
    return values.view(torch.int64) if values.dtype == torch.uint64 else values.to(torch.int64)


def uint64_flip(a: torch.Tensor, b: torch.Tensor) -> int | None:
    """What makes int64 out of both so that order is kept; None where one type does not do."""
    unsigned = {each.dtype == torch.uint64 for each in (a, b)}
    if len(unsigned) == 2:
        return None
    return -(1 << 63) if unsigned == {True} else 0


def without_sign(values: torch.Tensor) -> int:
    """The largest of int32 or int64 values that are read as unsigned; they are overwritten."""
    half = 1 << (values.element_size() * 8 - 1)
    return int(values.bitwise_xor_(-half).amax()) + half


def largest_of(values: torch.Tensor) -> float:
    """The largest magnitude."""
    least, greatest = torch.aminmax(values)
    return max(-float(least), float(greatest))


def square(values: torch.Tensor) -> float:
    """The sum of squares."""
    return float(torch.dot(values, values))


def with_squares(measure: Measure, squares: Squares) -> Measure:
    """A measure with the sums of |a|², |b|² and |a - b|²."""
    return replace(measure, square_a=squares[0], square_b=squares[1], square_difference=squares[2])


def scaled_squares(x: torch.Tensor, y: torch.Tensor, largest: float) -> Squares:
    """Sums of |x|², |y|² and |x - y|², where the squares themselves would leave their type."""
    if largest == 0:
        return 0.0, 0.0, 0.0
    left, right = x.double() / largest, y.double() / largest
    sums = (float(torch.dot(each, each)) for each in (left, right, left - right))
    scaled = [total * largest * largest for total in sums]
    return scaled[0], scaled[1], scaled[2]
