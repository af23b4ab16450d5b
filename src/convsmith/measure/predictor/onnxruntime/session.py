"""A model in ONNX Runtime: each kernel's time in its place, and the time of the whole."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from convsmith.deploy.rounds import Call, burst
from convsmith.measure.predictor.graph import Graph, Shape
from convsmith.measure.predictor.onnxruntime.profile import KernelTime, times_of
from convsmith.measure.predictor.speed import Bursts, Passes, undisturbed

FASTEST = 2 / 3  # of the passes: the others were disturbed
DURATION = re.compile(r'"dur" *: *(\d+)')  # microseconds


class Session:
    """A model as it is deployed, and another one that is profiled; made when they are asked for."""

    def __init__(self, model: bytes, input_shape: Shape, threads: int):
        self._model, self._threads = model, threads
        self._example = np.random.default_rng(0).standard_normal(input_shape, dtype=np.float32)

    def profile_ms(self) -> float:
        """Profile some passes more: milliseconds of an undisturbed one."""
        return self._profiler.profile_ms()

    def times_us(self, ran: Graph, profiles: Sequence[int]) -> list[float]:
        """Microseconds of each operator of an executed graph, of these profiles; ValueError where it ran others.

        No profile follows: the session that is profiled is let go.
        """
        return times_of(ran, self.kernels(profiles))

    def kernels(self, profiles: Sequence[int]) -> list[KernelTime]:
        """The kernels of a pass, in order, with the means of their fastest times in these profiles."""
        found = self._profiler.kernels(profiles)
        del self._profiler
        return found

    @cached_property
    def _profiler(self) -> _Profiler:
        return _Profiler(self._model, self._threads, self._example)

    @cached_property
    def _bursts(self) -> Bursts:
        run = _runs(_session(self._model, self._threads), self._example)
        run()
        return Bursts(run, burst(run, 1))

    def burst_ms(self) -> float:
        """Milliseconds of a pass, by a burst."""
        return self._bursts.ms()


class _Profiler:
    """A session that writes down each kernel of each pass, and which passes are a profile's."""

    def __init__(self, model: bytes, threads: int, example: Any):
        self._folder = tempfile.TemporaryDirectory()
        self._session = _session(model, threads, profile=os.path.join(self._folder.name, "profile"))
        self._passes = Passes(_runs(self._session, example))
        self._profiles: list[range] = []

    def profile_ms(self) -> float:
        self._passes.settle()
        first = self._passes.done
        seconds = self._passes.profiled()
        self._profiles.append(range(first, self._passes.done))
        return 1e3 * undisturbed(seconds)

    def kernels(self, profiles: Sequence[int]) -> list[KernelTime]:
        with self._folder:
            events = Path(self._session.end_profiling()).read_text().splitlines()
        chosen = [place for profile in profiles for place in self._profiles[profile]]
        return _kernels([line for line in events if '_kernel_time"' in line], self._passes.done, chosen)


def _session(model: bytes, threads: int, *, profile: str | None = None) -> Any:
    """A session on one stream; `profile` begins the name of the file that it writes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, profile
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _runs(session: Any, example: Any) -> Call:
    feed = {session.get_inputs()[0].name: example}
    return lambda: session.run(None, feed)


def _kernels(events: Sequence[str], passes: int, chosen: Sequence[int]) -> list[KernelTime]:
    """The kernels of one pass, in order, with the mean of their fastest times in the chosen passes.

    Each event is a line: to parse all of each takes as long as most passes do.
    """
    each = len(events) // passes
    kept = max(1, round(FASTEST * len(chosen)))
    found = []
    for place in range(each):
        times = sorted(float(DURATION.findall(events[number * each + place])[0]) for number in chosen)
        details = json.loads(events[place].rstrip(","))["args"]
        shapes = [_shapes(details[key]) for key in ("input_type_shape", "output_type_shape")]
        found.append(KernelTime(details["op_name"], shapes[0], shapes[1], sum(times[:kept]) / kept))
    return found


def _shapes(listed: list[dict[str, list[int]]]) -> tuple[Shape, ...]:
    return tuple(tuple(size) for entry in listed for size in entry.values())
