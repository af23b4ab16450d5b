"""The architecture of a run, as the pages show it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Any

from convsmith.arch import Architecture
from convsmith.measure import cost
from convsmith.report.calls import layer_words
from convsmith.report.picture import architecture_svg
from convsmith.report.tables import architecture_rows, stage_of


def architecture_section(
    load: Callable[[], Architecture | None], shape_of: Callable[[Architecture], tuple[int, int, int] | None]
) -> dict[str, Any] | None:
    """The architecture of a run as its page shows it; None where there is none yet.

    Where its blocks are not registered here, `problem` says so; where the size of the input is not known or does not
    fit, the blocks stand without sizes and counts.
    """
    section: dict[str, Any] = {
        "name": "",
        "picture": "",
        "found_by": None,
        "input": "",
        "columns": [],
        "stages": [],
        "total": [],
    }
    try:
        architecture = load()
    except ValueError as error:
        return section | {"problem": str(error)}
    if architecture is None:
        return None
    section |= {"name": architecture.name, "found_by": architecture.found_by, "problem": ""}
    shape = shape_of(architecture)
    try:
        rows = [] if shape is None else architecture_rows(architecture, shape)
    except ValueError as error:
        rows, section["problem"] = [], str(error)
    if shape is None or not rows:
        bare = [(stage_of(path), (spec.block, layer_words(spec), ())) for path, spec in architecture.blocks()]
        unknown = "The run does not record the size of its images, so sizes and counts are missing here."
        return section | {"problem": section["problem"] or unknown, "stages": _by_stage(bare)}
    total = cost(architecture, (1, *shape))
    blocks = [(r.stage, (r.block, r.words, [r.output_size, f"{r.params:,}", f"{r.macs:,}"])) for r in rows]
    return section | {
        "input": " × ".join(map(str, shape)),
        "picture": architecture_svg(architecture, shape),
        "columns": ["output (C × H × W)", "params", "MACs"],
        "stages": _by_stage(blocks),
        "total": ["", f"{total.params:,}", f"{total.macs:,}"],
    }


def _by_stage(rows: list[tuple[str, Any]]) -> list[tuple[str, list[Any]]]:
    return [(stage, [row for _, row in group]) for stage, group in groupby(rows, key=lambda row: row[0])]
