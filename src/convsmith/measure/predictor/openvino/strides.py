"""Strides that move up: a convolution of one pixel reads only some of its map, so that only those need be computed.

OpenVINO takes the stride of a 1x1 convolution off it and gives it to what computes its map: through elementwise
operators to a convolution in front, whose stride it multiplies, or to a pooling of one pixel where it cannot go on.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TypeAlias

from convsmith.measure.predictor.graph import Graph, Op, Shape

Strides: TypeAlias = tuple[int, ...]

PASSING = ("Relu", "Clip", "Sigmoid", "Tanh", "HardSwish", "Abs", "Sqrt", "Exp", "Neg", "Erf", "Add", "Sub", "Mul",
           "Div", "Sum", "Max", "Min", "Pow", "BatchNormalization")  # fmt: skip
NONE: Strides = (1, 1)


def move_strides(graph: Graph) -> None:
    """Move them, from the last operator to the first; `graph` is changed, the sizes of the maps too."""
    if any(_is_pointwise(graph, op) and _strides(op) != NONE for op in graph.ops):
        _Moving(graph).run()


class _Moving:
    def __init__(self, graph: Graph):
        self.graph = graph
        self.readers: dict[str, list[tuple[Op, int]]] = {}
        for op in graph.ops:
            for place, name in enumerate(op.inputs):
                self.readers.setdefault(name, []).append((op, place))
        self.wanted: dict[tuple[int, int], Strides] = {}  # by operator and place of its input
        self.before: dict[int, list[Op]] = defaultdict(list)
        self.behind: dict[int, list[Op]] = defaultdict(list)

    def run(self) -> None:
        for op in reversed(self.graph.ops):
            self._visit(op)
        for name in self.graph.inputs:
            self._give_back(name)
        self.graph.ops = [each for op in self.graph.ops for each in (*self.before[id(op)], op, *self.behind[id(op)])]

    def _visit(self, op: Op) -> None:
        name = op.outputs[0]
        strides = self._common(name) if len(op.outputs) == 1 else NONE
        convolves = op.kind == "Conv"
        plain = convolves and op.attributes.get("group", 1) == 1
        if strides != NONE and convolves and not plain and len(op.inputs) > 2:
            self._pool_before_bias(op, strides)
        elif strides == NONE or not (plain or op.kind in PASSING):
            for output in op.outputs:
                self._give_back(output)
            strides = NONE
        else:
            self.graph.shapes[name] = _strided(self.graph.shapes[name], strides)
        for output in op.outputs:
            for reader, place in self.readers.get(output, ()):
                self.wanted.pop((id(reader), place), None)
        if plain:
            self._take(op, strides)
        elif strides != NONE and not convolves:
            self.wanted.update({(id(op), place): strides for place in range(len(op.inputs))})

    def _common(self, name: str) -> Strides:
        """The strides that all readers of a map want; none where they differ."""
        found = {self.wanted.get((id(op), place), NONE) for op, place in self.readers.get(name, ())}
        return found.pop() if len(found) == 1 and name not in self.graph.outputs else NONE

    def _take(self, op: Op, strides: Strides) -> None:
        """A convolution's strides and those behind it are its own, or wanted of its map if it has one tap."""
        own = tuple(a * b for a, b in zip(_strides(op), strides, strict=True))
        pointwise = _is_pointwise(self.graph, op)
        op.attributes = {**op.attributes, "strides": NONE if pointwise else own}
        if pointwise:
            self.wanted[id(op), 0] = own

    def _give_back(self, name: str) -> None:
        """Readers of a map that cannot be computed in part take theirs back, or read what a pooling leaves of it."""
        for op, place in self.readers.get(name, ()):
            strides = self.wanted.get((id(op), place), NONE)
            if strides == NONE:
                continue
            if op.kind == "Conv":
                op.attributes = {**op.attributes, "strides": strides}
            elif name not in self.graph.constants:
                op.inputs[place] = self._pooled(name, strides, self.before[id(op)])

    def _pooled(self, name: str, strides: Strides, ops: list[Op]) -> str:
        shapes = self.graph.shapes
        made = f"{name}/strided{len(shapes)}"
        shapes[made] = _strided(shapes[name], strides)
        attributes = {"kernel_shape": NONE, "strides": strides, "pads": (0, 0, 0, 0), "covers": ()}
        ops.append(Op("MaxPool", [name], [made], attributes))
        return made

    def _pool_before_bias(self, op: Op, strides: Strides) -> None:
        """A grouped convolution keeps its stride; of the sum with its bias only a part is computed."""
        graph, name, ops = self.graph, op.outputs[0], self.behind[id(op)]
        shape = graph.shapes[name]
        before, bias = f"{name}/without bias", f"{name}/bias"
        graph.shapes[before], graph.shapes[bias] = shape, (1, shape[1], 1, 1)
        graph.shapes[name], graph.constants[bias] = _strided(shape, strides), None
        op.inputs, op.outputs = op.inputs[:2], [before]
        pooled = self._pooled(before, strides, ops)
        ops.append(Op("Add", [pooled, bias], [name], {"covers": op.attributes["covers"]}))


def _strided(shape: Shape, strides: Strides) -> Shape:
    if len(shape) < 4:
        return shape
    return (*shape[:2], *(-(-size // stride) for size, stride in zip(shape[2:], strides, strict=True)))


def _strides(op: Op) -> Strides:
    return op.ints("strides", NONE)


def _is_pointwise(graph: Graph, op: Op) -> bool:
    if op.kind != "Conv" or op.attributes.get("group", 1) != 1:
        return False
    taps = graph.shapes.get(op.inputs[1], ())[2:]
    return len(taps) == 2 and set(taps) == {1} and len(graph.shapes.get(op.inputs[0], ())) == 4
