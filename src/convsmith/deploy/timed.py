"""A measured time with all that says how far it can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from convsmith.deploy.conditions import Conditions
from convsmith.deploy.interval import CONFIDENCE, median_interval, ratio_interval
from convsmith.deploy.rounds import Timing

NOISY_SPREAD = 0.05  # of the median
WIDEST_INTERVAL = 0.10  # of the median
LARGEST_SHARES = {  # of the cores' time; for the last, of the time in which the threads were ready
    "others_share": (0.10, "other processes took {share} of the time of the cores that computed"),
    "stolen_share": (0.02, "other guests of this machine's host took {share} of the cores' time"),
    "waited_share": (0.05, "its threads waited for a core during {share} of the time in which they could compute"),
}
LARGEST_FREQUENCY_CHANGE = 0.05


@dataclass(frozen=True)
class Ratio:
    """The time beside that of the first network, `to`: the median of the rounds' ratios, and its interval."""

    to: str
    median: float
    low: float
    high: float
    coverage: float


@dataclass(frozen=True)
class Timed:
    """Milliseconds of one forward pass over a whole batch, in eval mode and without gradients.

    `median_ms` is over `rounds` samples, each the mean of `calls_per_round` passes; `spread_ms` is their median
    absolute deviation from it; the true median lies between `low_ms` and `high_ms` with the probability `coverage`,
    whatever the distribution of the samples. `noisy` says that the spread exceeds a twentieth of the median;
    `warnings` are all reasons not to trust the figure, that one included. `ratio` is to the first of the networks that
    were measured in turns, None for the first itself.
    """

    median_ms: float
    spread_ms: float
    low_ms: float
    high_ms: float
    coverage: float
    noisy: bool
    warnings: tuple[str, ...]
    rounds: int
    calls_per_round: int
    threads: int
    ratio: Ratio | None
    conditions: Conditions


def timed(timings: Mapping[str, Timing], conditions: Conditions, *, threads: int) -> dict[str, Timed]:
    """Each of several timings that were taken in turns, with its interval, its ratio to the first and its warnings."""
    first = next(iter(timings))
    return {
        name: _timed(
            timing,
            conditions,
            threads=threads,
            ratio=None if name == first else _ratio(timing, timings[first], first),
        )
        for name, timing in timings.items()
    }


def _timed(timing: Timing, conditions: Conditions, *, threads: int, ratio: Ratio | None) -> Timed:
    interval = median_interval(timing.samples_ms)
    noisy = timing.spread_ms > NOISY_SPREAD * timing.median_ms
    warnings = []
    if noisy:
        warnings.append(
            f"the spread is {timing.spread_ms / timing.median_ms:.0%} of the median; measure again on a quieter machine"
        )
    if interval.high - interval.low > WIDEST_INTERVAL * interval.median:
        warnings.append(
            f"the interval is {(interval.high - interval.low) / interval.median:.0%} of the median wide; "
            "more rounds narrow it"
        )
    if interval.coverage < CONFIDENCE - 0.05:
        several = len(timing.samples_ms) > 1
        warnings.append(
            f"{len(timing.samples_ms)} rounds give an interval of {interval.coverage:.0%} only; ask for more"
            if several
            else "one round gives no interval; ask for more"
        )
    return Timed(
        median_ms=timing.median_ms,
        spread_ms=timing.spread_ms,
        low_ms=interval.low,
        high_ms=interval.high,
        coverage=interval.coverage,
        noisy=noisy,
        warnings=(*warnings, *doubts(conditions, threads=threads)),
        rounds=len(timing.samples_ms),
        calls_per_round=timing.calls_per_round,
        threads=threads,
        ratio=ratio,
        conditions=conditions,
    )


def doubts(conditions: Conditions, *, threads: int) -> list[str]:
    """Why the machine's state makes a measurement doubtful, one clause each."""
    found = []
    if conditions.pinned and threads > len(conditions.cores):
        found.append(f"{threads} threads computed on {len(conditions.cores)} cores; ask for no more than there are")
    for name, (limit, words) in LARGEST_SHARES.items():
        share = getattr(conditions, name)
        if share is not None and share > limit:
            found.append(words.format(share=f"{share:.0%}") + "; measure again when it is idle")
    slowest, fastest = conditions.slowest_mhz, conditions.fastest_mhz
    if slowest and fastest and fastest - slowest > LARGEST_FREQUENCY_CHANGE * fastest:
        found.append(f"the frequency of the cores changed between {slowest:.0f} and {fastest:.0f} MHz; fix it")
    return found


def _ratio(timing: Timing, reference: Timing, name: str) -> Ratio:
    interval = ratio_interval(timing.samples_ms, reference.samples_ms)
    return Ratio(name, interval.median, interval.low, interval.high, interval.coverage)
