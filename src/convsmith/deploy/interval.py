"""What is known of a median from few samples: an interval that assumes no distribution.

Of n independent samples of a continuous distribution, the number below its median is binomial with p = 1/2; hence the
k-th smallest and the k-th largest enclose the median with probability 1 - 2 P(Binomial(n, 1/2) < k), whatever the
distribution (W. J. Conover, Practical Nonparametric Statistics, 3rd ed. 1999, Sec. 3.2; G. J. Hahn and W. Q. Meeker,
Statistical Intervals, 1991, Sec. 5.2). What drifts more slowly than a run lasts is in no interval of that run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A median, and the samples that enclose the true one with the probability `coverage`."""

    median: float
    low: float
    high: float
    coverage: float


def median_interval(samples: Sequence[float], *, confidence: float = CONFIDENCE) -> Interval:
    """The narrowest interval of two order statistics, equally far from the ends, that reaches the confidence.

    With five samples or fewer none reaches 0.95: then it is from the smallest to the largest, and `coverage` says what
    that is worth (0.75 for three).

    Raises ValueError without a sample, and for a confidence outside 0 to 1.
    """
    if not samples:
        raise ValueError("an interval needs at least one sample, got none")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    ordered = sorted(samples)
    rank = _rank(len(ordered), confidence)
    return Interval(median(ordered), ordered[rank - 1], ordered[-rank], coverage(len(ordered), rank))


def ratio_interval(samples: Sequence[float], reference: Sequence[float], *, confidence: float = CONFIDENCE) -> Interval:
    """The interval of the median ratio of samples that belong together in pairs, one pair a round.

    What slows a whole round cancels in its ratio. Raises ValueError for series of different length.
    """
    if len(samples) != len(reference):
        raise ValueError(
            f"ratios are of samples in pairs, got {len(samples)} and {len(reference)}; measure both in the same rounds"
        )
    ratios = [sample / base for sample, base in zip(samples, reference, strict=True)]
    return median_interval(ratios, confidence=confidence)


def coverage(samples: int, rank: int) -> float:
    """The probability that the `rank`-th smallest and largest of so many samples enclose the median."""
    return 1 - 2 * sum(math.comb(samples, below) for below in range(rank)) / float(2**samples)


def _rank(samples: int, confidence: float) -> int:
    inner = [rank for rank in range(1, samples // 2 + 1) if coverage(samples, rank) >= confidence]
    return max(inner, default=1)
