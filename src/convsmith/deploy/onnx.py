"""Networks as ONNX models: conversion by torch's exporter, and a session of ONNX Runtime."""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convsmith.deploy.agreement import Run

INPUT, OUTPUT = "input", "output"
SCOPES = "pkg.torch.onnx.name_scopes"  # under which the exporter keeps the modules around a node, outermost first


def convert(module: nn.Module, example: Tensor, metadata: Mapping[str, str]) -> bytes:
    """The network as an ONNX model with a free batch size, its weights inside.

    The model has one input `input` and one output `output`, and carries `convsmith_version` and the metadata. A node's
    name begins with the path of the module that it comes from and a slash, where the exporter knows it.

    Raises ValueError when `forward` branches on values or on the batch size, or uses what ONNX does not have.
    """
    onnx, _ = _imported("onnx"), _imported("onnxscript")
    # A batch of one would be taken as a constant.
    several = example if len(example) > 1 else torch.cat([example, example])
    name = type(module).__name__
    with _silence():
        try:
            program = torch.export.export(
                module, (several,), strict=False, dynamic_shapes=({0: torch.export.Dim("batch")},)
            )
        except Exception as error:
            raise ValueError(
                f"to be exported, forward must not branch on values or on the batch size, and torch.export "
                f"cannot follow that of {name} ({_reason(error)}); compute both branches and select with torch.where"
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
                f"ONNX must have every operator of the network, and {name} cannot be converted ({_reason(error)}); "
                "replace that operator"
            ) from error
    model = converted.model_proto
    graph = model.graph
    paths = [_module(node) for node in graph.node]
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]  # stack traces, which name files of the machine that exported
    for node, path in zip(graph.node, paths, strict=True):
        node.name = f"{path}/{node.name}" if path else node.name
    onnx.helper.set_model_props(model, {"convsmith_version": version("convsmith"), **metadata})
    return bytes(model.SerializeToString())


def load(model: bytes, threads: int) -> Run:
    """A session of ONNX Runtime on the CPU: tensor in, tensor out.

    Raises ValueError when ONNX Runtime cannot run the model.
    """
    running = session(model, threads)

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(running.run([OUTPUT], {INPUT: x.detach().numpy()})[0])

    return run


def session(model: bytes, threads: int, *, profile_as: Path | None = None) -> Any:
    """ONNX Runtime's own session of a model, on the CPU.

    With `profile_as` it writes what it made of the graph to that file and, once `end_profiling` is called, the times
    of the nodes to one beside it.

    Raises ValueError when ONNX Runtime cannot run the model.
    """
    onnxruntime = _imported("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; it warns about each weight that it folds
    if profile_as is not None:
        options.enable_profiling = True
        options.optimized_model_filepath = str(profile_as)
        options.profile_file_prefix = str(profile_as.with_suffix(""))
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ValueError(f"ONNX Runtime cannot run the network ({_reason(error)}); try float32") from error


def opset(model: bytes) -> int:
    """The version of ONNX's operator set that a model asks for."""
    proto = _imported("onnx").load_model_from_string(model)
    return int(next(entry.version for entry in proto.opset_import if entry.domain == ""))


def _module(node: Any) -> str:
    """The path of the innermost module around an exported node; the last scope is the operator's own name."""
    scopes = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "[]")
    return str((ast.literal_eval(scopes)[:-1] or [""])[-1])


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{name} is needed and not installed; pip install 'convsmith[onnx]'") from error


def _reason(error: Exception) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return (str(cause).strip() or type(cause).__name__).partition("\n")[0]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Torch's exporter prints the graph and a page of advice beside raising; the error says what there is to say."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
