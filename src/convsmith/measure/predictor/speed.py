"""How fast the machine is, told by three networks that never change: a small, a middling and a large one.

Other guests of a machine take their share of its caches. What a small network works on stays in the core's own cache,
and a large one's never fits: a middling one of some milliseconds is slower by several per cent in one hour than in
another, while the other two take as long as before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from convsmith.measure.predictor.engine import Timed
from convsmith.measure.predictor.graph import Graph
from convsmith.measure.predictor.writer import Writer

SIZES = ((96, (32, 64, 128)), (160, (64, 128, 256)), (192, (64, 128, 256, 512)))  # the inputs' sides, and the widths


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
    faster = sorted(times)[: (len(times) + 1) // 2]
    return sum(faster) / len(faster)


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
    """The networks that tell how fast the machine is, in every calibration the same: a bit of all that takes time."""
    small, middling, large = SIZES
    return [_light(*small), _light(*middling), _heavy(*large)]


def _light(side: int, widths: Sequence[int]) -> Graph:
    """Depthwise and pointwise convolutions about each stage's full one."""
    w = Writer((1, 3, side, side))
    x = w.act(w.conv("input", widths[0] // 2, (3, 3), stride=2), "relu")
    for width in widths:
        x = w.act(w.conv(x, width, (3, 3), stride=2), "relu")
        y = w.act(w.conv(x, 2 * width), "relu")
        y = w.act(w.conv(y, 2 * width, (3, 3), groups=2 * width), "relu")
        x = w.add(w.conv(y, width), x)
    return w.graph(w.linear(w.flatten(w.global_pool(x)), 1000), opset=18)


def _heavy(side: int, widths: Sequence[int]) -> Graph:
    """Full convolutions, with more weights than a cache that is shared leaves to one."""
    w = Writer((1, 3, side, side))
    x = w.act(w.conv("input", widths[0], (7, 7), stride=2), "relu")
    for width in widths:
        x = w.act(w.conv(x, width, (3, 3), stride=2), "relu")
        y = w.act(w.conv(x, width, (3, 3)), "relu")
        x = w.add(w.conv(y, width, (3, 3)), x)
    return w.graph(w.linear(w.flatten(w.global_pool(x)), 1000), opset=18)
