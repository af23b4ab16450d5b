"""One self-contained HTML page for a run, and the tables that it shares with the command line."""

from convsmith.report.page import write
from convsmith.report.tables import BlockRow, architecture_rows
from convsmith.report.units import Unit, unit_of

__all__ = ["BlockRow", "Unit", "architecture_rows", "unit_of", "write"]
