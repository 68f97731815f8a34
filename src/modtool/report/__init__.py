"""What a command has to say, as raw values; `modtool.render` makes text of it."""

from modtool.report.changes import conversion_report, flags_report, reinit_report
from modtool.report.columns import COLUMNS
from modtool.report.summary import summary_report
from modtool.report.tables import Column, Report, Table, Total
from modtool.report.totals import Totals, count_report, totals_of
from modtool.report.tracing import trace_report

__all__ = [
    "COLUMNS",
    "Column",
    "Report",
    "Table",
    "Total",
    "Totals",
    "conversion_report",
    "count_report",
    "flags_report",
    "reinit_report",
    "summary_report",
    "totals_of",
    "trace_report",
]
