"""A graph as an ONNX model with random weights: what a network of that structure takes, without the network."""

from __future__ import annotations

import math
import zlib
from functools import cache
from typing import Any

import numpy as np

from convsmith.measure.predictor.graph import Graph

POOL = 1 << 20  # numbers that all weights are taken from


def model_of(graph: Graph) -> bytes:
    """The model, serialised. Weights are normal numbers scaled by fan-in, so that maps neither grow nor fade fast."""
    from onnx import helper

    variances = {op.inputs[4] for op in graph.ops if op.kind == "BatchNormalization"}
    read = {name for op in graph.ops for name in op.inputs}
    tensors = []
    for name, values in graph.constants.items():
        if name in read:
            shape = graph.shapes.get(name, ())
            array = _weights(name, shape, positive=name in variances) if values is None else _values(values, shape)
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            tensors.append(helper.make_tensor(name, kind, array.shape, array.tobytes(), raw=True))
    nodes = [helper.make_node(op.kind, op.inputs, op.outputs, **op.attributes) for op in graph.ops]
    made = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(name, 1, graph.shapes[name]) for name in graph.inputs],
        [helper.make_tensor_value_info(name, 1, graph.shapes.get(name)) for name in graph.outputs],
        tensors,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", graph.opset)], ir_version=9)
    return bytes(model.SerializeToString())


def _weights(name: str, shape: tuple[int, ...], *, positive: bool) -> Any:
    # Each tensor begins elsewhere: operators with equal weights would be computed once.
    start = zlib.crc32(name.encode()) % POOL
    size = math.prod(shape)
    values = _normal_numbers()
    if start + size > len(values):
        values = np.resize(values, start + size)
    values = values[start : start + size].reshape(shape)
    if positive:
        return np.abs(values) + np.float32(0.5)
    fan_in = math.prod(shape[1:]) if len(shape) > 1 else 100
    return values * np.float32((2 / fan_in) ** 0.5)


def _values(values: tuple[float, ...], shape: tuple[int, ...]) -> Any:
    whole = all(isinstance(value, int) and not isinstance(value, bool) for value in values)
    truth = bool(values) and all(isinstance(value, bool) for value in values)
    return np.array(values, dtype=np.bool_ if truth else np.int64 if whole else np.float32).reshape(shape)


@cache
def _normal_numbers() -> Any:
    return np.tile(np.random.default_rng(0).standard_normal(POOL, dtype=np.float32), 3)
