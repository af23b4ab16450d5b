"""Arithmetic and checks of what blocks are built with, in integers, so that they build on the meta device."""

from __future__ import annotations


def round_channels(channels: float, *, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `channels`, but never below 90 % of it, as the MobileNet code rounds."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """`(height, width)` of a size that may be given as one number."""
    return (value, value) if isinstance(value, int) else value


def check_divisible(**values: int) -> None:
    """Raise ValueError unless the first named value is a multiple of the second one."""
    (name, value), (by, divisor) = values.items()
    if divisor < 1 or value % divisor:
        fitting = next((d for d in range(min(max(divisor, 1), value), 0, -1) if value % d == 0), 1)
        raise ValueError(
            f"{name} must be divisible by {by}, got {name}={value} and {by}={divisor}; take {by}={fitting}"
        )


def check_odd_kernel(kernel_size: int) -> None:
    """Raise ValueError unless the kernel has a middle, so that padding on both sides alike keeps the size of a map."""
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd here, got {kernel_size=}; take {max(1, kernel_size + 1)}")
