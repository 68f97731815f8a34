"""What the elements of tensors say, once they were read: facts to notes, without torch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from modtool.checks.structure import number_of, some
from modtool.notes import note
from modtool.records import Checkpoint, Note, TensorInfo
from modtool.sharing import share

__all__ = ["Facts", "candidates", "notes_on_values"]

# From here on a number rounds to infinity: half a step beyond the largest (IEEE 754, 4.3.1).
FP16_LIMIT = 65520.0
BF16_LIMIT = float.fromhex("0x1.ffp127")
WIDE = ("float64", "float32", "bfloat16")
MODULUS = 1 << 64
# Copies of less are not worth a word.
LEAST_COPY = 4096


@dataclass(frozen=True, slots=True)
class Facts:
    """What the elements of a tensor are like; facts of its parts add up with `+`.

    Attributes:
        numel: How many there are.
        nan: Those that are NaN.
        infinite: Those that are infinite.
        subnormal: Those that are too small for the type's full precision, and not zero.
        least: The smallest of the finite ones; None where there is none.
        greatest: The largest of them.
        fingerprint: The sum of the elements' bits as whole numbers, modulo 2**64: the same for
            equal tensors, however they are stored. What is expanded counts once in it.
    """

    numel: int = 0
    nan: int = 0
    infinite: int = 0
    subnormal: int = 0
    least: int | float | None = None
    greatest: int | float | None = None
    fingerprint: int = 0

    def __add__(self, other: "Facts") -> "Facts":
        """The facts of both parts together."""
        least = [each.least for each in (self, other) if each.least is not None]
        greatest = [each.greatest for each in (self, other) if each.greatest is not None]
        return Facts(
            self.numel + other.numel,
            self.nan + other.nan,
            self.infinite + other.infinite,
            self.subnormal + other.subnormal,
            min(least, default=None),
            max(greatest, default=None),
            (self.fingerprint + other.fingerprint) % MODULUS,
        )

    def times(self, repeats: int) -> "Facts":
        """The facts of a tensor that has each of these elements so many times, stored once."""
        counts = (self.numel, self.nan, self.infinite, self.subnormal)
        numel, nan, infinite, subnormal = (count * repeats for count in counts)
        return replace(self, numel=numel, nan=nan, infinite=infinite, subnormal=subnormal)

    @property
    def constant(self) -> int | float | None:
        """The one value that all elements have; None where there are several, or odd ones."""
        odd = self.nan or self.infinite or self.numel < 2
        return None if odd or self.least != self.greatest else self.least

    @property
    def magnitude(self) -> float:
        """The largest finite |x|."""
        return max(abs(self.least or 0.0), abs(self.greatest or 0.0))


Known = Mapping[int, Facts]
"""Index of a tensor -> what its elements are like."""


def candidates(tensors: Sequence[TensorInfo], facts: Known) -> Iterator[tuple[int, int]]:
    """Pairs of tensors that may be equal without sharing; the first of a pair is the earliest."""
    firsts = share(tensors).first
    seen: dict[object, int] = {}
    for index, found in facts.items():
        tensor = tensors[index]
        if firsts[index] is not None or found.constant is not None:
            continue
        if bytes_once(tensor) < LEAST_COPY:
            continue
        key = tensor.dtype, tensor.shape, found.fingerprint
        first = seen.setdefault(key, index)
        if first != index:
            yield first, index


def notes_on_values(
    checkpoint: Checkpoint, facts: Known, copies: Sequence[tuple[int, int]], unread: Sequence[int]
) -> Iterator[Note]:
    """What is odd about the elements.

    Args:
        checkpoint: What was read.
        facts: What its tensors are like.
        copies: Pairs of tensors that are equal to the bit and do not share.
        unread: Indices of tensors whose elements could not be had.
    """
    names = [tensor.full_name for tensor in checkpoint.tensors]
    for index, found in facts.items():
        if found.nan:
            yield note("nan-values", names[index], f"{counted(found.nan, found.numel)} are NaN")
        if found.infinite:
            message = f"{counted(found.infinite, found.numel)} are infinite"
            yield note("infinite-values", names[index], message)
    yield from together(names, facts)
    yield from too_large(checkpoint, names, facts)
    for first, second in copies:
        size = bytes_once(checkpoint.tensors[second])
        message = f"the same {size:,} bytes as {names[first]}, stored once more"
        yield note("equal-copies", names[second], message)
    if unread:
        listed = some([names[index] for index in unread])
        message = f"elements that were not looked at: {listed}"
        yield note("values-not-read", names[unread[0]], message)


def bytes_once(tensor: TensorInfo) -> int:
    """What a tensor's elements take, those that an expanded one repeats once."""
    if tensor.stride is None or 0 not in tensor.stride:
        return tensor.nbytes
    kept = tuple(size for size, step in zip(tensor.shape, tensor.stride, strict=True) if step)
    return replace(tensor, shape=kept, stride=None).nbytes


def together(names: Sequence[str], facts: Known) -> Iterator[Note]:
    """A note each for all tensors that are zero, constant, or hold subnormal numbers."""
    zero = [names[index] for index, found in facts.items() if found.constant == 0]
    if zero:
        message = f"zero everywhere: {some(zero)}"
        yield note("zero-tensors", zero[0], message)
    same = [
        f"{names[index]} ({found.constant:g})"
        for index, found in facts.items()
        if found.constant is not None and found.constant != 0
    ]
    if same:
        message = f"one value everywhere: {some(same)}"
        yield note("constant-tensors", same[0].rpartition(" ")[0], message)
    tiny = {index: found.subnormal for index, found in facts.items() if found.subnormal}
    if tiny:
        listed = some([f"{names[index]} ({count:,})" for index, count in tiny.items()])
        message = f"{number_of(sum(tiny.values()), 'subnormal number')}: {listed}"
        yield note("subnormal-values", names[next(iter(tiny))], message)


def too_large(checkpoint: Checkpoint, names: Sequence[str], facts: Known) -> Iterator[Note]:
    """A note for each narrower type that parameters and buffers do not fit into."""
    models = {part.name for part in checkpoint.sections if part.role in ("model", "ema")}
    for code, target, limit in (
        ("overflows-fp16", "fp16", FP16_LIMIT),
        ("overflows-bf16", "bf16", BF16_LIMIT),
    ):
        found = [
            f"{names[index]} ({facts[index].magnitude:.4g})"
            for index, tensor in enumerate(checkpoint.tensors)
            if index in facts
            and tensor.dtype in WIDE
            and (not models or tensor.section in models)
            and facts[index].magnitude >= limit
        ]
        if found:
            message = f"beyond the range of {target}: {some(found)}"
            yield note(code, found[0].rpartition(" ")[0], message)


def counted(part: int, whole: int) -> str:
    """`3 of 10 elements`."""
    return f"{part:,} of {whole:,} elements"
