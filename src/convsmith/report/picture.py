"""A picture of an architecture: a box for each run of equal blocks, as high as its map is large, as wide as deep."""

from __future__ import annotations

import math
from html import escape
from itertools import groupby

from convsmith.arch import Architecture
from convsmith.report.tables import BlockRow, architecture_rows

COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#eeca3b", "#9d755d")
GAP, STAGE_GAP, SHORTEST_STAGE, TOP, LABELS = 8, 14, 48, 34, 120


def architecture_svg(architecture: Architecture, input_shape: tuple[int, int, int]) -> str:
    """The architecture at an input of `input_shape` (C, H, W), as a self-contained SVG document.

    From left to right as an image passes; a box that stands for several equal blocks says how many. Heights grow with
    the logarithm of the map's side, widths with that of its channels; colours tell kinds of blocks apart. Pointing at a
    box shows its arguments, output, params and MACs. Text takes the colour of the page around it.
    """
    boxes = [list(run) for _, run in groupby(architecture_rows(architecture, input_shape), key=_kind)]
    kinds = list(dict.fromkeys(box[0].block for box in boxes))
    highest = max(_height(row) for (row, *_) in boxes)
    middle = TOP + highest / 2
    x, opened, stage, drawn = float(GAP), 0.0, "", []
    for box in boxes:
        if box[0].stage != stage:
            x = max(x + STAGE_GAP, opened + SHORTEST_STAGE) if stage else x
            opened, stage = x, box[0].stage
            drawn.append(f'<text class="stage" x="{x:.0f}" y="14">{escape(stage)}</text>')
        drawn.append(_box(box, x, middle, TOP + highest + 12, COLOURS[kinds.index(box[0].block) % len(COLOURS)]))
        x += _width(box[0]) + GAP
    width, height = round(x + STAGE_GAP + 40), round(TOP + highest + LABELS)
    shape = " × ".join(map(str, input_shape))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" fill="currentColor" font-family="sans-serif" font-size="10">'
        f"<title>{escape(architecture.name)}, input {shape}</title>"
        "<style>.stage{font-weight:bold}.size{text-anchor:middle}</style>" + "".join(drawn) + "</svg>"
    )


def _kind(row: BlockRow) -> tuple[object, ...]:
    return row.stage, row.block, row.output


def _box(rows: list[BlockRow], x: float, middle: float, label_y: float, colour: str) -> str:
    row, height, width = rows[0], _height(rows[0]), _width(rows[0])
    times = f" × {len(rows)}" if len(rows) > 1 else ""
    told = [f"{r.path}: {r.block}({r.arguments}) → {r.output_size}, {r.params:,} params, {r.macs:,} MACs" for r in rows]
    size = f"{row.output[0]}" if len(row.output) == 1 else f"{row.output[0]}@{row.output[-1]}"
    centre = x + width / 2
    return (
        f"<g><title>{escape(chr(10).join(told))}</title>"
        f'<rect x="{x:.1f}" y="{middle - height / 2:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2" '
        f'fill="{colour}" fill-opacity="0.75" stroke="{colour}"/>'
        f'<text class="size" font-size="8" x="{centre:.1f}" y="{middle - height / 2 - 4:.1f}">{size}</text>'
        f'<text transform="translate({centre - 3:.1f},{label_y:.1f}) rotate(60)">{escape(row.block)}{times}</text></g>'
    )


def _height(row: BlockRow) -> float:
    side = row.output[-1] if len(row.output) > 1 else 1
    return 8 + 16 * math.log2(side + 1)


def _width(row: BlockRow) -> float:
    return max(28.0, 6 + 3 * math.log2(row.output[0] + 1))  # room for the size above it
