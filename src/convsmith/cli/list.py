"""convsmith list: the networks of the zoo with what they cost."""

from __future__ import annotations

from typing import Annotated

import typer

from convsmith.cli.app import app
from convsmith.cli.arguments import Json
from convsmith.cli.output import print_json, print_table


@app.command("list", epilog="Example: convsmith list 'resnet*'")
def list_networks(
    pattern: Annotated[str, typer.Argument(metavar="[GLOB]", help="Which names, e.g. 'shufflenet*'.")] = "*",
    json: Json = False,
) -> None:
    """List the networks of the zoo: params, multiply-accumulates at their input size, and the paper."""
    from convsmith import zoo

    found = [zoo.variants()[name] for name in zoo.names(pattern)]
    if not found:
        raise ValueError(f"no architecture matches {pattern!r}; `convsmith list` shows them all")
    if json:
        keys = ("name", "params", "macs", "input_size", "source")
        rows = [{key: getattr(variant, key) for key in keys} for variant in found]
        print_json([row | {"family": zoo.families()[row["name"]], "paper": zoo.paper(row["name"])} for row in rows])
        return
    print_table(
        ("name", ">params / M", ">MACs / M", ">input", "counted by", "paper"),
        (
            (v.name, f"{v.params / 1e6:.2f}", f"{v.macs / 1e6:,.1f}", str(v.input_size), v.source, zoo.paper(v.name))
            for v in found
        ),
    )
