"""Networks measured in turns, and among them one that never changes: it tells how fast the machine is at the time.

Each network is profiled, and then timed in bursts, one a round. The reference network is timed in between. What a chunk
of networks took is divided by what the reference took beside them, as a share of what it took at the beginning: series
of networks, minutes apart, agree better so. A chunk during which the machine's speed changed is measured again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from statistics import median
from typing import Protocol

from convsmith.measure.predictor import soup
from convsmith.measure.predictor.engine import Timed
from convsmith.measure.predictor.graph import Graph, Shape
from convsmith.measure.predictor.kernels import Kernel
from convsmith.measure.predictor.writer import Writer

CHUNK, ROUNDS, BETWEEN, FIRST = 16, 5, 4, 40
LARGEST_CHANGE, LARGEST_DRIFT = 0.03, 0.25  # of the machine's speed, within a chunk and from the beginning
TRIES, MOST_LOST = 3, 4  # of a chunk, and chunks in a row


@dataclass(frozen=True)
class Job:
    """A network to measure: its graph as the runtime is given it."""

    name: str
    graph: Graph


@dataclass(frozen=True)
class Measured:
    """A network's kernels with their times in microseconds, and its latency; the input was (N, C, H, W)."""

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


def random_jobs(start: int) -> Iterator[Job]:
    """Networks of no family, the same for each number; the name tells what they are made of."""
    for number in itertools.count(start):
        drawn = soup.draw(Random(number))
        yield Job(f"random {number}: {', '.join(drawn.parts)}", drawn.graph)


def random_graph(number: int) -> Graph:
    """The random network of a number."""
    return soup.draw(Random(number)).graph


def reference_graph() -> Graph:
    """The network that tells how fast the machine is, in every calibration the same: a bit of all that takes time."""
    w = Writer((1, 3, 160, 160))
    x = w.act(w.conv("input", 32, (3, 3), stride=2), "relu")
    for width in (64, 128, 256):
        x = w.act(w.conv(x, width, (3, 3), stride=2), "relu")
        y = w.act(w.conv(x, 2 * width), "relu")
        y = w.act(w.conv(y, 2 * width, (3, 3), groups=2 * width), "relu")
        x = w.add(w.conv(y, width), x)
    return w.graph(w.linear(w.flatten(w.global_pool(x)), 1000), opset=18)


class Turns:
    """Measures networks in chunks.

    `reference_ms` is what the reference network took when the table was begun, or else takes beside the first chunk;
    `ratios` are the reference's times beside each chunk that was kept, as a share of it.
    """

    def __init__(self, runtime: Runs, *, reference_ms: float | None = None):
        self.runtime = runtime
        self.reference = runtime.load(reference_graph())
        self.begun = reference_ms is not None
        now = median(self.reference.burst_ms() for _ in range(FIRST))
        self.reference_ms = now if reference_ms is None else reference_ms
        self.ratios: list[float] = []
        self.skipped: dict[str, str] = {}
        self.disturbed = 0

    def measure(self, jobs: Iterable[Job], *, rounds: int = ROUNDS, insist: bool = False) -> Iterator[list[Measured]]:
        """Lists of measured networks, a chunk each; those whose kernels the rules do not foresee are left out.

        A chunk that met a machine of changing speed each time is left out, too, unless `insist` asks for the networks.
        Raises ValueError where that happens several times in a row: the machine is another one, or too busy.
        """
        jobs, lost = iter(jobs), 0
        while chunk := list(itertools.islice(jobs, CHUNK)):
            for tried in range(TRIES):
                measured, profiling, timing = self._measure_chunk(chunk, rounds)
                if not self.begun:
                    self.reference_ms *= timing
                    profiling, timing = profiling / timing, 1.0
                steady = abs(profiling / timing - 1) <= LARGEST_CHANGE and abs(timing - 1) <= LARGEST_DRIFT
                if steady or (insist and tried == TRIES - 1):
                    self.begun, lost = True, 0
                    self.ratios.append(timing)
                    yield [_at_speed(own, profiling, timing) for own in measured]
                    break
                self.disturbed += len(measured)
            else:
                lost += 1
                if lost == MOST_LOST:
                    raise ValueError(
                        "the machine must keep its speed to be measured, and its reference network took "
                        f"{timing:.2f} times {self.reference_ms:.3g} ms beside the last networks, or changed; stop "
                        "what else runs, or calibrate into another file"
                    )
                yield []

    def _measure_chunk(self, chunk: Sequence[Job], rounds: int) -> tuple[list[Measured], float, float]:
        """What was measured, and the reference's time as a share of what it was, beside the profiles and the times."""
        loaded: list[tuple[Job, Timed, tuple[Kernel, ...], Sequence[float]]] = []
        profiling, timing = [], []
        for job in chunk:
            network = self.runtime.load(job.graph)
            profiling.append(self.reference.burst_ms())
            graph = self.runtime.executed(job.graph)
            try:
                times = network.times_us(graph)
            except ValueError as error:
                self.skipped[job.name] = str(error)
                continue
            loaded.append((job, network, tuple(self.runtime.kernels(graph)), times))
        samples: list[list[float]] = [[] for _ in loaded]
        for turn in range(rounds):
            order = range(len(loaded)) if turn % 2 == 0 else range(len(loaded) - 1, -1, -1)
            for done, place in enumerate(order):
                if done % BETWEEN == 0:
                    timing.append(self.reference.burst_ms())
                samples[place].append(loaded[place][1].burst_ms())
        measured = [
            Measured(job.name, _input_shape(job.graph), found, tuple(times), median(own))
            for (job, _, found, times), own in zip(loaded, samples, strict=True)
        ]
        return measured, median(profiling) / self.reference_ms, median(timing or profiling) / self.reference_ms


def _at_speed(measured: Measured, profiling: float, timing: float) -> Measured:
    """As on a machine whose reference takes what it took at the beginning."""
    times = tuple(time / profiling for time in measured.times_us)
    return replace(measured, times_us=times, latency_ms=measured.latency_ms / timing)


def _input_shape(graph: Graph) -> Shape:
    return graph.shapes[graph.inputs[0]]
