"""What OpenVINO's CPU plugin computes in one kernel: convolutions, products and reductions with what follows them."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from convsmith.measure.predictor.graph import Graph, Op
from convsmith.measure.predictor.openvino.marks import ACTIVATIONS, PRODUCTS, REDUCTIONS, is_simple, marked
from convsmith.measure.predictor.openvino.subgraphs import ELEMENTWISE, join_subgraphs
from convsmith.measure.predictor.rewriting import has, in_order

POOLS = ("MaxPool", "AveragePool")
BEGINNING = frozenset(("Conv", *PRODUCTS, *REDUCTIONS))
LARGEST_JOINED = 256  # inputs and outputs of products in one kernel
NAMES = {
    "Conv": "Convolution", "Gemm": "FullyConnected", "MatMul": "MatMul", "Concat": "Concatenation",
    "Slice": "StridedSlice", "HardSigmoid": "Math", "Resize": "Interpolate", "ConvTranspose": "Deconvolution",
    **dict.fromkeys(REDUCTIONS, "Reduce"), **dict.fromkeys(POOLS, "Pooling"),
}  # fmt: skip


def fuse(graph: Graph) -> None:
    """Merge; `graph` is changed, and its operators are named as OpenVINO's.

    A marked operator that is not merged is a kernel of its own, an `Eltwise`. What follows a convolution or another
    elementwise operator is in the attribute `body`, in order.
    """
    marks = marked(graph)
    join_subgraphs(graph, marks.keys())
    _Fusion(graph).run()


class _Fusion:
    def __init__(self, graph: Graph):
        self.graph = graph
        self.producers = graph.producers()
        self.readers: dict[str, list[Op]] = {}
        for op in graph.ops:
            for name in op.inputs:
                self.readers.setdefault(name, []).append(op)
        self.gone: set[int] = set()

    def run(self) -> None:
        for op in self.graph.ops:
            op.attributes = {**op.attributes, "algorithm": op.kind, "body": op.attributes.get("body", ())}
        self._activations_behind_pools()
        self._simple(BEGINNING)
        self._small_products()
        self._sums()
        self._simple(("Conv",))
        self._chains()
        for op in self.graph.ops:
            op.kind = "Eltwise" if op.kind in ELEMENTWISE else NAMES.get(op.kind, op.kind)
        self.graph.ops = in_order(self._left(), self.graph)

    def _left(self) -> list[Op]:
        return [op for op in self.graph.ops if id(op) not in self.gone]

    def _only_reader(self, op: Op) -> Op | None:
        """The operator that alone reads what this one writes, once."""
        readers = self.readers.get(op.outputs[0], [])
        alone = len(op.outputs) == 1 and len(readers) == 1 and op.outputs[0] not in self.graph.outputs
        return readers[0] if alone else None

    def _is_simple(self, op: Op | None) -> bool:
        return op is not None and op.kind in ELEMENTWISE and is_simple(self.graph, op)

    def _merge(self, op: Op, taken: Op) -> None:
        """Let `op` compute what `taken` does, which reads it; other maps are read too."""
        name = op.outputs[0]
        more = [n for n in taken.inputs if n != name and n not in self.graph.constants]
        if more and op.kind == "Conv":
            op.inputs = [*op.inputs, *[""] * (3 - len(op.inputs))]
        op.inputs = [*op.inputs, *more]
        for n in more:
            self.readers[n] = [op if reader is taken else reader for reader in self.readers[n]]
        op.outputs = list(taken.outputs)
        self.producers[op.outputs[0]] = op
        attributes = op.attributes
        op.attributes = {
            **attributes,
            "body": (*attributes["body"], taken.kind, *taken.attributes["body"]),
            "covers": (*attributes["covers"], *taken.attributes["covers"]),
        }
        self.gone.add(id(taken))

    def _activations_behind_pools(self) -> None:
        """What follows a maximum goes into the convolution in front of it: the order of the two does not matter."""
        if not has(self.graph, "MaxPool"):
            return
        for op in self.graph.ops:
            pool = self._only_reader(op) if op.kind == "Conv" else None
            if pool is None or pool.kind != "MaxPool":
                continue
            while (act := self._only_reader(pool)) is not None and act.kind in ACTIVATIONS and self._is_simple(act):
                op.attributes = {**op.attributes, "body": (*op.attributes["body"], act.kind)}
                pool.outputs = list(act.outputs)
                op.attributes = {**op.attributes, "covers": (*op.attributes["covers"], *act.attributes["covers"])}
                self.producers[pool.outputs[0]] = pool
                self.gone.add(id(act))

    def _simple(self, kinds: Collection[str]) -> None:
        for op in self.graph.ops:
            if id(op) in self.gone or op.kind not in kinds:
                continue
            while (child := self._only_reader(op)) is not None and self._is_simple(child):
                self._merge(op, child)

    def _small_products(self) -> None:
        """Products with small weights that follow each other are one subgraph."""
        for op in self.graph.ops:
            if id(op) in self.gone or not self._is_small(op):
                continue
            while (child := self._only_reader(op)) is not None and self._is_small(child):
                self._merge(op, child)
                op.kind = "Subgraph"

    def _is_small(self, op: Op) -> bool:
        weights = self.graph.shapes.get(op.inputs[1], ()) if op.kind in ("Gemm", "MatMul") else ()
        return op.inputs[1] in self.graph.constants and max(weights) <= LARGEST_JOINED if weights else False

    def _sums(self) -> None:
        """A sum goes into a convolution, which writes over the other map: all others must have read that."""
        for add in self.graph.ops:
            if add.kind != "Add" or id(add) in self.gone or any(n in self.graph.constants for n in add.inputs):
                continue
            if len({self.graph.shapes[name] for name in add.inputs}) != 1 or len(add.inputs) != 2:
                continue
            first, second = (self.producers.get(name) for name in add.inputs)
            fitting = [w for w in (first, second) if w is not None and w.kind == "Conv" and not w.attributes["body"]]
            if not fitting or first is second:
                continue
            conv = fitting[0]
            if len(fitting) == 2 and self._only_reader(conv) is None:
                conv = fitting[1]
            peer = next(name for name in add.inputs if name != conv.outputs[0])
            if self._only_reader(conv) is not add or peer in conv.inputs:
                continue
            if all(self._leads_to(reader, add) for reader in self._all_readers(peer)):
                self._merge(conv, add)

    def _all_readers(self, name: str) -> Iterator[Op]:
        """What reads any output of the operator that writes a map."""
        writer = self.producers.get(name)
        for each in writer.outputs if writer is not None else (name,):
            yield from self.readers.get(each, ())

    def _leads_to(self, op: Op, goal: Op) -> bool:
        waiting, met = [op], {id(op)}
        while waiting:
            here = waiting.pop()
            if here is goal:
                return True
            for name in here.outputs:
                for reader in self.readers.get(name, ()):
                    if id(reader) not in met:
                        met.add(id(reader))
                        waiting.append(reader)
        return False

    def _chains(self) -> None:
        """Elementwise operators that were left: each takes the ones behind it."""
        for op in self.graph.ops:
            if id(op) in self.gone or op.kind not in ELEMENTWISE:
                continue
            while (child := self._only_reader(op)) is not None and child.kind in ELEMENTWISE:
                writers = [self.producers.get(name) for name in child.inputs]
                split = any(w is not None and w.kind in ("Split", "VariadicSplit") for w in writers)
                if split or set(child.inputs) & set(op.inputs) - self.graph.constants.keys():
                    break
                self._merge(op, child)
