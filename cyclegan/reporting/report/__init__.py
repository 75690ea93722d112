"""report.html: one file that says what a run was trained on, whether it worked and how to use it."""

from cyclegan.reporting.report.about import ABOUT, About, write_about
from cyclegan.reporting.report.folder import WARNINGS, find_runs, is_run
from cyclegan.reporting.report.index import INDEX, write_index
from cyclegan.reporting.report.page import REPORT, write_report

__all__ = [
    "ABOUT",
    "INDEX",
    "REPORT",
    "WARNINGS",
    "About",
    "find_runs",
    "is_run",
    "write_about",
    "write_index",
    "write_report",
]
