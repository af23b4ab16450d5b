"""Two convolutions with nothing between them as one, as `deploy.passes.merge` makes them: restated on graphs.

What stands in different blocks meets only here, as blocks are told one by one.
"""

from __future__ import annotations

import math

from convsmith.measure.predictor.graph import Graph, Op, Shape


def merge_convolutions(graph: Graph) -> None:
    """Merge where the one computes less; `graph` is changed, of its operators those that are merged are replaced."""
    uses, producers = graph.uses(), graph.producers()
    kept: dict[int, Op] = {}
    for op in graph.ops:
        before = producers.get(op.inputs[0]) if op.kind == "Conv" else None
        both = None
        if before is not None and before.kind == "Conv" and uses[op.inputs[0]] == 1:
            both = _merged(graph, before, op)
        if before is not None and both is not None:
            kept.pop(id(before))
        both = both or op
        kept[id(both)] = both
        producers.update(dict.fromkeys(both.outputs, both))
    graph.ops = list(kept.values())


def _merged(graph: Graph, first: Op, second: Op) -> Op | None:
    """One convolution for both, or None where there is none or it computes more."""
    shapes = graph.shapes
    a, b = shapes[first.inputs[1]], shapes[second.inputs[1]]
    taps: Shape
    if len(a) != 4 or any(op.attributes.get("group", 1) > 1 for op in (first, second)):
        return None
    if _is_pointwise(second, b):
        spatial, taps = first, a[2:]
    elif _is_pointwise(first, a) and _strides(first) == (1, 1) and (len(first.inputs) < 3 or not _pads(second)):
        spatial, taps = second, b[2:]
    else:
        return None
    weight = (b[0], a[1], *taps)
    if math.prod(weight) > math.prod(_strides(second)) * math.prod(a) + math.prod(b):
        return None
    name = f"{second.outputs[0]}/merged"
    constants: dict[str, Shape] = {f"{name} weight": weight}
    if len(first.inputs) > 2 or len(second.inputs) > 2:
        constants[f"{name} bias"] = (b[0],)
    shapes.update(constants)
    graph.constants.update(dict.fromkeys(constants))
    strides = tuple(i * j for i, j in zip(_strides(first), _strides(second), strict=True))
    attributes = {**spatial.attributes, "strides": strides}
    return Op("Conv", [first.inputs[0], *constants], list(second.outputs), attributes)


def _is_pointwise(op: Op, weight: Shape) -> bool:
    return weight[2:] == (1, 1) and not _pads(op)


def _pads(op: Op) -> bool:
    return any(op.ints("pads", (0,)))


def _strides(op: Op) -> tuple[int, ...]:
    return op.ints("strides", (1, 1))
