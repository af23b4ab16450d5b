"""Elementwise operators that nothing in front takes up: OpenVINO compiles those that touch to one kernel."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

from convsmith.measure.predictor.graph import Graph, Op
from convsmith.measure.predictor.openvino.marks import ACTIVATIONS
from convsmith.measure.predictor.rewriting import in_order

ELEMENTWISE = ACTIVATIONS | {"BatchNormalization", "Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Exp", "Neg", "Erf",
                             "Floor", "Ceil"}  # fmt: skip


def join_subgraphs(graph: Graph, marked: Collection[int]) -> None:
    """Make subgraphs of the elementwise operators that are not marked; `graph` is changed."""
    if any(op.kind in ELEMENTWISE and id(op) not in marked for op in graph.ops):
        _Joining(graph, marked).run()


class _Joining:
    """Joins an operator to the subgraphs that it reads, one after the other.

    All that the whole reads must surely be computed before all that reads it: told by places in the order of the
    operators.
    """

    def __init__(self, graph: Graph, marked: Collection[int]):
        self.graph, self.marked = graph, marked
        self.producers = graph.producers()
        self.readers: dict[str, list[Op]] = {}
        for op in graph.ops:
            for name in dict.fromkeys(op.inputs):
                self.readers.setdefault(name, []).append(op)
        self.order = {id(op): place for place, op in enumerate(graph.ops)}
        self.groups: dict[int, list[Op]] = {}

    def run(self) -> None:
        for op in self.graph.ops:
            if op.kind in ELEMENTWISE and id(op) not in self.marked:
                self._place(op)
        joined = {id(own): own for own in self.groups.values()}
        members = {id(op) for own in joined.values() for op in own}
        made = [self._subgraph(own) for own in joined.values()]
        self.graph.ops = in_order([*(op for op in self.graph.ops if id(op) not in members), *made], self.graph)

    def _place(self, op: Op) -> None:
        own = [op]
        latest, earliest = self._latest(own, inside=()), self._earliest(own, but=op)
        for name in dict.fromkeys(op.inputs):
            writer = self.producers.get(name)
            group = self.groups.get(id(writer)) if writer is not None else None
            if group is None or group[0] in own:
                continue
            after, before = max(latest, self._latest(group, inside=group)), min(earliest, self._earliest(group, but=op))
            if after < before:
                latest, earliest, own = after, before, [*group, *own]
        for member in own:
            self.groups[id(member)] = own
            self.order[id(member)] = self.order[id(op)]

    def _latest(self, group: Iterable[Op], inside: Iterable[Op]) -> float:
        """The place of the last operator that these read."""
        ids = {id(op) for op in inside}
        writers = (self.producers.get(name) for op in group for name in op.inputs)
        return max((self.order[id(w)] for w in writers if w is not None and id(w) not in ids), default=-1)

    def _earliest(self, group: list[Op], but: Op) -> float:
        """The place of the first operator that reads these."""
        ids = {id(but), *(id(op) for op in group)}
        readers = (reader for op in group for reader in self.readers.get(op.outputs[0], ()))
        return min((self.order[id(reader)] for reader in readers if id(reader) not in ids), default=math.inf)

    def _subgraph(self, own: list[Op]) -> Op:
        ids = {id(op) for op in own}
        written = {op.outputs[0] for op in own}
        inputs = [name for op in own for name in op.inputs if name not in written]
        if len(own) > 1:  # a kernel of one operator reads a map twice that goes in twice
            inputs = list(dict.fromkeys(inputs))
        ends = [
            name
            for op in own
            for name in op.outputs
            if name in self.graph.outputs or any(id(reader) not in ids for reader in self.readers.get(name, ()))
        ]
        covers = tuple(name for op in own for name in op.attributes["covers"])
        return Op("Subgraph", inputs, ends[::-1], {"body": tuple(op.kind for op in own), "covers": covers})
