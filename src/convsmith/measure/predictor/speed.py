"""How fast the machine is, told by networks that never change, one for each size that other guests slow differently.

Other guests of a machine take their share of its caches. What a small network works on stays in the core's own cache,
and most of a large one's weights and maps never fit. A network of one to four milliseconds whose weights lie in the
shared cache is what suffers: a copy of 24 MB on the other core lets it take a quarter longer, a network of eight
milliseconds a tenth, and one of a sixth of a millisecond as long as before. Networks of two to four milliseconds and of
many different kernels change most from one quarter of an hour to the next: in four such pairs by 5 to 10 per cent,
where the references next to them in size changed by 4 to 7.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

import numpy as np

from convsmith.deploy.rounds import Call, burst, settling_calls
from convsmith.measure.predictor.engine import Timed
from convsmith.measure.predictor.graph import Graph
from convsmith.measure.predictor.writer import Writer

REFERENCES = 5
BURST_SECONDS, LEAST_CALLS = 8e-3, 3
SETTLING, PROFILED, PROFILED_SECONDS = 3, 6, 30e-3  # passes at most


@dataclass(frozen=True)
class Speed:
    """Milliseconds of the reference networks, from the small one to the large one."""

    reference_ms: tuple[float, ...]

    @classmethod
    def of(cls, several: Iterable[Speed]) -> Speed:
        """What each network takes undisturbed."""
        return cls(tuple(map(undisturbed, zip(*(own.reference_ms for own in several), strict=True))))

    def slowdown(self, usual: Speed, latency_ms: float) -> float:
        """How many times as long as at its usual speed a network takes that then takes so many milliseconds.

        Logarithms between those of the two reference networks that are nearest to it in latency, or the last one's.
        """
        ratios = np.log(np.array(self.reference_ms) / usual.reference_ms)
        return float(np.exp(np.interp(np.log(latency_ms), np.log(usual.reference_ms), ratios)))

    def change(self, usual: Speed) -> float:
        """The largest change of a reference network, as a share."""
        return max(abs(now / then - 1) for now, then in zip(self.reference_ms, usual.reference_ms, strict=True))


def undisturbed(times: Sequence[float]) -> float:
    """The mean of the faster half of some bursts of one network: what else runs only adds to what it takes.

    Other guests of a machine add up to a fifth for tenths of a second, in any burst and not in the reference beside it.
    """
    faster = [times[place] for place in faster_half(times)]
    return sum(faster) / len(faster)


def faster_half(times: Sequence[float]) -> list[int]:
    """The places of the faster half."""
    return sorted(range(len(times)), key=times.__getitem__)[: (len(times) + 1) // 2]


class Bursts:
    """A pass that is timed in bursts, each behind untimed passes that bring the network to its speed.

    `seconds` are what a pass takes, roughly.
    """

    def __init__(self, run: Call, seconds: float):
        self._run = run
        self._calls, self._settling = max(LEAST_CALLS, round(BURST_SECONDS / seconds)), settling_calls(seconds)

    def ms(self) -> float:
        """The median of a burst in milliseconds: a scheduler may stop even a process that has a core for itself."""
        for _ in range(self._settling):
            self._run()
        return 1e3 * median(burst(self._run, 1) for _ in range(self._calls))


class Passes:
    """Passes of a network that a runtime profiles: a few at a time, behind others that bring it to its speed.

    `done` counts them all, as runtimes do.
    """

    def __init__(self, run: Call):
        self._run = run
        run()
        self._seconds, self.done = burst(run, 1), 2

    def settle(self) -> list[float]:
        """Seconds of each of the next passes, which count for nothing."""
        return self._make(min(SETTLING, settling_calls(self._seconds)))

    def profiled(self) -> list[float]:
        """Seconds of each of those behind them."""
        return self._make(max(1, min(PROFILED, int(PROFILED_SECONDS / self._seconds))))

    def _make(self, passes: int) -> list[float]:
        self.done += passes
        return [burst(self._run, 1) for _ in range(passes)]


class Loads(Protocol):
    """What loads networks."""

    def load(self, graph: Graph) -> Timed:
        """A network with random weights."""


class References:
    """The reference networks, loaded."""

    def __init__(self, runtime: Loads):
        self._networks = [runtime.load(graph) for graph in reference_graphs()]

    def speed(self) -> Speed:
        """The speed now, by a burst of each."""
        return Speed(tuple(network.burst_ms() for network in self._networks))


def reference_graphs() -> list[Graph]:
    """The networks that tell how fast the machine is, in every calibration the same, from 0.2 to 20 milliseconds."""
    return [
        _plain(96, (32, 64, 128)),
        _inverted(160, (32, 64, 128, 256), repeats=2),
        _gated(192, (24, 40, 80, 160), repeats=4),
        _inverted(224, (32, 64, 128, 256), repeats=3),
        _bottlenecks(224, (128, 256, 512, 1024), repeats=2),
    ]


def _plain(side: int, widths: Sequence[int]) -> Graph:
    """Depthwise and pointwise convolutions about each stage's full one."""
    w, x = _begun(side, widths)
    for width in widths:
        x = w.act(w.conv(x, width, (3, 3), stride=2), "relu")
        y = w.act(w.conv(x, 2 * width), "relu")
        y = w.act(w.conv(y, 2 * width, (3, 3), groups=2 * width), "relu")
        x = w.add(w.conv(y, width), x)
    return _ended(w, x)


def _inverted(side: int, widths: Sequence[int], *, repeats: int) -> Graph:
    """Inverted residuals, six times as wide inside: most of their weights' kernels wait for the shared cache."""
    w, x = _begun(side, widths)
    for width in widths:
        for place in range(repeats):
            wide = 6 * w.shapes[x][0]
            y = w.act(w.conv(x, wide), "relu")
            y = w.act(w.conv(y, wide, (3, 3), stride=1 if place else 2, groups=wide), "relu")
            y = w.conv(y, width)
            x = w.add(y, x) if place else y
    return _ended(w, x)


def _gated(side: int, widths: Sequence[int], *, repeats: int) -> Graph:
    """Inverted residuals with gates, of several kernel sizes and expansions: hardly a kernel comes twice."""
    w, x = _begun(side, widths)
    for stage, width in enumerate(widths):
        for place in range(repeats):
            kernel, wide = (3, 5, 7)[(stage + place) % 3], (6, 3, 4)[place % 3] * w.shapes[x][0]
            y = w.act(w.conv(x, wide), "relu")
            y = w.act(w.conv(y, wide, (kernel, kernel), stride=1 if place else 2, groups=wide), "relu")
            gate = w.act(w.conv(w.global_pool(y), wide // 4), "relu")
            y = w.conv(w.mul(y, w.act(w.conv(gate, wide), "sigmoid")), width)
            x = w.add(y, x) if place else y
    return _ended(w, x)


def _bottlenecks(side: int, widths: Sequence[int], *, repeats: int) -> Graph:
    """Residual bottlenecks behind each stage's full convolution: more weights than a shared cache leaves to one."""
    w, x = _begun(side, widths)
    for width in widths:
        x = w.act(w.conv(x, width, (3, 3), stride=2), "relu")
        for _ in range(repeats):
            y = w.act(w.conv(x, width // 2), "relu")
            y = w.act(w.conv(y, width // 2, (3, 3)), "relu")
            x = w.act(w.add(w.conv(y, width), x), "relu")
    return _ended(w, x)


def _begun(side: int, widths: Sequence[int]) -> tuple[Writer, str]:
    w = Writer((1, 3, side, side))
    return w, w.act(w.conv("input", widths[0] // 2, (3, 3), stride=2), "relu")


def _ended(w: Writer, x: str) -> Graph:
    return w.graph(w.linear(w.flatten(w.global_pool(x)), 1000), opset=18)
