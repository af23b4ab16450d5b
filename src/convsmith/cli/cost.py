"""convsmith cost: params, multiply-accumulates, activations and memory traffic of networks."""

from __future__ import annotations

from typing import Any

from convsmith.cli.app import app
from convsmith.cli.arguments import Batch, InputSize, Json, Names
from convsmith.cli.output import print_json, print_table, say
from convsmith.cli.subjects import subjects


@app.command(epilog="Example: convsmith cost mobilenet_v2 'shufflenet_v2*' timm:convnext_tiny --input-size 160")
def cost(architectures: Names, input_size: InputSize = None, batch: Batch = 1, json: Json = False) -> None:
    """Count what one forward pass costs, without data and without running it."""
    from convsmith import measure

    rows: list[dict[str, Any]] = []
    for subject in subjects(architectures):
        counted = measure.cost(subject.architecture or subject.build(), subject.shape(batch, input_size))
        numbers = {key: getattr(counted, key) for key in ("params", "macs", "activations", "memory_bytes")}
        rows.append({"name": subject.name, **numbers, "uncounted": dict(counted.uncounted)})
    if json:
        print_json(rows)
        return
    print_table(
        ("name", ">params", ">MACs", ">activations", ">memory / MB"),
        (
            (
                r["name"],
                f"{r['params']:,}",
                f"{r['macs']:,}",
                f"{r['activations']:,}",
                f"{r['memory_bytes'] / 1e6:,.1f}",
            )
            for r in rows
        ),
    )
    for row in rows:
        if row["uncounted"]:
            say(f"{row['name']}: no formula for {row['uncounted']}; its MACs are a lower bound")
