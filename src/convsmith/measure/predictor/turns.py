"""Networks measured in turns, and among them those that never change, which tell how fast the machine is at the time.

Each network is profiled, and each fifth is then timed as a whole, in bursts, one a round, of which the faster half
counts: kernels need many networks, and what a network takes beside its kernels is told by few. The reference networks
are timed in between. What a chunk of networks took is divided by what references of their size took beside them, as a
share of what those took at the beginning: series of networks, minutes or hours apart, agree better so. A chunk during
which the machine's speed changed is measured again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from convsmith.measure.predictor.engine import Timed
from convsmith.measure.predictor.graph import Graph, Shape
from convsmith.measure.predictor.kernels import Kernel
from convsmith.measure.predictor.speed import References, Speed, undisturbed

CHUNK, ROUNDS, BETWEEN, FIRST = 40, 5, 10, 20
TIMED_EVERY = 5  # networks; no multiple of `jobs.GIVEN_EVERY`, so that some are random and some the caller's
LARGEST_CHANGE, LARGEST_DRIFT = 0.08, 0.25  # of the machine's speed, within a chunk and from the beginning
TRIES, MOST_LOST = 3, 4  # of a chunk, and chunks in a row
SMALLEST_MS = 1e-3


@dataclass(frozen=True)
class Job:
    """A network to measure: its graph as the runtime is given it."""

    name: str
    graph: Graph


@dataclass(frozen=True)
class Measured:
    """A network's kernels with their times in microseconds, and its latency; the input was (N, C, H, W).

    The latency of a network that was only profiled is NaN.
    """

    name: str
    input_shape: Shape
    kernels: tuple[Kernel, ...]
    times_us: tuple[float, ...]
    latency_ms: float


class Runs(Protocol):
    """A runtime: which kernels it runs for a graph, and networks loaded into it."""

    def load(self, graph: Graph) -> Timed:
        """A network with random weights."""

    def executed(self, graph: Graph) -> Graph:
        """The graph as it is executed."""

    def kernels(self, ran: Graph) -> list[Kernel]:
        """The kernels of an executed graph."""


class Turns:
    """Measures networks in chunks.

    `usual` is what the reference networks took when the table was begun, or else take beside the first chunk; `speeds`
    are those beside each chunk that was kept.
    """

    def __init__(self, runtime: Runs, *, usual: Speed | None = None):
        self.runtime = runtime
        self.references = References(runtime)
        self.begun = usual is not None
        self.usual = usual or Speed.of(self.references.speed() for _ in range(FIRST))
        self.speeds: list[Speed] = []
        self.skipped: dict[str, str] = {}
        self.disturbed = 0

    def measure(self, jobs: Iterable[Job], *, rounds: int = ROUNDS, insist: bool = False) -> Iterator[list[Measured]]:
        """Lists of measured networks, a chunk each; those whose kernels the rules do not foresee are left out.

        One that the runtime does not take is left out, too, and a chunk that met a machine of changing speed each time,
        unless `insist` asks for the networks; these are all timed as a whole.

        Raises ValueError for a network that is insisted on and not taken, and where chunks are left out several times
        in a row: the machine is another one, or too busy.
        """
        jobs, lost = iter(jobs), 0
        while chunk := list(itertools.islice(jobs, CHUNK)):
            for tried in range(TRIES):
                measured, profiling, timing = self._measure_chunk(chunk, rounds, insist)
                usual = self.usual if self.begun else timing
                steady = profiling.change(timing) <= LARGEST_CHANGE and timing.change(usual) <= LARGEST_DRIFT
                if steady or (insist and tried == TRIES - 1):
                    self.begun, self.usual, lost = True, usual, 0
                    self.speeds.append(timing)
                    yield [_at_speed(own, profiling, timing, usual) for own in measured]
                    break
                self.disturbed += len(measured)
            else:
                lost += 1
                if lost == MOST_LOST:
                    raise ValueError(
                        "the machine must keep its speed to be measured, and its reference networks took "
                        f"{_listed(timing)} ms beside the last networks, or changed, instead of {_listed(usual)} ms; "
                        "stop what else runs, or calibrate into another file"
                    )
                yield []

    def _measure_chunk(self, chunk: Sequence[Job], rounds: int, insist: bool) -> tuple[list[Measured], Speed, Speed]:
        """What was measured, and the machine's speed beside the profiles and beside the times."""
        profiled: list[Measured] = []
        timed: dict[int, Timed] = {}  # by their places among those profiled
        profiling, timing = [], []
        for place, job in enumerate(chunk):
            if place % BETWEEN == 0:
                profiling.append(self.references.speed())
            try:
                network = self.runtime.load(job.graph)
            except ValueError as error:  # an operator that the runtime lacks
                if insist:
                    raise
                self.skipped[job.name] = str(error)
                continue
            graph = self.runtime.executed(job.graph)
            try:
                times = network.times_us(graph)
            except ValueError as error:
                self.skipped[job.name] = str(error)
                continue
            if insist or place % TIMED_EVERY == 0:
                timed[len(profiled)] = network
            kernels = tuple(self.runtime.kernels(graph))
            profiled.append(Measured(job.name, _input_shape(job.graph), kernels, tuple(times), math.nan))
        samples: dict[int, list[float]] = {place: [] for place in timed}
        for turn in range(rounds):
            for done, place in enumerate(timed if turn % 2 == 0 else reversed(timed)):
                if done % BETWEEN == 0:
                    timing.append(self.references.speed())
                samples[place].append(timed[place].burst_ms())
        for place, own in samples.items():
            profiled[place] = replace(profiled[place], latency_ms=undisturbed(own))
        return profiled, Speed.of(profiling), Speed.of(timing or profiling)


def _at_speed(measured: Measured, profiling: Speed, timing: Speed, usual: Speed) -> Measured:
    """As on a machine of its usual speed."""
    size_ms = size(measured.latency_ms, measured.times_us)
    slowdown = profiling.slowdown(usual, size_ms)
    return replace(
        measured,
        times_us=tuple(time / slowdown for time in measured.times_us),
        latency_ms=measured.latency_ms / timing.slowdown(usual, size_ms),
    )


def size(latency_ms: float, times_us: Sequence[float]) -> float:
    """Milliseconds of a network, to choose references by: its latency, or the sum of what its kernels take."""
    return max(sum(times_us) / 1e3, SMALLEST_MS) if math.isnan(latency_ms) else latency_ms


def _listed(speed: Speed) -> str:
    return ", ".join(f"{own:.3g}" for own in speed.reference_ms)


def _input_shape(graph: Graph) -> Shape:
    return graph.shapes[graph.inputs[0]]
