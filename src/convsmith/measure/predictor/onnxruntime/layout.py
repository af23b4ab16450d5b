"""Which convolutions ONNX Runtime computes on blocks of channels, and where maps are put into blocks and back.

On x86 the runtime keeps maps as NCHWc: channels in blocks of one vector register. A convolution that cannot have them
so is computed by unfolding and a matrix product, and is several times slower. Restated from what 1.32 does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from convsmith.measure.predictor.graph import Graph, Op
from convsmith.measure.predictor.rewriting import in_order

ACTIVATIONS = ("Relu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "QuickGelu", "Gelu")
FUSED_AFTER = ("Relu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish")


@dataclass(slots=True)
class _Blocked:
    """A map in blocks: what writes it, its name there, and how often it is read, in all and plain."""

    writer: Op
    name: str
    uses: int
    plain_uses: int
    channels: int


def lay_out(graph: Graph, block: int) -> Graph:
    """The graph with blocked operators and the reorderings between the layouts, in the order of execution.

    Blocked operators are named `nchwc.Conv` and so on; a convolution that adds a map on the fly reads it as its fourth
    input. `graph` is changed.
    """
    return _Layout(graph, block).run()


def _read_in_blocks(op: Op, maps: Sequence[_Blocked | None]) -> list[_Blocked]:
    """Let an operator read its maps in blocks, all of which are there."""
    inputs = [entry for entry in maps if entry is not None]
    for entry in inputs:
        entry.plain_uses -= 1
    op.inputs = [entry.name for entry in inputs]
    return inputs


class _Layout:
    def __init__(self, graph: Graph, block: int):
        self.graph, self.block = graph, block
        self.uses = graph.uses()
        self.blocked: dict[str, _Blocked] = {}
        self.reordered: dict[str, str] = {}
        self.ops: list[Op] = []

    def run(self) -> Graph:
        graph = self.graph
        for op in graph.ops:
            self._visit(op)
        back = {}
        for name, own in self.blocked.items():
            if own.plain_uses > 0:
                back[name] = Op("ReorderOutput", [own.name], [name], {"channels": own.channels})
        graph.ops = in_order([*self.ops, *back.values()], graph)
        return graph

    def _visit(self, op: Op) -> None:
        if op.kind == "Conv":
            self._conv(op)
        elif op.kind in ("MaxPool", "AveragePool") or (
            op.kind in ("GlobalAveragePool", "GlobalMaxPool") and op.inputs[0] in self.blocked
        ):
            self._pool(op)
        elif op.kind in ("Add", "Sum", "Mul"):
            self._binary(op)
        elif op.kind == "Concat":
            self._concat(op)
        elif op.kind in ACTIVATIONS and op.inputs[0] in self.blocked:
            self._activation(op)
        elif op.kind == "BatchNormalization" and op.inputs[0] in self.blocked:
            self._norm(op)
        else:
            self.ops.append(op)

    def _conv(self, op: Op) -> None:
        width, per_group, *kernel = self.graph.shapes[op.inputs[1]]
        groups = op.attributes.get("group", 1)
        plain_input = groups == 1 and per_group < self.block
        depthwise = groups > 1 and per_group == 1 and width == groups
        full = per_group % self.block == 0 and (width // groups) % self.block == 0
        divides = plain_input or per_group % 4 == 0
        fits = divides if groups == 1 else (depthwise and width % 4 == 0) or full
        if not fits or len(kernel) != 2 or op.inputs[1] not in self.graph.constants:
            self.ops.append(op)
            return
        op.kind = "nchwc.Conv"
        if depthwise:
            op.attributes = {**op.attributes, "group": self._padded(groups)}
        if not plain_input:
            op.inputs[0] = self._take(op.inputs[0])
        self._write(op, op, width)

    def _pool(self, op: Op) -> None:
        channels = self.graph.shapes[op.inputs[0]][1]
        # The blocked kernel of an average that counts its padding has no ceil_mode.
        counts = op.kind == "AveragePool" and op.attributes.get("ceil_mode") and op.attributes.get("count_include_pad")
        odd = len(self.graph.shapes[op.inputs[0]]) != 4 or counts
        if odd or channels % self.block or len(op.outputs) > 1:
            self.ops.append(op)
            return
        op.kind = f"nchwc.{op.kind}"
        op.inputs[0] = self._take(op.inputs[0])
        self._write(op, op, channels)

    def _binary(self, op: Op) -> None:
        own = [self.blocked.get(name) for name in op.inputs]
        shapes = {self.graph.shapes.get(name, ()) for name in op.inputs}
        if any(entry is None for entry in own) or len(shapes) != 1:
            self.ops.append(op)
            return
        inputs = _read_in_blocks(op, own)
        if op.kind != "Mul" and len(inputs) == 2:
            for n, entry in enumerate(inputs):
                writer = entry.writer
                if (
                    writer.kind == "nchwc.Conv"
                    and len(writer.inputs) < 4
                    and entry.uses == 1
                    and "activation" not in writer.attributes
                ):
                    writer.inputs = [*writer.inputs, *[""] * (3 - len(writer.inputs)), inputs[1 - n].name]
                    self._fuse(op, entry)
                    return
        self.ops.append(op)
        self._register(op, op, inputs[0].channels)

    def _concat(self, op: Op) -> None:
        own = [self.blocked.get(name) for name in op.inputs]
        if op.attributes.get("axis") != 1 or any(entry is None or entry.channels % self.block for entry in own):
            self.ops.append(op)
            return
        inputs = _read_in_blocks(op, own)
        self.ops.append(op)
        self._register(op, op, sum(entry.channels for entry in inputs))

    def _activation(self, op: Op) -> None:
        entry = self.blocked[op.inputs[0]]
        entry.plain_uses -= 1
        op.inputs[0] = entry.name
        writer = entry.writer
        if (
            op.kind in FUSED_AFTER
            and writer.kind == "nchwc.Conv"
            and entry.uses == 1
            and "activation" not in writer.attributes
        ):
            writer.attributes = {**writer.attributes, "activation": op.kind}
            self._fuse(op, entry)
            return
        self.ops.append(op)
        self._register(op, op, entry.channels)

    def _norm(self, op: Op) -> None:
        entry = self.blocked[op.inputs[0]]
        entry.plain_uses -= 1
        padded = self._padded(entry.channels)
        weight = op.outputs[0] + "/scale"
        self.graph.shapes[weight] = (padded, 1, 1, 1)
        self.graph.constants[weight] = None
        op.kind, op.inputs, op.attributes = "nchwc.Conv", [entry.name, weight, op.inputs[2]], {"group": padded}
        self._write(op, op, entry.channels)

    def _take(self, name: str) -> str:
        """The blocked form of a map, which a reordering makes where nothing writes it so."""
        if name in self.blocked:
            self.blocked[name].plain_uses -= 1
            return self.blocked[name].name
        if name not in self.reordered:
            made = f"{name}/blocked"
            self.graph.shapes[made] = self._blocked_shape(name)
            self.ops.append(Op("ReorderInput", [name], [made]))
            self.reordered[name] = made
        return self.reordered[name]

    def _write(self, op: Op, original: Op, channels: int) -> None:
        self.ops.append(op)
        self._register(op, original, channels)

    def _register(self, writer: Op, original: Op, channels: int) -> None:
        name = original.outputs[0]
        made = f"{name}/blocked"
        self.graph.shapes[made] = self._blocked_shape(name)
        self.blocked[name] = _Blocked(writer, made, self.uses[name], self.uses[name], channels)
        writer.outputs = [made]

    def _fuse(self, gone: Op, entry: _Blocked) -> None:
        """The operator is done by the convolution in front of it, which now writes the operator's map."""
        name = gone.outputs[0]
        self.blocked[name] = _Blocked(entry.writer, entry.name, self.uses[name], self.uses[name], entry.channels)

    def _blocked_shape(self, name: str) -> tuple[int, ...]:
        batch, channels, *size = self.graph.shapes[name]
        return (batch, self._padded(channels), *size)

    def _padded(self, channels: int) -> int:
        return -(-channels // self.block) * self.block
