"""What a file holds against what it must hold: anyone may have written it, and half of it may be missing."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convsmith.measure.predictor.trees import Array

LARGEST = 1e30  # of numbers that are added and multiplied: no sum of them is infinite
KINDS = {"i": "whole numbers", "f": "numbers"}


class DamagedError(ValueError):
    """A value of a file breaks a rule: the rule, and the value."""


@contextmanager
def calibration(path: Path) -> Iterator[None]:
    """Inside of this block a `DamagedError` becomes a ValueError that names the file and what to do."""
    try:
        yield
    except DamagedError as error:
        raise ValueError(
            f"{path} is no calibration ({error}); take another file, or make one with `convsmith calibrate`"
        ) from None


def check(holds: bool, rule: str, got: object) -> None:
    """Raise DamagedError unless the rule holds."""
    if not holds:
        raise DamagedError(f"{rule}, got {reprlib.repr(got)}")


def mapping(value: object, name: str) -> Mapping[str, Any]:
    """The value, if it is a JSON object."""
    check(isinstance(value, dict), f"{name} must be an object", value)
    return value  # type: ignore[return-value]


def of(values: Mapping[str, Any], name: str) -> Any:
    """The entry of a name."""
    if name not in values:
        raise DamagedError(f"{name} is missing")
    return values[name]


def texts(values: Mapping[str, Any], name: str) -> list[str]:
    """The entry of a name, if it is a list of texts."""
    found = of(values, name)
    check(isinstance(found, list) and all(isinstance(own, str) for own in found), f"{name} must be texts", found)
    return list(found)


def number(values: Mapping[str, Any], name: str, *, lowest: float = -LARGEST) -> float:
    """The entry of a name, if it is a number from `lowest` on."""
    found = of(values, name)
    check(is_number(found) and found >= lowest, f"{name} must be a number from {lowest:g} on", found)
    return float(found)


def is_number(value: object) -> bool:
    """Whether this is a number of JSON that can be computed with: true, false, NaN and infinity are none."""
    return isinstance(value, (int, float)) and type(value) is not bool and abs(value) <= LARGEST


def array(
    arrays: Mapping[str, Array],
    name: str,
    shape: tuple[int | None, ...],
    kind: str = "f",
    *,
    lowest: float = -LARGEST,
    highest: float = LARGEST,
) -> Array:
    """The array of a name, if it has this kind (`i` or `f`) and shape (None: any length), and values in this range."""
    found: Array = of(arrays, name)
    fits = len(found.shape) == len(shape) and all(
        asked in (None, own) for asked, own in zip(shape, found.shape, strict=True)
    )
    check(fits, f"{name} must have the shape {str(shape).replace('None', 'n')}", found.shape)
    check(found.dtype.kind in {"i": "iu", "f": "f"}[kind], f"{name} must hold {KINDS[kind]}", str(found.dtype))
    if found.size:
        least, most = float(found.min()), float(found.max())
        inside = math.isfinite(least) and math.isfinite(most) and lowest <= least and most <= highest
        check(inside, f"{name} must be within {lowest:g} and {highest:g}", (least, most))
    return found
