"""The shapes of the maps that a graph of layers writes, told from that of its input."""

from __future__ import annotations

from collections.abc import Sequence

from convsmith.measure.predictor.graph import Graph, Op, Shape

WINDOWS = ("Conv", "MaxPool", "AveragePool")


def resized(graph: Graph, shape: Shape) -> Graph:
    """The graph for another height, width or batch of its input; the operators are shared.

    Raises ValueError where a map does not fit an operator.
    """
    shapes = {**graph.shapes, graph.inputs[0]: shape}
    for op in graph.ops:
        shapes[op.outputs[0]] = behind(op, [shapes[name] for name in op.inputs])
    return Graph(graph.ops, graph.inputs, graph.outputs, shapes, graph.constants, graph.opset)


def behind(op: Op, read: Sequence[Shape]) -> Shape:
    """The shape of what an operator writes, given those that it reads; ValueError where they do not fit."""
    source = read[0]
    if op.kind in WINDOWS:
        width = read[1][0] if op.kind == "Conv" else source[1]
        return (source[0], width, *_sides(op, source))
    if op.kind == "GlobalAveragePool":
        return (*source[:2], 1, 1)
    if op.kind == "Flatten":
        if source[2:] != (1, 1):
            raise ValueError(f"a vector is made of a map of one pixel here, got {source}")
        return source[:2]
    if op.kind in ("Gemm", "MatMul"):
        return (source[0], read[1][1])
    if op.kind in ("Add", "Mul") and source != read[1]:
        return _broadcast(source, read[1])
    return source


def _sides(op: Op, source: Shape) -> list[int]:
    """Height and width behind a convolution or pooling."""
    attributes = op.attributes
    kernel, strides, pads = attributes["kernel_shape"], attributes["strides"], attributes["pads"]
    dilations = attributes.get("dilations", (1, 1))
    sides = [(source[2 + i] + 2 * pads[i] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1 for i in (0, 1)]
    if min(sides) < 1:
        raise ValueError(f"a map must be at least as large as the kernel {kernel}, got {source}")
    return sides


def _broadcast(one: Shape, other: Shape) -> Shape:
    """Of a map and one of a single pixel."""
    if one[:2] != other[:2] or len(one) != len(other) or (1, 1) not in (one[2:], other[2:]):
        raise ValueError(f"maps must be of one shape, or one of them of one pixel, got {one} and {other}")
    return max(one, other)
