"""The report of `check`: findings, what a real load would run, and what could not be checked."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from modtool.checks import LEVELS
from modtool.checks.explanations import Explanation, remedy_of
from modtool.checks.records import Checked
from modtool.pickles.weights_only import WeightsOnly
from modtool.records import Level, Note
from modtool.report.tables import Column, Report, Table, Total

__all__ = ["check_report", "explanation_report", "github_lines"]

TARGET = Column("target", "target", "the file or model it was found in")
FINDING_COLUMNS = (
    Column("level", "level", "error, warning or note", "word"),
    Column("code", "code", "what kind of finding it is; --explain CODE tells more", "word"),
    Column("where", "where", "the place in the file or model"),
    Column("message", "finding", "what was found"),
)
REMEDY = Column("remedy", "what to do", "what to do about it")
REMEDY_COLUMNS = (FINDING_COLUMNS[1], REMEDY)
CALLABLE_COLUMNS = (
    Column("name", "callable", "what loading the file for real would import"),
    Column("calls", "calls", "how many times it would be called", "count"),
    Column("severity", "severity", "ordinary, unknown-callable or executes-code"),
    Column("arguments", "first called with", "a summary of the arguments"),
)
# What may be found of a model as a whole, whose path is "".
ALSO_AT_THE_ROOT = frozenset(
    {
        *("before-module-init", "constant-weights", "deprecated-hook", "does-not-load"),
        *("dropout-in-eval", "forward-failed", "frozen-batchnorm", "leftover-hook", "no-gradient"),
        *("saved-in-train-mode", "single-value-batchnorm", "unused-parameters", "varying-output"),
    }
)
NOTHING_RUN = "no code was run; above is what loading the file for real would import and call"
# What GitHub calls the levels. Source: its documentation of workflow commands.
GITHUB: Mapping[Level, str] = {"error": "error", "warning": "warning", "note": "notice"}


def check_report(results: Sequence[Checked], *, flat: bool = False) -> Report:
    """Findings first, then what to do; of one target also every callable and its verdict.

    Args:
        results: What was checked.
        flat: One table of everything, as CSV wants it.
    """
    alone = results[0] if len(results) == 1 else None

    def tables() -> Iterator[Table]:
        yield finding_table(results, flat=flat)
        yield Table(REMEDY_COLUMNS, tuple(remedy_rows(results)), "what to do")
        if alone is not None:
            uses = [(use.name, use.calls, use.severity, use.arguments) for use in alone.callables]
            yield Table(CALLABLE_COLUMNS, tuple(uses), "callables")

    return Report(
        lambda: document(results),
        lambda: tuple(table for table in tables() if table.rows or flat),
        totals=tuple(totals(results)),
        sentences=tuple(sentences(results)),
    )


def finding_table(results: Sequence[Checked], *, flat: bool) -> Table:
    """Every finding; with its target where there are several, with its remedy where all is one."""
    first = (TARGET,) if flat or len(results) > 1 else ()
    last = (REMEDY,) if flat else ()
    rows = [
        (
            *((each.target,) if first else ()),
            *(note.level, note.code, note.where if flat else where_of(note), note.message),
            *((remedy_of(note),) if last else ()),
        )
        for each in results
        for note in each.findings
    ]
    return Table((*first, *FINDING_COLUMNS, *last), tuple(rows))


def where_of(note: Note) -> str:
    """The place of a finding for people: the root of a model has a path of no letters."""
    return note.where or ("(model)" if note.code in ALSO_AT_THE_ROOT else "")


def remedy_rows(results: Sequence[Checked]) -> Iterator[tuple[object, ...]]:
    """Each remedy once, beside its code."""
    notes = [note for each in results for note in each.findings]
    seen = dict.fromkeys((note.code, remedy_of(note)) for note in notes)
    shown = ""
    for code, remedy in sorted(seen, key=lambda pair: [n.code for n in notes].index(pair[0])):
        yield "" if code == shown else code, remedy
        shown = code


def totals(results: Sequence[Checked]) -> Iterator[Total]:
    """The closing line."""
    if len(results) != 1:
        yield Total("targets", len(results))
    notes = [note for each in results for note in each.findings]
    yield Total("findings", len(notes))
    for level in LEVELS:
        count = sum(note.level == level for note in notes)
        if count:
            yield Total(f"{level}s", count)
    failed = sum(each.failure is not None for each in results)
    if failed:
        yield Total("not checked", failed)


def sentences(results: Sequence[Checked]) -> Iterator[str]:
    """What loading would run, what torch would say of it, and which assertions hold."""
    if len(results) == 1:
        if results[0].callables:
            yield NOTHING_RUN
        if results[0].verdict is not None:
            yield from verdict_lines(results[0].verdict)
        yield from (f"holds: {each.text}" for each in results[0].assertions if each.holds)
        return
    verdicts = [each.verdict for each in results if each.verdict is not None]
    if verdicts:
        share = f"{sum(each.accepted for each in verdicts):,} of {len(verdicts):,}"
        yield f"torch.load(…, weights_only=True) accepts {share} pickled files"


def verdict_lines(verdict: WeightsOnly) -> Iterator[str]:
    """What `torch.load(…, weights_only=True)` would make of the file."""
    if verdict.accepted:
        yield "torch.load(…, weights_only=True) accepts it"
        return
    more = f" (and {len(verdict.reasons) - 1} more)" if len(verdict.reasons) > 1 else ""
    first = (verdict.lasting or verdict.reasons)[0]
    helpless = verdict.lasting and verdict.needed  # a user would try what is needed, in vain
    end = "; no add_safe_globals changes that" if helpless else ""
    yield f"torch.load(…, weights_only=True) refuses it: {first}{more}{end}"
    if verdict.line:
        yield f"where you trust it: {verdict.line}"
        yield from (f"that may not be enough: {reason}" for reason in verdict.besides)


# -- JSON --------------------------------------------------------------------------------------


def document(results: Sequence[Checked]) -> Mapping[str, object]:
    """The whole, for programs; what speaks of one file stands at the top where there is but one."""
    alone = target_document(results[0]) if len(results) == 1 else {"target": None}
    return {
        **alone,
        "findings": [
            {"target": each.target, **finding_document(each, note)}
            for each in results
            for note in each.findings
        ],
        "targets": [target_document(each) for each in results],
        "errors": [
            {"target": each.target, **asdict(each.failure)}
            for each in results
            if each.failure is not None
        ],
    }


def finding_document(checked: Checked, note: Note) -> dict[str, object]:
    """A finding, and the line of code that it is about, where that is known."""
    file, line = checked.places.get(note, (None, None))
    return {**asdict(note), "remedy": remedy_of(note), "file": file, "line": line}


def target_document(checked: Checked) -> dict[str, object]:
    """What is known of one target beside the findings."""
    verdict = checked.verdict
    return {
        "target": checked.target,
        "callables": [asdict(use) for use in checked.callables],
        "weights_only": None if verdict is None else verdict.accepted,
        "weights_only_reasons": [] if verdict is None else list(verdict.reasons),
        "safe_globals": None if verdict is None else verdict.line or None,
        "assertions": [asdict(each) for each in checked.assertions],
    }


# -- GitHub ------------------------------------------------------------------------------------


def github_lines(results: Sequence[Checked]) -> Iterator[str]:
    """A workflow command for every finding and failure: annotations of a run on GitHub."""
    for each in results:
        for note in each.findings:
            place = f"{note.where}: " if note.where else ""
            text = f"{place}{note.message}\n{remedy_of(note)}"
            yield github_line(each, note, text)
        if each.failure is not None:
            failure = f"{each.failure.message}\n{each.failure.hint}".strip()
            yield command("error", each.target, "could not be checked", failure)


def github_line(checked: Checked, note: Note, text: str) -> str:
    """One finding as a command."""
    file, line = checked.places.get(note, (checked.target, None))
    return command(GITHUB[note.level], file, f"modtool {note.code}", text, line)


def command(name: str, target: str, title: str, text: str, line: int | None = None) -> str:
    """`::error file=…,line=…,title=…::…`."""
    file = target
    if target.partition(":")[0].endswith(".py"):
        file = target.partition(":")[0]
    place = f"file={escaped(file, ':,')}" + (f",line={line}" if line is not None else "")
    return f"::{name} {place},title={escaped(title, ':,')}::{escaped(text)}"


def escaped(text: str, also: str = "") -> str:
    """Text in a command; other control characters are the renderer's business."""
    for character in f"%\r\n{also}":
        text = text.replace(character, f"%{ord(character):02X}")
    return text


# -- one code ----------------------------------------------------------------------------------


def explanation_report(found: Explanation) -> Report:
    """What `--explain CODE` tells."""
    return Report(
        lambda: asdict(found),
        sentences=(
            f"{found.code} ({found.level}): {found.meaning}",
            "",
            *found.why.split("\n"),
            "",
            *(f"    {line}" for line in found.example.split("\n")),
            "",
            f"What to do: {found.remedy}",
        ),
    )
