"""ONNX Runtime on the CPU."""

from __future__ import annotations

from torch import Tensor, nn

from convsmith.deploy import onnx
from convsmith.deploy.agreement import Run
from convsmith.deploy.backends.registry import Backend, register
from convsmith.deploy.lean import lean


def prepare(network: nn.Module, example: Tensor, threads: int) -> Run:
    """A session over the model that `export` would write, held in memory."""
    if example.device.type != "cpu":
        raise ValueError(
            f"the back end onnxruntime computes on the CPU, and the example is on {example.device}; move it"
        )
    return onnx.load(onnx.convert(lean(network, example), example, {}), threads)


ONNXRUNTIME = register(Backend("onnxruntime", prepare, requires=("onnx", "onnxscript", "onnxruntime"), extra="onnx"))
