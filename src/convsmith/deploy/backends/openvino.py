"""OpenVINO on the CPU, from our ONNX model: torch's own way into OpenVINO takes many times as long.

OpenVINO keeps the weights in float32 and computes in the precision that it is asked for by a hint, where the processor
has it.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from convsmith.deploy import onnx
from convsmith.deploy.agreement import Run
from convsmith.deploy.backends.registry import Artefact, Backend, register
from convsmith.deploy.passes.lean import Rewrite, lean
from convsmith.deploy.precision import check_one_type
from convsmith.deploy.program import plain
from convsmith.deploy.snapshot import snapshot
from convsmith.deploy.telemetry import unreported

HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
NAMES = {hint: precision for precision, hint in HINTS.items()}
# What OpenVINO writes of operators that it does not know, and of nodes that it cannot take as they are.
LACKED = re.compile(r"No conversion rule found for operations: (.*)")
FAILED = re.compile(r"<Node\(\w+\): ([^>]*)>'(.*?)(?=\n\s*\n|\Z)", re.DOTALL)
FILES = ("network.xml", "network.bin")
LOADER = '''"""Runs {file} with OpenVINO in {precision}."""
from pathlib import Path
from threading import Lock

import openvino

SETTINGS = {{"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "{hint}"}}


def load(threads=1):
    path, lock = Path(__file__).with_name("{file}"), Lock()
    model = openvino.Core().compile_model(path, "CPU", {{**SETTINGS, "INFERENCE_NUM_THREADS": threads}})

    def run(x):
        with lock:  # all calls have one memory for their outputs
            return model(x.astype("float32"))[0].astype(x.dtype)

    return run
'''


def prepare(network: nn.Module, example: Tensor, threads: int, precision: str, *, rewrite: Rewrite = lean) -> Run:
    """A model compiled for the example's shape, and one for all other batch sizes when the first of them comes."""
    core = unreported("openvino").Core()
    weights = onnx.Apart(onnx.MEMORY)
    data = onnx_bytes(network, example, rewrite=rewrite, weights=weights)
    model = read_model(core, data, weights)
    fixed = model.clone()
    fixed.reshape(list(example.shape))
    chosen = settings(threads, precision)
    requests: dict[torch.Size | None, Any] = {
        example.shape: compile_model(core, fixed, chosen, precision).create_infer_request()
    }
    tensor = unreported("openvino").Tensor
    lock = Lock()

    def run(x: Tensor) -> Tensor:
        x = plain(x, example)  # integers would come back as the outputs' type
        image = x.float().contiguous().numpy()
        with lock:  # threads have one request
            request = requests.get(x.shape) or requests.get(None)
            if request is None:
                request = requests[None] = compile_model(core, model, chosen, precision).create_infer_request()
            # A request of our own, whose tensors are read and written where they are: the compiled model's call takes
            # some ten microseconds more. The request does not hold what it reads.
            request.set_input_tensor(tensor(image, shared_memory=True))
            request.infer()
            output = request.get_output_tensor().data.copy()
        return torch.from_numpy(output).to(x.dtype)

    return run


def write(network: nn.Module, example: Tensor, folder: Path, precision: str) -> Artefact:
    """OpenVINO's own format, the weights in float32; the loader asks for the precision."""
    openvino = unreported("openvino")
    model = read_model(openvino.Core(), onnx_bytes(network, example))
    openvino.save_model(model, folder / FILES[0], compress_to_fp16=False)
    loader = LOADER.format(file=FILES[0], precision=precision, hint=HINTS[precision])
    return Artefact(FILES, loader, ("openvino", "numpy"))


def settings(threads: int, precision: str) -> dict[str, Any]:
    """What a model is compiled with."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "ENABLE_CPU_PINNING": False,  # who measures decides on the cores
    }


def onnx_bytes(
    network: nn.Module,
    example: Tensor,
    *,
    rewrite: Rewrite = lean,
    weights: onnx.Apart | None = None,
) -> bytes:
    """The ONNX model that OpenVINO reads, in float32; ValueError for a network of which a part has another type.

    `rewrite` is `lean`, or that with some of its arguments given; `weights` as of `onnx.convert`.
    """
    check_one_type(network, example)
    leaner = rewrite(network, example)
    if example.dtype != torch.float32:  # a copy, as it may share parameters with the network
        leaner = snapshot(leaner).float()
    return onnx.convert(leaner, example.float(), {}, weights=weights)


def read_model(core: Any, data: bytes, weights: onnx.Apart | None = None) -> Any:
    """OpenVINO's model of an ONNX one, perhaps without its large weights; ValueError names the operator that it lacks.

    It copies weights, so that they need not outlive this.
    """
    _check_resizes(data)
    try:
        return core.read_model(data)
    except RuntimeError as error:
        if not weights:
            raise ValueError(_refusal(data, str(error))) from error
    return read_model(core, onnx.held(data, weights))  # one that takes no weights from outside


def _check_resizes(data: bytes) -> None:
    """Raise ValueError, naming the module, where maps are resized with smoothing, but for linear enlarging.

    OpenVINO reads such a model and computes something else.
    """
    if b"antialias" not in data:
        return
    graph = importlib.import_module("onnx").load_model_from_string(data).graph
    told = (*graph.input, *graph.value_info, *graph.output)
    shapes = {value.name: [side.dim_value for side in value.type.tensor_type.shape.dim[2:]] for value in told}
    for node in graph.node:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type != "Resize" or "antialias" not in attributes or not attributes["antialias"].i:
            continue
        before, after = shapes.get(node.input[0], ()), shapes.get(node.output[0], ())
        enlarges = bool(before) and all(0 < old <= new for old, new in zip(before, after, strict=True))
        if attributes["mode"].s != b"linear" or not enlarges:
            raise ValueError(f"OpenVINO has no antialiased Resize, which {_module(node)} needs; try onnxruntime")


def compile_model(core: Any, model: Any, settings: dict[str, Any], precision: str) -> Any:
    """The model ready to run; ValueError where OpenVINO cannot, or computes in another precision."""
    try:
        compiled = core.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise ValueError(f"OpenVINO cannot compile the network ({_last_line(str(error))}); try onnxruntime") from error
    hint = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    got = NAMES.get(hint, hint)
    if got != precision:
        raise ValueError(f"OpenVINO computes in {got} on this processor where {precision} is asked for; ask for {got}")
    return compiled


def _refusal(data: bytes, message: str) -> str:
    """The error that names the first operator that OpenVINO did not take, and its module: a node's name begins with it.

    Operators behind it fail too, for want of its output.
    """
    lacked = {word.rpartition("-")[0] for found in LACKED.findall(message) for word in found.split(", ")}
    failed = {name: _last_line(text) for name, text in FAILED.findall(message)}
    for node in importlib.import_module("onnx").load_model_from_string(data).graph.node:
        module = _module(node)
        if node.op_type in lacked:
            return f"OpenVINO has no {node.op_type}, which {module} needs; try onnxruntime"
        if node.name in failed:
            return f"OpenVINO cannot take {node.op_type} of {module} ({failed[node.name]}); try onnxruntime"
    return f"OpenVINO cannot read the network ({_last_line(message)}); try onnxruntime"


def _module(node: Any) -> str:
    return node.name.rpartition("/")[0] or "the network itself"


def _last_line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


OPENVINO = register(
    Backend(
        "openvino",
        prepare,
        requires=("openvino", "onnx", "onnxscript"),
        extra="openvino",
        precisions=tuple(HINTS),
        write=write,
        rewrites=True,
    )
)
