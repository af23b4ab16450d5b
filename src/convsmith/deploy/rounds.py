"""How calls are timed against each other: bursts, in rounds that take turns.

A sample is the mean of a burst of calls that lasts at least two milliseconds; a result is the median of one sample per
round. Where something else ran since, untimed calls precede the burst: the first call of a network behind others finds
cold caches and takes up to twice as long, and a processor's last cache keeps its data only when they are asked for
again and again: networks below five milliseconds come to their speed after four to eight calls.

Standard library only, in the Python of 3.9: `measure.remote` sends this file to other devices, so that they are timed
in the same way.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

Call = Callable[[], object]
Burst = Callable[[Call, int], float]

SHORTEST_SAMPLE_SECONDS = 2e-3
SETTLING_SECONDS, MOST_SETTLING = 25e-3, 10
FEWEST_ROUNDS = 3


@dataclass(frozen=True)
class Timing:
    """Milliseconds per call, one sample per round; `spread_ms` is the median absolute deviation from the median."""

    median_ms: float
    spread_ms: float
    samples_ms: tuple[float, ...]
    calls_per_round: int


def in_turns(
    candidates: Mapping[str, Call],
    burst: Burst,
    *,
    rounds: int,
    warmup: int,
    budget_seconds: float | None = None,
    watch: Call | None = None,
) -> dict[str, Timing]:
    """Time calls against each other, in interleaved rounds.

    Rounds alternate their direction, and each pair of them begins one candidate later: over twice as many rounds as
    there are candidates, each has had each place, and has come after itself, equally often, so that no place can favour
    one of them.

    Args:
        candidates: What to call, by name; at least one.
        burst: Makes a number of calls of one candidate and returns the seconds that they took.
        rounds: Samples of each candidate.
        warmup: Untimed calls of each candidate before the first round.
        budget_seconds: No round starts later than this after the beginning; three rounds are always made.
        watch: Called, untimed, before each round and after the last.
    """
    names = list(candidates)
    samples: dict[str, list[float]] = {name: [] for name in names}
    start = time.perf_counter()
    with no_garbage_collection():
        calls, settling = {}, {}
        for name, call in candidates.items():
            calls[name], settling[name] = _counts(call, burst, warmup)
        for done in range(rounds):
            if budget_seconds and done >= FEWEST_ROUNDS and time.perf_counter() - start > budget_seconds:
                break
            if watch is not None:
                watch()
            for name in _order(names, done):
                if len(names) > 1 or watch is not None:
                    for _ in range(settling[name]):
                        candidates[name]()
                samples[name].append(1e3 * burst(candidates[name], calls[name]) / calls[name])
        if watch is not None:
            watch()
    return {name: timing(samples[name], calls[name]) for name in names}


def settling_calls(seconds: float) -> int:
    """How many calls of so many seconds it takes until one that comes behind others is at its speed."""
    return min(MOST_SETTLING, max(1, math.ceil(SETTLING_SECONDS / max(seconds, 1e-9))))


def timing(samples_ms: list[float], calls_per_round: int) -> Timing:
    """The median and spread of samples."""
    middle = median(samples_ms)
    return Timing(middle, median(abs(sample - middle) for sample in samples_ms), tuple(samples_ms), calls_per_round)


def burst(call: Call, calls: int) -> float:
    """Seconds that the calls take by this process's clock."""
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return time.perf_counter() - start


def _order(names: Sequence[str], done: int) -> list[str]:
    first = done // 2 % len(names)
    turned = [*names[first:], *names[:first]]
    return turned if done % 2 == 0 else turned[::-1]


def _counts(call: Call, burst: Burst, warmup: int) -> tuple[int, int]:
    """How many calls make a sample, and how many untimed ones precede them where something else ran since."""
    for _ in range(warmup):
        call()
    calls = 1
    while (seconds := burst(call, calls)) < SHORTEST_SAMPLE_SECONDS:
        # At most tenfold a step: the time of a few calls of a microsecond says little.
        calls = min(10 * calls, math.ceil(1.2 * calls * SHORTEST_SAMPLE_SECONDS / max(seconds, 1e-9)))
    return calls, settling_calls(seconds / calls)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Inside, no garbage is collected: a collection can take longer than what is watched or timed."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
