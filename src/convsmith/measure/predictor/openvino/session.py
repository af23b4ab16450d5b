"""A model in OpenVINO: each kernel's time in its place, and the time of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, cached_property
from itertools import chain
from statistics import fmean, median
from typing import Any

import numpy as np

from convsmith.deploy.backends.openvino import compile_model, read_model, settings
from convsmith.deploy.rounds import burst
from convsmith.deploy.telemetry import unreported
from convsmith.measure.predictor.graph import Graph, Shape
from convsmith.measure.predictor.openvino.profile import CUT_OFF_US, LEAST_US, Node, nodes, times_of
from convsmith.measure.predictor.speed import Bursts, Passes, undisturbed
from convsmith.measure.predictor.trees import Array

STOPPED = 1.5  # what takes so much longer than others is left out


class Session:
    """A model as it is deployed, and another one that counts what each kernel takes; made when they are asked for."""

    def __init__(self, model: bytes, input_shape: Shape, threads: int):
        self._model = read_model(_core(), model)
        self._model.reshape(list(input_shape))
        self._settings = settings(threads, "float32")
        example = np.random.default_rng(0).standard_normal(input_shape, dtype=np.float32)
        self._example = unreported("openvino").Tensor(example)

    def _compiled(self, *, counts: bool) -> Any:
        return compile_model(_core(), self._model, {**self._settings, "PERF_COUNT": counts}, "float32")

    def profile_ms(self) -> float:
        """Profile some passes more: milliseconds of an undisturbed one."""
        return self._profiler.profile_ms()

    def times_us(self, ran: Graph, profiles: Sequence[int]) -> list[float]:
        """Microseconds of each operator of an executed graph, of these profiles; ValueError where OpenVINO ran others.

        No profile follows: the model that counts is let go.
        """
        found = times_of(ran, self.kernels(profiles))
        del self._profiler
        return found

    def kernels(self, profiles: Sequence[int]) -> list[Node]:
        """The kernels that OpenVINO ran, with the means of their times over these profiles."""
        return self._profiler.kernels(profiles)

    @cached_property
    def _profiler(self) -> _Profiler:
        return _Profiler(self._compiled(counts=True), self._example)

    @cached_property
    def _bursts(self) -> Bursts:
        request = self._compiled(counts=False).create_infer_request()
        request.set_input_tensor(self._example)
        request.infer()
        return Bursts(request.infer, burst(request.infer, 1))

    def burst_ms(self) -> float:
        """Milliseconds of a pass, by a burst."""
        return self._bursts.ms()


class _Profiler:
    """A model that counts, and what it counted: of each kernel the mean over all passes since it was compiled.

    The mean is cut off to whole microseconds, so that what a few of many passes took cannot be told from two means. It
    is found from all of them by least squares: of a pass that counts a kernel takes one share, and of one that settles
    another. Passes that something stopped for milliseconds, in the midst of one kernel, are left out.
    """

    def __init__(self, compiled: Any, example: Any):
        self._nodes = nodes(compiled)
        self._request = compiled.create_infer_request()
        self._request.set_input_tensor(example)
        self._passes = Passes(self._request.infer)
        self._settling: list[list[float]] = []  # seconds of each pass before each profile
        self._profiles: list[list[float]] = []  # and of those of the profile
        self._totals_us = [self._total_us()]  # of each kernel in all passes so far, at the end of each of these

    def profile_ms(self) -> float:
        self._settling.append(self._passes.settle())
        self._totals_us.append(self._total_us())
        self._profiles.append(self._passes.profiled())
        self._totals_us.append(self._total_us())
        return 1e3 * undisturbed(self._profiles[-1])

    def kernels(self, profiles: Sequence[int]) -> list[Node]:
        longest = [STOPPED * median(map(fmean, own)) for own in (self._settling, self._profiles)]
        means, seconds = [], []
        passes, total, since = 0, np.zeros(len(self._nodes)), np.zeros(2)  # seconds of passes that settled, and counted
        for place, own in enumerate(chain.from_iterable(zip(self._settling, self._profiles, strict=True))):
            if fmean(own) > longest[place % 2]:
                continue
            passes += len(own)
            since[place % 2] += sum(own)
            total += self._totals_us[place + 1] - self._totals_us[place]
            means.append(total / passes)
            seconds.append(since / passes)
        (_, shares), *_ = np.linalg.lstsq(np.array(seconds), np.array(means), rcond=None)
        times = np.maximum(shares * undisturbed([own for place in profiles for own in self._profiles[place]]), LEAST_US)
        return [replace(node, time_us=float(us)) for node, us in zip(self._nodes.values(), times, strict=True)]

    def _total_us(self) -> Array:
        """Microseconds of each kernel in all passes so far, to about so many as there were passes."""
        means = {each.node_name: 1e6 * each.real_time.total_seconds() for each in self._request.profiling_info}
        own = np.array([means[name] for name in self._nodes])
        return self._passes.done * np.where(own > 0, own + CUT_OFF_US, 0)


def kernel_names(model: bytes) -> list[str]:
    """OpenVINO's full names of the kernels that it chooses for a model."""
    compiled = compile_model(_core(), read_model(_core(), model), settings(1, "float32"), "float32")
    infos = (op.get_rt_info() for op in compiled.get_runtime_model().get_ordered_ops())
    return [str(getattr(info["primitiveType"], "value", info["primitiveType"])) for info in infos]


@cache
def _core() -> Any:
    return unreported("openvino").Core()
