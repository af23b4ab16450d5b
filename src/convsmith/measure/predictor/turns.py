"""Networks measured in turns, and among them those that never change, which tell how fast the machine is at the time.

All networks of a chunk are loaded; in each of a few rounds a few passes of each are profiled, each fifth is also timed
as a whole, in a burst, and so are the reference networks. Of what rounds tell of a network the faster half counts: a
disturbance of the machine lasts for seconds. Kernels need many networks, and what a network takes beside its kernels is
told by few. What the networks took is divided by what references of their size took in the same rounds, as a share of
what those took at the beginning: series of networks, minutes or hours apart, agree better so.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from convsmith.measure.predictor.engine import Timed
from convsmith.measure.predictor.graph import Graph, Shape
from convsmith.measure.predictor.kernels import Kernel
from convsmith.measure.predictor.speed import References, Speed, faster_half, undisturbed

CHUNK, ROUNDS, FIRST = 20, 5, 20
ENOUGH_SECONDS, LEAST_ROUNDS = 0.4, 3  # of a network: what takes long wavers little
TIMED_EVERY = 5  # networks; no multiple of `jobs.GIVEN_EVERY`, so that some are random and some the caller's
LARGEST_DRIFT = 0.25  # of the machine's speed from the beginning
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

    def measure(self, jobs: Iterable[Job], *, insist: bool = False) -> Iterator[list[Measured]]:
        """Lists of measured networks, a chunk each; those whose kernels the rules do not foresee are left out.

        One that the runtime does not take is left out, too, and a chunk beside which the machine had another speed
        however often its rounds were made, unless `insist` asks for the networks; these are all timed as a whole.

        Raises ValueError for a network that is insisted on and not taken, and where chunks are left out several times
        in a row: the machine is another one, or too busy.
        """
        jobs, lost = iter(jobs), 0
        while chunk := list(itertools.islice(jobs, CHUNK)):
            beside = [self.references.speed()]
            networks = self._loaded(chunk, insist)
            for tried in range(TRIES):
                for turn in range(1 if tried == 0 else 0, ROUNDS):  # the first one loads
                    beside.append(self.references.speed())
                    for own in networks if turn % 2 == 0 else reversed(networks):
                        if turn < LEAST_ROUNDS or own.seconds < ENOUGH_SECONDS:
                            own.measure()
                speed = Speed.of(beside)
                usual = self.usual if self.begun else speed
                if speed.change(usual) <= LARGEST_DRIFT or (insist and tried == TRIES - 1):
                    self.begun, self.usual, lost = True, usual, 0
                    self.speeds.append(speed)
                    yield list(self._told(networks, speed))
                    break
                self.disturbed += len(networks)
            else:
                lost += 1
                if lost == MOST_LOST:
                    raise ValueError(
                        "the machine must keep its speed to be measured, and its reference networks took "
                        f"{_listed(speed)} ms beside the last networks instead of {_listed(usual)} ms; "
                        "stop what else runs, or calibrate into another file"
                    )
                yield []

    def _loaded(self, chunk: Sequence[Job], insist: bool) -> list[_Network]:
        """The networks of a chunk, each measured for the first time."""
        networks = []
        for place, job in enumerate(chunk):
            try:
                network = _Network(job, self.runtime.load(job.graph), timed=insist or place % TIMED_EVERY == 0)
                network.measure()
            except ValueError as error:  # an operator that the runtime lacks
                if insist:
                    raise
                self.skipped[job.name] = str(error)
                continue
            networks.append(network)
        return networks

    def _told(self, networks: Iterable[_Network], speed: Speed) -> Iterator[Measured]:
        """What each took, as on a machine of its usual speed."""
        for own in networks:
            graph = self.runtime.executed(own.job.graph)
            try:
                times_us = own.times_us(graph)
            except ValueError as error:
                self.skipped[own.job.name] = str(error)
                continue
            slowdown = speed.slowdown(self.usual, size(own.latency_ms, times_us))
            yield Measured(
                own.job.name,
                graph.shapes[graph.inputs[0]],
                tuple(self.runtime.kernels(graph)),
                tuple(time / slowdown for time in times_us),
                own.latency_ms / slowdown,
            )


class _Network:
    """A loaded network, and what rounds told of it."""

    def __init__(self, job: Job, network: Timed, *, timed: bool):
        self.job, self._network, self._timed = job, network, timed
        self._profiles_ms: list[float] = []
        self._bursts_ms: list[float] = []
        self.seconds = 0.0

    def measure(self) -> None:
        """One more round."""
        start = time.monotonic()
        self._profiles_ms.append(self._network.profile_ms())
        if self._timed:
            self._bursts_ms.append(self._network.burst_ms())
        self.seconds += time.monotonic() - start

    def times_us(self, ran: Graph) -> Sequence[float]:
        """Microseconds of each operator of the executed graph; ValueError where others ran."""
        return self._network.times_us(ran, faster_half(self._profiles_ms))

    @property
    def latency_ms(self) -> float:
        """The whole network's latency, NaN where it was not timed."""
        return undisturbed(self._bursts_ms) if self._timed else math.nan


def size(latency_ms: float, times_us: Sequence[float]) -> float:
    """Milliseconds of a network, to choose references by: its latency, or the sum of what its kernels take."""
    return max(sum(times_us) / 1e3, SMALLEST_MS) if math.isnan(latency_ms) else latency_ms


def _listed(speed: Speed) -> str:
    return ", ".join(f"{own:.3g}" for own in speed.reference_ms)
