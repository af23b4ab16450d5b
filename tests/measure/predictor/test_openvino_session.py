"""What each kernel takes, from OpenVINO's means over all passes, which it cuts off to whole microseconds."""

from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pytest

from convsmith.measure.predictor.openvino import session
from convsmith.measure.predictor.openvino.profile import CUT_OFF_US, Node
from convsmith.measure.predictor.speed import PROFILED, SETTLING
from tests.hand_clock import HandClock

PROFILES, DISTURBED = 5, 2
SETTLED_US = np.arange(3, 43)
WAITING_US = SETTLED_US + SETTLED_US % 7  # of a pass behind other networks'


class Request:
    """A model of many kernels, in which each pass takes what a clock says, and two profiles are disturbed."""

    def __init__(self, monkeypatch):
        passes = 2 * ["waits"]
        for profile in range(PROFILES):
            passes += [*SETTLING * ["waits"], *PROFILED * ["disturbed" if profile < DISTURBED else "settled"]]
        self._us = {"waits": WAITING_US, "settled": SETTLED_US, "disturbed": 2 * SETTLED_US}
        self._clock = HandClock(monkeypatch).takes(*(1e-6 * self._us[kind].sum() for kind in passes))
        self._left, self._done, self._total = iter(passes), 0, np.zeros(len(SETTLED_US), int)

    def create_infer_request(self):
        return self

    def set_input_tensor(self, example):
        pass

    def infer(self):
        self._clock()
        self._done += 1
        self._total += self._us[next(self._left)]

    @property
    def profiling_info(self):
        return [
            SimpleNamespace(node_name=str(place), real_time=timedelta(microseconds=int(total // self._done)))
            for place, total in enumerate(self._total)
        ]


def test_neither_passes_that_settle_nor_disturbed_ones_count(monkeypatch):
    kernels = {str(place): Node("Eltwise", "", (), (), ()) for place in range(len(SETTLED_US))}
    monkeypatch.setattr(session, "nodes", lambda compiled: kernels)
    profiler = session._Profiler(Request(monkeypatch), None)
    ms = [profiler.profile_ms() for _ in range(PROFILES)]
    assert ms == pytest.approx([2e-3 * SETTLED_US.sum()] * DISTURBED + [1e-3 * SETTLED_US.sum()] * 3)
    found = np.array([kernel.time_us for kernel in profiler.kernels([2, 3, 4])])
    wrong = found - CUT_OFF_US / 2 - SETTLED_US  # half of what is added stands for another cut, in each pass
    assert abs(wrong.mean()) < 0.5
    assert wrong.std() < 0.6
