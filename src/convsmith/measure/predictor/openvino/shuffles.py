"""Views and what transposes between them: shuffles of channels, and what moves nothing and is left out.

The order of the steps is OpenVINO's: two views that follow each other are one before shuffles are looked for, so that
two shuffles in a row are none. What moves nothing is a view only behind that, but before strides move: they move
through where it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from convsmith.measure.predictor.graph import Graph, Op
from convsmith.measure.predictor.openvino.layout import VIEWS
from convsmith.measure.predictor.rewriting import drop_copies, drop_unread

SWAPPED = (0, 2, 1)  # the axes of images, groups, and channels of a group, as a shuffle transposes them


def join_shuffles(graph: Graph) -> None:
    """Merge each shuffle to one operator and drop what moves nothing; `graph` is changed."""
    _until_none_is_left(graph, "Transpose", *VIEWS)
    _join(graph)
    for op in graph.ops:
        if op.kind == "Transpose" and _moves_nothing(graph, op):
            op.kind = "Reshape"
    _until_none_is_left(graph, "Transpose", *VIEWS)


def join_views(graph: Graph) -> None:
    """Of two views that follow each other one is left, and none where they change nothing."""
    _until_none_is_left(graph, *VIEWS)


def _until_none_is_left(graph: Graph, *kinds: str) -> None:
    """Join operators of these kinds that follow each other, and those that do so then."""
    before = len(graph.ops) + 1
    while len(graph.ops) < before:
        before = len(graph.ops)
        several = [op for op in graph.ops if op.kind in kinds]
        if (len(several) > 1 and _join_in_a_row(graph, several)) or any(_unchanged(graph, op) for op in several):
            drop_copies(graph, lambda op: _unchanged(graph, op) if op.kind in kinds else None)
            drop_unread(graph)


def _join_in_a_row(graph: Graph, several: Sequence[Op]) -> bool:
    """Let each do what one before it does, too, which is not read then; whether any does."""
    uses, producers = graph.uses(), graph.producers()
    joined = False
    for op in several:
        before = producers.get(op.inputs[0]) if op.inputs else None
        if before is None or uses[op.inputs[0]] != 1:
            continue
        if op.kind in VIEWS and before.kind in VIEWS:
            op.kind, op.inputs = "Reshape", [before.inputs[0], *op.inputs[1:]]
            joined = True
        elif op.kind == before.kind == "Transpose":
            first, second = _axes(graph, before), _axes(graph, op)
            op.inputs = [before.inputs[0]]
            op.attributes = {**op.attributes, "perm": tuple(first[axis] for axis in second)}
            joined = True
    return joined


def _unchanged(graph: Graph, op: Op) -> str | None:
    """The map that a view or transposition writes as it is."""
    same = op.kind in VIEWS and graph.shapes[op.inputs[0]] == graph.shapes[op.outputs[0]]
    still = op.kind == "Transpose" and _axes(graph, op) == tuple(range(len(_axes(graph, op))))
    return op.inputs[0] if same or still else None


def _join(graph: Graph) -> None:
    """A view as groups, their transposition and a view back are one shuffle of channels."""
    uses, producers = graph.uses(), graph.producers()
    gone: set[int] = set()
    for op in graph.ops:
        swap = producers.get(op.inputs[0]) if op.kind == "Reshape" else None
        apart = producers.get(swap.inputs[0]) if swap is not None and swap.kind == "Transpose" else None
        if swap is None or apart is None or apart.kind != "Reshape" or uses[apart.outputs[0]] + uses[op.inputs[0]] != 2:
            continue
        before, groups = graph.shapes[apart.inputs[0]], graph.shapes[apart.outputs[0]]
        swapped = tuple(swap.attributes.get("perm") or ())[:3] == SWAPPED and 1 not in groups[1:3]
        if not swapped or graph.shapes[op.outputs[0]] != before or math.prod(groups[1:3]) != before[1]:
            continue
        op.kind, op.inputs = "ShuffleChannels", [apart.inputs[0]]
        op.attributes = {"groups": groups[1], "covers": op.attributes["covers"]}
        gone |= {id(swap), id(apart)}
    graph.ops = [op for op in graph.ops if id(op) not in gone]


def _moves_nothing(graph: Graph, op: Op) -> bool:
    """Whether only axes of one element change places."""
    shape = graph.shapes[op.inputs[0]]
    moved = [axis for axis in _axes(graph, op) if shape[axis] != 1]
    return moved == sorted(moved)


def _axes(graph: Graph, op: Op) -> tuple[int, ...]:
    axes = tuple(range(len(graph.shapes[op.inputs[0]])))
    return tuple(op.attributes.get("perm") or axes[::-1])
