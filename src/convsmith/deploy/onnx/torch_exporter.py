"""The slow way from a network to an ONNX model, for operators and code that the quick one does not follow: torch's."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

import convsmith
from convsmith.deploy.onnx.packages import INPUT, OUTPUT, imported
from convsmith.deploy.silence import reason, silent

SCOPES = "pkg.torch.onnx.name_scopes"  # under which the exporter keeps the modules around a node, outermost first


def convert_by_torch(module: nn.Module, example: Tensor, metadata: Mapping[str, str], obstacle: str) -> bytes:
    """The network as an ONNX model with a free batch size, its weights inside.

    `obstacle` is what the quick way met, for the error.

    Raises ValueError when torch cannot follow `forward`, or ONNX lacks an operator.
    """
    onnx, _ = imported("onnx"), imported("onnxscript")
    # A batch of one would be taken as a constant.
    several = example if len(example) > 1 else torch.cat([example, example])
    name = type(module).__name__
    with silent():  # torch prints the graph and a page of advice beside raising
        try:
            program = torch.export.export(
                module, (several,), strict=False, dynamic_shapes=({0: torch.export.Dim("batch")},)
            )
        except Exception as error:
            raise ValueError(
                f"to be exported, forward must not branch on values or on the batch size, and torch.export "
                f"cannot follow that of {name} ({reason(error)}; before that: {obstacle}); compute both branches and "
                "select with torch.where"
            ) from error
        try:
            converted: Any = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                external_data=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: "batch"},),
            )
        except Exception as error:
            raise ValueError(
                f"ONNX must have every operator of the network, and {name} cannot be converted ({reason(error)}; "
                f"before that: {obstacle}); replace that operator"
            ) from error
    model = converted.model_proto
    graph = model.graph
    paths = [_module(node) for node in graph.node]
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]  # stack traces, which name files of the machine that exported
    for node, path in zip(graph.node, paths, strict=True):
        node.name = f"{path}/{node.name}" if path else node.name
    onnx.helper.set_model_props(model, {"convsmith_version": convsmith.__version__, **metadata})
    return bytes(model.SerializeToString())


def _module(node: Any) -> str:
    """The path of the innermost module around an exported node; the last scope is the operator's own name."""
    scopes = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "[]")
    return str((ast.literal_eval(scopes)[:-1] or [""])[-1])
