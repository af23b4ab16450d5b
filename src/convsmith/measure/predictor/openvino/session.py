"""A model in OpenVINO: each kernel's time in its place, and the time of the whole."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, cached_property
from statistics import median
from typing import Any

import numpy as np

from convsmith.deploy.backends.openvino import compile_model, read_model, settings
from convsmith.deploy.rounds import burst
from convsmith.deploy.telemetry import unreported
from convsmith.measure.predictor.graph import Graph, Shape
from convsmith.measure.predictor.openvino.profile import CUT_OFF_US, LEAST_US, Node, nodes, times_of
from convsmith.measure.predictor.speed import Bursts, undisturbed

WARMING, PROFILED_RUNS, LEAST_PROFILED_RUNS, PROFILED_SECONDS = 3, 16, 6, 0.3
DISTURBED, TRIES = 1.1, 3  # a mean of the passes above their median by so much is profiled again


class Session:
    """A model as it is deployed, and another one that counts what each kernel takes; made when they are asked for."""

    def __init__(self, model: bytes, input_shape: Shape, threads: int):
        self._model = read_model(_core(), model)
        self._model.reshape(list(input_shape))
        self._settings = settings(threads, "float32")
        example = np.random.default_rng(0).standard_normal(input_shape, dtype=np.float32)
        self._example = unreported("openvino").Tensor(example)
        self._kernels: list[Node] = []

    def _compiled(self, *, counts: bool) -> Any:
        return compile_model(_core(), self._model, {**self._settings, "PERF_COUNT": counts}, "float32")

    @property
    def kernels(self) -> list[Node]:
        """The kernels that OpenVINO ran, with their mean times; measured again where the passes were not alike."""
        for _ in range(TRIES if not self._kernels else 0):
            self._kernels, steady = _profiled(self._compiled(counts=True), self._example)
            if steady:
                break
        return self._kernels

    @cached_property
    def _bursts(self) -> Bursts:
        request = self._compiled(counts=False).create_infer_request()
        request.set_input_tensor(self._example)
        request.infer()
        return Bursts(request.infer, burst(request.infer, 1))

    def times_us(self, ran: Graph) -> list[float]:
        """Microseconds of each operator of an executed graph; ValueError where OpenVINO ran others."""
        return times_of(ran, self.kernels)

    def burst_ms(self) -> float:
        """Milliseconds of a pass, by a burst."""
        return self._bursts.ms()


def _profiled(compiled: Any, example: Any) -> tuple[list[Node], bool]:
    """The kernels of a model that counts, as in undisturbed passes, and whether the passes took alike."""
    request = compiled.create_infer_request()
    request.set_input_tensor(example)
    seconds = [burst(request.infer, 1) for _ in range(WARMING)][-1]
    before = _means_us(request)
    runs = max(LEAST_PROFILED_RUNS, min(PROFILED_RUNS, int(PROFILED_SECONDS / seconds)))
    passes = [burst(request.infer, 1) for _ in range(runs)]
    after = _means_us(request)
    slowed = sum(passes) / runs / undisturbed(passes)
    found = []
    for name, node in nodes(compiled).items():
        total = after[name] * (WARMING + runs) - before[name] * WARMING
        time_us = total / runs / slowed + CUT_OFF_US if after[name] else LEAST_US
        found.append(replace(node, time_us=max(time_us, LEAST_US)))
    return found, sum(passes) / runs <= DISTURBED * median(passes)


def kernel_names(model: bytes) -> list[str]:
    """OpenVINO's full names of the kernels that it chooses for a model."""
    compiled = compile_model(_core(), read_model(_core(), model), settings(1, "float32"), "float32")
    infos = (op.get_rt_info() for op in compiled.get_runtime_model().get_ordered_ops())
    return [str(getattr(info["primitiveType"], "value", info["primitiveType"])) for info in infos]


def _means_us(request: Any) -> dict[str, float]:
    """The mean of each kernel over all passes of the compiled model."""
    return {each.node_name: 1e6 * each.real_time.total_seconds() for each in request.profiling_info}


@cache
def _core() -> Any:
    return unreported("openvino").Core()
