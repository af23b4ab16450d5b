"""The quick way from a network to an ONNX model: record one forward pass, say each operator in ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

import convsmith
from convsmith.deploy.onnx.apart import Apart
from convsmith.deploy.onnx.forms import form_of
from convsmith.deploy.onnx.graph import IR_VERSION, NUMPY, OPSET, Graph
from convsmith.deploy.onnx.packages import INPUT, OUTPUT
from convsmith.deploy.onnx.record import Call, Recording, Value, record, where
from convsmith.deploy.onnx.refusals import NotQuickError


def quick(module: nn.Module, example: Tensor, metadata: Mapping[str, str], weights: Apart | None = None) -> bytes:
    """The network as an ONNX model with a free batch size, its weights inside, or, but for small ones, in `weights`.

    Raises BranchError for a forward that decides by values or by the batch size, and NotQuickError for one that it
    cannot follow, or with an operator that has no form here.
    """
    if example.dtype not in NUMPY:
        raise NotQuickError(f"an input of type {example.dtype}")
    recording = record(module, example)
    names = {id(tensor): name for name, tensor in (*module.named_buffers(), *module.named_parameters())}
    graph = Graph(recording.batch, names)
    graph.values[recording.input.number] = INPUT
    for call in _needed(recording):
        graph.module = call.module
        form = form_of(call)
        if form is None:
            raise NotQuickError(f"the operator {call.name}.{call.overload} of {where(module, call.module)}")
        made = form(graph, call, *call.arguments.values())
        for value, name in zip(call.outputs, [made] if isinstance(made, str) else made, strict=False):
            graph.values[value.number] = name
    return _model(graph, recording, metadata, weights)


def _needed(recording: Recording) -> list[Call]:
    """The calls that the output depends on."""
    needed = {recording.output}
    kept: list[Call] = []
    for call in reversed(recording.calls):
        if not needed.isdisjoint(call.outputs):
            needed.update(part for part in pytree.tree_leaves(call.arguments) if isinstance(part, Value))
            kept.append(call)
    return kept[::-1]


def _model(graph: Graph, recording: Recording, metadata: Mapping[str, str], weights: Apart | None) -> bytes:
    helper = graph.onnx.helper
    graph.module = ""
    result = graph.name(recording.output)
    if result == INPUT or result in graph.initializers:
        result = graph.node("Identity", [result])
    for node in graph.nodes:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == result:
                    names[i] = OUTPUT

    def described(name: str, value: Value) -> Any:
        sizes = [_word(size // graph.batch) if graph.is_batch(size) else size for size in value.shape]
        return helper.make_tensor_value_info(name, graph.typed_as(value.dtype), sizes)

    made = helper.make_graph(
        graph.nodes,
        "network",
        [described(INPUT, recording.input)],
        [described(OUTPUT, recording.output)],
    )
    model = helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="convsmith",
        producer_version=convsmith.__version__,
    )
    for name, array in graph.initializers.items():  # in place, as each copy of all weights takes its time
        tensor = model.graph.initializer.add(name=name, dims=array.shape)
        tensor.data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
        if weights is None or not weights.take(tensor, array):
            tensor.raw_data = array.tobytes()
    helper.set_model_props(model, {"convsmith_version": convsmith.__version__, **metadata})
    return bytes(model.SerializeToString())


def _word(multiple: int) -> str:
    return "batch" if multiple == 1 else f"{multiple}*batch"
