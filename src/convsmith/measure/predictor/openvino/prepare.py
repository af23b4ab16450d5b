"""What OpenVINO makes of a graph before it looks at the processor: merged operators, with the names that it gives them.

Found by reading what 2026.4 runs. Every operator keeps in `covers` the outputs of the ONNX operators that it computes,
as OpenVINO keeps them in `originalLayersNames`.
"""

from __future__ import annotations

from convsmith.measure.predictor.graph import Graph, Op
from convsmith.measure.predictor.openvino.order import move_up
from convsmith.measure.predictor.openvino.shuffles import join_shuffles, join_views
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
    join_shuffles(graph)
    move_strides(graph)
    move_up(graph)
    join_views(graph)
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
