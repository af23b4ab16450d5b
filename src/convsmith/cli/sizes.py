"""The size of an input, as the command line takes and shows it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

MOST_SIDES = 4


@dataclass(frozen=True)
class Size:
    """A side, (H, W), (C, H, W) or (C, D, H, W)."""

    sides: tuple[int, ...]

    def shape(self, batch: int, in_channels: int) -> tuple[int, ...]:
        """The whole shape of an input of so many channels, where the size does not say them."""
        if len(self.sides) == 1:
            return batch, in_channels, *self.sides, *self.sides
        return (batch, in_channels, *self.sides) if len(self.sides) == 2 else (batch, *self.sides)


def parse_size(text: str | Size) -> Size:
    """`224`, `192x256`, `3x192x256` or `3x16x112x112`."""
    if isinstance(text, Size):  # typer parses a default too
        return text
    sides = tuple(map(int, text.split("x"))) if re.fullmatch(r"[0-9]+(x[0-9]+)*", text) else ()
    if not 0 < len(sides) <= MOST_SIDES or min(sides) < 1:
        raise typer.BadParameter(f"must be SIDE, HxW, CxHxW or CxDxHxW in positive numbers, got {text!r}")
    return Size(sides)


def shown_size(shape: Sequence[int]) -> int | str:
    """The size of an input of such a shape, batch included: the side of a square image, or else what `Size` takes."""
    if len(shape) == 4 and shape[2] == shape[3]:
        return shape[2]
    return "x".join(map(str, shape[2:] if len(shape) == 4 else shape[1:]))


InputSize = Annotated[
    Size | None,
    typer.Option(
        parser=parse_size,
        metavar="SIZE",
        help="Side of the input in pixels, HxW, CxHxW or CxDxHxW; the network's own by default.",
        show_default=False,
    ),
]
