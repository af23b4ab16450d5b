"""convsmith list: the networks of the zoo with what they cost."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from convsmith.cli.app import app
from convsmith.cli.arguments import Json
from convsmith.cli.output import print_json, print_table

Key = Literal["zoo", "name", "params", "macs", "year", "row"]


@app.command("list", epilog="Example: convsmith list --family 'shufflenet*' --max-macs 150e6 --sort macs")
def list_networks(
    pattern: Annotated[str, typer.Argument(metavar="[GLOB]", help="Which names, e.g. 'shufflenet*'.")] = "*",
    family: Annotated[str, typer.Option(metavar="GLOB", help="Which families, i.e. files of the zoo.")] = "*",
    row: Annotated[int | None, typer.Option(min=1, help="Row in docs/lecture.md.", show_default=False)] = None,
    max_macs: Annotated[
        float | None, typer.Option(min=1, help="At most so many multiply-accumulates.", show_default=False)
    ] = None,
    sort: Annotated[Key, typer.Option(help="The order; zoo is that of the files.")] = "zoo",
    json: Json = False,
) -> None:
    """List the networks of the zoo: params, multiply-accumulates at their input size, and the paper."""
    from fnmatch import fnmatchcase

    from convsmith import zoo

    found = [
        _row(zoo.variants()[name])
        for name in zoo.names(pattern)
        if fnmatchcase(zoo.families()[name], family)
        and row in (None, zoo.about(name).row)
        and (max_macs is None or zoo.variants()[name].macs <= max_macs)
    ]
    if not found:
        raise ValueError(
            f"no architecture of family {family!r} matches {pattern!r}"
            + ("" if row is None else f" in row {row}")
            + ("" if max_macs is None else f" with at most {max_macs:,.0f} MACs")
            + "; `convsmith list` shows them all"
        )
    if sort != "zoo":
        found.sort(key=lambda entry: entry[sort])
    if json:
        print_json(found)
        return
    print_table(
        ("name", ">params / M", ">MACs / M", ">input", ">year", ">row", "counted by", "~paper", "~use"),
        (
            (
                *(entry["name"], f"{entry['params'] / 1e6:.2f}", f"{entry['macs'] / 1e6:,.1f}"),
                *(str(entry[key]) for key in ("input_size", "year", "row", "source", "paper", "use")),
            )
            for entry in found
        ),
    )


def _row(variant: Any) -> dict[str, Any]:
    from convsmith import zoo

    about = zoo.about(variant.name)
    return {
        **{key: getattr(variant, key) for key in ("name", "params", "macs", "input_size", "source")},
        "family": zoo.families()[variant.name],
        "paper": zoo.paper(variant.name),
        **{key: getattr(about, key) for key in ("year", "row", "topic", "use")},
    }
