"""A model in OpenVINO: each kernel's time in its place, and the time of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, cached_property
from typing import Any

import numpy as np

from convsmith.deploy.backends.openvino import compile_model, read_model, settings
from convsmith.deploy.rounds import burst
from convsmith.deploy.telemetry import unreported
from convsmith.measure.predictor.graph import Graph, Shape
from convsmith.measure.predictor.openvino.profile import CUT_OFF_US, LEAST_US, Node, nodes, times_of
from convsmith.measure.predictor.speed import Bursts, Passes, undisturbed
from convsmith.measure.predictor.trees import Array


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

    The mean is cut off to whole microseconds, so that what the last few of many passes took cannot be told from two
    means. It is found from all of them by least squares: of a pass that counts a kernel takes one share, and of one
    that settles another.
    """

    def __init__(self, compiled: Any, example: Any):
        self._nodes = nodes(compiled)
        self._request = compiled.create_infer_request()
        self._request.set_input_tensor(example)
        self._passes = Passes(self._request.infer)
        self._profiles: list[list[float]] = []  # seconds of each pass
        self._first, self._first_us = self._passes.done, self._passes.done * self._means_us()
        self._since = np.zeros(2)  # seconds of the passes that settled and that counted, but for the first ones
        self._seconds: list[Array] = []  # of them in the mean pass
        self._means: list[Array] = []  # microseconds of each kernel in the mean pass

    def profile_ms(self) -> float:
        self._read(0, self._passes.settle())
        self._profiles.append(self._passes.profiled())
        self._read(1, self._profiles[-1])
        return 1e3 * undisturbed(self._profiles[-1])

    def _read(self, which: int, seconds: Sequence[float]) -> None:
        self._since[which] += sum(seconds)
        since = self._passes.done - self._first
        self._seconds.append(self._since / since)
        self._means.append((self._passes.done * self._means_us() - self._first_us) / since)

    def kernels(self, profiles: Sequence[int]) -> list[Node]:
        (_, shares), *_ = np.linalg.lstsq(np.array(self._seconds), np.array(self._means), rcond=None)
        times = np.maximum(shares * undisturbed([own for place in profiles for own in self._profiles[place]]), LEAST_US)
        return [replace(node, time_us=float(us)) for node, us in zip(self._nodes.values(), times, strict=True)]

    def _means_us(self) -> Array:
        means = {each.node_name: 1e6 * each.real_time.total_seconds() for each in self._request.profiling_info}
        return np.array([means[name] + (CUT_OFF_US if means[name] else 0) for name in self._nodes])


def kernel_names(model: bytes) -> list[str]:
    """OpenVINO's full names of the kernels that it chooses for a model."""
    compiled = compile_model(_core(), read_model(_core(), model), settings(1, "float32"), "float32")
    infos = (op.get_rt_info() for op in compiled.get_runtime_model().get_ordered_ops())
    return [str(getattr(info["primitiveType"], "value", info["primitiveType"])) for info in infos]


@cache
def _core() -> Any:
    return unreported("openvino").Core()
