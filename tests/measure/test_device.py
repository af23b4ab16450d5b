import os

import pytest
import torch

from convsmith.deploy import clock
from convsmith.measure import device, device_speed


def test_speeds_are_the_work_over_the_median_time_of_threads_held_on_their_cores(monkeypatch):
    seen = []

    def measure(runs, **_):
        for run in runs.values():
            run()
        seen.append((len(os.sched_getaffinity(0)), torch.get_num_threads()))
        return {"convolution": clock.Timing(2.0, 0.0, (2.0,), 1), "copy": clock.Timing(4.0, 0.0, (4.0,), 1)}

    monkeypatch.setattr(clock, "measure", measure)
    before = os.sched_getaffinity(0), torch.get_num_threads()
    found = device_speed(threads=1)
    assert seen == [(1, 1)]
    assert (os.sched_getaffinity(0), torch.get_num_threads()) == before
    assert found.cores == len(before[0])
    assert found.convolution_gmacs_per_s == pytest.approx(56 * 56 * 256 * 256 * 9 / 0.002 / 1e9)
    assert found.copy_gbytes_per_s == pytest.approx(2 * 64 * 2**20 / 0.004 / 1e9)


def test_the_processor_has_a_name():
    assert device.processor_name().strip()
