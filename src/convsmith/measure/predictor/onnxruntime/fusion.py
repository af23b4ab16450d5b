"""Which operators ONNX Runtime merges before it looks at layouts: its optimiser, restated on graphs without weights.

Found by reading what 1.32 writes as its optimised graph. The order of the steps matters: one reads what another leaves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

from convsmith.measure.predictor.graph import Graph, Op

FUSED_INTO_CONV = ("Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid", "Clip")


def fuse(graph: Graph) -> Graph:
    """The graph after the merges; the given one is left as it is."""
    # Attributes are replaced where they change, never changed.
    graph = Graph([Op(o.kind, list(o.inputs), list(o.outputs), o.attributes) for o in graph.ops],
                  graph.inputs, graph.outputs, dict(graph.shapes), dict(graph.constants), graph.opset)  # fmt: skip
    for step in STEPS:
        step(graph)
    return graph


def _drop_unread(graph: Graph) -> None:
    """What nobody reads is not computed."""
    read = set(graph.outputs)
    kept = []
    for op in reversed(graph.ops):
        if read.intersection(op.outputs):
            read.update(op.inputs)
            kept.append(op)
    graph.ops = kept[::-1]


def _drop_constant_operators(graph: Graph) -> None:
    """What is computed from constants alone is computed once, when the network is loaded."""
    kept = []
    constants = {"", *graph.constants}
    for op in graph.ops:
        if constants.issuperset(op.inputs):
            constants.update(op.outputs)
            graph.constants.update(dict.fromkeys(op.outputs))
        else:
            kept.append(op)
    graph.ops = kept


def _share_equal(graph: Graph) -> None:
    """Operators that compute the same are computed once."""
    known: dict[tuple[str, ...], list[Op]] = {}
    renamed: dict[str, str] = {}
    kept = []
    for op in graph.ops:
        if renamed:
            op.inputs = [renamed.get(name, name) for name in op.inputs]
        alike = known.setdefault((op.kind, *op.inputs), [])
        first = next((other for other in alike if other.attributes == op.attributes), None)
        if first is not None and not set(op.outputs) & set(graph.outputs):
            renamed.update(zip(op.outputs, first.outputs, strict=True))
        else:
            alike.append(op)
            kept.append(op)
    graph.ops = kept


def _merge_next(
    graph: Graph, first: Callable[[Op], bool], second: Callable[[Graph, Op, str], bool], merge: Callable[[Op, Op], None]
) -> None:
    """Where a map is read once, by an operator that can go into the one that writes it, merge the two."""
    uses, producers = graph.uses(), graph.producers()
    gone: set[int] = set()
    for op in graph.ops:
        for name in op.inputs:
            writer = producers.get(name)
            if writer is None or uses[name] != 1 or not first(writer) or not second(graph, op, name):
                continue
            merge(writer, op)
            writer.outputs = list(op.outputs)
            producers[op.outputs[0]] = writer
            gone.add(id(op))
            break
    if not gone:
        return
    # A merged operator may read what is written behind its first place: it moves to the second.
    graph.ops = in_order([op for op in graph.ops if id(op) not in gone], graph)


def fuse_behind_layout(graph: Graph) -> None:
    """Where a convolution stayed plain: a sum goes into it, with the activation behind, and its name changes."""
    uses, producers = graph.uses(), graph.producers()
    place = {id(op): i for i, op in enumerate(graph.ops)}
    gone: set[int] = set()
    for op in graph.ops:
        if op.kind == "Add" and len({graph.shapes.get(name) for name in op.inputs}) == 1:
            writers = [producers.get(name) for name in op.inputs]
            fitting = [
                (place[id(writer)], n, writer)
                for n, (name, writer) in enumerate(zip(op.inputs, writers, strict=True))
                if writer is not None and _is_conv(writer) and uses[name] == 1 and len(writer.inputs) < 4
            ]
            if fitting:  # of two the one that runs first
                _, n, writer = min(fitting)
                writer.inputs = [*writer.inputs, *[""] * (3 - len(writer.inputs)), op.inputs[1 - n]]
                writer.outputs = list(op.outputs)
                producers[op.outputs[0]] = writer
                gone.add(id(op))
    graph.ops = in_order([op for op in graph.ops if id(op) not in gone], graph)
    _fuse_activations(graph)
    for op in graph.ops:
        if op.kind == "Conv" and (len(op.inputs) > 3 or "activation" in op.attributes):
            op.kind = "FusedConv"
    _expand_hard_swish(graph)


def in_order(ops: list[Op], graph: Graph) -> list[Op]:
    """The operators, each behind those whose maps it reads, otherwise in the given order."""
    missing = {name for op in ops for name in op.outputs}
    done: list[Op] = []
    waiting = ops
    while waiting:
        later = []
        for op in waiting:
            if missing.isdisjoint(op.inputs):
                done.append(op)
                missing.difference_update(op.outputs)
            else:
                later.append(op)
        assert len(later) < len(waiting), "a graph of operators has no cycle"
        waiting = later
    return done


def _is_conv(op: Op) -> bool:
    return op.kind == "Conv" and "activation" not in op.attributes


def _fold_norms(graph: Graph) -> None:
    """A norm behind a convolution, or a product or sum with one number a channel, goes into its weights."""

    def foldable(graph: Graph, op: Op, name: str) -> bool:
        if op.kind == "BatchNormalization":
            return op.inputs[0] == name
        if op.kind not in ("Mul", "Add"):
            return False
        other = next((n for n in op.inputs if n != name), "")
        if other not in graph.constants:
            return False
        shape, channels = graph.shapes.get(other, ()), graph.shapes[name][1]
        one = op.kind == "Mul" and all(size == 1 for size in shape)
        return one or (len(shape) in (3, 4) and shape[-3:] == (channels, 1, 1))

    _merge_next(graph, _is_conv, foldable, lambda writer, op: None)


def _fuse_quick_gelu(graph: Graph) -> None:
    """X * sigmoid(x) is one operator."""
    uses, producers = graph.uses(), graph.producers()
    gone = set()
    for op in graph.ops:
        if op.kind != "Mul":
            continue
        for x, gate in (op.inputs, op.inputs[::-1]):
            sigmoid = producers.get(gate)
            if sigmoid and sigmoid.kind == "Sigmoid" and sigmoid.inputs[0] == x and uses[gate] == 1:
                op.kind, op.inputs, op.attributes = "QuickGelu", [x], {}
                gone.add(id(sigmoid))
                break
    graph.ops = [op for op in graph.ops if id(op) not in gone]


def _fuse_pads(graph: Graph) -> None:
    """Zeros around a map that one convolution or average reads are padding of it."""
    uses = graph.uses()
    readers = {op.inputs[0]: op for op in graph.ops if op.kind in ("Conv", "AveragePool")}
    gone = set()
    for op in graph.ops:
        reader = readers.get(op.outputs[0])
        if op.kind != "Pad" or reader is None or uses[op.outputs[0]] != 1:
            continue
        pads = graph.constants.get(op.inputs[1]) or (-1,)
        value = graph.constants.get(op.inputs[2]) if len(op.inputs) > 2 and op.inputs[2] else (0,)
        if op.attributes.get("mode", "constant") != "constant" or value not in ((0,), (0.0,)) or min(pads) < 0:
            continue
        rank = len(pads) // 2
        old = reader.ints("pads", (0,) * (2 * rank - 4))
        averages = reader.kind == "AveragePool"
        if any((*pads[:2], *pads[rank : rank + 2])) or (
            averages and any(old) and not reader.attributes.get("count_include_pad")
        ):
            continue
        sides = [int(a + b) for a, b in zip(old, (*pads[2:rank], *pads[rank + 2 :]), strict=True)]
        counted = {"count_include_pad": 1} if averages else {}
        reader.inputs[0], reader.attributes = op.inputs[0], {**reader.attributes, "pads": tuple(sides), **counted}
        gone.add(id(op))
    graph.ops = [op for op in graph.ops if id(op) not in gone]


def _fuse_gemm(graph: Graph) -> None:
    """A matrix product and a constant sum are one Gemm; a Relu goes into it."""

    def bias(graph: Graph, op: Op, name: str) -> bool:
        return op.kind == "Add" and any(other in graph.constants for other in op.inputs)

    def to_gemm(writer: Op, op: Op) -> None:
        writer.kind = "Gemm"
        writer.inputs = [*writer.inputs, next(n for n in op.inputs if n not in writer.outputs)]

    def is_product(op: Op) -> bool:
        return op.kind == "MatMul" and len(graph.shapes.get(op.outputs[0], ())) == 2

    _merge_next(graph, is_product, bias, to_gemm)

    def activate(writer: Op, op: Op) -> None:
        writer.kind = "FusedGemm"
        writer.attributes = {**writer.attributes, "activation": op.kind}

    acts = ("Relu", "Sigmoid", "Tanh", "LeakyRelu")
    _merge_next(graph, lambda op: op.kind == "Gemm", lambda graph, op, name: op.kind in acts, activate)


def _fuse_activations(graph: Graph) -> None:
    """An activation goes into the convolution in front of it; a Clip only if its bounds are constants."""

    def activation(graph: Graph, op: Op, name: str) -> bool:
        if op.kind == "Clip":
            return all(not bound or bound in graph.constants for bound in op.inputs[1:])
        return op.kind in FUSED_INTO_CONV

    def activate(writer: Op, op: Op) -> None:
        writer.attributes = {**writer.attributes, "activation": op.kind}

    _merge_next(graph, _is_conv, activation, activate)


def _join_slices(graph: Graph) -> None:
    """Slices that together are one map's channels, side by side, are one Split."""
    readers: dict[str, list[Op]] = {}
    for op in graph.ops:
        if op.kind == "Slice":
            readers.setdefault(op.inputs[0], []).append(op)
    reads: Counter[str] = graph.uses()
    for name, slices in readers.items():
        if len(slices) < 2 or reads[name] != len(slices) or not all(_plain_slice(graph, op) for op in slices):
            continue
        slices = sorted(slices, key=lambda op: graph.constants[op.inputs[1]] or ())
        starts = [int((graph.constants[op.inputs[1]] or (0,))[0]) for op in slices]
        ends = [start + graph.shapes[op.outputs[0]][1] for start, op in zip(starts, slices, strict=True)]
        whole = graph.shapes[name][1]
        if starts[0] != 0 or ends[-1] != whole or any(ends[i] != starts[j] for i, j in pairwise(range(len(ends)))):
            continue
        split = Op("Split", [name], [op.outputs[0] for op in slices], {"axis": 1})
        place = graph.ops.index(slices[0])
        members = {id(op) for op in slices}
        graph.ops = [*graph.ops[:place], split, *(op for op in graph.ops[place:] if id(op) not in members)]
        graph.ops = in_order(graph.ops, graph)


def _plain_slice(graph: Graph, op: Op) -> bool:
    given = [graph.constants.get(name) or () for name in op.inputs[1:] if name]
    return len(given) >= 3 and len(given[0]) == 1 and all(values == (1,) for values in given[2:])


def _expand_hard_swish(graph: Graph) -> None:
    """What has no kernel is computed by its definition."""
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
    _drop_unread,
    _drop_constant_operators,
    _share_equal,
    _join_slices,
    _fuse_pads,
    _fold_norms,
    _fuse_gemm,
    _fuse_quick_gelu,
    _fuse_activations,
)
