"""Limits that a trial must keep, checked before its evaluation where they can be measured without it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch

from convsmith.arch import Architecture
from convsmith.deploy import backends
from convsmith.deploy.clock import check_threads
from convsmith.measure import LatencyPredictor, cost, latency
from convsmith.network import build


@dataclass(frozen=True)
class Constraint:
    """`minimum <= metric <= maximum`, either bound may be left out.

    With `measure`, the value is taken from the architecture before it is evaluated, becomes a metric of the trial,
    and a violation spares the evaluation. Without it, the metric is one that `evaluate` returns. Where `measure` only
    predicts, `confirm` measures: an evaluated trial that would be the best is measured so, its metric becomes what was
    measured beside a `predicted_...` one, and a violation makes it infeasible.
    """

    metric: str
    maximum: float | None = None
    minimum: float | None = None
    measure: Callable[[Architecture], float] | None = field(default=None, repr=False)
    confirm: Callable[[Architecture], float] | None = field(default=None, repr=False)
    how: str = ""  # what the measured value depends on: a search that resumes with another one is refused

    def __post_init__(self) -> None:
        bounds = [bound for bound in (self.minimum, self.maximum) if bound is not None]
        if not bounds or not all(map(math.isfinite, bounds)) or sorted(bounds) != bounds:
            raise ValueError(
                f"a constraint needs a finite maximum or minimum, and minimum <= maximum, got {self.metric} with "
                f"minimum={self.minimum}, maximum={self.maximum}"
            )

    def excess(self, value: float) -> float:
        """By how much a value lies outside of the bounds; 0 where it keeps them."""
        over = 0.0 if self.maximum is None else value - self.maximum
        under = 0.0 if self.minimum is None else self.minimum - value
        return max(0.0, over, under)

    def __str__(self) -> str:
        low = "" if self.minimum is None else f"{self.minimum:g} <= "
        return f"{low}{self.metric}" + ("" if self.maximum is None else f" <= {self.maximum:g}")


def latency_constraint(
    maximum_ms: float, input_shape: tuple[int, ...], *, backend: str = "eager", threads: int = 1
) -> Constraint:
    """At most `maximum_ms` of median `latency_ms` on this machine, measured on the freshly built network.

    `input_shape` is (N, C, H, W). The measurement runs in the process of the search: beside busy workers of a
    `ProcessExecutor` it comes out too long, so leave a core free for it.
    """
    backends.get(backend)  # an unknown one is told before anything is trained
    check_threads(threads)
    measure = partial(_latency_ms, input_shape=input_shape, backend=backend, threads=threads)
    how = f"{backend}, {threads} threads, {'x'.join(map(str, input_shape))}"
    return Constraint("latency_ms", maximum=maximum_ms, measure=measure, how=how)


def predicted_latency_constraint(
    maximum_ms: float, input_shape: tuple[int, ...], predictor: LatencyPredictor
) -> Constraint:
    """At most `maximum_ms` of `latency_ms` as predicted; finalists are measured on this machine by the same back end.

    Networks with kernels that the predictor has not met are measured, and it learns from them.
    """
    about = predictor.about
    measure = partial(_latency_ms, input_shape=input_shape, backend=about.backend, threads=about.threads)
    predict = partial(predictor.predict_ms, input_shape=input_shape, unknown="measure")
    how = (
        f"predicted from {about.backend} {about.runtime} calibrated {about.begun}, {about.threads} threads, "
        f"{'x'.join(map(str, input_shape))}; finalists measured"
    )
    return Constraint("latency_ms", maximum=maximum_ms, measure=predict, confirm=measure, how=how)


def cost_constraint(
    metric: Literal["params", "macs", "activations", "memory_bytes"], maximum: float, input_shape: tuple[int, ...]
) -> Constraint:
    """At most `maximum` of a figure of `measure.cost`, counted for an input of `input_shape` (N, C, H, W)."""
    metrics = ("params", "macs", "activations", "memory_bytes")
    if metric not in metrics:
        raise ValueError(f"a cost is one of {', '.join(metrics)}, got {metric!r}")
    return Constraint(metric, maximum=maximum, measure=partial(_cost, metric=metric, input_shape=input_shape))


def _latency_ms(architecture: Architecture, *, input_shape: tuple[int, ...], backend: str, threads: int) -> float:
    with torch.random.fork_rng(devices=[]):  # what a user's evaluate draws does not depend on being measured
        network = build(architecture)
    return latency(network, input_shape, backend=backend, threads=threads).median_ms


def _cost(architecture: Architecture, *, metric: str, input_shape: tuple[int, ...]) -> float:
    return float(getattr(cost(architecture, input_shape), metric))
