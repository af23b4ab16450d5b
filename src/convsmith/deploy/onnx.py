"""Networks as ONNX models: conversion by torch's exporter, and a session of ONNX Runtime."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from convsmith.deploy.agreement import Run

INPUT, OUTPUT = "input", "output"


def convert(module: nn.Module, example: Tensor, metadata: Mapping[str, str]) -> bytes:
    """The network as an ONNX model with a free batch size, its weights inside.

    The model has one input `input` and one output `output`, and carries `convsmith_version` and the metadata.

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
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]  # stack traces, which name files of the machine that exported
    onnx.helper.set_model_props(model, {"convsmith_version": version("convsmith"), **metadata})
    return bytes(model.SerializeToString())


def load(model: bytes, threads: int) -> Run:
    """A session of ONNX Runtime on the CPU: tensor in, tensor out.

    Raises ValueError when ONNX Runtime cannot run the model.
    """
    onnxruntime = _imported("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; it warns about each weight that it folds
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ValueError(f"ONNX Runtime cannot run the network ({_reason(error)}); try float32") from error

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run([OUTPUT], {INPUT: x.detach().numpy()})[0])

    return run


def opset(model: bytes) -> int:
    """The version of ONNX's operator set that a model asks for."""
    proto = _imported("onnx").load_model_from_string(model)
    return int(next(entry.version for entry in proto.opset_import if entry.domain == ""))


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
