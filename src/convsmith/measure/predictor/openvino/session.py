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
    means. It is found by least squares from all of them, as passes that settle and passes that count are in each in
    other shares.
    """

    def __init__(self, compiled: Any, example: Any):
        self._nodes = nodes(compiled)
        self._request = compiled.create_infer_request()
        self._request.set_input_tensor(example)
        self._passes = Passes(self._request.infer)
        self._first = self._passes.done
        self._first_us = self._means_us()
        self._counted: list[list[float]] = []  # seconds of the passes of each profile
        self._shares: list[tuple[float, float]] = []  # of settling and of counting passes in each mean
        self._means: list[Array] = []

    def profile_ms(self) -> float:
        self._passes.settle()
        self._read()
        self._counted.append(self._passes.profiled())
        self._read()
        return 1e3 * undisturbed(self._counted[-1])

    def _read(self) -> None:
        counting = sum(map(len, self._counted))
        since = self._passes.done - self._first
        self._shares.append(((since - counting) / since, counting / since))
        self._means.append((self._passes.done * self._means_us() - self._first * self._first_us) / since)

    def kernels(self, profiles: Sequence[int]) -> list[Node]:
        (_, means), *_ = np.linalg.lstsq(np.array(self._shares), np.array(self._means), rcond=None)
        passes = [seconds for own in self._counted for seconds in own]
        slowed = sum(passes) / len(passes) / undisturbed([s for place in profiles for s in self._counted[place]])
        times = np.maximum(np.where(self._means_us() > 0, means / slowed + CUT_OFF_US, 0.0), LEAST_US)
        return [replace(node, time_us=float(us)) for node, us in zip(self._nodes.values(), times, strict=True)]

    def _means_us(self) -> Array:
        means = {each.node_name: 1e6 * each.real_time.total_seconds() for each in self._request.profiling_info}
        return np.array([means[name] for name in self._nodes])


def kernel_names(model: bytes) -> list[str]:
    """OpenVINO's full names of the kernels that it chooses for a model."""
    compiled = compile_model(_core(), read_model(_core(), model), settings(1, "float32"), "float32")
    infos = (op.get_rt_info() for op in compiled.get_runtime_model().get_ordered_ops())
    return [str(getattr(info["primitiveType"], "value", info["primitiveType"])) for info in infos]


@cache
def _core() -> Any:
    return unreported("openvino").Core()
