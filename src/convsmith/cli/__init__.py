"""The command line: one file per command, each a thin face of one library function."""

from convsmith.cli.main import main

__all__ = ["main"]
