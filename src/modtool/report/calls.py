"""Which calls of a trace get a row: by depth, by pattern, leaves alone, runs of blocks as one."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import fsum, hypot, sqrt

from modtool.errors import UsageError
from modtool.patterns import select
from modtool.traces import ModuleCall, Statistics, TracedTensor

__all__ = ["Row", "rows_of", "runs_in"]

NUMBERED = re.compile(r"(.*?)(\d+)")


@dataclass(frozen=True, slots=True)
class Row:
    """A call, or a run of identical ones, with the calls inside of it.

    Attributes:
        call: The call; of a run, figures are those of all together and the path is `layers.[0-79]`.
        label: The module's name inside of the call above.
        depth: How far to indent it.
        children: The calls inside.
        first: The path of the call, or of the first of a run.
    """

    call: ModuleCall
    label: str
    depth: int
    children: tuple["Row", ...]
    first: str


def rows_of(
    calls: Sequence[ModuleCall],
    *,
    depth: int | None = None,
    only: Sequence[str] = (),
    leaves: bool = False,
    collapse: bool = False,
    never_called: Sequence[str] = (),
) -> list[Row]:
    """The rows to show, in order.

    Args:
        calls: Every call of a trace.
        depth: Calls deeper than this are left out.
        only: Patterns of module names; `type:Linear` goes by class.
        leaves: Leave out calls that others ran inside of.
        collapse: Show a run of identical neighbours as one row.
        never_called: Modules that did not run, which patterns may name too.

    Raises:
        UsageError: A pattern selects nothing, or all of them nothing that ran.
    """
    roots = tree(calls)
    if collapse:
        roots = collapsed(roots)
    rows = [row for row in walk(roots) if depth is None or row.call.depth <= depth]
    if only:
        called = dict.fromkeys(call.path for call in calls if call.path)
        paths = [*called, *(path for path in never_called if path not in called)]
        kept = set(select(only, paths, {call.path: call.type for call in calls}))
        if not kept & called.keys():
            raise UsageError(f"{', '.join(only)}: never called in this pass, so there is no row")
        rows = [row for row in rows if row.first in kept]
    if leaves:
        rows = [row for row in rows if not row.children]
    flat = leaves or bool(only)
    return [replace(row, label=row.call.path, depth=1) for row in rows] if flat else rows


def tree(calls: Sequence[ModuleCall]) -> list[Row]:
    """The calls as they ran inside of each other."""
    found, _ = level(calls, 0, "")
    return found


def level(calls: Sequence[ModuleCall], start: int, above: str) -> tuple[list[Row], int]:
    """The calls from `start` on that ran side by side, and where they end."""
    rows: list[Row] = []
    position = start
    while position < len(calls) and calls[position].depth >= calls[start].depth:
        call = calls[position]
        inside: list[Row] = []
        position += 1
        if position < len(calls) and calls[position].depth > call.depth:
            inside, position = level(calls, position, call.path)
        rows.append(Row(call, relative(call.path, above), call.depth, tuple(inside), call.path))
    return rows, position


def relative(path: str, above: str) -> str:
    """`layers.0` for `model.layers.0` inside of `model`."""
    return path.removeprefix(f"{above}.") if above else path


def walk(rows: Sequence[Row]) -> Iterator[Row]:
    """Every row, each before those inside of it."""
    for row in rows:
        yield row
        yield from walk(row.children)


def runs_in(names: Sequence[str]) -> list[str]:
    """`h.[0-11].drop` for `h.0.drop` to `h.11.drop`: the first number in a name is its place."""
    found: dict[tuple[str, str], list[int]] = {}
    for name in names:
        match = re.fullmatch(r"((?:[^.]*[^.\d][^.]*\.)*)(\d+)((?:\..*)?)", name)
        before, number, after = match.groups() if match else (name, "-1", "")
        found.setdefault((before, after), []).append(int(number))
    return [each for parts, numbers in found.items() for each in written(parts, numbers)]


def written(parts: tuple[str, str], numbers: Sequence[int]) -> list[str]:
    """Names that differ in one number, as one where the numbers follow each other."""
    before, after = parts
    first, last = numbers[0], numbers[-1]
    if len(numbers) > 1 and list(numbers) == list(range(first, last + 1)):
        return [f"{before}[{first}-{last}]{after}"]
    return [f"{before}{number}{after}" if number >= 0 else before for number in numbers]


# -- runs --------------------------------------------------------------------------------------


def collapsed(rows: Sequence[Row]) -> list[Row]:
    """The rows with every run of identical, consecutively numbered neighbours as one."""
    made: list[Row] = []
    position = 0
    while position < len(rows):
        run = [rows[position]]
        likeness = signature(run[0], run[0].call.path)
        while position + len(run) < len(rows):
            following = rows[position + len(run)]
            same = follows(run[-1].call.path, following.call.path) and likeness == signature(
                following, following.call.path
            )
            if not same:
                break
            run.append(following)
        position += len(run)
        merged = merge(run) if len(run) > 1 else run[0]
        made.append(replace(merged, children=tuple(collapsed(merged.children))))
    return made


def follows(before: str, after: str) -> bool:
    """True for `layers.3` and `layers.4`."""
    first, second = NUMBERED.fullmatch(before), NUMBERED.fullmatch(after)
    if first is None or second is None:
        return False
    return first[1] == second[1] and int(first[2]) + 1 == int(second[2])


def signature(row: Row, above: str) -> object:
    """What two identical blocks have in common."""
    call = row.call
    return (
        relative(call.path, above) if call.path != above else "",
        (call.type, call.call, call.parameters, call.macs),
        [shape_and_type(call.inputs), shape_and_type(call.outputs)],
        shape_and_type(call.gradients or ()),
        [signature(child, above) for child in row.children],
    )


def shape_and_type(tensors: Sequence[TracedTensor]) -> list[tuple[str, tuple[int, ...], str]]:
    """What a list of tensors is like, their values aside."""
    return [(tensor.path, tensor.shape, tensor.dtype) for tensor in tensors]


def merge(run: Sequence[Row]) -> Row:
    """A run as one row: figures are sums, and a pattern stands for the numbers."""
    first, last = (NUMBERED.fullmatch(row.call.path) for row in (run[0], run[-1]))
    assert first is not None
    assert last is not None
    numbers = f"[{first[2]}-{last[2]}]"
    old, new = run[0].call.path, f"{first[1]}{numbers}"
    label = run[0].label.removesuffix(first[2]) + numbers
    return replace(merged(run, old, new), label=label)


def merged(rows: Sequence[Row], old: str, new: str) -> Row:
    """Rows that are alike as one, with what is inside of them."""
    call = rows[0].call
    seconds = [row.call.seconds for row in rows if row.call.seconds is not None]
    summed = replace(
        call,
        path=new + call.path.removeprefix(old),
        parameters=sum(row.call.parameters for row in rows),
        macs=sum(row.call.macs for row in rows),
        seconds=sum(seconds) if seconds else None,
        outputs=together([row.call.outputs for row in rows]),
        gradients=call.gradients and together([row.call.gradients or () for row in rows]),
        dead=added([row.call.dead for row in rows]),
    )
    children = zip(*(row.children for row in rows), strict=True)
    return replace(
        rows[0], call=summed, children=tuple(merged(each, old, new) for each in children)
    )


def together(outputs: Sequence[Sequence[TracedTensor]]) -> tuple[TracedTensor, ...]:
    """The outputs of calls that are alike, each with its figures over all the calls."""
    return tuple(
        replace(
            same[0],
            statistics=pooled([each.statistics for each in same]),
            norm=total_norm([each.norm for each in same]),
        )
        for same in zip(*outputs, strict=True)
    )


def total_norm(norms: Sequence[float | None]) -> float | None:
    """The norm of all elements together."""
    known = [norm for norm in norms if norm is not None]
    return hypot(*known) if len(known) == len(norms) else None


def added(dead: Sequence[tuple[int, int] | None]) -> tuple[int, int] | None:
    """Dead units among all units."""
    known = [each for each in dead if each is not None]
    if not known or len(known) < len(dead):
        return None
    return sum(each[0] for each in known), sum(each[1] for each in known)


def pooled(statistics: Sequence[Statistics | None]) -> Statistics | None:
    """What the elements of tensors of one shape are like, taken together."""
    known = [each for each in statistics if each is not None]
    if not known or len(known) < len(statistics):
        return None
    count = len(known)
    zeros, nan, inf = (
        fsum(getattr(each, key) for each in known) / count for key in ("zeros", "nan", "inf")
    )
    # Mean and deviation are those of the finite elements.
    parts = [
        (1 - each.nan - each.inf, each.mean, each.std)
        for each in known
        if each.mean is not None and each.std is not None
    ]
    whole = fsum(share for share, _, _ in parts)
    if not parts or whole <= 0:
        return Statistics(None, None, None, None, zeros, nan, inf)
    mean = fsum(share * each for share, each, _ in parts) / whole
    spread = fsum(share * (std**2 + (each - mean) ** 2) for share, each, std in parts) / whole
    low = min(each.min for each in known if each.min is not None)
    high = max(each.max for each in known if each.max is not None)
    return Statistics(mean, sqrt(spread), low, high, zeros, nan, inf)
