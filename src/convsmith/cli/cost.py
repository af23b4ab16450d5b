"""convsmith cost: params, multiply-accumulates, activations and memory traffic of networks."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from convsmith.cli.app import app
from convsmith.cli.arguments import Batch, Json, Names
from convsmith.cli.output import print_json, print_table, say
from convsmith.cli.sizes import InputSize, shown_size
from convsmith.cli.subjects import Subject, subjects

if TYPE_CHECKING:
    from convsmith.measure import Layer

NUMBERS = ("params", "macs", "activations", "memory_bytes", "macs_per_byte")
View = Literal["total", "stage", "operator", "module"]


@app.command(epilog="Example: convsmith cost mobilenet_v2 'shufflenet_v2*' timm:convnext_tiny --input-size 160")
def cost(
    architectures: Names,
    input_size: InputSize = None,
    batch: Batch = 1,
    by: Annotated[View, typer.Option(help="What has a row: a network, or each of its parts.")] = "total",
    depth: Annotated[
        int | None, typer.Option(min=1, help="With --by module: levels of modules, all by default.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Count what one forward pass costs, without data and without running it."""
    from convsmith import measure

    rows: list[dict[str, Any]] = []
    for subject in subjects(architectures):
        network, shape = subject.architecture or subject.build(), subject.shape(batch, input_size)
        counted = measure.cost(network, shape)
        totals = {**{key: getattr(counted, key) for key in NUMBERS}, "uncounted": dict(counted.uncounted)}
        parts: list[dict[str, Any]] = []
        layers: tuple[measure.Layer, ...] = ()
        if by == "module":
            layers = measure.summary(network, shape, depth=depth).layers
            parts = [dataclasses.asdict(layer) for layer in layers]
        elif by == "stage":
            _refuse_stageless(subject)
            parts = [{"stage": name, **_numbers(own), "output": own.output} for name, own in counted.by_stage.items()]
        elif by == "operator":
            parts = [{"operator": name, **_numbers(own)} for name, own in counted.by_operator.items()]
        if parts and not json:
            _print_layers(subject, layers) if layers else _print_parts(subject, by, parts)
        own = {f"by_{by}": parts} if by != "total" else {}
        rows.append({"name": subject.name, "input_size": shown_size(shape), **totals, **own})
    if json:
        print_json(rows)
        return
    print_table(
        ("name", ">input", ">params", ">MACs", ">activations", ">memory / MB", ">MACs / byte"),
        ((row["name"], _input(row["input_size"]), *_cells(row, NUMBERS)) for row in rows),
    )
    for row in rows:
        if row["uncounted"]:
            say(f"{row['name']}: no formula for {row['uncounted']}; its MACs are a lower bound")


def _input(size: int | str) -> str:
    return f"{size} × {size}" if isinstance(size, int) else size.replace("x", " × ")


def _refuse_stageless(subject: Subject) -> None:
    if subject.architecture is None:
        raise ValueError(f"stages are known of architectures, and {subject.name} is a module; take --by module")


def _numbers(counts: Any) -> dict[str, Any]:
    return {key: getattr(counts, key) for key in ("calls", *NUMBERS) if hasattr(counts, key)}


def _print_layers(subject: Subject, layers: tuple[Layer, ...]) -> None:
    from convsmith.measure.summary import COLUMNS, cells

    columns = [f">{name}" if 2 <= i <= 5 else name for i, name in enumerate(COLUMNS)]
    print_table(columns, map(cells, layers), title=subject.name)


def _print_parts(subject: Subject, by: str, parts: list[dict[str, Any]]) -> None:
    keys = [key for key in NUMBERS if key in parts[0]]
    names = {"macs": "MACs", "memory_bytes": "memory / MB", "macs_per_byte": "MACs / byte"}
    columns = [by, *(f">{names.get(key, key)}" for key in keys), ">output" if by == "stage" else ">calls"]
    last = [" × ".join(map(str, p["output"] or ())) if by == "stage" else str(p["calls"]) for p in parts]
    rows = [(part[by], *_cells(part, keys), end) for part, end in zip(parts, last, strict=True)]
    print_table(columns, rows, title=subject.name)


def _cells(row: dict[str, Any], keys: Any) -> list[str]:
    forms = {"memory_bytes": lambda value: f"{value / 1e6:,.1f}", "macs_per_byte": lambda value: f"{value:.2f}"}
    return [forms.get(key, lambda value: f"{value:,}")(row[key]) for key in keys]
