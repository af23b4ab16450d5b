"""Measured times put to the kernels that the rules say: the two must agree, or the network teaches nothing."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from convsmith.measure.predictor.graph import Graph, Op, Shape


@dataclass(frozen=True)
class KernelTime:
    """One kernel of a profile: its name, the shapes that it read and wrote, and its time."""

    kind: str
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    time_us: float


def times_of(graph: Graph, measured: Sequence[KernelTime]) -> list[float]:
    """The time in microseconds of each operator of an executed graph.

    Kernels of equal kind and shapes are paired in the order of execution.

    Raises ValueError, naming what differs, where the runtime ran other kernels than the graph has.
    """
    waiting: dict[tuple[object, ...], deque[float]] = defaultdict(deque)
    for kernel in measured:
        waiting[_signature(kernel.kind, kernel.inputs, kernel.outputs)].append(kernel.time_us)
    times = []
    for op in graph.ops:
        signature = _of(graph, op)
        if not waiting[signature]:
            raise ValueError(f"the runtime ran no {signature} where the rules say one")
        times.append(waiting[signature].popleft())
    left = [signature for signature, rest in waiting.items() if rest]
    if left:
        raise ValueError(f"the runtime ran {left[0]}, and the rules say none")
    return times


def _of(graph: Graph, op: Op) -> tuple[object, ...]:
    def shapes(names: Iterable[str]) -> list[Shape]:
        return [graph.shapes.get(name, ()) for name in names if name]

    return _signature(op.kind.removeprefix("nchwc."), shapes(op.inputs), shapes(op.outputs))


def _signature(kind: str, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> tuple[object, ...]:
    # Of a convolution the taps too: channels of blocked weights are filled up. Of others the profile may lack weights.
    taps: tuple[int, ...] = ()
    if kind.endswith("Conv"):
        taps = (len(inputs), *inputs[1][2:])
    return (kind, tuple(inputs[0]) if inputs else (), taps, len(outputs), tuple(outputs[0]))
