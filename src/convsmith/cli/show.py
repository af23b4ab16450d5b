"""convsmith show: an architecture as a table, block by block."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from convsmith.cli.app import app
from convsmith.cli.arguments import InputSize, Json
from convsmith.cli.output import print_json, print_table
from convsmith.cli.subjects import subjects


@app.command(epilog="Example: convsmith show mobilenet_v2 --input-size 160")
def show(
    architecture: Annotated[str, typer.Argument(metavar="ARCH", help="A zoo name or a .json file.")],
    input_size: InputSize = None,
    json: Json = False,
) -> None:
    """Show stage, block, arguments that differ from the defaults, output size, params and multiply-accumulates."""
    from convsmith.measure import cost
    from convsmith.report.tables import architecture_rows

    (subject, *others) = subjects([architecture])
    if others or subject.architecture is None:
        raise ValueError(
            f"show takes one zoo name or .json file, got {architecture!r}; `convsmith list` shows the names"
        )
    shape = subject.shape(1, input_size)
    rows = architecture_rows(subject.architecture, shape[1:])
    total = cost(subject.architecture, shape)
    if json:
        blocks = [dataclasses.asdict(row) for row in rows]
        print_json(
            {"name": subject.name, "input": shape[1:], "params": total.params, "macs": total.macs, "blocks": blocks}
        )
        return
    print_table(
        ("stage", "block", "arguments", "output (C × H × W)", ">params", ">MACs"),
        [
            *((r.stage, r.block, r.arguments, r.output_size, f"{r.params:,}", f"{r.macs:,}") for r in rows),
            ("total", "", "", "", f"{total.params:,}", f"{total.macs:,}"),
        ],
        title=f"{subject.name}, input {' × '.join(map(str, shape[1:]))}",
    )
