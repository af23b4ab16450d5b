"""A model in OpenVINO: each kernel's time in its place, and the time of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, cached_property
from itertools import chain
from typing import Any

import numpy as np

from convsmith.deploy.backends.openvino import compile_model, read_model, settings
from convsmith.deploy.rounds import burst
from convsmith.deploy.telemetry import unreported
from convsmith.measure.predictor.graph import Graph, Shape
from convsmith.measure.predictor.openvino.profile import CUT_OFF_US, LEAST_US, Node, nodes, times_of
from convsmith.measure.predictor.speed import Bursts, Passes, undisturbed
from convsmith.measure.predictor.trees import Array

STOP_US, STOPPED = 300.0, 0.5  # of several passes: so much more than usual, and so many times, is no kernel's own time
UNLIKE, MEANS_US = 0.2, 0.4  # how far a kernel's shares of passes lie apart, and how well a mean is known: deviations


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
    another that is close to it. What stopped a pass for milliseconds, in the midst of one kernel, is left out.
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
        made = list(chain.from_iterable(zip(self._settling, self._profiles, strict=True)))
        passes = np.array([len(own) for own in made])
        us = np.diff(self._totals_us, axis=0)
        stopped = _stopped(us, passes)
        seconds = np.array([sum(own) for own in made]) - 1e-6 * stopped.sum(axis=1)
        settling = np.where(np.arange(len(made)) % 2 == 0, seconds, 0)
        so_far = np.cumsum(passes)
        means = np.cumsum(us - stopped, axis=0) / so_far[:, None]
        shares = _shares(means, *(np.cumsum(own) / so_far for own in (seconds, settling)))
        times = np.maximum(shares * undisturbed([own for place in profiles for own in self._profiles[place]]), LEAST_US)
        return [replace(node, time_us=float(us)) for node, us in zip(self._nodes.values(), times, strict=True)]

    def _total_us(self) -> Array:
        """Microseconds of each kernel in all passes so far, to about so many as there were passes."""
        means = {each.node_name: 1e6 * each.real_time.total_seconds() for each in self._request.profiling_info}
        own = np.array([means[name] for name in self._nodes])
        return self._passes.done * np.where(own > 0, own + CUT_OFF_US, 0)


def _stopped(us: Array, passes: Array) -> Array:
    """What of the microseconds (profiles, kernels) of so many passes each is beyond all that a kernel takes itself."""
    usual = np.median(us / passes[:, None], axis=0) * passes[:, None]
    beyond = us - usual
    return np.where(beyond > np.maximum(STOP_US, STOPPED * usual), beyond, 0.0)


def _shares(means: Array, seconds: Array, settling: Array) -> Array:
    """Microseconds of each kernel in a second of passes that count, from means (profiles, kernels) over passes so far.

    So many seconds a pass took on average, and so many of these settled. What a kernel takes more of passes that settle
    is normally distributed about nothing, with `UNLIKE` of its time, and means are told to `MEANS_US`.
    """
    told = np.stack([seconds, settling])
    among, of = told @ told.T, told @ means
    more = among[1, 1] + (MEANS_US * seconds[-1] / (UNLIKE * np.maximum(means[-1], LEAST_US))) ** 2
    return np.asarray((of[0] * more - among[0, 1] * of[1]) / (among[0, 0] * more - among[0, 1] ** 2))


def kernel_names(model: bytes) -> list[str]:
    """OpenVINO's full names of the kernels that it chooses for a model."""
    compiled = compile_model(_core(), read_model(_core(), model), settings(1, "float32"), "float32")
    infos = (op.get_rt_info() for op in compiled.get_runtime_model().get_ordered_ops())
    return [str(getattr(info["primitiveType"], "value", info["primitiveType"])) for info in infos]


@cache
def _core() -> Any:
    return unreported("openvino").Core()
