"""The nouns of a comparison: what differs between two checkpoints, as plain values."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from modtool.records import Note, TensorInfo

__all__ = [
    "FIELDS",
    "Differences",
    "Fit",
    "Measure",
    "ModuleChange",
    "Pair",
    "Renaming",
    "Side",
    "Single",
    "Tie",
    "Tolerance",
    "ValueChange",
    "Verdict",
]

Side = Literal["a", "b"]
Verdict = Literal["equal", "close", "different", "unknown"]

# What may differ between two tensors of one name beside their values.
FIELDS = ("shape", "dtype", "device", "requires_grad")


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far apart values may be: |a - b| <= atol + rtol * max(|a|, |b|), and NaN is NaN."""

    atol: float = 0.0
    rtol: float = 0.0


@dataclass(frozen=True, slots=True)
class Measure:
    """How far apart the elements of two tensors are; measures of parts add up with `+`.

    All but the counts speak of the places where both elements are finite.

    Attributes:
        max_abs: The largest |a - b|.
        max_rel: The largest |a - b| / max(|a|, |b|); 0 where both are 0.
        max_ulps: The most representable numbers between two elements; None where that makes no
            sense (whole numbers, two dtypes).
        excess: The largest |a - b| - rtol * max(|a|, |b|), which is not to be above atol.
        square_a: Sum of |a|².
        square_b: Sum of |b|².
        square_difference: Sum of |a - b|².
        nan_a: Elements of A that are NaN.
        nan_b: Elements of B that are NaN.
        unlike: Places where one is NaN or infinite and the other is not, or not the same.
        identical: Whether all is equal to the bit (in value, where the dtypes differ).
    """

    max_abs: float = 0.0
    max_rel: float = 0.0
    max_ulps: int | None = None
    excess: float = 0.0
    square_a: float = 0.0
    square_b: float = 0.0
    square_difference: float = 0.0
    nan_a: int = 0
    nan_b: int = 0
    unlike: int = 0
    identical: bool = True

    def __add__(self, other: "Measure") -> "Measure":
        """The measure of both parts together."""
        ulps = [m.max_ulps for m in (self, other) if m.max_ulps is not None]
        return Measure(
            max(self.max_abs, other.max_abs),
            max(self.max_rel, other.max_rel),
            max(ulps) if ulps else None,
            max(self.excess, other.excess),
            self.square_a + other.square_a,
            self.square_b + other.square_b,
            self.square_difference + other.square_difference,
            self.nan_a + other.nan_a,
            self.nan_b + other.nan_b,
            self.unlike + other.unlike,
            self.identical and other.identical,
        )

    @property
    def cosine(self) -> float | None:
        """The cosine of the angle between the two; None where one of them is zero or too large."""
        product = math.sqrt(self.square_a) * math.sqrt(self.square_b)
        if not 0 < product < math.inf:
            return None
        # 1 - cos from what differs: exact also where the two are nearly the same.
        lengths = (math.sqrt(self.square_a) - math.sqrt(self.square_b)) ** 2
        cosine = 1 - (self.square_difference - lengths) / (2 * product)
        return min(1.0, max(-1.0, cosine))

    def is_within(self, tolerance: Tolerance) -> bool:
        """True when every pair of elements is as close as that."""
        return not self.unlike and self.excess <= tolerance.atol


@dataclass(frozen=True, slots=True)
class Pair:
    """A tensor that both sides have.

    Attributes:
        name: What both call it, with its section where that is not the model's.
        a: The tensor of A.
        b: The tensor of B.
        differs: Which of `FIELDS` differ.
        verdict: What is known of the values; None where they were not compared.
        measure: How far apart they are, where they are not equal to the bit.
        reason: Why it is likely so.
    """

    name: str
    a: TensorInfo
    b: TensorInfo
    differs: tuple[str, ...] = ()
    verdict: Verdict | None = None
    measure: Measure | None = None
    reason: str = ""

    @property
    def is_same(self) -> bool:
        """True when nothing is known to differ."""
        return not self.differs and self.verdict in ("equal", "close", None)


@dataclass(frozen=True, slots=True)
class Single:
    """A tensor that one side has; `likely` is what the other probably calls it."""

    name: str
    side: Side
    tensor: TensorInfo
    likely: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Tie:
    """Names that share elements on one side and not on the other."""

    names: tuple[str, ...]
    side: Side


@dataclass(frozen=True, slots=True)
class ValueChange:
    """A plain value that differs; `sides` are those that have it."""

    name: str
    sides: tuple[Side, ...]
    a: object = None
    b: object = None


@dataclass(frozen=True, slots=True)
class ModuleChange:
    """A module that is of another type, has other settings, or is in another mode."""

    path: str
    a: str
    b: str


@dataclass(frozen=True, slots=True)
class Renaming:
    """A change of names that would make more of them equal.

    Attributes:
        option: `--strip-prefix` or `--rename`.
        value: What to type after it.
        tensors: How many names it brings together.
        reason: What such names come from.
    """

    option: str
    value: str
    tensors: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Fit:
    """How a checkpoint fits a model, when one side is a definition.

    Attributes:
        model: The side that is the model.
        missing: Names that the model has and the checkpoint has not.
        unexpected: Names that the checkpoint has and the model has not.
        mismatched: Names whose shapes differ, or whose elements cannot be copied into the model's.
        section: The section that the weights lie in, when there is one.
        fix: The command that makes of the checkpoint what fits better; None where none does.
        fixed: Whether it fits wholly then, or already.
        whole: Whether the checkpoint is a whole model, and no state_dict.
    """

    model: Side
    missing: int
    unexpected: int
    mismatched: int
    section: str | None = None
    fix: str | None = None
    fixed: bool = False
    whole: bool = False

    @property
    def loads(self) -> bool:
        """True when load_state_dict(strict=True) takes the checkpoint."""
        return not (self.missing or self.unexpected or self.mismatched)


@dataclass(frozen=True, slots=True)
class Differences:
    """What differs between A and B.

    Attributes:
        targets: What the user named.
        pairs: Every tensor that both have, in the order of A.
        singles: Every tensor that one has.
        ties: What is shared here and not there.
        values: Plain values that differ.
        modules: Modules that differ.
        renamings: What names were likely changed.
        fit: Set when one side is a model definition and the other a checkpoint.
        tolerance: How close values had to be; None for equal to the bit.
        notes: What is worth telling.
    """

    targets: Mapping[Side, str]
    pairs: tuple[Pair, ...]
    singles: tuple[Single, ...] = ()
    ties: tuple[Tie, ...] = ()
    values: tuple[ValueChange, ...] = ()
    modules: tuple[ModuleChange, ...] = ()
    renamings: tuple[Renaming, ...] = ()
    fit: Fit | None = None
    tolerance: Tolerance | None = None
    notes: tuple[Note, ...] = ()

    @property
    def compared(self) -> bool:
        """True when values were compared, too."""
        return any(pair.verdict is not None for pair in self.pairs)

    @property
    def same(self) -> bool:
        """True when nothing differs, and nothing could not be told."""
        found = self.singles or self.ties or self.values or self.modules
        known = all(each.code != "values-not-compared" for each in self.notes)
        return known and not found and all(pair.is_same for pair in self.pairs)
