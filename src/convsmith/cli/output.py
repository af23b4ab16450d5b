"""What commands print: a table for people, or JSON for programs and nothing else on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table


def console(*, error: bool = False) -> Console:
    """A console on standard output or error; as wide as the terminal, or wide enough where there is none."""
    stream = sys.stderr if error else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else 240, highlight=False, soft_wrap=False)


def print_json(document: Any) -> None:
    """The document as JSON on standard output."""
    sys.stdout.write(json.dumps(document, indent=1) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None) -> None:
    """A table on standard output; a column named `>...` is aligned to the right, one named `~...` may wrap.

    The others are never cut: where the terminal is narrower than they are, the lines run over its edge.
    """
    table = Table(
        title=title, title_justify="left", box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0)
    )
    for column in columns:
        table.add_column(
            column.lstrip(">~"),
            justify="right" if column.startswith(">") else "left",
            no_wrap=not column.startswith("~"),
            overflow="fold",
        )
    for row in rows:
        table.add_row(*row)
    output = console()
    unbounded = output.options.update(max_width=sys.maxsize)
    output.width = max(output.width, Measurement.get(output, unbounded, table).minimum)
    output.print(table, crop=False)


def say(message: str) -> None:
    """A message for the person at the terminal, on standard error."""
    console(error=True).print(message, markup=False)
