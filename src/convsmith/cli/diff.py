"""convsmith diff: how two architectures differ."""

from __future__ import annotations

from typing import Annotated

import typer

from convsmith.cli.app import app
from convsmith.cli.arguments import Json
from convsmith.cli.output import print_json, print_table
from convsmith.cli.sizes import InputSize
from convsmith.cli.subjects import Subject, subjects

Name = Annotated[
    str,
    typer.Argument(
        metavar="ARCH", help="A zoo name, a .json file, or an architecture's FILE.py:NAME.", show_default=False
    ),
]


@app.command(epilog="Example: convsmith diff resnet50 resnet50_v1")
def diff(before: Name, after: Name, input_size: InputSize = None, json: Json = False) -> None:
    """Show the blocks that differ, and what that does to params and multiply-accumulates."""
    from convsmith.measure import cost
    from convsmith.report.difference import compare_architectures

    first, second = _one(before), _one(after)
    if first.architecture is None or second.architecture is None:
        raise ValueError("diff takes zoo names and .json files; other libraries' networks are no architectures")
    changes = compare_architectures(first.architecture, second.architecture)
    figures = {
        key: [getattr(cost(s.architecture, s.shape(1, input_size)), key) for s in (first, second)]  # type: ignore[arg-type]
        for key in ("params", "macs", "activations")
    }
    if json:
        print_json(
            {
                **{key: {"before": old, "after": new} for key, (old, new) in figures.items()},
                "changes": [
                    {"kind": c.kind, "before": c.before_path, "after": c.after_path, "text": c.text}
                    for c in changes
                    if c.kind != "same"
                ],
            }
        )
        return
    print_table(
        ("", "before", "after", "~what"),
        ((c.kind, c.before_path or "", c.after_path or "", c.text) for c in changes if c.kind != "same"),
        title=f"{before} → {after}: {sum(c.kind == 'same' for c in changes)} blocks are the same",
    )
    print_table(
        ("", ">before", ">after", ">ratio"),
        ((key, f"{old:,}", f"{new:,}", f"{new / old:.3f}") for key, (old, new) in figures.items()),
    )


def _one(name: str) -> Subject:
    found = subjects([name])
    if len(found) != 1:
        raise ValueError(f"diff compares two architectures, and {name!r} names {len(found)}; name one")
    return found[0]
