import gc
import statistics
import time
from collections import Counter

import pytest
import torch

from convsmith.deploy import clock
from convsmith.deploy.rounds import settling_calls
from tests.hand_clock import HandClock


def test_each_call_has_its_own_time(monkeypatch):
    hand = HandClock(monkeypatch)
    timings = clock.measure({"slow": hand.takes(0.005), "quick": hand.takes(1e-5)}, rounds=3)
    assert {name: timing.samples_ms for name, timing in timings.items()} == {
        "slow": pytest.approx((5.0,) * 3),
        "quick": pytest.approx((0.01,) * 3),
    }


def test_this_machines_clock_is_read():
    assert clock.measure({"slow": lambda: time.sleep(0.005)}, rounds=3)["slow"].median_ms >= 5


def test_rounds_take_turns_and_change_places(monkeypatch):
    called, takes = [], HandClock(monkeypatch).takes(0.02)
    calls = {name: lambda name=name: (called.append(name), takes()) for name in "abc"}
    timings = clock.measure(calls, rounds=4, warmup=2)
    assert [timings[name].calls_per_round for name in "abc"] == [1, 1, 1]
    # Two untimed calls and one that finds how many make a sample; then in each round two untimed and a timed call.
    assert "".join(called) == "aaabbbccc" + "aaabbbccc" + "cccbbbaaa" + "bbbcccaaa" + "aaacccbbb"


@pytest.mark.parametrize(("seconds", "calls"), [(0.03, 1), (0.012, 3), (0.005, 5), (0.0025, 10), (1e-6, 10)])
def test_calls_behind_others_settle_for_25_milliseconds_and_at_most_ten_calls(seconds, calls):
    assert settling_calls(seconds) == calls


@pytest.mark.parametrize("number", [2, 3, 4, 5])
def test_each_has_each_place_and_comes_after_itself_equally_often(monkeypatch, number):
    names, called, takes = "abcde"[:number], [], HandClock(monkeypatch).takes(0.03)
    calls = {name: lambda name=name: (called.append(name), takes()) for name in names}
    clock.measure(calls, rounds=2 * number, warmup=1)
    taken = called[2 * number :: 2]  # each call that was timed had one before it that was not
    places = Counter((index % number, name) for index, name in enumerate(taken))
    assert set(places.values()) == {2}
    assert len(places) == number**2
    after_itself = Counter(name for before, name in zip(taken, taken[1:] + taken[:1], strict=True) if before == name)
    assert set(after_itself.values()) == {1}
    assert len(after_itself) == number


@pytest.mark.parametrize(("seconds", "bursts"), [(3e-3, [1]), (1.5e-3, [1, 2]), (1e-6, [1, 10, 100, 1000, 2400])])
def test_short_calls_are_timed_in_bursts_of_two_milliseconds(monkeypatch, seconds, bursts):
    hand, count = HandClock(monkeypatch), 0
    takes = hand.takes(seconds)

    def call():
        nonlocal count
        count += 1
        takes()

    timing = clock.measure({"one": call}, rounds=5, warmup=2)["one"]
    assert timing.calls_per_round == bursts[-1]
    assert count == 2 + sum(bursts) + 5 * bursts[-1]
    assert timing.samples_ms == pytest.approx((1e3 * seconds,) * 5)


def test_median_and_spread_are_those_of_the_samples():
    timing = clock.measure({"one": lambda: sum(range(1000))}, rounds=7)["one"]
    assert timing.median_ms == statistics.median(timing.samples_ms)
    deviations = [abs(sample - timing.median_ms) for sample in timing.samples_ms]
    assert timing.spread_ms == statistics.median(deviations)


def test_budget_ends_after_at_least_three_rounds():
    timing = clock.measure({"one": lambda: time.sleep(0.003)}, rounds=1000, budget_seconds=1e-6)["one"]
    assert len(timing.samples_ms) == 3


def test_garbage_is_not_collected_while_timing_and_is_again_afterwards():
    states = []
    assert gc.isenabled()
    clock.measure({"one": lambda: (states.append(gc.isenabled()), time.sleep(0.002))}, rounds=2)
    assert not any(states)
    assert gc.isenabled()


def test_garbage_collection_returns_after_a_failing_call():
    with pytest.raises(ZeroDivisionError):
        clock.measure({"one": lambda: 1 / 0})
    assert gc.isenabled()


def test_threads_are_set_and_restored():
    before = torch.get_num_threads()
    with clock.threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with clock.threads(None):
        assert torch.get_num_threads() == before


def test_threads_are_restored_after_an_exception():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), clock.threads(before + 1):
        raise KeyError
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("count", [0, -1, True, 1.0])
def test_threads_are_a_positive_integer(count):
    with pytest.raises(ValueError, match="threads must be a positive integer, got"), clock.threads(count):
        pass


@pytest.mark.parametrize("cores", [1, 2])
def test_many_times_more_threads_than_cores_are_refused(monkeypatch, cores):
    monkeypatch.setattr(clock.os, "sched_getaffinity", lambda process: set(range(cores)))
    clock.check_threads(None)
    clock.check_threads(4 * cores)
    with pytest.raises(ValueError, match=rf"at most {4 * cores}, 4 for each core .*, got 99999999; give {cores}$"):
        clock.check_threads(99999999)
    clock.check_threads(cores, most_per_core=1)
    with pytest.raises(ValueError, match=rf"at most {cores}, 1 for each core .*, got {cores + 1}; give {cores}$"):
        clock.check_threads(cores + 1, most_per_core=1)


@pytest.mark.parametrize(
    ("candidates", "options", "message"),
    [
        ({}, {}, "at least one candidate"),
        ({"a": int}, {"rounds": 0}, "rounds must be"),
        ({"a": int}, {"warmup": 0}, "warmup must be"),
        ({"a": int}, {"budget_seconds": float("nan")}, "budget_seconds must be"),
        ({"a": int}, {"device": "meta"}, "must be the CPU or a CUDA device"),
        ({"a": int}, {"device": "cuda:99"}, "must be the CPU or a CUDA device"),
        ({"a": int}, {"device": "gpu"}, "unknown device"),
    ],
)
def test_wrong_arguments_are_refused(candidates, options, message):
    with pytest.raises(ValueError, match=message):
        clock.measure(candidates, **options)


@pytest.mark.gpu
def test_cuda_work_is_timed_to_its_end():
    large, small = (torch.randn(side, side, device="cuda") for side in (8192, 8))
    timings = clock.measure({"large": lambda: large @ large, "small": lambda: small @ small}, device="cuda")
    assert timings["large"].median_ms > 5 * timings["small"].median_ms
