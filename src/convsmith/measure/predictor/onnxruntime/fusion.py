"""Which operators ONNX Runtime merges before it looks at layouts: its optimiser, restated on graphs without weights.

Found by reading what 1.32 writes as its optimised graph. The order of the steps matters: one reads what another leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from convsmith.measure.predictor.graph import Graph, Op
from convsmith.measure.predictor.rewriting import (
    copied,
    drop_constant_operators,
    drop_unread,
    fold_norms,
    fuse_pads,
    has,
    in_order,
    is_plain_conv,
    join_slices,
    merge_next,
    merge_silu,
    share_equal,
)

FUSED_INTO_CONV = frozenset(("Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid", "Clip"))


def fuse(graph: Graph) -> Graph:
    """The graph after the merges; the given one is left as it is."""
    graph = copied(graph)
    for step in STEPS:
        step(graph)
    return graph


def fuse_behind_layout(graph: Graph, places: Mapping[str, int]) -> None:
    """Where a convolution with bias stayed plain: a sum goes into it, with the activation behind; its name changes.

    `places` are those of the maps in the order of the operators that the runtime was given.
    """
    uses, producers = graph.uses(), graph.producers()
    gone: set[int] = set()
    for op in graph.ops:
        if op.kind == "Add" and len({graph.shapes.get(name) for name in op.inputs}) == 1:
            writers = [producers.get(name) for name in op.inputs]
            fitting = [
                (places[name], n, writer)
                for n, (name, writer) in enumerate(zip(op.inputs, writers, strict=True))
                if writer is not None and is_plain_conv(writer) and uses[name] == 1 and len(writer.inputs) == 3
            ]
            if fitting:  # of two the one that was given first
                _, n, writer = min(fitting)
                writer.inputs = [*writer.inputs, op.inputs[1 - n]]
                writer.outputs = list(op.outputs)
                producers[op.outputs[0]] = writer
                gone.add(id(op))
    graph.ops = in_order([op for op in graph.ops if id(op) not in gone], graph)
    _fuse_activations(graph)
    for op in graph.ops:
        if op.kind == "Conv" and (len(op.inputs) > 3 or "activation" in op.attributes):
            op.kind = "FusedConv"
    _expand_hard_swish(graph)


def _fuse_gemm(graph: Graph) -> None:
    """A matrix product and a constant sum are one Gemm; a Relu goes into it."""

    def bias(graph: Graph, op: Op, name: str) -> bool:
        return any(other in graph.constants for other in op.inputs)

    def to_gemm(writer: Op, op: Op) -> None:
        writer.kind = "Gemm"
        writer.inputs = [*writer.inputs, next(n for n in op.inputs if n not in writer.outputs)]

    def is_product(op: Op) -> bool:
        return op.kind == "MatMul" and len(graph.shapes.get(op.outputs[0], ())) == 2

    merge_next(graph, is_product, ("Add",), bias, to_gemm)

    def activate(writer: Op, op: Op) -> None:
        writer.kind = "FusedGemm"
        writer.attributes = {**writer.attributes, "activation": op.kind}

    acts = ("Relu", "Sigmoid", "Tanh", "LeakyRelu")
    merge_next(graph, lambda op: op.kind == "Gemm", acts, lambda graph, op, name: True, activate)


def _fuse_activations(graph: Graph) -> None:
    """An activation goes into the convolution in front of it; a Clip only if its bounds are constants."""

    def activation(graph: Graph, op: Op, name: str) -> bool:
        if op.kind == "Clip":
            return all(not bound or bound in graph.constants for bound in op.inputs[1:])
        return True

    def activate(writer: Op, op: Op) -> None:
        writer.attributes = {**writer.attributes, "activation": op.kind}

    merge_next(graph, is_plain_conv, FUSED_INTO_CONV, activation, activate)


def _expand_hard_swish(graph: Graph) -> None:
    """What has no kernel is computed by its definition."""
    if not has(graph, "HardSwish"):
        return
    ops = []
    for op in graph.ops:
        if op.kind != "HardSwish":
            ops.append(op)
            continue
        gate = op.outputs[0] + "/gate"
        graph.shapes[gate] = graph.shapes[op.outputs[0]]
        ops.append(Op("HardSigmoid", [op.inputs[0]], [gate]))
        ops.append(Op("Mul", [op.inputs[0], gate], list(op.outputs)))
    graph.ops = ops


STEPS: tuple[Callable[[Graph], None], ...] = (
    drop_unread,
    drop_constant_operators,
    share_equal,
    join_slices,
    fuse_pads,
    fold_norms,
    _fuse_gemm,
    partial(merge_silu, kind="QuickGelu"),
    _fuse_activations,
)
