"""Single executed kernels of ONNX Runtime as models of one node: what each takes where nothing surrounds it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from convsmith.measure.predictor.graph import Graph, Op, Shape
from convsmith.measure.predictor.onnxruntime.session import Session

DOMAINS = {"FusedConv": "com.microsoft", "FusedGemm": "com.microsoft", "QuickGelu": "com.microsoft"}
BLOCKED = "com.microsoft.nchwc"
PARAMETERS = {"Clip": (0.0, 6.0), "HardSigmoid": (1 / 6, 0.5), "LeakyRelu": (0.1,)}  # of fused activations
PROFILES = 3  # of a kernel
VALUED = ("Reshape", "Split", "Slice", "Pad", "Gather", "Unsqueeze", "Clip", "Pow")  # whose constants are read as such


def key_of(graph: Graph, op: Op) -> str:
    """What tells a kernel: equal keys are one kernel, whatever surrounds it."""
    shapes = tuple(graph.shapes.get(name, ()) for name in (*op.inputs, *op.outputs))
    values = tuple(graph.constants.get(name) for name in op.inputs) if op.kind in VALUED else ()
    return repr((op.kind, tuple(map(bool, op.inputs)), shapes, values, sorted(op.attributes.items())))


def time_alone_us(graph: Graph, op: Op) -> float:
    """Microseconds of the kernel in a loop of its own, as the runtime's profile says."""
    model, shape = _model(graph, op)
    session = Session(model, shape, 1)
    for _ in range(PROFILES):
        session.profile_ms()
    return sum(kernel.time_us for kernel in session.kernels(range(PROFILES)))


def _model(graph: Graph, op: Op) -> tuple[bytes, Shape]:
    from onnx import helper

    maps = list(dict.fromkeys(name for name in op.inputs if name and name not in graph.constants))
    kind = op.kind.removeprefix("nchwc.")
    blocked = op.kind != kind or kind.startswith("Reorder")
    domain = BLOCKED if blocked else DOMAINS.get(kind, "")
    attributes = dict(op.attributes)
    if attributes.get("activation") in PARAMETERS:
        attributes["activation_params"] = PARAMETERS[attributes["activation"]]
    constants = []
    for n, name in enumerate(op.inputs):
        if name in graph.constants:
            array = _constant(graph, op, n)
            data = helper.np_dtype_to_tensor_dtype(array.dtype)
            constants.append(helper.make_tensor(f"c{n}", data, array.shape, array.tobytes(), raw=True))
    # All maps are pieces of one input, so that a session needs no more than one.
    names = {name: f"m{i}" for i, name in enumerate(maps)}
    inputs = [f"c{n}" if name in graph.constants else names.get(name, "") for n, name in enumerate(op.inputs)]
    if kind == "Split" and len(op.inputs) == 1:  # made of slices: the sizes are those of the maps
        sizes = np.array([graph.shapes[name][op.attributes["axis"]] for name in op.outputs], dtype=np.int64)
        constants.append(helper.make_tensor("sizes", 7, sizes.shape, sizes.tobytes(), raw=True))
        inputs.append("sizes")
    node = helper.make_node(kind, inputs, [f"o{i}" for i in range(len(op.outputs))], domain=domain, **attributes)
    for name in maps[1:]:
        rng = np.random.default_rng(1).standard_normal(graph.shapes[name], dtype=np.float32)
        constants.append(helper.make_tensor(names[name], 1, rng.shape, rng.tobytes(), raw=True))
    made = helper.make_graph(
        [node],
        "alone",
        [helper.make_tensor_value_info("m0", 1, graph.shapes[maps[0]])],
        [helper.make_tensor_value_info(f"o{i}", 1, graph.shapes[name]) for i, name in enumerate(op.outputs)],
        constants,
    )
    opsets = [helper.make_opsetid("", graph.opset)]
    opsets += [helper.make_opsetid(domain, 1)] if domain else []
    model = helper.make_model(made, opset_imports=opsets, ir_version=9)
    return model.SerializeToString(), graph.shapes[maps[0]]


def _constant(graph: Graph, op: Op, place: int) -> Any:
    name = op.inputs[place]
    values, shape = graph.constants[name], graph.shapes.get(name, ())
    if values is not None and place and not op.kind.endswith("Conv"):
        whole = all(isinstance(value, int) for value in values)
        return np.array(values, dtype=np.int64 if whole else np.float32).reshape(shape)
    if op.kind == "nchwc.Conv":
        shape = _stored(graph, op, place)
    rng = np.random.default_rng(place).standard_normal(shape, dtype=np.float32)
    scaled = rng * np.float32((2 / max(1, math.prod(shape[1:]))) ** 0.5)
    return np.abs(scaled) + np.float32(0.5) if op.kind == "BatchNormalization" else scaled


def _stored(graph: Graph, op: Op, place: int) -> Shape:
    """The shape of weights that are filled up to whole blocks."""
    width = graph.shapes[op.outputs[0]][1]
    if place != 1:
        return (width,)
    weight, source = graph.shapes[op.inputs[1]], graph.shapes[op.inputs[0]]
    groups = int(op.attributes.get("group", 1))
    depth = source[1] if groups == 1 and source[1] % 8 == 0 else weight[1]
    return (width, depth, *weight[2:])


def distinct(graphs: Iterable[Graph]) -> dict[str, tuple[Graph, Op]]:
    """The kernels of executed graphs by their keys, each once."""
    return {key_of(graph, op): (graph, op) for graph in graphs for op in graph.ops}
