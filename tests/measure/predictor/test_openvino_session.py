"""What each kernel takes, from OpenVINO's means over all passes, which it cuts off to whole microseconds."""

from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pytest

from convsmith.measure.predictor.openvino import session
from convsmith.measure.predictor.openvino.profile import CUT_OFF_US, Node
from convsmith.measure.predictor.speed import PROFILED, SETTLING
from tests.hand_clock import HandClock

PROFILES, DISTURBED, STOPPED = 5, 2, 3  # the first ones, and one of the others
SETTLED_US = np.arange(3, 43)
WAITING_US = SETTLED_US + SETTLED_US % 7  # of a pass behind other networks'


class Request:
    """A model of many kernels: the first profiles are disturbed, and of a later one a kernel of one pass is stopped."""

    def __init__(self, monkeypatch):
        passes = 2 * ["waits"]
        for profile in range(PROFILES):
            passes += [*SETTLING * ["waits"], *PROFILED * ["disturbed" if profile < DISTURBED else "settled"]]
            passes[-1] = "stopped" if profile == STOPPED else passes[-1]
        self._us = {"waits": WAITING_US, "settled": SETTLED_US, "disturbed": SETTLED_US + SETTLED_US // 4}
        self._us["stopped"] = SETTLED_US + 5000 * (np.arange(len(SETTLED_US)) == 7)
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


def test_passes_that_settle_are_disturbed_or_stopped_do_not_count(monkeypatch):
    kernels = {str(place): Node("Eltwise", "", (), (), ()) for place in range(len(SETTLED_US))}
    monkeypatch.setattr(session, "nodes", lambda compiled: kernels)
    profiler = session._Profiler(Request(monkeypatch), None)
    ms = [profiler.profile_ms() for _ in range(PROFILES)]
    settled, disturbed = (1e-3 * own.sum() for own in (SETTLED_US, SETTLED_US + SETTLED_US // 4))
    assert ms == pytest.approx([disturbed] * DISTURBED + [settled] * 3)
    found = np.array([kernel.time_us for kernel in profiler.kernels([2, 3, 4])])
    wrong = found - CUT_OFF_US / 2 - SETTLED_US  # half of what is added stands for another cut, in each pass
    assert abs(wrong.mean()) < 0.5
    assert wrong.std() < 0.6
