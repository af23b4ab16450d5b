"""Which operators OpenVINO's CPU plugin may compute in the kernel in front of them; all others become subgraphs.

A walk along the graph, restated: a convolution, a reduction or a product begins a chain, and elementwise operators go
on with it as long as each map has one reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from convsmith.measure.predictor.graph import Graph, Op

ACTIVATIONS = frozenset(("Relu", "PRelu", "LeakyRelu", "Elu", "Sigmoid", "Clip", "Swish", "HardSwish", "Mish", "Tanh",
                         "Gelu", "Abs", "Sqrt"))  # fmt: skip
REDUCTIONS = ("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceSum", "ReduceMax")
PRODUCTS = ("Gemm", "MatMul")
OTHERS = frozenset((*REDUCTIONS, *PRODUCTS, "AveragePool", "Resize", "ConvTranspose"))


class Mark(Enum):
    """What begins the chain that an operator belongs to; `END` goes no further."""

    END = 0
    CONVOLUTION = 1
    SUM = 2
    OTHER = 3


def marked(graph: Graph) -> dict[int, Mark]:
    """The marks by the operators' `id`; those without one are not merged into what is in front."""
    uses, producers = graph.uses(), graph.producers()
    marks: dict[int, Mark] = {}

    def alone(op: Op) -> bool:
        return len(op.outputs) == 1 and uses[op.outputs[0]] == 1

    for op in graph.ops:
        begun = _begun(op)
        if begun is not None:
            if alone(op):
                marks[id(op)] = begun
            continue
        for name in op.inputs:
            writer = producers.get(name)
            chain = marks.get(id(writer), Mark.END)
            if chain is not Mark.END and (found := _continued(graph, op, chain, producers, marks)) is not None:
                marks[id(op)] = found if alone(op) else Mark.END
    return marks


def is_simple(graph: Graph, op: Op) -> bool:
    """Whether this is an activation, or a product or sum with a constant per channel: one map comes in."""
    if op.kind == "BatchNormalization":
        return True
    maps = [name for name in op.inputs if name and name not in graph.constants]
    if len(maps) != 1:
        return False
    if op.kind in ACTIVATIONS:
        return True
    if op.kind not in ("Add", "Mul", "Sub", "Div"):
        return False
    shape = graph.shapes[maps[0]]
    return all(_per_channel(graph.shapes.get(name, ()), shape) for name in op.inputs if name != maps[0])


def _per_channel(weights: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    if all(size == 1 for size in weights):
        return True
    padded = (1,) * (len(shape) - len(weights)) + weights
    return len(padded) == len(shape) and all(
        size == 1 or (axis == 1 and size == whole) for axis, (size, whole) in enumerate(zip(padded, shape, strict=True))
    )


def _begun(op: Op) -> Mark | None:
    if op.kind == "Conv":
        return Mark.CONVOLUTION
    if op.kind == "AveragePool" and op.attributes.get("ceil_mode"):
        return None
    if op.kind in OTHERS:
        return Mark.OTHER
    return None


def _continued(
    graph: Graph, op: Op, chain: Mark, producers: Mapping[str, Op], marks: Mapping[int, Mark]
) -> Mark | None:
    if is_simple(graph, op):
        return chain
    if chain is not Mark.CONVOLUTION:
        return None
    if op.kind == "MaxPool":
        return chain
    maps = [name for name in op.inputs if name not in graph.constants]
    if op.kind == "Add" and len(maps) == 2:
        # A convolution takes a sum only before any activation.
        writers = [producers.get(name) for name in maps]
        if any(w is not None and w.kind == "Conv" and marks.get(id(w)) is Mark.CONVOLUTION for w in writers):
            return Mark.SUM
    return None
