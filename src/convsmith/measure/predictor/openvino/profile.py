"""OpenVINO's own account of what it ran and how long it took, put to the kernels that the rules say.

OpenVINO counts whole microseconds of each pass, cut off, and tells the mean over all passes, cut off again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from convsmith.measure.predictor.graph import Graph, Op, Shape
from convsmith.measure.predictor.openvino.layout import same_in_memory

CUT_OFF_US, LEAST_US = 1.0, 0.5  # what the two cuts take off a time on average, and of one that reads zero
UNBIASED = "/WithoutBiases"  # what a convolution is called apart from its bias
NOT_RUN = ("Const", "Input", "Output", "Reshape")


@dataclass(frozen=True)
class Node:
    """One executed kernel: OpenVINO's type and kernel, the operators that it computes, and its shapes."""

    kind: str
    kernel: str
    covers: tuple[str, ...]
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    time_us: float = 0.0


def nodes(compiled: Any) -> dict[str, Node]:
    """The kernels of a compiled model by their names, in order; those that only rename a map are left out."""
    found: dict[str, Node] = {}
    constant: set[str] = set()
    for op in compiled.get_runtime_model().get_ordered_ops():
        facts = {key: str(getattr(value, "value", value)) for key, value in op.get_rt_info().items()}
        sources = [each.get_source_output().get_node().friendly_name for each in op.inputs()]
        if facts["layerType"] == "Const" or (sources and constant.issuperset(sources)):
            constant.add(op.friendly_name)
            continue
        outputs = tuple(tuple(each.get_shape()) for each in op.outputs())
        copied = facts["layerType"] == "Reorder" and same_in_memory(outputs[0])
        if facts["layerType"] in NOT_RUN or copied:
            continue
        shapes = zip(sources, (tuple(each.get_shape()) for each in op.inputs()), strict=True)
        found[op.friendly_name] = Node(
            facts["layerType"],
            _kernel(facts["layerType"], facts["primitiveType"]),
            tuple(name.removesuffix(UNBIASED) for name in facts["originalLayersNames"].split(",")),
            tuple(shape for name, shape in shapes if name not in constant),
            outputs,
        )
    return found


def _kernel(kind: str, primitive: str) -> str:
    """The name of a kernel without instructions and numbers, where there is more than one: `brgconv_avx512_1x1_f32`."""
    if kind not in ("Convolution", "FullyConnected"):
        return ""
    return "_".join(part for part in primitive.split("_") if not part.startswith(("avx", "sse", "f32", "uni")))


def times_of(graph: Graph, measured: Sequence[Node]) -> list[float]:
    """The time in microseconds of each operator of an executed graph.

    A kernel belongs to the operator of its kind and shapes whose result it writes. OpenVINO forgets names where it
    moves or shares operators: those left are paired in order.

    Raises ValueError, naming what differs, where OpenVINO ran other kernels than the graph has.
    """
    waiting: dict[tuple[object, ...], list[Node]] = defaultdict(list)
    for node in measured:
        waiting[_key(node.kind, node.kernel, node.inputs, node.outputs)].append(node)
    found: dict[int, float] = {}
    for named in (True, False):
        for op in graph.ops:
            nodes = waiting[_of(graph, op)]
            names = op.attributes["covers"][-1:]
            fitting = [node for node in nodes if not named or (names and names[0] in node.covers)]
            if id(op) not in found and fitting:
                nodes.remove(fitting[0])
                found[id(op)] = fitting[0].time_us
    missing = [_of(graph, op) for op in graph.ops if id(op) not in found]
    if missing:
        raise ValueError(f"the runtime ran no {missing[0]} where the rules say one")
    left = [key for key, rest in waiting.items() if rest]
    if left:
        raise ValueError(f"the runtime ran {left[0]}, and the rules say none")
    return [found[id(op)] for op in graph.ops]


def _of(graph: Graph, op: Op) -> tuple[object, ...]:
    def shapes(names: Iterable[str]) -> list[Shape]:
        return [graph.shapes.get(name, ()) for name in names if name and name not in graph.constants]

    return _key(op.kind, op.attributes["kernel"], shapes(op.inputs), shapes(op.outputs))


def _key(kind: str, kernel: str, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> tuple[object, ...]:
    return kind, kernel, tuple(sorted(inputs)), tuple(sorted(outputs))
