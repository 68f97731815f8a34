"""What a command has to say, as raw values; `modtool.render` makes text of it."""

from modtool.report.changes import conversion_report
from modtool.report.columns import COLUMNS
from modtool.report.fills import Filling, Measures, recipe_report, reinit_report
from modtool.report.flags import flags_report, state_report
from modtool.report.summary import summary_report
from modtool.report.tables import Column, Report, Table, Total
from modtool.report.totals import Totals, count_report, totals_of
from modtool.report.tracing import trace_report

__all__ = [
    "COLUMNS",
    "Column",
    "Filling",
    "Measures",
    "Report",
    "Table",
    "Total",
    "Totals",
    "conversion_report",
    "count_report",
    "flags_report",
    "recipe_report",
    "reinit_report",
    "state_report",
    "summary_report",
    "totals_of",
    "trace_report",
]
