"""What OpenVINO makes of a graph before it looks at the processor: merged operators, with the names that it gives them.

Found by reading what 2026.4 runs. Every operator keeps in `covers` the outputs of the ONNX operators that it computes,
as OpenVINO keeps them in `originalLayersNames`.
"""

from __future__ import annotations

import math

from convsmith.measure.predictor.graph import Graph, Op
from convsmith.measure.predictor.openvino.layout import VIEWS
from convsmith.measure.predictor.openvino.order import move_up
from convsmith.measure.predictor.openvino.strides import move_strides
from convsmith.measure.predictor.rewriting import (
    copied,
    drop_constant_operators,
    drop_copies,
    drop_unread,
    fold_norms,
    fuse_pads,
    has,
    join_slices,
    merge_silu,
    share_equal,
)


def prepared(graph: Graph) -> Graph:
    """The merged graph; the given one stays."""
    graph = copied(graph)
    drop_unread(graph)
    drop_constant_operators(graph)
    _share_constants(graph)
    share_equal(graph)
    join_slices(graph)
    _drop_rejoined(graph)
    _join_at_once(graph)
    fuse_pads(graph)
    fold_norms(graph)
    _drop_zero_biases(graph)
    merge_silu(graph, "Swish")
    for op in graph.ops:
        op.attributes = {**op.attributes, "covers": tuple(op.outputs[-1:])}
    _drop_identities(graph)
    move_strides(graph)
    move_up(graph)
    _join_shuffles(graph)
    return graph


def _share_constants(graph: Graph) -> None:
    """Constants of equal values are one, so that operators on them are equal."""
    known: dict[tuple[object, ...], str] = {}
    names = {}
    for name, values in graph.constants.items():
        if values is not None and (first := known.setdefault((values, graph.shapes.get(name)), name)) != name:
            names[name] = first
    for op in graph.ops if names else ():
        if not names.keys().isdisjoint(op.inputs):
            op.inputs = [names.get(name, name) for name in op.inputs]


def _drop_rejoined(graph: Graph) -> None:
    """All parts of a split map side by side again are the map."""
    if not (has(graph, "Split") and has(graph, "Concat")):
        return
    producers = graph.producers()

    def rejoined(op: Op) -> str | None:
        split = producers.get(op.inputs[0]) if op.kind == "Concat" else None
        if split is None or split.kind != "Split" or split.outputs != op.inputs:
            return None
        return split.inputs[0] if split.attributes.get("axis", 0) == op.attributes.get("axis") else None

    drop_copies(graph, rejoined)
    drop_unread(graph)


def _drop_zero_biases(graph: Graph) -> None:
    """A fresh network's biases, if they are so few that their values are known."""
    for op in graph.ops:
        if op.kind == "Conv" and len(op.inputs) > 2:
            values = graph.constants.get(op.inputs[2])
            op.inputs = op.inputs[:2] if values and not any(values) else op.inputs


def _join_at_once(graph: Graph) -> None:
    """Maps that are put side by side, and then beside others alone, are so at once."""
    if not has(graph, "Concat"):
        return
    uses, producers = graph.uses(), graph.producers()
    for op in graph.ops:
        if op.kind != "Concat":
            continue
        parts = []
        for name in op.inputs:
            inner = producers.get(name)
            joins = inner is not None and inner.kind == "Concat" and inner.attributes == op.attributes
            parts += inner.inputs if inner is not None and joins and uses[name] == 1 else [name]
        op.inputs = parts
    drop_unread(graph)


def _drop_identities(graph: Graph) -> None:
    """A selection of all channels in their order does nothing."""
    if not has(graph, "Gather"):
        return

    def unchanged(op: Op) -> str | None:
        chosen = graph.constants.get(op.inputs[1]) if op.kind == "Gather" else None
        channels = graph.shapes[op.inputs[0]][op.attributes.get("axis", 0)] if chosen is not None else 0
        return op.inputs[0] if chosen == tuple(range(channels)) else None

    drop_copies(graph, unchanged)


def _join_shuffles(graph: Graph) -> None:
    """A view as groups, their transposition and a view back are one shuffle of channels."""
    if not has(graph, "Transpose"):
        return
    uses, producers = graph.uses(), graph.producers()
    viewed = {op.inputs[0] for op in graph.ops if op.kind in VIEWS}
    gone: set[int] = set()
    renamed: dict[str, str] = {}
    for op in graph.ops:
        op.inputs = [renamed.get(name, name) for name in op.inputs]
        if op.outputs[0] in viewed and uses[op.outputs[0]] == 1:
            continue  # the two views become one
        swap = producers.get(op.inputs[0]) if op.kind == "Reshape" else None
        apart = producers.get(swap.inputs[0]) if swap is not None and swap.kind == "Transpose" else None
        if swap is None or apart is None or apart.kind != "Reshape" or uses[apart.outputs[0]] + uses[op.inputs[0]] != 2:
            continue
        before, groups = graph.shapes[apart.inputs[0]], graph.shapes[apart.outputs[0]]
        swapped = tuple(swap.attributes.get("perm") or ())[:3] == (0, 2, 1)
        if not swapped or graph.shapes[op.outputs[0]] != before or math.prod(groups[1:3]) != before[1]:
            continue
        op.kind, op.inputs = "ShuffleChannels", [apart.inputs[0]]
        if 1 in groups[1:3]:  # nothing moves
            renamed[op.outputs[0]] = op.inputs[0]
            gone.add(id(op))
        op.attributes = {"groups": groups[1], "covers": op.attributes["covers"]}
        gone |= {id(swap), id(apart)}
    graph.ops = [op for op in graph.ops if id(op) not in gone]
    graph.outputs = [renamed.get(name, name) for name in graph.outputs]
