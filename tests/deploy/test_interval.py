import itertools
import math
import random
import statistics

import pytest

from convsmith.deploy import clock, rounds
from convsmith.deploy.interval import Interval, coverage, median_interval, ratio_interval


@pytest.mark.parametrize("samples", [1, 2, 5, 8, 11])
def test_coverage_is_that_of_all_ways_to_fall_below_or_above_the_median(samples):
    # Each sample is below the true median or above it, all ways equally likely.
    ways = list(itertools.product((-1, 1), repeat=samples))
    for rank in range(1, samples // 2 + 1):
        enclosed = [sorted(way)[rank - 1] < 0 < sorted(way)[-rank] for way in ways]
        assert coverage(samples, rank) == pytest.approx(sum(enclosed) / len(ways))


@pytest.mark.parametrize(
    ("samples", "rank", "level"),  # the 95 % ranks of the sign test, as printed in tables of it
    [(6, 1, 0.9688), (9, 2, 0.9609), (10, 2, 0.9785), (15, 4, 0.9648), (20, 6, 0.9586), (25, 8, 0.9567)],
)
def test_the_narrowest_interval_that_reaches_the_confidence_is_taken(samples, rank, level):
    values = [float(i) for i in range(1, samples + 1)]
    random.shuffle(values)
    found = median_interval(values)
    assert (found.low, found.high) == (rank, samples + 1 - rank)
    assert found.median == statistics.median(values)
    assert found.coverage == pytest.approx(level, abs=5e-5)


def test_few_samples_give_their_whole_range_and_say_what_it_is_worth():
    assert median_interval([3.0, 1.0, 2.0]) == Interval(2.0, 1.0, 3.0, 0.75)
    assert median_interval([4.0]) == Interval(4.0, 4.0, 4.0, 0.0)


@pytest.mark.parametrize("samples", [5, 8, 20])
def test_what_the_clock_measures_covers_the_true_median_as_often_as_stated(monkeypatch, samples):
    now = 0.0
    rng = random.Random(samples)

    def call():  # lognormal, with outliers as another process makes them; the median is known
        nonlocal now
        uniform = rng.random()
        slow = 7.0 if uniform > 0.9 else 1.0  # only what lies above the median anyway
        now += 0.005 * math.exp(0.2 * statistics.NormalDist().inv_cdf(min(max(uniform, 1e-9), 1 - 1e-9))) * slow

    monkeypatch.setattr(rounds.time, "perf_counter", lambda: now)
    repeats, inside = 2000, 0
    for _ in range(repeats):
        found = median_interval(clock.measure({"one": call}, rounds=samples, warmup=1)["one"].samples_ms)
        inside += found.low <= 5.0 <= found.high
    expected = found.coverage
    assert abs(inside / repeats - expected) < 4 * math.sqrt(expected * (1 - expected) / repeats)


def test_ratios_pair_the_samples_of_a_round(monkeypatch):
    # Each round of this machine is slower by up to three times; inside a round `b` takes 1.5 times as long as `a`.
    now, pace = 0.0, 1.0
    rng = random.Random(0)

    def watch():
        nonlocal pace
        pace = rng.uniform(1.0, 3.0)

    def takes(seconds):
        def call():
            nonlocal now
            now += seconds * pace

        return call

    monkeypatch.setattr(rounds.time, "perf_counter", lambda: now)
    timings = clock.measure({"a": takes(0.004), "b": takes(0.006)}, rounds=12, watch=watch)
    assert timings["a"].spread_ms > 0.1 * timings["a"].median_ms
    found = ratio_interval(timings["b"].samples_ms, timings["a"].samples_ms)
    assert (found.median, found.low, found.high) == pytest.approx((1.5, 1.5, 1.5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: median_interval([]), "at least one sample"),
        (lambda: median_interval([1.0], confidence=1.0), "confidence must be between 0 and 1, got 1.0"),
        (lambda: ratio_interval([1.0], [1.0, 2.0]), "samples in pairs, got 1 and 2"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
