"""Arithmetic and checks of what blocks are built with, in integers, so that they build on the meta device."""

from __future__ import annotations


def round_channels(channels: float, *, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `channels`, but never below 90 % of it, as the MobileNet code rounds."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """`(height, width)` of a size that may be given as one number."""
    return (value, value) if isinstance(value, int) else value


def inner_channels(given: int | None, by_ratio: float) -> int:
    """The width inside a block: as given, or that by a ratio, rounded, but to 1 at least where the ratio is positive.

    Raises ValueError for a width below 1.
    """
    if given is None and by_ratio > 0:
        return max(1, round(by_ratio))
    if given is None or given < 1:
        raise ValueError(
            f"a block must have at least 1 inner channel, got {by_ratio if given is None else given}; leave the width "
            "out, or take 1 or more and a positive ratio"
        )
    return given


def check_positive(**values: int | tuple[int, ...]) -> None:
    """Raise ValueError unless each named value, or each number of it, is at least 1."""
    for name, value in values.items():
        if (min(value) if isinstance(value, tuple) else value) < 1:
            raise ValueError(f"{name} must be positive, got {value}; take at least 1")


def check_divisible(**values: int) -> None:
    """Raise ValueError unless the first named value is a positive multiple of the second one."""
    (name, value), (by, divisor) = values.items()
    if value < 1:
        check_positive(**{name: value})
    if divisor < 1 or value % divisor:
        fitting = next((d for d in range(min(max(divisor, 1), value), 0, -1) if value % d == 0), 1)
        raise ValueError(
            f"{name} must be divisible by {by}, got {name}={value} and {by}={divisor}; take {by}={fitting}"
        )


def check_odd_kernel(kernel_size: int | tuple[int, int]) -> None:
    """Raise ValueError unless the kernel has a middle, so that padding on both sides alike keeps the size of a map."""
    sides = kernel_size if isinstance(kernel_size, tuple) else (kernel_size,)
    if any(side < 1 or side % 2 == 0 for side in sides):
        odd = tuple(max(1, side + 1 - side % 2) for side in sides)
        fitting = odd if len(odd) > 1 else odd[0]
        raise ValueError(f"kernel_size must be odd here, got {kernel_size=}; take {fitting}")
