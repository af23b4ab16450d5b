"""ONNX models loaded by ONNX Runtime."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convsmith.deploy.agreement import Run
from convsmith.deploy.onnx.apart import Apart, held
from convsmith.deploy.onnx.packages import INPUT, OUTPUT, imported
from convsmith.deploy.silence import reason

LACKED = re.compile(r"implementation for (?P<operator>\w+)\(\d+\) node with name '(?P<name>[^']*)'")


def load(model: bytes, threads: int, weights: Apart | None = None) -> Run:
    """A session of ONNX Runtime on the CPU: tensor in, tensor out.

    `weights` are those that the model does without.

    Raises ValueError when ONNX Runtime cannot run the model, and so does the run.
    """
    running = session(model, threads, weights=weights)

    def run(x: Tensor) -> Tensor:
        image = x.detach().numpy()
        try:
            (output,) = running.run([OUTPUT], {INPUT: image})
        except Exception as error:  # of kinds of its own, which have no common one
            raise ValueError(
                f"ONNX Runtime must run the model on any batch, and fails on {tuple(x.shape)} ({reason(error)}); "
                "choose another back end"
            ) from error
        return torch.from_numpy(output)

    return run


def session(model: bytes, threads: int, *, weights: Apart | None = None, profile_as: Path | None = None) -> Any:
    """ONNX Runtime's own session of a model, on the CPU.

    With `profile_as` it writes what it made of the graph to that file and, once `end_profiling` is called, the times
    of the nodes to one beside it.

    Raises ValueError when ONNX Runtime cannot run the model.
    """
    onnxruntime = imported("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # nothing: errors are raised too, and it warns about each weight that it folds
    if profile_as is not None:
        options.enable_profiling = True
        options.optimized_model_filepath = str(profile_as)
        options.profile_file_prefix = str(profile_as.with_suffix(""))
    if weights:
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
        options.add_external_initializers(list(weights), values)
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        whole = held(model, weights) if weights else model
        raise ValueError(_refusal(whole, reason(error))) from error


def _refusal(model: bytes, message: str) -> str:
    """What ONNX Runtime says; of an operator that it lacks in a type, the operator, the module and the type."""
    found = LACKED.search(message)
    if found is None:
        return f"ONNX Runtime cannot run the network ({message}); try float32"
    onnx = imported("onnx")
    proto = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(model))
    values = (*proto.graph.input, *proto.graph.value_info)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {weight.name: weight.data_type for weight in proto.graph.initializer}
    node = next((own for own in proto.graph.node if own.name == found["name"]), None)
    kind = types.get(node.input[0]) if node is not None and node.input else None
    word = "that type" if kind is None else onnx.helper.tensor_dtype_to_np_dtype(kind).name
    module = found["name"].rpartition("/")[0] or "the network itself"
    return f"ONNX Runtime has no {found['operator']} in {word}, which {module} needs; compute there in float32"


def opset(model: bytes) -> int:
    """The version of ONNX's operator set that a model asks for."""
    proto = imported("onnx").load_model_from_string(model)
    return int(next(entry.version for entry in proto.opset_import if entry.domain == ""))
