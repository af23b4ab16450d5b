"""Activations that move up through what only rearranges a map, to where they can be merged."""

from __future__ import annotations

import math

from convsmith.measure.predictor.graph import Graph, Op
from convsmith.measure.predictor.openvino.marks import ACTIVATIONS

REARRANGING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "DepthToSpace", "SpaceToDepth",
               "ShuffleChannels")  # fmt: skip
STAYING = ("Swish", "PRelu", "LeakyRelu")  # are no operators of one argument to OpenVINO
BINARY = ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min")


def move_up(graph: Graph) -> None:
    """Move those that one operator alone reads; `graph` is changed."""
    rearranged = {op.outputs[0] for op in graph.ops if op.kind in REARRANGING}
    if not rearranged:
        return
    uses, producers = graph.uses(), graph.producers()
    for op in list(graph.ops):
        if rearranged.isdisjoint(op.inputs):
            continue
        name = _only_map(graph, op) if uses[op.outputs[0]] == 1 else None
        if name is not None and (chain := _above(name, uses, producers)):
            _exchange(graph, op, name, chain, producers)
            rearranged.add(op.outputs[0])


def _only_map(graph: Graph, op: Op) -> str | None:
    """The map that an operator changes number by number, all alike."""
    maps = [name for name in op.inputs if name and name not in graph.constants]
    numbers = all(math.prod(graph.shapes.get(name, ())) == 1 for name in op.inputs if name in graph.constants)
    activates = op.kind in ACTIVATIONS and op.kind not in STAYING
    alike = activates or (op.kind in BINARY and numbers)
    return maps[0] if alike and len(maps) == 1 else None


def _above(name: str, uses: dict[str, int], producers: dict[str, Op]) -> list[Op]:
    """What rearranges a map, the last one first, each read by the next alone."""
    chain: list[Op] = []
    while (writer := producers.get(name)) is not None and writer.kind in REARRANGING and uses[name] == 1:
        chain.append(writer)
        name = writer.inputs[0]
    return chain


def _exchange(graph: Graph, op: Op, name: str, chain: list[Op], producers: dict[str, Op]) -> None:
    source, target = chain[-1].inputs[0], op.outputs[0]
    made = f"{target}/moved"
    graph.shapes[made] = graph.shapes[source]
    inputs = [source if each == name else each for each in op.inputs]
    moved = Op(op.kind, inputs, [made], {**op.attributes, "covers": ()})
    chain[-1].inputs[0], chain[0].outputs[0] = made, target
    producers[made], producers[target] = moved, chain[0]
    place = graph.ops.index(chain[-1])
    graph.ops = [*graph.ops[:place], moved, *(own for own in graph.ops[place:] if own is not op)]
