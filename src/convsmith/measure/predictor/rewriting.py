"""Changes that more than one back end makes to a graph before it runs it, restated on graphs without weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from itertools import pairwise

from convsmith.measure.predictor.graph import Graph, Op


def copied(graph: Graph) -> Graph:
    """A graph whose operators and tables can be changed without changing this one's; attributes are to be replaced."""
    ops = [Op(o.kind, list(o.inputs), list(o.outputs), o.attributes) for o in graph.ops]
    return Graph(ops, graph.inputs, graph.outputs, dict(graph.shapes), dict(graph.constants), graph.opset)


def has(graph: Graph, *kinds: str) -> bool:
    """Whether any operator is of one of these kinds."""
    return any(op.kind in kinds for op in graph.ops)


def drop_unread(graph: Graph) -> None:
    """What nobody reads is not computed."""
    read = set(graph.outputs)
    kept = []
    for op in reversed(graph.ops):
        if not read.isdisjoint(op.outputs):
            read.update(op.inputs)
            kept.append(op)
    graph.ops = kept[::-1]


def drop_constant_operators(graph: Graph) -> None:
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


def drop_copies(graph: Graph, stands_for: Callable[[Op], str | None]) -> None:
    """Take out the operators that write what is there already: the map that `stands_for` names."""
    renamed: dict[str, str] = {}
    kept = []
    for op in graph.ops:
        op.inputs = [renamed.get(name, name) for name in op.inputs]
        same = stands_for(op)
        if same is None:
            kept.append(op)
        else:
            renamed[op.outputs[0]] = same
    graph.ops = kept
    graph.outputs = [renamed.get(name, name) for name in graph.outputs]


def share_equal(graph: Graph) -> None:
    """Operators that compute the same are computed once."""
    known: dict[tuple[str, ...], list[Op]] = {}
    renamed: dict[str, str] = {}
    kept = []
    for op in graph.ops:
        if renamed:
            op.inputs = [renamed.get(name, name) for name in op.inputs]
        key = (op.kind, *op.inputs)
        alike = known.get(key)
        if alike is None:
            known[key] = [op]
            kept.append(op)
            continue
        first = next((other for other in alike if other.attributes == op.attributes), None)
        if first is not None and not set(op.outputs) & set(graph.outputs):
            renamed.update(zip(op.outputs, first.outputs, strict=True))
        else:
            alike.append(op)
            kept.append(op)
    graph.ops = kept


def merge_next(
    graph: Graph,
    first: Callable[[Op], bool],
    kinds: Collection[str],
    second: Callable[[Graph, Op, str], bool],
    merge: Callable[[Op, Op], None],
) -> None:
    """Where a map is read once, by an operator of these kinds that can go into its writer, merge the two."""
    producers = {name: op for op in graph.ops if first(op) for name in op.outputs}
    candidates = [op for op in graph.ops if op.kind in kinds]
    if all(producers.keys().isdisjoint(op.inputs) for op in candidates):
        return
    uses = graph.uses()
    gone: set[int] = set()
    for op in candidates:
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


def is_plain_conv(op: Op) -> bool:
    """Whether this is a convolution that nothing was merged into."""
    return op.kind == "Conv" and "activation" not in op.attributes


def fold_norms(graph: Graph) -> None:
    """A norm behind a convolution, or a product or sum with one number a channel, goes into its weights and bias."""

    def foldable(graph: Graph, op: Op, name: str) -> bool:
        if op.kind == "BatchNormalization":
            return op.inputs[0] == name
        other = next((n for n in op.inputs if n != name), "")
        if other not in graph.constants:
            return False
        shape, channels = graph.shapes.get(other, ()), graph.shapes[name][1]
        one = op.kind == "Mul" and all(size == 1 for size in shape)
        return one or (len(shape) in (3, 4) and shape[-3:] == (channels, 1, 1))

    def bias(writer: Op, op: Op) -> None:
        if op.kind != "Mul" and len(writer.inputs) < 3:
            shifts = op.inputs[2] if op.kind == "BatchNormalization" else None
            writer.inputs = [*writer.inputs, shifts or next(n for n in op.inputs if n not in writer.outputs)]

    merge_next(graph, is_plain_conv, ("BatchNormalization", "Mul", "Add"), foldable, bias)


def merge_silu(graph: Graph, kind: str) -> None:
    """X * sigmoid(x) is one operator, of the given name."""
    if not has(graph, "Sigmoid"):
        return
    uses, producers = graph.uses(), graph.producers()
    gone = set()
    for op in graph.ops:
        if op.kind != "Mul":
            continue
        for x, gate in (op.inputs, op.inputs[::-1]):
            sigmoid = producers.get(gate)
            if sigmoid and sigmoid.kind == "Sigmoid" and sigmoid.inputs[0] == x and uses[gate] == 1:
                op.kind, op.inputs, op.attributes = kind, [x], {}
                gone.add(id(sigmoid))
                break
    graph.ops = [op for op in graph.ops if id(op) not in gone]


def fuse_pads(graph: Graph) -> None:
    """Zeros around a map that one convolution or average reads are padding of it."""
    if not has(graph, "Pad"):
        return
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


def join_slices(graph: Graph) -> None:
    """Slices that together are one map's channels, side by side, are one Split."""
    readers: dict[str, list[Op]] = {}
    for op in graph.ops:
        if op.kind == "Slice":
            readers.setdefault(op.inputs[0], []).append(op)
    reads: Counter[str] = graph.uses() if readers else Counter()
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
