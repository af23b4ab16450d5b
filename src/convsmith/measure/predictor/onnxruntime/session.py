"""A model in ONNX Runtime: each kernel's time in its place, and the time of the whole."""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from convsmith.deploy.rounds import burst
from convsmith.measure.predictor.graph import Graph, Shape
from convsmith.measure.predictor.onnxruntime.profile import KernelTime, times_of
from convsmith.measure.predictor.speed import Bursts

PROFILED_RUNS, LEAST_PROFILED_RUNS, PROFILED_SECONDS = 14, 5, 0.4
FASTEST = 2 / 3  # of the runs: the others were disturbed
DURATION = re.compile(r'"dur" *: *(\d+)')  # microseconds


class Session:
    """A model, profiled first and then run without the profiler."""

    def __init__(self, model: bytes, input_shape: Shape, threads: int):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        options.enable_profiling = True
        with tempfile.TemporaryDirectory() as folder:
            options.profile_file_prefix = os.path.join(folder, "profile")
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            rng = np.random.default_rng(0)
            self._feed = {self._session.get_inputs()[0].name: rng.standard_normal(input_shape, dtype=np.float32)}
            self.run()
            seconds = burst(self.run, 1)
            runs = max(LEAST_PROFILED_RUNS, min(PROFILED_RUNS, int(PROFILED_SECONDS / seconds)))
            for _ in range(runs):
                self.run()
            self.kernels = _kernels(Path(self._session.end_profiling()), runs)
        self._bursts = Bursts(self.run, seconds)

    def times_us(self, ran: Graph) -> list[float]:
        """Microseconds of each operator of an executed graph; ValueError where the runtime ran others."""
        return times_of(ran, self.kernels)

    def run(self) -> Any:
        """One forward pass."""
        return self._session.run(None, self._feed)

    def burst_ms(self) -> float:
        """Milliseconds of a pass, by a burst."""
        return self._bursts.ms()


def _kernels(profile: Path, runs: int) -> list[KernelTime]:
    """The kernels of one pass, in order, with the mean of their fastest times over the last runs.

    Each event is a line: to parse all of each takes as long as most passes do.
    """
    events = [line for line in profile.read_text().splitlines() if '_kernel_time"' in line]
    per_run = len(events) // (runs + 2)  # two passes warm up
    events = events[-per_run * runs :]
    kept = max(1, round(FASTEST * runs))
    found = []
    for place in range(per_run):
        fastest = sorted(float(DURATION.findall(event)[0]) for event in events[place::per_run])[:kept]
        details = json.loads(events[place].rstrip(","))["args"]
        shapes = [_shapes(details[key]) for key in ("input_type_shape", "output_type_shape")]
        found.append(KernelTime(details["op_name"], shapes[0], shapes[1], sum(fastest) / kept))
    return found


def _shapes(listed: list[dict[str, list[int]]]) -> tuple[Shape, ...]:
    return tuple(tuple(size) for entry in listed for size in entry.values())
