"""Everything that modtool does with a file whose values it does not read. No torch is imported."""

import json
from contextlib import suppress
from pathlib import Path

from modtool.api.checking import check as check_target
from modtool.diffs import Options, compare_structure
from modtool.errors import ModtoolError
from modtool.formats import open_checkpoint
from modtool.plan import FORMS, check, freeze, plan_conversion, plan_rewrite
from modtool.records import Checkpoint
from modtool.render import RENDERERS
from modtool.report.differences import differences_report
from modtool.report.findings import check_report
from modtool.report.summary import summary_report
from modtool.report.tables import Report
from modtool.report.totals import count_report

__all__ = ["look_at", "plan_all"]


def look_at(path: Path) -> Checkpoint:
    """What `summary`, `count`, `check` and `diff --structure` do, rendered; of a cut file too."""
    checkpoint = open_checkpoint(str(path), truncated=True)
    draw(summary_report(checkpoint), *RENDERERS)
    draw(summary_report(checkpoint, tensors=True), "table")
    draw(count_report(checkpoint), "csv")
    draw(check_report([check_target(str(path))]), "json", "table")
    draw(differences_report(compare_structure(checkpoint, checkpoint, Options())), "json", "table")
    return checkpoint


def draw(report: Report, *forms: str) -> None:
    """Render a report; its JSON is strict, and no text holds half a surrogate pair."""
    for form in forms:
        text = "".join(RENDERERS[form](report))
        text.encode()
        if form == "json":
            json.loads(text, parse_constant=refuse)


def refuse(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def plan_all(checkpoint: Checkpoint) -> None:
    """What `convert --dry-run` and `freeze --dry-run` do, for every form."""
    for form in FORMS:
        with suppress(ModtoolError):
            check(plan_conversion(checkpoint, to=form))
    with suppress(ModtoolError):
        check(freeze(plan_rewrite(checkpoint), ["*"]))
