"""Which exported node, and which module, a node of a runtime's graph came from, and what arithmetic it does."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import takewhile

from convsmith.measure.profile.graph import Graph, Node, Weight

# What ONNX Runtime appends to the name of a value when it writes it in blocks of channels; a norm, which is a depthwise
# convolution there, has both.
BLOCKED, NORM = "_nchwc", "_bn"
ENTERING = frozenset(("ReorderInput", "Reorder"))  # changes of layout that serve the node behind them

Shapes = list[tuple[int, ...]]


class Origins:
    """Where the nodes of an optimised graph come from in the exported one."""

    def __init__(self, exported: Graph, optimised: Graph):
        self.exported, self.optimised = exported, optimised

    def of(self, node: Node) -> Node | None:
        """The exported node that an optimised one computes; None for one that the runtime added.

        In ONNX Runtime a node that is not changed, or fused, keeps its name. One that writes blocks of channels is
        named after the value that it writes, which an activation or an addition behind the convolution may have written
        before. OpenVINO says which nodes it fused.
        """
        if known := self.exported.by_name.get(node.origin or node.name):
            return known
        if not node.name.endswith(BLOCKED):
            return None
        origin = self.exported.writers.get(node.name.removesuffix(BLOCKED).removesuffix(NORM))
        sought = (node.operator, "BatchNormalization")
        return origin and next(
            (own for own in _reached(origin, self.exported.before) if own.operator in sought), origin
        )

    def module(self, node: Node) -> str:
        """The path of its module; of a node that the runtime added, that of the node that it serves."""
        origin = self.of(node)
        if origin is not None:
            return self._module_of(origin)
        neighbours = [self.optimised.behind(node), self.optimised.before(node)]
        for neighbour in (n for side in (neighbours if node.operator in ENTERING else neighbours[::-1]) for n in side):
            served = self.of(neighbour)
            if served is not None:
                return self._module_of(served)
        return ""

    def weights(self, node: Node) -> list[Weight]:
        """The constants that it reads, as they were exported: the runtime's are padded, or packed and gone."""
        origin = self.of(node)
        graph, read = (self.exported, origin.inputs) if origin else (self.optimised, node.inputs)
        return [graph.weights[value] for value in read if value in graph.weights]

    def _module_of(self, node: Node) -> str:
        """Where the exporter lost the name, the module around the nearest named nodes before and behind it."""
        if node.module:
            return node.module
        nearest = (self._named(node, self.exported.before), self._named(node, self.exported.behind))
        return _around(own.module for own in nearest if own is not None)

    def _named(self, node: Node, step: Callable[[Node], Iterator[Node]]) -> Node | None:
        return next((own for own in _reached(node, step) if own.module), None)


def _reached(node: Node, step: Callable[[Node], Iterator[Node]]) -> Iterator[Node]:
    """The node and all that steps lead to from it, nearest first."""
    seen, waiting = {node.name}, deque([node])
    while waiting:
        node = waiting.popleft()
        yield node
        new = [own for own in step(node) if own.name not in seen]
        seen.update(own.name for own in new)
        waiting += new


def _around(paths: Iterable[str]) -> str:
    levels = zip(*(path.split(".") for path in paths), strict=False)
    return ".".join(names[0] for names in takewhile(lambda names: len(set(names)) == 1, levels))


def macs(operator: str, weights: Sequence[Weight], inputs: Shapes, outputs: Shapes) -> int:
    """Multiply-accumulates of an ONNX operator from its exported weights, which are not padded, and the shapes it had.

    0 for the operators that no convolutional network has (recurrent ones, attention as one node).
    """
    filters = next((weight.shape for weight in weights if len(weight.shape) > 1), None)
    if operator.endswith("ConvTranspose") and filters:
        return inputs[0][0] * math.prod(inputs[0][2:]) * math.prod(filters)
    if "Conv" in operator and filters:
        return outputs[0][0] * math.prod(outputs[0][2:]) * math.prod(filters)
    if "Gemm" in operator and filters:
        return outputs[0][0] * math.prod(filters)
    if "MatMul" in operator:
        columns = filters[-1] if filters else inputs[1][-1] if len(inputs[1]) > 1 else 1
        return math.prod(inputs[0]) * columns
    return 0
