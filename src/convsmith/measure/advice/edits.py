"""Edits of architectures, and the one of a family of edits that costs as much as the original."""

from __future__ import annotations

from collections.abc import Callable

from convsmith.arch import Architecture, BlockSpec
from convsmith.measure.advice.case import fits
from convsmith.measure.cost import cost
from convsmith.network.shapes import Shape

Change = Callable[[str, BlockSpec], BlockSpec]
ROUNDS = 8


def changed(architecture: Architecture, change: Change) -> Architecture:
    """The architecture with each block replaced by `change(path, spec)`."""
    return architecture.replace(
        stem=[change(f"stem.{i}", spec) for i, spec in enumerate(architecture.stem)],
        stages=[
            [change(f"stages.{i}.{j}", spec) for j, spec in enumerate(stage)]
            for i, stage in enumerate(architecture.stages)
        ],
        neck=[change(f"neck.{i}", spec) for i, spec in enumerate(architecture.neck)],
    )


def at_equal_macs(
    architecture: Architecture, input_shape: Shape, make: Callable[[float], Architecture]
) -> Architecture | None:
    """The widest `make(scale)` with at most the original's MACs, by bisection; None where none can be built.

    MACs grow with the scale. Widths are rounded, so that the result may lie some percent below.
    """
    budget = cost(architecture, input_shape).macs
    low, high, found = 0.05, 4.0, None
    for _ in range(ROUNDS):
        scale = (low * high) ** 0.5
        candidate = make(scale)
        if not fits(candidate, input_shape):
            return None
        if cost(candidate, input_shape).macs <= budget:
            low, found = scale, candidate
        else:
            high = scale
    return found


def multiple(width: float) -> int:
    """The nearest width that is a multiple of 8, or of 2 below 64 channels."""
    step = 8 if width >= 64 else 2
    return max(step, round(width / step) * step)


def block_of(path: str, architecture: Architecture) -> str:
    """The path of the block that a layer is in; empty for one that is in none."""
    return next((own for own, _ in architecture.blocks() if path == own or path.startswith(f"{own}.")), "")
