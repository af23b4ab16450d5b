"""Arithmetic of channel counts, in integers, so that blocks build on the meta device."""

from __future__ import annotations


def round_channels(channels: float, *, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `channels`, but never below 90 % of it, as the MobileNet code rounds."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def check_divisible(**values: int) -> None:
    """Raise ValueError unless the first named value is a multiple of the second one."""
    (name, value), (by, divisor) = values.items()
    if divisor < 1 or value % divisor:
        raise ValueError(f"{name} must be divisible by {by}, got {name}={value} and {by}={divisor}")
