"""convsmith receptive-field: what the values of a network's maps see of the input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from convsmith.cli.app import app
from convsmith.cli.arguments import Json, Model
from convsmith.cli.output import print_json, print_table, say
from convsmith.cli.sizes import InputSize
from convsmith.cli.subjects import one_subject

if TYPE_CHECKING:
    from convsmith.measure import Field

BESIDES = {  # by whether each value sees all rows, and all columns
    (True, True): "the whole input",
    (True, False): "all rows",
    (False, True): "all columns",
    (False, False): "",
}


@app.command("receptive-field", epilog="Example: convsmith receptive-field resnet50 --effective")
def receptive_field(
    architecture: Model,
    input_size: InputSize = None,
    at: Annotated[
        str | None, typer.Option(help="The module whose map is asked for; the last one by default.", show_default=False)
    ] = None,
    effective: Annotated[
        bool, typer.Option("--effective", help="Add the part of it that holds a share of the gradient.")
    ] = False,
    share: Annotated[float, typer.Option(help="That share.")] = 0.95,
    json: Json = False,
) -> None:
    """Show size, stride and start of the receptive field, behind each stage and of the last map."""
    from convsmith import measure

    subject = one_subject(architecture)
    network, shape = subject.architecture or subject.build(), subject.shape(1, input_size)
    found = measure.receptive_field(network, shape, at=at, effective=effective, share=share)
    shown = {path: own for path, own in found.by_module.items() if path and _is_shown(path, subject.architecture)}
    document: dict[str, Any] = {
        **{"name": subject.name, "input_size": found.input_size, "path": found.path, **_numbers(found)},
        "whole_behind": found.whole_behind,
        "assumptions": dict(found.assumptions),
        "by_module": {path: _numbers(own) for path, own in shown.items()},
    }
    if found.effective is not None:
        document["effective"] = {"share": found.effective.share, "size": found.effective.size}
    if json:
        print_json(document)
        return
    rows = {**shown, found.path: found}
    print_table(
        ("behind", ">map", ">field", ">stride", ">from", "besides"),
        ((path, *_cells(own)) for path, own in rows.items()),
        title=f"{subject.name}, input {' × '.join(map(str, found.input_size))}",
    )
    if found.size is None and not found.sees_everything:
        say(f"the field of {found.path or 'the output'} is unknown: {found.reason}")
    if found.whole_behind is not None:
        say(f"behind it {found.whole_behind or 'the output'} sees the whole input")
    if found.effective is not None:
        size = " × ".join(map(str, found.effective.size))
        say(f"{100 * share:g} % of the gradient of {found.path}'s middle value lies within {size} pixels")
    for operator, what in found.assumptions.items():
        say(f"{operator} {what}")


def _is_shown(path: str, architecture: object) -> bool:
    """Of an architecture its blocks, of another module its direct children."""
    return path.count(".") <= (2 if path.startswith("stages.") else 1) if architecture else "." not in path


def _numbers(field: Field) -> dict[str, Any]:
    keys = ("map_size", "size", "stride", "start", "sees_everything", "sees_whole", "reason")
    return {key: getattr(field, key) for key in keys}


def _cells(field: Field) -> tuple[str, ...]:
    pairs = (field.map_size, field.size, field.stride, field.start)
    none = "none" if field.sees_everything else "unknown"
    texts = [none if pair is None else " × ".join(f"{value:g}" for value in pair) for pair in pairs]
    return *texts, BESIDES[True, True] if field.sees_everything else BESIDES[field.sees_whole]
