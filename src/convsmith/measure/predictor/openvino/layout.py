"""Which kernel OpenVINO chooses for each operator, and where maps are put into another layout.

Maps of four axes have their channels last. What needs them first is given a copy, unless both are the same in memory.
"""

from __future__ import annotations

import math

from convsmith.measure.predictor.graph import Graph, Op, Shape

VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
CHANNELS_FIRST = (*VIEWS, "Math", "Transpose", "Gather", "Softmax")  # else the channels are last


def lay_out(graph: Graph, block: int) -> None:
    """Add the copies, take out what only looks at a map in another way, and name the kernels; `graph` is changed."""
    last = dict.fromkeys(graph.inputs, False)  # whether the channels of a map are last
    made: dict[tuple[str, bool], str] = {}
    views: dict[str, str] = {}
    ops = []

    def taken(name: str, wanted: bool) -> str:
        if name not in last or last[name] == wanted:
            return name
        if (name, wanted) not in made:
            made[name, wanted] = name
            if not same_in_memory(graph.shapes[name]):
                made[name, wanted] = f"{name}/{'last' if wanted else 'first'}"
                graph.shapes[made[name, wanted]] = graph.shapes[name]
                attributes = {"covers": (), "kernel": "", "body": ()}
                ops.append(Op("Reorder", [name], [made[name, wanted]], attributes))
        return made[name, wanted]

    for op in graph.ops:
        wanted = op.kind not in CHANNELS_FIRST
        if op.kind in ("Reduce", "Pooling"):  # take their map as it is
            wanted = last.get(op.inputs[0], wanted)
        op.inputs = [taken(name, wanted) if name not in graph.constants else name for name in op.inputs]
        for name in op.outputs:
            if len(graph.shapes[name]) == 4:
                last[name] = wanted
        if op.kind in VIEWS:
            views[op.outputs[0]] = op.inputs[0]
            continue
        op.attributes = {**op.attributes, "kernel": kernel(graph, op, block)}
        ops.append(op)
    graph.outputs = [taken(name, False) for name in graph.outputs]
    graph.ops = ops


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
