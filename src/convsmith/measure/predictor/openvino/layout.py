"""Which kernel OpenVINO chooses for each operator, and where maps are put into another layout.

Convolutions have the channels of maps of four axes last, some operators have them first, and all others take their maps
as they are. A map that is needed otherwise is copied, unless both are the same in memory. With channels first, the maps
of one image lie in one piece side by side: nothing is moved to split or to join them, but a map can lie in one place.
"""

from __future__ import annotations

import math

from convsmith.measure.predictor.graph import Graph, Op, Shape

VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
CHANNELS_FIRST = (*VIEWS, "Math", "Transpose", "Gather", "Softmax")
CHANNELS_LAST = ("Convolution", "Deconvolution")
THROUGH_BLOCKS = (2, 3)  # channels of maps with channels first that are pooled in blocks of channels


def lay_out(graph: Graph, block: int) -> None:
    """Add the copies, take out what only looks at a map in another way, and name the kernels; `graph` is changed."""
    _Layout(graph, block).run()


class _Layout:
    def __init__(self, graph: Graph, block: int):
        self.graph, self.block = graph, block
        self.last = dict.fromkeys(graph.inputs, False)  # whether the channels of a map are last
        self.made: set[str] = set()
        self.kinds: dict[str, list[str]] = {}  # of a map's readers
        for op in graph.ops:
            for name in op.inputs:
                self.kinds.setdefault(name, []).append(op.kind)
        self.ops: list[Op] = []
        self.parts: set[str] = set()  # of maps that are split where they are
        self.joined: list[Op] = []  # whose maps are written to where they shall be

    def run(self) -> None:
        graph = self.graph
        for op in graph.ops:
            wanted = self._wanted(op)
            joined = op.kind == "Concatenation" and not wanted and self._is_one_piece(op)
            op.inputs = [
                name if name in graph.constants else self._taken(name, wanted, alone=joined) for name in op.inputs
            ]
            if op.kind == "Pooling" and not wanted and graph.shapes[op.inputs[0]][1] in THROUGH_BLOCKS:
                op.inputs[0] = self._copied(op.inputs[0], f"{op.inputs[0]}/blocks")
            written = wanted and not (op.kind == "Split" and self._parts_are_first(op))
            self.last.update({name: written for name in op.outputs if len(graph.shapes[name]) == 4})
            if op.kind not in VIEWS:
                op.attributes = {**op.attributes, "kernel": kernel(graph, op, self.block), "last": wanted}
                self.ops.append(op)
            if joined:
                self.joined.append(op)
            elif op.kind == "Split" and not wanted and self._is_one_piece(op):
                self.parts.update(op.outputs)
        self._copy_what_lies_elsewhere()
        graph.outputs = [self._taken(name, False) for name in graph.outputs]
        graph.ops = self.ops

    def _wanted(self, op: Op) -> bool:
        """Whether an operator reads its maps with their channels last."""
        maps = [name for name in op.inputs if name in self.last]
        if op.kind in CHANNELS_FIRST or op.kind in CHANNELS_LAST or not maps:
            return op.kind not in CHANNELS_FIRST
        if op.kind == "Concatenation":
            return 2 * sum(self.last[name] for name in maps) >= len(maps)
        # What takes the least copying; where nothing moves there is something to do nevertheless.
        copied = {True: 0, False: 0}
        for name in maps:
            shape = self.graph.shapes[name]
            copied[not self.last[name]] += 1 if same_in_memory(shape) else math.prod(shape)
        return copied[True] <= copied[False]

    def _parts_are_first(self, op: Op) -> bool:
        """Whether a split, which reads channels last, writes them first: as something behind it needs them."""
        return any(kind in CHANNELS_FIRST for name in op.outputs for kind in self.kinds.get(name, ()))

    def _is_one_piece(self, op: Op) -> bool:
        axis = op.attributes.get("axis", 0)
        return math.prod(self.graph.shapes[op.outputs[0]][:axis]) == 1

    def _copy_what_lies_elsewhere(self) -> None:
        """Joined are copies of parts of a map, and of a map that is joined again behind."""
        later: set[str] = set()
        for op in reversed(self.joined):
            place = self.ops.index(op)
            for n, name in reversed(list(enumerate(op.inputs))):
                if name in later | self.parts and not same_in_memory(self.graph.shapes[name]):
                    op.inputs[n] = self._copied(name, f"{name}/joined {place} {n}", place)
                later.add(name)

    def _copied(self, name: str, made: str, place: int | None = None) -> str:
        self.graph.shapes[made] = self.graph.shapes[name]
        copy = Op("Reorder", [name], [made], {"covers": (), "kernel": "", "body": ()})
        self.ops.insert(len(self.ops) if place is None else place, copy)
        return made

    def _taken(self, name: str, wanted: bool, *, alone: bool = False) -> str:
        """The map in a layout, as it is or copied; `alone` is a copy for one reader, all others share one."""
        graph = self.graph
        if self.last.get(name, wanted) == wanted or same_in_memory(graph.shapes[name]):
            return name
        made = f"{name}/{wanted}"
        if alone:
            made = f"{made} {len(self.ops)}"
        if made not in self.made:
            self.made.add(made)
            self._copied(name, made)
        return made


def same_in_memory(shape: Shape) -> bool:
    """Whether a map is the same with its channels first and last."""
    return len(shape) < 4 or shape[1] == 1 or math.prod(shape[2:]) == 1


def kernel(graph: Graph, op: Op, block: int) -> str:
    """OpenVINO's name of the kernel, without the instructions and numbers that it is for; "" where it has one kind."""
    if op.kind == "Convolution":
        return _convolution(graph, op, block)
    if op.kind == "FullyConnected":
        return "brgemm" if op.attributes["body"] else "gemm_mlas"
    return ""


def _convolution(graph: Graph, op: Op, block: int) -> str:
    width, per_group, *taps = graph.shapes[op.inputs[1]]
    groups = op.attributes.get("group", 1)
    if groups > 1 and per_group == 1 and width == groups:
        return "jit_dw" if max(op.ints("dilations", (1,))) > 1 else "brgconv_dw"
    beyond = op.ints("pads", (0, 0, 0, 0))[1] > graph.shapes[op.outputs[0]][-1]
    if groups > 1 and per_group <= block and not beyond:  # its first pixels would all read padding
        return "jit"
    return "brgconv_1x1" if set(taps) == {1} and not _reads_padding(graph, op) else "brgconv"


def _reads_padding(graph: Graph, op: Op) -> bool:
    """Whether a convolution of one tap, from the first pixel on, reads beyond its map."""
    sizes = zip(
        graph.shapes[op.inputs[0]][2:], graph.shapes[op.outputs[0]][2:], op.ints("strides", (1, 1)), strict=True
    )
    begins = op.ints("pads", (0,))[: len(graph.shapes[op.inputs[0]]) - 2]
    return any(begins) or any((after - 1) * stride + 1 > before for before, after, stride in sizes)
