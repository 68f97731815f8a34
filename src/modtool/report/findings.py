"""The report of `check`: findings, and what a real load would run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from modtool.notes import CODES
from modtool.pickles.callables import callables_of, weights_only_of
from modtool.pickles.weights_only import WeightsOnly
from modtool.records import Checkpoint, Note
from modtool.report.tables import Column, Report, Table, Total

__all__ = ["check_report", "explanation"]

FINDING_COLUMNS = (
    Column("level", "level", "error, warning or note"),
    Column("code", "code", "what kind of finding it is; --explain CODE tells more"),
    Column("where", "where", "the place in the file"),
    Column("message", "finding", "what was found, and what to do"),
)
CALLABLE_COLUMNS = (
    Column("name", "callable", "what loading the file for real would import"),
    Column("calls", "calls", "how many times it would be called", "count"),
    Column("severity", "severity", "ordinary, unknown-callable or executes-code"),
    Column("arguments", "first called with", "a summary of the arguments"),
)
NOTHING_RUN = "no code was run; above is what loading the file for real would import and call"


def check_report(checkpoint: Checkpoint, findings: Sequence[Note]) -> Report:
    """Findings first, then every callable, then the verdict of weights_only.

    Args:
        checkpoint: What was checked.
        findings: What is to be told of it.
    """
    callables = callables_of(checkpoint)
    verdict = weights_only_of(checkpoint)

    def document() -> Mapping[str, object]:
        return {
            "target": checkpoint.target,
            "findings": [asdict(note) for note in findings],
            "callables": [asdict(use) for use in callables],
            "weights_only": None if verdict is None else verdict.accepted,
            "weights_only_reasons": [] if verdict is None else list(verdict.reasons),
            "safe_globals": None if verdict is None else verdict.line or None,
        }

    def tables() -> tuple[Table, ...]:
        rows = tuple((note.level, note.code, note.where, note.message) for note in findings)
        uses = tuple((use.name, use.calls, use.severity, use.arguments) for use in callables)
        found = Table(FINDING_COLUMNS, rows)
        return (found, Table(CALLABLE_COLUMNS, uses, "callables")) if uses else (found,)

    return Report(
        document,
        tables,
        totals=(Total("findings", len(findings)),),
        sentences=(
            *((NOTHING_RUN,) if callables else ()),
            *(() if verdict is None else verdict_lines(verdict)),
        ),
    )


def verdict_lines(verdict: WeightsOnly) -> Iterator[str]:
    """What `torch.load(…, weights_only=True)` would make of the file."""
    if verdict.accepted:
        yield "torch.load(…, weights_only=True) accepts it"
        return
    more = f" (and {len(verdict.reasons) - 1} more)" if len(verdict.reasons) > 1 else ""
    yield f"torch.load(…, weights_only=True) refuses it: {verdict.reasons[0]}{more}"
    if verdict.line:
        yield f"where you trust it: {verdict.line}"


def explanation(code: str) -> str:
    """What a code means."""
    level, meaning = CODES[code]
    return f"{code} ({level}): {meaning}"
