"""What the predictor must know of a back end: one object for each, all else serves any of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from convsmith.measure.predictor.graph import Graph, Shape
from convsmith.measure.predictor.kernels import Kernel
from convsmith.measure.predictor.onnx_model import model_of


class Timed(Protocol):
    """A network in a back end, profiled a few passes at a time, or timed in bursts."""

    def profile_ms(self) -> float:
        """Profile some passes more: milliseconds of an undisturbed one."""

    def times_us(self, ran: Graph, profiles: Sequence[int]) -> Sequence[float]:
        """Microseconds of each operator of an executed graph, of these of the profiles; no profile follows.

        Raises ValueError, naming what differs, where the back end ran other kernels than the graph has.
        """

    def burst_ms(self) -> float:
        """Milliseconds of one pass: the median of a burst."""


@dataclass(frozen=True)
class Engine:
    """A back end whose kernels are told by rules.

    `restated` begins the version that the rules are written for. `block` asks this processor how many channels a
    kernel computes at once, and `executed` tells, for so many, the graph that runs; `kernels` are that graph's, in
    order, and `numbers` the version of what they tell, of `width` numbers each. `filled` are the channels to whose
    multiples `deploy` fills up maps for the back end, if it does. `session` runs an ONNX model, given the shape of its
    input and the number of threads.
    """

    backend: str
    restated: str
    block: Callable[[], int]
    executed: Callable[[Graph, int], Graph]
    kernels: Callable[[Graph], list[Kernel]]
    numbers: int
    width: int
    filled: int | None
    session: Callable[[bytes, Shape, int], Timed]

    def load(self, graph: Graph, threads: int) -> Timed:
        """A network with random weights."""
        return self.session(model_of(graph), graph.shapes[graph.inputs[0]], threads)
