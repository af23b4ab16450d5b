"""ONNX Runtime for the predictor."""

from __future__ import annotations

from convsmith.deploy.passes.blocks import BLOCK
from convsmith.measure.predictor.engine import Engine
from convsmith.measure.predictor.graph import Graph, Op, Shape
from convsmith.measure.predictor.kernels import NUMBERS, VERSION, kernels
from convsmith.measure.predictor.onnx_model import model_of
from convsmith.measure.predictor.onnxruntime.executed import RESTATED, executed
from convsmith.measure.predictor.onnxruntime.session import Session


def block() -> int:
    """How many channels a blocked convolution computes at once; 0 where the runtime keeps maps plain.

    Asked of the runtime: a convolution to 24 channels writes 32 of them in blocks of 16, and 24 in blocks of 8.
    """
    shapes: dict[str, Shape] = {"input": (1, 3, 8, 8), "weight": (24, 3, 3, 3), "output": (1, 24, 6, 6)}
    graph = Graph([Op("Conv", ["input", "weight"], ["output"])], ["input"], ["output"], shapes, {"weight": None})
    session = Session(model_of(graph), (1, 3, 8, 8), 1)
    session.profile_ms()
    ran = session.kernels([0])
    if not any(kernel.kind == "ReorderOutput" for kernel in ran):
        return 0
    return 16 if ran[0].outputs[0][1] == 32 else 8


ONNXRUNTIME = Engine("onnxruntime", RESTATED, block, executed, kernels, VERSION, len(NUMBERS), BLOCK, Session)
