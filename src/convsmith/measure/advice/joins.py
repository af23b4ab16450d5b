"""Where maps meet in the flow of a network: shortcuts, and gates."""

from __future__ import annotations

import math
from collections.abc import Sequence

from convsmith.measure.advice.flow import PRODUCTS, Operation, longest

JOINING = frozenset(("add", "sub", "addcmul", "addcdiv", "lerp", "cat", "stack"))
POOLING = frozenset(("mean", "sum", "amax", "amin", "max", "std", "var", "linalg_vector_norm", "logsumexp"))
SIGMOIDS = frozenset(("sigmoid", "hardsigmoid", "softmax"))
CLAMPS = frozenset(("relu6", "hardtanh", "clamp"))  # a hard sigmoid that is written out ends in one


def is_pooling(operation: Operation) -> bool:
    """Whether it takes one value of several places, or of several channels."""
    return operation.name in POOLING or "_pool" in operation.name


def shortcuts_in(flow: Sequence[Operation]) -> frozenset[int]:
    """Additions and concatenations of maps behind different numbers of layers.

    Of two maps of which one is made from the other by a layer, the numbers differ, and also of two that are made from
    one map by more layers and by fewer. A bias, a position embedding and whatever else does not depend on the input
    is no map here.
    """
    depth = longest(flow, lambda _, operation: int(operation.is_layer))
    return frozenset(
        i
        for i, operation in enumerate(flow)
        if operation.name in JOINING and _of_maps(operation) and len({depth[read] for read in operation.reads}) > 1
    )


def gates_in(flow: Sequence[Operation]) -> dict[int, int]:
    """Multiplications of a map by a gate: the operation that made the gate (a sigmoid, say) by the multiplication.

    A gate is made from the map, or a map before it, by layers or pooling, or is one number for many positions or
    channels. So x * sigmoid(x), which is an activation, has none, and a gated linear unit, of two halves of one
    product, has none either.
    """
    steps = longest(flow, lambda _, operation: int(operation.is_layer or is_pooling(operation)))
    found: dict[int, int] = {}
    for i, operation in enumerate(flow):
        if operation.name != "mul" or len(operation.reads) != 2:
            continue
        for own, other in ((0, 1), (1, 0)):
            made = _saturating(flow, operation.reads[own])
            if made is None:
                continue
            is_narrow = math.prod(operation.read_shapes[own]) < math.prod(operation.read_shapes[other])
            is_later = steps[made] > steps[operation.reads[other]] and flow[made].name in SIGMOIDS
            if is_narrow or is_later:
                found[i] = made
    return found


def weighs_by_products(flow: Sequence[Operation]) -> bool:
    """Whether there is attention between positions, or channels: a product of maps whose factor is a softmax."""
    weights: set[int] = set()
    for i, operation in enumerate(flow):
        if operation.name.startswith("scaled_dot_product"):
            return True
        reads_weights = not weights.isdisjoint(operation.reads)
        if reads_weights and operation.name in PRODUCTS and len(operation.reads) > 1:
            return True
        handed = reads_weights and not operation.is_layer and not is_pooling(operation)
        if operation.name.endswith("softmax") or handed:
            weights.add(i)
    return False


def longest_chain(flow: Sequence[Operation]) -> tuple[int, frozenset[int]]:
    """The most convolutions in one chain without a shortcut, those that make a gate left out; and all shortcuts.

    A join of parts is as far from a shortcut as the nearest of them: a block may add its input to some channels only.
    """
    shortcuts, gates = shortcuts_in(flow), gates_in(flow)
    chains: list[int] = []
    for i, operation in enumerate(flow):
        reads = operation.reads
        if i in gates and len(reads) == 2:
            reads = tuple(read for read in reads if not _is_made_by(flow, read, gates[i])) or reads
        nearest = min if operation.name in JOINING else max
        before = 0 if i in shortcuts else nearest((chains[read] for read in reads), default=0)
        chains.append(before + operation.is_convolution)
    within = {read for i, operation in enumerate(flow) if i not in shortcuts for read in operation.reads}
    joined = {read for i in shortcuts for read in flow[i].reads}
    ends = joined | set(range(len(flow))) - within
    return max(chains[i] for i in ends), shortcuts


def _of_maps(operation: Operation) -> bool:
    """Whether it joins several maps of like size, rather than adding a vector to each position."""
    shapes = operation.read_shapes
    if len(shapes) < 2 or any(len(shape) < 3 for shape in shapes):
        return False
    return operation.name in ("cat", "stack") or len(set(shapes)) == 1


def _saturating(flow: Sequence[Operation], position: int) -> int | None:
    """The operation that bounds the values of a map, behind which it is only spread, scaled or cut; None of others."""
    while True:
        operation = flow[position]
        if operation.name in SIGMOIDS | CLAMPS:
            return position
        if len(set(operation.reads)) != 1 or operation.is_layer or is_pooling(operation):
            return None
        position = operation.reads[0]


def _is_made_by(flow: Sequence[Operation], position: int, maker: int) -> bool:
    return _saturating(flow, position) == maker
