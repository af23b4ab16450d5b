"""One self-contained HTML page for a run, and the tables that it shares with the command line."""

from convsmith.report.difference import Change, compare_architectures
from convsmith.report.page import check_page, write, write_profile
from convsmith.report.picture import architecture_svg
from convsmith.report.tables import BlockRow, Resolution, architecture_rows, resolutions
from convsmith.report.units import Unit, unit_of

__all__ = [
    "BlockRow",
    "Change",
    "Resolution",
    "Unit",
    "architecture_rows",
    "architecture_svg",
    "check_page",
    "compare_architectures",
    "resolutions",
    "unit_of",
    "write",
    "write_profile",
]
