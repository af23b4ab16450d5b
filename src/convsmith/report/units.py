"""How metrics are shown: their names in words with the unit, and columns of numbers with equally many decimals."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

WORDS = {"macs": "MACs", "lr": "learning rate", "seconds": "time"}
UNITS = {"_ms": "ms", "_bytes": "bytes", "seconds": "s"}
MOST_DECIMALS = 6


@dataclass(frozen=True)
class Unit:
    """How the numbers of one metric are shown: name, unit ("" for none), the factor to it, and decimals.

    Without `decimals` each number has three significant digits.
    """

    name: str
    unit: str
    factor: float
    decimals: int | None

    @property
    def label(self) -> str:
        """The heading of a column: `latency (ms)`."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def text(self, value: float | None) -> str:
        """A number of the column, without its unit; a dash for None and for what is not finite."""
        if value is None or not math.isfinite(value):
            return "–"
        value *= self.factor
        return f"{value:.3g}" if self.decimals is None else f"{value:,.{self.decimals}f}"

    def phrase(self, value: float) -> str:
        """A number outside of a column, with its unit and decimals of its own: `0.412 ms`."""
        own = self if self.unit == "%" else replace(self, decimals=_decimals([value]))
        return f"{own.text(value)} {self.unit}".strip()


def unit_of(metric: str, values: Iterable[float | None]) -> Unit:
    """How the values of a metric are shown: an accuracy whose values are all in [0, 1] in percent, the rest as it is.

    The unit is the end of the name: `latency_ms`, `memory_bytes`, `seconds`.
    """
    known = [value for value in values if value is not None and math.isfinite(value)]
    suffix = next((suffix for suffix in UNITS if metric.endswith(suffix)), "")
    name = WORDS.get(metric, metric.removesuffix(suffix if suffix.startswith("_") else "").replace("_", " "))
    if "accuracy" in metric and all(0 <= value <= 1 for value in known):
        return Unit(name, "%", 100.0, 2)
    return Unit(name, UNITS.get(suffix, ""), 1.0, _decimals(known))


def _decimals(values: list[float]) -> int | None:
    """Three significant digits of the largest and two of the smallest; None where that takes too many decimals."""
    if all(value == int(value) for value in values):
        return 0
    sizes = [abs(value) for value in values if value]
    decimals = max(0, 2 - math.floor(math.log10(max(sizes))), 1 - math.floor(math.log10(min(sizes))))
    return decimals if decimals <= MOST_DECIMALS else None


def shortened(count: float) -> str:
    """A large count for a headline: `3.50 M`."""
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= size:
            return f"{count / size:.3g} {prefix}"
    return f"{count:g}"
