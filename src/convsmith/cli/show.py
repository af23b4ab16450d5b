"""convsmith show: an architecture as a table, block by block."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convsmith.arch import write_whole
from convsmith.cli.app import app
from convsmith.cli.arguments import Json
from convsmith.cli.output import print_json, print_table, say
from convsmith.cli.sizes import InputSize
from convsmith.cli.subjects import subjects

if TYPE_CHECKING:
    from convsmith.report import Resolution


@app.command(epilog="Example: convsmith show mobilenet_v2 --input-size 160")
def show(
    architecture: Annotated[
        str, typer.Argument(metavar="ARCH", help="A zoo name, a .json file, or an architecture's FILE.py:NAME.")
    ],
    input_size: InputSize = None,
    svg: Annotated[Path | None, typer.Option(help="Write a picture to this file, too.", show_default=False)] = None,
    json: Json = False,
) -> None:
    """Show stage, block, arguments that differ from the defaults, output size, params and multiply-accumulates."""
    from convsmith import zoo
    from convsmith.measure import cost
    from convsmith.report import architecture_rows, architecture_svg, resolutions

    (subject, *others) = subjects([architecture])
    if others or subject.architecture is None:
        raise ValueError(
            f"show takes one zoo name or .json file, got {architecture!r}; `convsmith list` shows the names"
        )
    shape = subject.shape(1, input_size)
    image = (shape[1], shape[2], shape[3])
    rows = architecture_rows(subject.architecture, image)
    total = cost(subject.architecture, shape)
    sizes = resolutions(rows, image[1])
    if svg is not None:
        write_whole(svg, architecture_svg(subject.architecture, image))
    if json:
        print_json(
            {
                **{"name": subject.name, "input": image, "params": total.params, "macs": total.macs},
                "blocks": [dataclasses.asdict(row) for row in rows],
                "resolutions": [dataclasses.asdict(size) for size in sizes],
            }
        )
        return
    print_table(
        ("stage", "block", "~arguments", "output (C × H × W)", ">params", ">MACs"),
        [
            *((r.stage, r.block, r.words, r.output_size, f"{r.params:,}", f"{r.macs:,}") for r in rows),
            ("total", "", "", "", f"{total.params:,}", f"{total.macs:,}"),
        ],
        title=f"{subject.name}, input {' × '.join(map(str, image))}",
    )
    print_table(
        (">stride", ">map", ">blocks", ">params", ">MACs", ">share of MACs"),
        (
            (str(r.stride), " × ".join(map(str, r.output)), str(r.blocks), f"{r.params:,}", f"{r.macs:,}", _share(r))
            for r in sizes
        ),
        title="by size of map",
    )
    if subject.name in zoo.variants():
        about = zoo.about(subject.name)
        say(f"{zoo.paper(subject.name)} {about.topic}. {about.use}".strip())


def _share(resolution: Resolution) -> str:
    return f"{100 * resolution.share_of_macs:.1f} %"
