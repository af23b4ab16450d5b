"""What a network computes, as the graph that a runtime is given: operators, attributes and shapes, without weights.

Read from an ONNX model, whose weights are left out before anything else looks at it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Shape: TypeAlias = tuple[int, ...]

LARGEST_KEPT = 64  # elements of a constant whose values matter: sizes, axes, bounds, scales


@dataclass(slots=True)
class Op:
    """One operator: a name is "" where an optional input is left out."""

    kind: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any] = field(default_factory=dict)

    def ints(self, name: str, default: Iterable[int]) -> tuple[int, ...]:
        """An attribute of several numbers."""
        return tuple(self.attributes.get(name, default))


@dataclass(slots=True)
class Graph:
    """Operators in the order of execution.

    `constants` are weights, sizes and bounds by name: None for floating-point ones that are large, else their values.
    """

    ops: list[Op]
    inputs: list[str]
    outputs: list[str]
    shapes: dict[str, Shape]
    constants: dict[str, tuple[float, ...] | None]
    opset: int = 18

    def uses(self) -> Counter[str]:
        """How often each map is read, the network's outputs counting as read."""
        return Counter([name for op in self.ops for name in op.inputs] + self.outputs)

    def producers(self) -> dict[str, Op]:
        """Which operator writes a map."""
        return {name: op for op in self.ops for name in op.outputs}


def read(model: Any, input_shapes: Sequence[Shape]) -> Graph:
    """The graph of an ONNX model (a ModelProto, left as it is) whose inputs have the given shapes."""
    try:
        import onnx
        from onnx import shape_inference
    except ImportError as error:
        raise ImportError("onnx is needed and not installed; pip install 'convsmith[onnx]'") from error

    light, inputs = _without_weights(model, input_shapes)
    inferred = shape_inference.infer_shapes(light, data_prop=True).graph
    shapes: dict[str, Shape] = {}
    for info in (*inferred.input, *inferred.value_info, *inferred.output):
        shapes[info.name] = tuple(d.dim_value for d in info.type.tensor_type.shape.dim)
    constants: dict[str, tuple[float, ...] | None] = {info.name: None for info in light.graph.input[len(inputs) :]}
    for tensor in light.graph.initializer:
        constants[tensor.name] = tuple(onnx.numpy_helper.to_array(tensor).ravel().tolist())
        shapes[tensor.name] = tuple(tensor.dims)
    ops = []
    for node in light.graph.node:
        attributes = {a.name: _value(onnx.helper.get_attribute_value(a)) for a in node.attribute}
        ops.append(Op(node.op_type, list(node.input), [name for name in node.output if name], attributes))
    graph = Graph(ops, inputs, [o.name for o in light.graph.output], shapes, constants)
    graph.opset = next(entry.version for entry in light.opset_import if entry.domain == "")
    _take_constants(graph, light, onnx.numpy_helper.to_array)
    return graph


def _without_weights(model: Any, input_shapes: Sequence[Shape]) -> tuple[Any, list[str]]:
    """A copy in which large initializers are inputs behind the network's own, which have their sizes; their names."""
    import onnx

    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    source, graph = model.graph, light.graph
    weights = {tensor.name for tensor in source.initializer}
    inputs = [info for info in source.input if info.name not in weights]
    graph.name = source.name or "network"
    for info, shape in zip(inputs, input_shapes, strict=True):
        graph.input.append(onnx.helper.make_tensor_value_info(info.name, info.type.tensor_type.elem_type, shape))
    for tensor in source.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and math.prod(tensor.dims) > LARGEST_KEPT:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tuple(tensor.dims)))
        else:
            graph.initializer.append(tensor)
    graph.node.extend(source.node)
    for output in source.output:
        kept = onnx.ValueInfoProto(name=output.name)
        kept.type.tensor_type.elem_type = output.type.tensor_type.elem_type
        graph.output.append(kept)
    return light, [info.name for info in inputs]


def _take_constants(graph: Graph, light: Any, to_array: Any) -> None:
    """Constant operators become constants; what only renames a map is taken out."""
    renamed: dict[str, str] = {}
    kept = []
    for node, op in zip(light.graph.node, graph.ops, strict=True):
        op.inputs = [renamed.get(name, name) for name in op.inputs]
        if op.kind == "Constant" and node.attribute[0].HasField("t"):
            values = to_array(node.attribute[0].t)
            small = values.size <= LARGEST_KEPT or values.dtype.kind != "f"
            graph.constants[op.outputs[0]] = tuple(values.ravel().tolist()) if small else None
            graph.shapes[op.outputs[0]] = tuple(values.shape)
        elif op.kind in ("Identity", "Dropout"):
            renamed[op.outputs[0]] = op.inputs[0]
        else:
            kept.append(op)
    graph.ops = kept
    graph.outputs = [renamed.get(name, name) for name in graph.outputs]


def _value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list | tuple):
        return tuple(value)
    return value if isinstance(value, int | float | str) else None
